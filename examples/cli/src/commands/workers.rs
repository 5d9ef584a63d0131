//! `workers`: who runs jobs, and how they are.

use std::io::Write;

use cmdexec_core::service::{JobService, WorkerView};
use comfy_table::Cell;
use serde_json::{Value, json};

use crate::args::WorkersArgs;
use crate::exit::Exit;
use crate::json as as_json;
use crate::table;

pub(crate) async fn run(jobs: &dyn JobService, args: &WorkersArgs, json: bool) -> anyhow::Result<Exit> {
    if let Some(worker) = &args.remove {
        jobs.remove_worker(worker).await?;
        if !json {
            writeln!(std::io::stdout().lock(), "{worker} is removed")?;
        }
        return Ok(Exit::OK);
    }
    let only = (!args.workers.is_empty()).then_some(args.workers.as_slice());
    let workers = jobs.workers(only).await?;
    if json {
        let workers: Vec<Value> = workers.iter().map(as_json::worker).collect();
        as_json::print(&json!({"workers": workers}))?;
    } else {
        show(&workers)?;
    }
    Ok(Exit::OK)
}

fn show(workers: &[WorkerView]) -> std::io::Result<()> {
    let columns = ["WORKER", "HOST", "STATUS", "JOBS", "CPUS", "MEMORY", "DONE", "FAILED", "LABELS", "SEEN"];
    let mut lines = table::new(&columns);
    for worker in workers {
        let slots = worker.slots.map(|slots| format!("/{slots}")).unwrap_or_default();
        lines.add_row([
            Cell::new(&worker.id),
            Cell::new(&worker.hostname),
            table::worker_status(worker.status),
            Cell::new(format!("{}{slots}", worker.running.len())),
            Cell::new(format!("{} ({:.0} %)", worker.cpu_count, worker.cpu_usage)),
            Cell::new(format!("{} MiB ({:.0} %)", worker.total_memory_mb, worker.ram_usage)),
            Cell::new(worker.jobs_completed),
            Cell::new(worker.jobs_failed),
            Cell::new(worker.labels.join(",")),
            Cell::new(format!("{} ago", table::age(worker.last_heartbeat))),
        ]);
    }
    table::print(lines)
}
