//! Counts are never estimates.

use std::collections::BTreeMap;
use std::sync::Arc;

use cmdexec_core::job::{Job, JobSpec, Life, Status};
use cmdexec_core::store::{ListQuery, Store};

use crate::store::Bench;
use crate::store::make::{
    START, cancelling, change, completed, failed, id, insert, job_of, queued, running, scheduled, secs,
};

/// A plain generator: what is random here need not be good, only the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % sides
    }
}

fn life(roll: u32) -> Life {
    match roll {
        0 => scheduled(),
        1 | 2 => queued(),
        3 => running("w"),
        4 => cancelling("w"),
        5 => completed("w", START),
        _ => failed(START),
    }
}

fn spec(roll: u32) -> JobSpec {
    let mut spec = JobSpec::shell("true");
    spec.resources.cpu_millis = (roll > 0).then_some(roll);
    spec
}

/// Counts one by one what the store counts at once.
async fn assert_exact(store: &Arc<dyn Store>) {
    let everything = ListQuery { limit: 100_000, ..ListQuery::default() };
    let jobs = store.list(&everything).await.unwrap().jobs;
    let mut statuses: BTreeMap<Status, u64> = BTreeMap::new();
    let mut classes = BTreeMap::new();
    for job in &jobs {
        *statuses.entry(job.status()).or_default() += 1;
        if job.status() == Status::Queued {
            let (head, queued) = classes.entry(job.class.clone()).or_insert((job.place(), 0));
            *head = job.place().min(*head);
            *queued += 1;
        }
    }
    let counts: BTreeMap<_, _> = store.counts().await.unwrap().into_iter().filter(|(_, jobs)| *jobs > 0).collect();
    assert_eq!(counts, statuses);
    let queues = store.classes().await.unwrap();
    let queues: BTreeMap<_, _> = queues.into_iter().map(|queue| (queue.class, (queue.head, queue.queued))).collect();
    assert_eq!(queues, classes);
}

pub async fn counts_are_exact_under_random_changes(b: Bench) {
    let mut dice = Dice(1);
    let mut next = 0;
    for round in 0..60 {
        let jobs: Vec<Job> = (0..dice.roll(6))
            .map(|_| {
                next += 1;
                Job { life: life(dice.roll(7)), ..job_of(next, spec(dice.roll(3))) }
            })
            .collect();
        b.store.insert(insert(jobs)).await.unwrap();
        let mut changes = BTreeMap::new();
        for _ in 0..dice.roll(8) {
            let n = 1 + dice.roll(next + 2);
            let version = b.store.get(&[id(n)]).await.unwrap()[0].as_ref().map_or(0, |job| job.version);
            // Now and then a stale one, which must not be counted.
            changes.insert(n, change(n, version + u64::from(dice.roll(5) == 0), life(dice.roll(7))));
        }
        b.store.update(changes.into_values().collect()).await.unwrap();
        if round % 9 == 8 {
            b.clock.advance(secs(1));
            b.store.purge(secs(0), 5).await.unwrap();
        }
        assert_exact(&b.store).await;
    }
}

pub async fn counts_are_exact_under_concurrency(b: Bench) {
    let tasks = (0..8_u32).map(|task| {
        let store = b.store.clone();
        tokio::spawn(async move {
            let mut dice = Dice(u64::from(task));
            for n in 0..20 {
                let n = task * 100 + n;
                store.insert(insert([job_of(n, spec(dice.roll(3)))])).await.unwrap();
                // Everybody works on everybody's jobs.
                let other = dice.roll(8) * 100 + dice.roll(20);
                let changes = [change(n, 0, life(dice.roll(7))), change(other, 1, life(dice.roll(7)))];
                let distinct = if n == other { 1 } else { 2 };
                store.update(changes[..distinct].to_vec()).await.unwrap();
            }
        })
    });
    for task in futures_util::future::join_all(tasks).await {
        task.unwrap();
    }
    assert_exact(&b.store).await;
}
