//! `status`: what is known of a job.

use std::io::Write;

use anyhow::bail;
use cmdexec_core::service::{JobService, JobView};

use crate::args::JobsArgs;
use crate::exit::Exit;
use crate::{json, table};

pub(crate) async fn run(jobs: &dyn JobService, args: &JobsArgs, json: bool) -> anyhow::Result<Exit> {
    let found = jobs.get(&args.jobs).await?;
    for (index, (id, job)) in args.jobs.iter().zip(found).enumerate() {
        let Some(job) = job else { bail!("there is no job {id}") };
        if json {
            json::print(&json::job(&job, true))?;
        } else {
            if index > 0 {
                writeln!(std::io::stdout().lock())?;
            }
            show(&job)?;
        }
    }
    Ok(Exit::OK)
}

fn show(job: &JobView) -> std::io::Result<()> {
    let mut lines = table::new(&[]);
    let mut line = |name: &str, value: String| {
        lines.add_row([format!("{name}:"), value]);
    };
    line("job", job.id.to_string());
    line("runs", table::title(&job.spec, 100));
    line("status", job.status.to_string());
    if let Some(error) = &job.error {
        line("why", error.clone());
    }
    if let Some(code) = job.exit_code {
        line("exit code", code.to_string());
    }
    line("owner", job.owner.to_string());
    if let Some(worker) = &job.worker {
        line("worker", worker.to_string());
    }
    line("submitted", format!("{} ({} ago)", job.created, table::age(job.created)));
    if let Some(started) = job.started {
        line("started", format!("{started} ({} later)", table::span(started.since(job.created))));
    }
    if let Some(completed) = job.completed {
        line("ended", completed.to_string());
    }
    if let Some(duration) = job.details.duration {
        line("ran for", table::span(duration));
    }
    for (n, step) in job.details.steps.iter().enumerate() {
        let how = step.exit_code.map_or_else(|| "ended with the job".to_owned(), |code| format!("exit code {code}"));
        line(&format!("step {}", n + 1), format!("{how} after {}", table::span(step.duration)));
    }
    for attempt in job.attempts.iter().filter(|_| job.attempts.len() > 1) {
        let outcome = serde_json::to_value(attempt.outcome).unwrap_or_default();
        let how = outcome.as_str().unwrap_or("running").to_owned();
        line(&format!("attempt {}", attempt.number), format!("{how} on {}", attempt.worker));
    }
    let bytes = job.stdout.len() + job.stderr.len();
    if job.dropped > 0 {
        line("output", format!("{} bytes of it were lost to the cap", job.dropped));
    } else if bytes > 0 {
        line("output", format!("`cmdexec logs {}`", job.id));
    }
    if job.artifacts.is_some() {
        line("artifacts", format!("`cmdexec artifacts {}`", job.id));
    }
    for warning in &job.details.warnings {
        line("warning", table::plain(warning));
    }
    table::print(lines)
}
