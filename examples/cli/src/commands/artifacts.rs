//! `artifacts`.

use std::io::Write;

use anyhow::bail;
use cmdexec_core::service::{JobService, JobServiceExt};
use serde_json::json;

use crate::args::ArtifactsArgs;
use crate::exit::Exit;
use crate::files;
use crate::json as as_json;
use crate::table;

pub(crate) async fn run(jobs: &dyn JobService, args: &ArtifactsArgs, json: bool) -> anyhow::Result<Exit> {
    let job = jobs.job(args.job).await?;
    let Some(id) = job.artifacts else {
        for warning in &job.details.warnings {
            eprintln!("cmdexec: warning: {warning}");
        }
        if !job.status.is_finished() {
            bail!("the job has not ended, and has left nothing so far");
        }
        bail!("the job left nothing; --outputs says which files to keep");
    };
    let zip = files::fetch(jobs, id, json).await?;
    let (unpack, save) = (args.unpack.clone(), args.save.clone());
    let listed = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let listed = files::list(&zip)?;
        match (unpack, save) {
            (Some(directory), _) => files::unpack(zip, &directory).map(drop)?,
            (None, Some(path)) => {
                let is_output = path.as_os_str() == "-";
                files::save(zip, &path)?;
                if is_output {
                    return Ok(Vec::new());
                }
            }
            (None, None) => {}
        }
        Ok(listed)
    })
    .await??;
    if json && args.save.as_deref().is_none_or(|path| path.as_os_str() != "-") {
        let entries: Vec<_> = listed.iter().map(|file| json!({"name": file.name, "size": file.size})).collect();
        as_json::print(&json!({"fileId": id.to_string(), "files": entries}))?;
    } else if args.unpack.is_none() && args.save.is_none() {
        let mut out = std::io::stdout().lock();
        for file in &listed {
            writeln!(out, "{:>10}  {}", table::size(file.size), table::plain(&file.name))?;
        }
    }
    Ok(Exit::OK)
}
