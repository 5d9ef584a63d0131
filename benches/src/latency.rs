//! From submission until an idle worker has the job, by long poll.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::Outcome;
use cmdexec_core::service::{FinishedAttempt, LeaseRequest, Registration, WorkerService};
use tokio::sync::mpsc;

use crate::rest::Connection;
use crate::stats::{Sample, ms};
use crate::table::{Report, ratio};
use crate::{children, machine, serve, submit};

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, jobs: usize) -> Result<()> {
    let sync = machine::fdatasync(dir)?;
    let path = dir.join("latency.db");
    machine::remove_database(&path);
    let (server, url) = children::server(&path).await?;
    let service = serve::worker_client(&url)?;
    let worker: WorkerId = "bench".parse()?;
    let registration = Registration { worker: Some(worker.clone()), ..Registration::new("bench", 2, 1_024) };
    service.register(registration).await?;
    let (arrived, mut arrivals) = mpsc::channel(1);
    let working = tokio::spawn(async move {
        for _ in 0..jobs {
            let request = LeaseRequest { max: 1, wait: Duration::from_secs(30) };
            let leased = service.lease(&worker, request).await?;
            let at = Instant::now();
            let leased = leased.first().context("nothing came within 30 s")?;
            service.finish(&worker, vec![FinishedAttempt::new(leased, Outcome::Exited { code: 0 })]).await?;
            arrived.send(at).await?;
        }
        anyhow::Ok(())
    });
    let mut connection = Connection::open(&url, &serve::user_token()?).await?;
    let body = Bytes::from(submit::spec());
    let mut times = Vec::with_capacity(jobs);
    for _ in 0..jobs {
        // The worker has to be waiting again.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let start = Instant::now();
        connection.post("/api/jobs/create", body.clone()).await?;
        times.push(arrivals.recv().await.context("the worker has ended")?.duration_since(start));
    }
    working.await.context("a task panicked")??;
    server.kill().await?;
    machine::remove_database(&path);
    ensure!(times.len() == jobs);

    let times = Sample::new(times);
    let mut report = Report::new(
        "Idle: submit → worker has it, long poll over HTTP",
        &["what", "p50", "p99", "p50 × fdatasync", "at most"],
    );
    report.row(["fdatasync".into(), ms(sync.p50), String::new(), String::new(), String::new()]);
    let p50 = times.quantile(0.5);
    let times_sync = ratio(p50.as_secs_f64() / sync.p50.as_secs_f64());
    report.row(["submit → worker".into(), ms(p50), ms(times.quantile(0.99)), times_sync, "6".into()]);
    report.print();
    Ok(())
}
