//! Many jobs at once, as isolated processes, watched until the last has ended.
//!
//! `cargo run -p cmdexec-embed --bin batch`

use std::collections::HashSet;
use std::time::Duration;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::ProcessExecutor;
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::JobSpec;
use cmdexec_core::service::{Submission, WatchQuery};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::worker::Worker;
use futures_util::StreamExt;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let coordinator = Coordinator::builder(MemoryStore::new()).build().await?;
    let worker = Worker::builder(coordinator.as_worker(WorkerId::local()), ProcessExecutor::default());
    let worker = worker.slots(2).start().await?;
    let jobs = coordinator.jobs();

    // Watching begins first, so that no change is missed.
    let mut updates = jobs.watch(WatchQuery::All).await?;
    let specs = (0..10).map(|n| {
        let mut spec = JobSpec::shell(format!("sleep 0.0{n}; exit $(({n} % 3))"));
        spec.retries = 1;
        spec.backoff.initial = Duration::from_millis(10);
        spec
    });
    // All or none, and a repetition with the same key would do nothing.
    let submission = Submission { specs: specs.collect(), idempotency_key: Some("batch-1".to_owned()) };
    let mut open: HashSet<_> = jobs.submit_batch(submission).await?.into_iter().map(|job| job.id).collect();
    while !open.is_empty() {
        let Some(update) = updates.next().await else { break };
        let update = update?;
        let exit = update.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
        println!("{} is {}{exit}", update.id, update.status);
        if update.status.is_finished() {
            open.remove(&update.id);
        }
    }
    for (status, count) in jobs.stats().await?.jobs {
        if count > 0 {
            println!("{count} {status}");
        }
    }

    worker.shutdown().await;
    coordinator.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
