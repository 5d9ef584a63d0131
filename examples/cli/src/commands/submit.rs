//! `submit` and `run`.

use std::io::Write;
use std::path::Path;

use cmdexec_core::job::Status;
use cmdexec_core::service::{JobService, JobView, OutputQuery, Submission, SubmittedJob};
use cmdexec_program::signals;
use serde_json::json;

use crate::args::{RunArgs, SubmitArgs};
use crate::exit::Exit;
use crate::files;
use crate::follow::{Followed, OnInterrupt, Shown, follow};
use crate::json as as_json;
use crate::table;
use crate::terminal::Progress;

pub(crate) async fn submit(jobs: &dyn JobService, args: &SubmitArgs, json: bool) -> anyhow::Result<Exit> {
    if args.follow {
        return run(jobs, &args.run, json).await;
    }
    let job = send(jobs, &args.run).await?;
    if json {
        let status = job.status.map(Status::as_str);
        as_json::print(&json!({"jobId": job.id.to_string(), "status": status, "createdAt": job.created.to_string()}))?;
    } else {
        writeln!(std::io::stdout().lock(), "{}", job.id)?;
    }
    Ok(Exit::OK)
}

/// With `--json`, standard output has one object: the job once it has ended.
pub(crate) async fn run(jobs: &dyn JobService, args: &RunArgs, json: bool) -> anyhow::Result<Exit> {
    let interrupt = OnInterrupt { signals: signals::listen()?, cancel: args.cancel_on_interrupt };
    let job = send(jobs, args).await?;
    let progress = Progress::start(args.quiet);
    let shown = if json { Shown::Nothing } else { Shown::Raw };
    match follow(jobs, job.id, OutputQuery::default(), shown, &progress, &interrupt).await? {
        Followed::Ended(job) => {
            if json {
                as_json::print(&as_json::job(&job, true))?;
            } else if !args.quiet {
                say_how_it_ended(&job);
            }
            if let Some(directory) = &args.download {
                download(jobs, &job, directory, args.quiet).await?;
            }
            Ok(Exit::of_job(&job))
        }
        Followed::Interrupted => {
            progress.end();
            if !args.quiet {
                eprintln!("the job goes on; see `cmdexec logs -f {0}`, end it with `cmdexec cancel {0}`", job.id);
            }
            Ok(Exit::INTERRUPTED)
        }
    }
}

async fn send(jobs: &dyn JobService, args: &RunArgs) -> anyhow::Result<SubmittedJob> {
    let mut spec = args.spec.to_spec()?;
    files::check_download(&spec, args.download.as_ref())?;
    if let Some(file) = args.spec.files.bring(jobs, args.quiet).await? {
        spec.input = Some(file);
    }
    let submission = Submission { specs: vec![spec], idempotency_key: args.spec.idempotency_key.clone() };
    let submitted = jobs.submit_batch(submission).await?;
    submitted.into_iter().next().ok_or_else(|| anyhow::anyhow!("the server did not answer what was asked"))
}

/// Brings back what the job has left. That there is nothing is said, and is no failure of the job's.
async fn download(jobs: &dyn JobService, job: &JobView, directory: &Path, quiet: bool) -> anyhow::Result<()> {
    let Some(id) = job.artifacts else {
        eprintln!("cmdexec: the job left nothing to download");
        return Ok(());
    };
    let zip = files::fetch(jobs, id, quiet).await?;
    let into = directory.to_owned();
    let count = tokio::task::spawn_blocking(move || files::unpack(zip, &into)).await??;
    if !quiet {
        let files = if count == 1 { "file" } else { "files" };
        eprintln!("cmdexec: {count} {files} in {}", directory.display());
    }
    Ok(())
}

/// A job that completed speaks for itself; what its outputs lack it can't say.
fn say_how_it_ended(job: &JobView) {
    for warning in &job.details.warnings {
        eprintln!("cmdexec: warning: {warning}");
    }
    let took = job.details.duration.map(|took| format!(" after {}", table::span(took))).unwrap_or_default();
    match job.status {
        Status::Completed => {}
        Status::Cancelled => eprintln!("cmdexec: the job was cancelled{took} ({})", job.id),
        _ => {
            let why = job.error.clone().unwrap_or_else(|| match job.exit_code {
                Some(code) => format!("exit code {code}"),
                None => "nobody knows why".to_owned(),
            });
            eprintln!("cmdexec: the job failed{took}: {why} ({})", job.id);
        }
    }
}
