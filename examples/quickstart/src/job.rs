//! Running a job, and showing what comes of it.

use std::io::Write;
use std::process::ExitCode;

use cmdexec_core::executor::Stream;
use cmdexec_core::job::{Command, JobSpec, Status};
use cmdexec_core::service::{JobService, JobServiceExt, OutputEvent, OutputQuery};
use futures_util::StreamExt;

/// Submits a job, shows its output live and says how it ended. The exit code is the job's.
pub(crate) async fn run(jobs: &dyn JobService, spec: JobSpec) -> anyhow::Result<ExitCode> {
    let line = match &spec.command {
        Command::Shell(line) => line.clone(),
        Command::Argv(argv) => argv.join(" "),
        Command::Steps(lines) => lines.join("\n$ "),
    };
    let id = jobs.submit(spec).await?.id;
    println!("Submitted as job {id}. Its output, as it comes:\n\n$ {line}");

    let mut output = jobs.output(id, OutputQuery { follow: true, ..OutputQuery::default() }).await?;
    while let Some(event) = output.next().await {
        match event? {
            OutputEvent::Chunk { stream: Stream::Stdout, bytes, .. } => write_now(std::io::stdout().lock(), &bytes)?,
            OutputEvent::Chunk { stream: Stream::Stderr, bytes, .. } => write_now(std::io::stderr().lock(), &bytes)?,
            OutputEvent::Gap { .. } | OutputEvent::Reset { .. } => {}
            OutputEvent::End { .. } => break,
        }
    }

    let job = jobs.wait(id).await?;
    let took = job.details.duration.map(|took| format!(" after {} ms", took.as_millis())).unwrap_or_default();
    match (job.status, &job.error) {
        (Status::Failed, Some(error)) => println!("\nThe job failed{took}: {error}."),
        (status, _) => println!("\nThe job is {status}{took}, exit code {}.", job.exit_code.unwrap_or_default()),
    }
    let code = job.exit_code.and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(u8::from(job.status != Status::Completed))))
}

fn write_now(mut to: impl Write, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}
