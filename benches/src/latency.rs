//! From submission until an idle worker has the job: by long poll, and pushed.

use std::path::Path;
use std::sync::Arc;
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

/// For how long nothing happens between two submissions.
const PAUSE: Duration = Duration::from_millis(2);

/// From each of so many submissions until an idle worker has the job, by this service.
pub(crate) async fn measure(url: &str, service: Arc<dyn WorkerService>, jobs: usize) -> Result<Sample> {
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
    let mut connection = Connection::open(url, &serve::user_token()?).await?;
    let body = Bytes::from(submit::spec());
    let mut times = Vec::with_capacity(jobs);
    for _ in 0..jobs {
        // The worker has to be waiting again.
        tokio::time::sleep(PAUSE).await;
        let start = Instant::now();
        connection.post("/api/jobs/create", body.clone()).await?;
        times.push(arrivals.recv().await.context("the worker has ended")?.duration_since(start));
    }
    working.await.context("a task panicked")??;
    ensure!(times.len() == jobs);
    Ok(Sample::new(times))
}

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, jobs: usize) -> Result<()> {
    let sync = machine::fdatasync(dir)?;
    let idle_sync = machine::fdatasync_after(dir, PAUSE)?;
    let path = dir.join("latency.db");
    machine::remove_database(&path);
    let (server, url) = children::server(&path).await?;
    let polled = measure(&url, Arc::new(serve::worker_client(&url)?), jobs).await?;
    let pushed = measure(&url, Arc::new(serve::worker_socket(&serve::socket_url(&url))?), jobs).await?;
    server.kill().await?;
    machine::remove_database(&path);

    let columns = ["what", "p50", "p99", "p50 × fdatasync", "at most", "p99 × fdatasync", "at most"];
    let mut report = Report::new("Idle: submit → worker has it", &columns);
    let none = String::new;
    report.row(["fdatasync".into(), ms(sync.p50), none(), none(), none(), none(), none()]);
    // What a sync takes on a machine that does nothing else, as here: what a submission's own takes.
    let p50 = idle_sync.p50;
    report.row(["fdatasync after 2 ms of rest".into(), ms(p50), none(), none(), none(), none(), none()]);
    let to_sync = |time: Duration| ratio(time.as_secs_f64() / sync.p50.as_secs_f64());
    for (name, times) in [("long poll over HTTP", polled), ("pushed over a socket", pushed)] {
        let (p50, p99) = (times.quantile(0.5), times.quantile(0.99));
        report.row([name.into(), ms(p50), ms(p99), to_sync(p50), "6".into(), to_sync(p99), "25".into()]);
    }
    report.print();
    Ok(())
}
