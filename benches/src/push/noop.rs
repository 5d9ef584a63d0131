//! No-op jobs from submission to result by many workers, over sockets and by long poll, beside what the store alone can do.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::Outcome;
use cmdexec_core::service::{FinishedAttempt, LeaseRequest, Registration, WorkerService};
use cmdexec_core::store::{Store, Written};
use cmdexec_store_sqlite::SqliteStore;
use cmdexec_testkit::store::make;

use crate::rest::Connection;
use crate::table::{Report, rate, ratio};
use crate::{children, machine, serve, submit};

/// How many jobs the store is given together, and submitted together.
const BATCH: u32 = 500;

/// How many jobs a worker asks for at once.
const MAX: usize = 64;

/// A job's life in the store alone, in batches: insert, claim, finish.
async fn store_alone(dir: &Path, jobs: u32) -> Result<f64> {
    let path = dir.join("store.db");
    machine::remove_database(&path);
    let store = SqliteStore::open(&path).await?;
    let start = Instant::now();
    for batch in 0..jobs / BATCH {
        let ids = || batch * BATCH..(batch + 1) * BATCH;
        store.insert(make::insert(ids().map(make::job))).await?;
        for (version, life) in [(0, make::running("w")), (1, make::completed("w", make::START))] {
            let changes = ids().map(|n| make::change(n, version, life.clone())).collect();
            ensure!(store.update(changes).await?.iter().all(|written| *written == Written::Yes));
        }
    }
    let per_second = f64::from(jobs) / start.elapsed().as_secs_f64();
    drop(store);
    machine::remove_database(&path);
    Ok(per_second)
}

/// Works until nothing comes any more; how many jobs it did.
async fn work(service: Arc<dyn WorkerService>, n: usize) -> Result<usize> {
    let worker: WorkerId = format!("push-{n}").parse()?;
    let registration = Registration { worker: Some(worker.clone()), ..Registration::new("bench", 2, 1_024) };
    service.register(registration).await?;
    let mut done = 0;
    loop {
        let request = LeaseRequest { max: MAX, wait: Duration::from_secs(1) };
        let leased = service.lease(&worker, request).await?;
        if leased.is_empty() {
            return Ok(done);
        }
        let reports = leased.iter().map(|leased| FinishedAttempt::new(leased, Outcome::Exited { code: 0 }));
        for answer in service.finish(&worker, reports.collect()).await? {
            answer?;
            done += 1;
        }
    }
}

/// Submits jobs while workers do them, and gives how many are done in a second.
async fn end_to_end(dir: &Path, jobs: usize, workers: usize, socket: bool) -> Result<(f64, children::Used)> {
    let path = dir.join("push.db");
    machine::remove_database(&path);
    let (server, url) = children::server(&path).await?;
    let services = (0..workers).map(|_| {
        let service: Arc<dyn WorkerService> = if socket {
            Arc::new(serve::worker_socket(&serve::socket_url(&url))?)
        } else {
            Arc::new(serve::worker_client(&url)?)
        };
        anyhow::Ok(service)
    });
    let services = services.collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let working: Vec<_> = services.into_iter().enumerate().map(|(n, service)| tokio::spawn(work(service, n))).collect();
    let mut connection = Connection::open(&url, &serve::user_token()?).await?;
    let batch = submit::batch(BATCH as usize);
    for _ in 0..jobs / BATCH as usize {
        connection.post("/api/jobs/create-batch", batch.clone()).await?;
    }
    let mut done = 0;
    for worker in working {
        done += worker.await??;
    }
    // The last second was a wait in vain.
    let took = start.elapsed().saturating_sub(Duration::from_secs(1));
    let used = server.used()?;
    server.kill().await?;
    machine::remove_database(&path);
    ensure!(done == jobs, "{done} of {jobs} jobs were done");
    Ok((jobs as f64 / took.as_secs_f64(), used))
}

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, jobs: usize, workers: usize) -> Result<()> {
    let alone = store_alone(dir, u32::try_from(jobs)?.min(60_000)).await?;
    let (polled, by_poll) = end_to_end(dir, jobs, workers, false).await?;
    let (pushed, by_push) = end_to_end(dir, jobs, workers, true).await?;
    let title = format!("No-op jobs, submit → finish, {workers} workers, durable");
    let mut report =
        Report::new(&title, &["what", "measured", "× the store alone", "at least", "the server's processor"]);
    let none = String::new;
    report.row(["the store alone, batches of 500".into(), rate(alone), none(), none(), none()]);
    let each = |used: children::Used| format!("{:.0} µs a job", used.cpu.as_secs_f64() * 1e6 / jobs as f64);
    report.row(["long poll over HTTP".into(), rate(polled), ratio(polled / alone), none(), each(by_poll)]);
    report.row(["pushed over sockets".into(), rate(pushed), ratio(pushed / alone), "0.5".into(), each(by_push)]);
    report.print();
    Ok(())
}
