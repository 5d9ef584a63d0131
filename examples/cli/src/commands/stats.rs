//! `stats`: how much there is of everything.

use std::io::Write;

use cmdexec_core::service::{JobService, Stats};
use comfy_table::Cell;

use crate::exit::Exit;
use crate::{json, table};

pub(crate) async fn run(jobs: &dyn JobService, as_json: bool) -> anyhow::Result<Exit> {
    let stats = jobs.stats().await?;
    if as_json {
        json::print(&json::stats(&stats))?;
    } else {
        show(&stats)?;
    }
    Ok(Exit::OK)
}

fn show(stats: &Stats) -> std::io::Result<()> {
    let mut jobs = table::new(&["JOBS", ""]);
    for (status, count) in &stats.jobs {
        jobs.add_row([table::status(*status), Cell::new(count)]);
    }
    table::print(jobs)?;
    writeln!(std::io::stdout().lock())?;
    let mut workers = table::new(&["WORKERS", ""]);
    for (status, count) in &stats.workers {
        workers.add_row([table::worker_status(*status), Cell::new(count)]);
    }
    table::print(workers)?;
    if !stats.queues.is_empty() {
        writeln!(std::io::stdout().lock())?;
        let mut queues = table::new(&["QUEUE", "JOBS", "FIRST WAITS FOR"]);
        for queue in &stats.queues {
            queues.add_row([queue.class.key().to_owned(), queue.queued.to_string(), table::span(queue.head_wait)]);
        }
        table::print(queues)?;
    }
    writeln!(std::io::stdout().lock(), "\n{} jobs ended in the last minute", stats.finished_last_minute)
}
