//! Callers that take jobs through their lives as fast as they can, and remember what was acknowledged to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::id::{JobId, LeaseToken};
use cmdexec_core::job::{Status, Timer};
use cmdexec_core::store::{Beat, Change, ErrorKind, Insert, Inserted, Store, Written};
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_store_mongo::MongoStore;
use cmdexec_testkit::store::make::{
    append, change, chunk, completed, id, insert, job, key, lease_timer, running, worker,
};
use tokio::task::JoinHandle;

/// Six callers of two stores.
pub(crate) struct Load {
    stores: [MongoStore; 2],
    tasks: Vec<JoinHandle<Acknowledged>>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
}

/// What was acknowledged, by the number of the job.
#[derive(Default)]
struct Acknowledged {
    versions: HashMap<u32, u64>,
    refused: u32,
    /// How many jobs its worker's beats have counted.
    counted: u64,
}

impl Load {
    pub(crate) fn start(stores: &[MongoStore; 2]) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let task = |n: u32| {
            let store = stores[n as usize % 2].clone();
            tokio::spawn(live(store, n, Arc::clone(&stop), Arc::clone(&done)))
        };
        let tasks = (0..6).map(task).collect();
        Self { stores: stores.clone(), tasks, stop, done }
    }

    /// Waits until so many `more` jobs have ended.
    pub(crate) async fn goes_on(&self, more: u32, after: &str) {
        let (enough, begun) = (self.done.load(Ordering::Relaxed) + more, SystemClock.uptime());
        while self.done.load(Ordering::Relaxed) < enough {
            let waited = SystemClock.uptime().saturating_sub(begun);
            assert!(waited < Duration::from_secs(60), "nothing goes on after {after}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it; everything that was acknowledged must be there.
    pub(crate) async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let [one, other] = &self.stores;
        let (mut jobs, mut refused) = (0, 0);
        for (n, task) in self.tasks.into_iter().enumerate() {
            let known = task.await.unwrap();
            refused += known.refused;
            let worker = other.get_workers(&[worker(&format!("w{n}"))]).await.unwrap().remove(0).unwrap();
            assert_eq!(worker.beat.completed, known.counted, "each is counted once");
            let ids: Vec<JobId> = known.versions.keys().map(|n| id(*n)).collect();
            let found = one.get(&ids).await.unwrap();
            for ((n, version), found) in known.versions.iter().zip(found) {
                let found = found.unwrap_or_else(|| panic!("job {n} is lost"));
                assert_eq!(found.version, *version, "job {n}");
                if *version == 2 {
                    assert_eq!(found.status(), Status::Completed);
                    assert_eq!(other.read_output(id(*n), 1, 0, 99).await.unwrap(), [chunk(0, "output")]);
                }
                jobs += 1;
            }
        }
        println!("{jobs} jobs, {refused} refusals");
    }
}

/// Takes jobs through their lives, each step until it is acknowledged.
async fn live(store: MongoStore, task: u32, stop: Arc<AtomicBool>, done: Arc<AtomicU32>) -> Acknowledged {
    let mut known = Acknowledged::default();
    let mut n = task * 1_000_000;
    let name = format!("w{task}");
    while let Err(error) = store.register_worker(&worker(&name), Bytes::new()).await {
        assert!(error.is_retryable(), "{error}");
    }
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let with_key = n.is_multiple_of(3);
        let batch = || match (with_key, n % 5) {
            (true, _) => Insert { key: Some(key(&format!("k{n}"))), ..insert([job(n)]) },
            (false, 0) => insert([job(n), job(n + 500_000)]),
            (false, _) => insert([job(n)]),
        };
        loop {
            match store.insert(batch()).await {
                Ok(Inserted::New) => break,
                Ok(Inserted::Known { ids, .. }) => {
                    assert_eq!(ids, [id(n)]);
                    break;
                }
                Err(error) if error.is_retryable() => known.refused += 1,
                // Without a key the repetition of what had been done all the same is a conflict with itself.
                Err(error) if !with_key && known.refused > 0 => {
                    assert_eq!(error.kind(), ErrorKind::Conflict);
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        known.versions.insert(n, 0);
        let steps = [(0, running(&name)), (1, completed(&name, store.now()))];
        for (version, life) in steps {
            loop {
                let step = Change {
                    timer: if version == 0 { lease_timer(60, 600) } else { Timer::None },
                    ..change(n, version, life.clone())
                };
                match store.update(vec![step]).await {
                    Ok(answers) => {
                        // Nobody else writes this job: if it is stale, an earlier try was it, which was not heard of.
                        assert!(
                            answers == [Written::Yes] || answers == [Written::Stale] && known.refused > 0,
                            "{answers:?}"
                        );
                        break;
                    }
                    Err(error) => {
                        assert!(error.is_retryable(), "{error}");
                        known.refused += 1;
                    }
                }
            }
            known.versions.insert(n, version + 1);
            if version == 0 {
                while let Err(error) = store.append_output(vec![append(n, 1, [chunk(0, "output")])]).await {
                    assert!(error.is_retryable(), "{error}");
                    known.refused += 1;
                }
            }
        }
        let tally = Some(LeaseToken::from_bits(n.into()));
        let beat = || vec![(worker(&name), Beat { completed: 1, tally, ..Beat::default() })];
        while let Err(error) = store.renew(beat()).await {
            assert!(error.is_retryable(), "{error}");
            known.refused += 1;
        }
        known.counted += 1;
        done.fetch_add(1, Ordering::Relaxed);
    }
    known
}
