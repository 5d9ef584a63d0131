//! `submit` and `run`.

use std::io::Write;

use cmdexec_core::job::Status;
use cmdexec_core::service::{JobService, JobView, OutputQuery, Submission, SubmittedJob};
use cmdexec_program::signals;
use serde_json::json;

use crate::args::{RunArgs, SubmitArgs};
use crate::exit::Exit;
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
    let progress = Progress::start(args.quiet);
    let job = send(jobs, args).await?;
    let shown = if json { Shown::Nothing } else { Shown::Raw };
    match follow(jobs, job.id, OutputQuery::default(), shown, &progress, &interrupt).await? {
        Followed::Ended(job) => {
            if json {
                as_json::print(&as_json::job(&job, true))?;
            } else if !args.quiet {
                say_how_it_ended(&job);
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
    let submission =
        Submission { specs: vec![args.spec.to_spec()?], idempotency_key: args.spec.idempotency_key.clone() };
    let submitted = jobs.submit_batch(submission).await?;
    submitted.into_iter().next().ok_or_else(|| anyhow::anyhow!("the server did not answer what was asked"))
}

/// A job that completed speaks for itself.
fn say_how_it_ended(job: &JobView) {
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
