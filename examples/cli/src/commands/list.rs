//! `list`: jobs, newest first.

use std::io::Write;

use cmdexec_core::service::{JobPage, JobQuery, JobService, JobView};
use cmdexec_core::time::{Clock, SystemClock};
use comfy_table::Cell;
use serde_json::{Value, json};

use crate::args::ListArgs;
use crate::exit::Exit;
use crate::json as as_json;
use crate::table;

/// The most that the server gives at once.
const PAGE: usize = 500;

pub(crate) async fn run(jobs: &dyn JobService, args: &ListArgs, json: bool) -> anyhow::Result<Exit> {
    let mut wanted = if args.all { usize::MAX } else { args.limit as usize };
    let mut query = JobQuery {
        status: args.status,
        worker: args.worker.clone(),
        label: args.label.clone(),
        created_after: args.since.map(|since| SystemClock.now().before(since)),
        ..JobQuery::default()
    };
    let mut found = Vec::new();
    let total = loop {
        query.limit = wanted.min(PAGE);
        let JobPage { jobs: page, next, total } = jobs.list(&query).await?;
        wanted = wanted.saturating_sub(page.len());
        found.extend(page);
        query.before = next;
        if wanted == 0 || query.before.is_none() {
            break total;
        }
    };
    if json {
        let jobs: Vec<Value> = found.iter().map(|job| as_json::job(job, false)).collect();
        as_json::print(&json!({"jobs": jobs, "nextCursor": query.before.map(|id| id.to_string()), "total": total}))?;
        return Ok(Exit::OK);
    }
    show(&found)?;
    if query.before.is_some() {
        let more = if total >= 10_000 { "more than 10000".to_owned() } else { total.to_string() };
        writeln!(std::io::stderr().lock(), "{} of {more}; --all shows them all", found.len())?;
    }
    Ok(Exit::OK)
}

fn show(jobs: &[JobView]) -> std::io::Result<()> {
    let mut lines = table::new(&["JOB", "RUNS", "STATUS", "EXIT", "WORKER", "AGE", "RAN FOR"]);
    // The others, as wide as they usually are.
    let most = table::room_for_titles(&lines, 104);
    for job in jobs {
        lines.add_row([
            Cell::new(job.id),
            Cell::new(table::title(&job.spec, most)),
            table::status(job.status),
            Cell::new(job.exit_code.map(|code| code.to_string()).unwrap_or_default()),
            Cell::new(job.worker.as_ref().map(ToString::to_string).unwrap_or_default()),
            Cell::new(table::age(job.created)),
            Cell::new(job.details.duration.map(table::span).unwrap_or_default()),
        ]);
    }
    table::print(lines)
}
