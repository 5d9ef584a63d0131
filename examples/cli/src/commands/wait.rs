//! `wait`: until jobs have ended.

use std::io::Write;

use cmdexec_core::service::{JobService, JobServiceExt};
use cmdexec_program::signals;

use crate::args::JobsArgs;
use crate::exit::Exit;
use crate::json as as_json;

pub(crate) async fn run(jobs: &dyn JobService, args: &JobsArgs, json: bool) -> anyhow::Result<Exit> {
    let signals = signals::listen()?;
    let mut exit = Exit::OK;
    for id in &args.jobs {
        let job = tokio::select! {
            job = jobs.wait(*id) => job?,
            () = signals.asked.cancelled() => return Ok(Exit::INTERRUPTED),
        };
        if json {
            as_json::print(&as_json::job(&job, true))?;
        } else {
            writeln!(std::io::stdout().lock(), "{id} {}", job.status)?;
        }
        if exit == Exit::OK {
            exit = Exit::of_job(&job);
        }
    }
    Ok(exit)
}
