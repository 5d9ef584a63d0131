//! `files`.

use anyhow::Context;
use cmdexec_core::files::StoredFile;
use cmdexec_core::service::JobService;
use cmdexec_core::time::{Clock, SystemClock};
use comfy_table::Cell;
use serde_json::json;

use crate::args::FilesListArgs;
use crate::exit::Exit;
use crate::json as as_json;
use crate::table;

/// How many files are asked for at once.
const PAGE: usize = 500;

pub(crate) async fn run(jobs: &dyn JobService, args: &FilesListArgs, json: bool) -> anyhow::Result<Exit> {
    for id in &args.remove {
        jobs.delete_file(*id).await.with_context(|| id.to_string())?;
    }
    if !args.remove.is_empty() {
        return Ok(Exit::OK);
    }
    let mut files: Vec<StoredFile> = Vec::new();
    loop {
        let page = jobs.files(files.last().map(|file| file.id), PAGE).await?;
        let is_last = page.len() < PAGE;
        files.extend(page);
        if is_last {
            break;
        }
    }
    if json {
        as_json::print(&json!({"files": files.iter().map(as_json::file).collect::<Vec<_>>()}))?;
        return Ok(Exit::OK);
    }
    let now = SystemClock.now();
    let mut rows = table::new(&["ID", "NAME", "SIZE", "EXPIRES IN"]);
    for file in &files {
        let expires = file.expires.map(|expires| table::span(expires.since(now))).unwrap_or_default();
        rows.add_row([
            Cell::new(file.id),
            Cell::new(table::plain(file.name.as_deref().unwrap_or_default())),
            Cell::new(table::size(file.size)),
            Cell::new(expires),
        ]);
    }
    table::print(rows)?;
    Ok(Exit::OK)
}
