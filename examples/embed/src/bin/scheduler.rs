//! A scheduler of one's own: it fills the fullest machine first, so that others can be switched off.
//!
//! `cargo run -p cmdexec-embed --bin scheduler`

use std::time::Duration;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::{FunctionExecutor, RunContext};
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{JobSpec, Outcome};
use cmdexec_core::scheduler::{Placement, Scheduler, View};
use cmdexec_core::service::{JobServiceExt, Submission};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::worker::Worker;

/// The oldest class first, to the fullest worker that has room.
#[derive(Debug)]
struct FillUp;

impl Scheduler for FillUp {
    /// One job at a time: the coordinator asks again until there is nothing to place.
    fn plan(&self, view: &View<'_>) -> Vec<Placement> {
        let first = view.queues.by_head().find_map(|(class, _)| {
            let has_room = |worker: &&WorkerId| {
                view.workers.idle(worker).is_some_and(|idle| idle.obstacle(class.demand()).is_none())
            };
            // They come least loaded first.
            let fullest = view.workers.asking_for(class).map(|(_, worker)| worker).filter(has_room).last()?;
            Some(Placement { class: class.clone(), worker: fullest.clone(), jobs: 1 })
        });
        first.into_iter().collect()
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let coordinator = Coordinator::builder(MemoryStore::new()).scheduler(FillUp).build().await?;
    let jobs = coordinator.jobs();
    let specs = vec![JobSpec::shell("true"); 4];
    let submitted = jobs.submit_batch(Submission { specs, idempotency_key: None }).await?;

    let mut workers = Vec::new();
    for name in ["first", "second"] {
        let nap = FunctionExecutor::new(async |_: RunContext| {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Outcome::Exited { code: 0 }
        });
        let service = coordinator.as_worker(name.parse::<WorkerId>()?);
        workers.push(Worker::builder(service, nap).slots(4).start().await?);
    }
    for job in submitted {
        let job = jobs.wait(job.id).await?;
        println!("{} ran on {}", job.id, job.worker.map_or_else(|| "nobody".to_owned(), |worker| worker.to_string()));
    }

    for worker in workers {
        worker.shutdown().await;
    }
    coordinator.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
