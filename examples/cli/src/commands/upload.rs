//! `upload`.

use std::io::Write;

use cmdexec_core::service::JobService;

use crate::args::UploadArgs;
use crate::exit::Exit;
use crate::files;
use crate::json as as_json;

pub(crate) async fn run(jobs: &dyn JobService, args: &UploadArgs, json: bool) -> anyhow::Result<Exit> {
    let stored = files::upload(jobs, &args.path, args.quiet || json).await?;
    if json {
        as_json::print(&as_json::file(&stored))?;
    } else {
        writeln!(std::io::stdout().lock(), "{}", stored.id)?;
    }
    Ok(Exit::OK)
}
