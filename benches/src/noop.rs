//! Claiming and finishing of no-op jobs by workers over HTTP.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use cmdexec_core::id::WorkerId;
use cmdexec_core::service::{Registration, WorkerService};

use crate::rest::Connection;
use crate::table::{Report, rate, ratio};
use crate::{children, embedded, machine, serve, submit};

const WORKERS: usize = 4;

/// Puts this many jobs into a server's queue.
pub(crate) async fn fill(url: &str, jobs: usize) -> Result<()> {
    let mut connection = Connection::open(url, &serve::user_token()?).await?;
    let batch = submit::batch(1_000);
    for _ in 0..jobs / 1_000 {
        connection.post("/api/jobs/create-batch", batch.clone()).await?;
    }
    Ok(())
}

/// Claims and finishes jobs by a few workers; how many in a second.
pub(crate) async fn drain(url: &str, jobs: usize, max: usize) -> Result<f64> {
    let start = Instant::now();
    let workers = (0..WORKERS).map(|n| async move {
        let worker: WorkerId = format!("bench-{n}").parse()?;
        let service: Arc<dyn WorkerService> = Arc::new(serve::worker_client(url)?);
        let registration = Registration { worker: Some(worker.clone()), ..Registration::new("bench", 2, 1_024) };
        service.register(registration).await?;
        embedded::work(service, worker, max, jobs / WORKERS - max).await
    });
    futures_util::future::try_join_all(workers).await?;
    Ok((jobs - WORKERS * max) as f64 / start.elapsed().as_secs_f64())
}

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, jobs: usize) -> Result<()> {
    let steps = machine::steps(dir).await?;
    let path = dir.join("noop.db");
    let mut report = Report::new(
        "Claim and finish of no-op jobs, 4 workers over HTTP, durable",
        &["what", "measured", "× one transaction per step"],
    );
    report.row(["one transaction per step".to_owned(), rate(steps), String::new()]);
    for max in [1, 8, 64] {
        machine::remove_database(&path);
        let (server, url) = children::server(&path).await?;
        let jobs = if max == 1 { jobs / 4 } else { jobs };
        fill(&url, jobs).await?;
        let per_second = drain(&url, jobs, max).await?;
        server.kill().await?;
        report.row([format!("{max} jobs a request"), rate(per_second), ratio(per_second / steps)]);
    }
    machine::remove_database(&path);
    report.print();
    Ok(())
}
