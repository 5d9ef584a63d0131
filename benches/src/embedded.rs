//! No-op jobs from submission to result, embedded: coordinator, store and worker in one process, everything in batches.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{FinishedAttempt, LeaseRequest, LeasedJob, Registration, Submission, WorkerService};
use cmdexec_store_sqlite::SqliteStore;

use crate::machine;
use crate::table::{Report, rate, ratio};

/// How many jobs are submitted, leased and reported together.
const BATCH: usize = 500;

/// The report of a no-op.
fn done(leased: &LeasedJob) -> FinishedAttempt {
    FinishedAttempt::new(leased, Outcome::Exited { code: 0 })
}

/// Leases and reports no-ops until `jobs` are done.
pub(crate) async fn work(service: Arc<dyn WorkerService>, worker: WorkerId, max: usize, jobs: usize) -> Result<()> {
    let mut finished = 0;
    while finished < jobs {
        let request = LeaseRequest { max: max.min(jobs - finished), wait: Duration::from_secs(10) };
        let leased = service.lease(&worker, request).await?;
        ensure!(!leased.is_empty(), "nothing came for 10 s after {finished} of {jobs} jobs");
        for answer in service.finish(&worker, leased.iter().map(done).collect()).await? {
            answer?;
            finished += 1;
        }
    }
    Ok(())
}

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, jobs: usize) -> Result<()> {
    let steps = machine::steps(dir).await?;
    let path = dir.join("embedded.db");
    machine::remove_database(&path);
    let coordinator = Arc::new(Coordinator::builder(SqliteStore::open(&path).await?).build().await?);
    let start = Instant::now();
    let submitting = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move {
            let service = coordinator.jobs();
            for _ in 0..jobs / BATCH {
                let specs = vec![JobSpec::shell("true"); BATCH];
                service.submit_batch(Submission { specs, idempotency_key: None }).await?;
            }
            anyhow::Ok(())
        }
    });
    let worker = WorkerId::local();
    let service = coordinator.as_worker(worker.clone());
    service.register(Registration::new("bench", 2, 1_024)).await?;
    let halves = [1, 2].map(|_| work(Arc::clone(&service), worker.clone(), BATCH, jobs / BATCH / 2 * BATCH));
    for half in futures_util::future::join_all(halves).await {
        half?;
    }
    submitting.await.context("a task panicked")??;
    let per_second = jobs as f64 / start.elapsed().as_secs_f64();
    let completed = coordinator.jobs().stats().await?.jobs.get(&Status::Completed).copied();
    ensure!(completed == Some(jobs as u64), "{completed:?} of {jobs} completed");
    coordinator.shutdown(Duration::from_secs(10)).await;
    machine::remove_database(&path);

    let mut report = Report::new("No-op jobs, embedded, in batches of 500", &["what", "measured", "ratio", "at least"]);
    report.row(["one transaction per step".to_owned(), rate(steps), String::new(), String::new()]);
    report.row(["submit → finish".to_owned(), rate(per_second), ratio(per_second / steps), "8".to_owned()]);
    report.print();
    Ok(())
}
