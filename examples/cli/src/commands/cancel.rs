//! `cancel`: asks for jobs to end.

use std::io::Write;

use cmdexec_core::Error;
use cmdexec_core::service::{JobService, JobServiceExt};
use serde_json::json;

use crate::args::CancelArgs;
use crate::exit::Exit;
use crate::json as as_json;

/// Every job is tried; one that could not be cancelled makes the whole fail.
pub(crate) async fn run(jobs: &dyn JobService, args: &CancelArgs, json: bool) -> anyhow::Result<Exit> {
    let mut exit = Exit::OK;
    for id in &args.jobs.jobs {
        let status = match jobs.cancel(*id).await {
            Ok(status) if args.wait && !status.is_finished() => jobs.wait(*id).await?.status,
            Ok(status) => status,
            Err(error @ (Error::JobFinished | Error::JobNotFound | Error::Forbidden(_))) => {
                eprintln!("cmdexec: {id}: {error}");
                exit = Exit::FAILED;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if json {
            as_json::print(&json!({"jobId": id.to_string(), "status": status.as_str()}))?;
        } else {
            writeln!(std::io::stdout().lock(), "{id} {status}")?;
        }
    }
    Ok(exit)
}
