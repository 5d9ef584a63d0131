//! Whose lease is over: the floor, the hard end and the worker's session.

use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::job::{Job, Timer};
use cmdexec_core::store::{Beat, Change, Insert};

use super::sorted;
use crate::store::Bench;
use crate::store::make::{almost, cancelling, change, completed, job, lease_timer, running, secs, worker};

const NONE: [u32; 0] = [];
const LEASE: Duration = Duration::from_secs(60);

/// Leased jobs with a floor of 60 s and a hard end after 1,000 s.
async fn lease(b: &Bench, jobs: impl IntoIterator<Item = (u32, &str)>) {
    let leased = |(n, holder)| (Job { life: running(holder), ..job(n) }, lease_timer(60, 1_000));
    b.store.insert(Insert { jobs: jobs.into_iter().map(leased).collect(), key: None }).await.unwrap();
}

async fn register(b: &Bench, name: &str) {
    b.store.register_worker(&worker(name), Bytes::new()).await.unwrap();
}

async fn renew(b: &Bench, name: &str) {
    b.store.renew(vec![(worker(name), Beat::default())]).await.unwrap();
}

async fn expired(b: &Bench) -> Vec<u32> {
    sorted(&b.store.expired(LEASE, 100).await.unwrap())
}

pub async fn a_lease_without_a_session_is_over_at_its_floor(b: Bench) {
    lease(&b, [(1, "nobody")]).await;
    b.clock.advance(almost(60));
    assert_eq!(expired(&b).await, NONE);
    b.clock.advance(Duration::from_millis(1));
    assert_eq!(expired(&b).await, [1]);
}

pub async fn a_renewed_session_keeps_leases_alive(b: Bench) {
    register(&b, "w").await;
    lease(&b, [(1, "w"), (2, "w")]).await;
    for _ in 0..10 {
        b.clock.advance(secs(40));
        renew(&b, "w").await;
        assert_eq!(expired(&b).await, NONE);
    }
    b.clock.advance(almost(60));
    assert_eq!(expired(&b).await, NONE);
    b.clock.advance(Duration::from_millis(1));
    assert_eq!(expired(&b).await, [1, 2]);
    // It is back before anybody wrote anything: nothing is lost.
    renew(&b, "w").await;
    assert_eq!(expired(&b).await, NONE);
}

pub async fn a_session_that_is_over_ends_no_lease_before_its_floor(b: Bench) {
    register(&b, "w").await;
    b.clock.advance(secs(50));
    lease(&b, [(1, "w")]).await;
    b.clock.advance(secs(59));
    assert_eq!(expired(&b).await, NONE);
    b.clock.advance(secs(1));
    assert_eq!(expired(&b).await, [1]);
}

pub async fn a_hard_end_ends_a_lease_whatever_the_session(b: Bench) {
    register(&b, "w").await;
    lease(&b, [(1, "w")]).await;
    b.clock.advance(almost(1_000));
    renew(&b, "w").await;
    assert_eq!(expired(&b).await, NONE);
    b.clock.advance(Duration::from_millis(1));
    renew(&b, "w").await;
    assert_eq!(expired(&b).await, [1]);
}

pub async fn registering_renews_a_session(b: Bench) {
    register(&b, "w").await;
    lease(&b, [(1, "w")]).await;
    b.clock.advance(secs(61));
    register(&b, "w").await;
    assert_eq!(expired(&b).await, NONE);
}

pub async fn a_removed_workers_leases_end_whatever_it_beats(b: Bench) {
    register(&b, "w").await;
    lease(&b, [(1, "w")]).await;
    b.clock.advance(secs(30));
    renew(&b, "w").await;
    b.store.remove_worker(&worker("w")).await.unwrap();
    b.clock.advance(secs(59));
    renew(&b, "w").await;
    assert_eq!(expired(&b).await, NONE, "it was renewed before the worker was removed");
    b.clock.advance(secs(2));
    assert_eq!(expired(&b).await, [1]);
}

pub async fn one_worker_s_silence_is_its_own(b: Bench) {
    for name in ["a", "b", "c"] {
        register(&b, name).await;
    }
    lease(&b, [(1, "a"), (2, "b"), (3, "c"), (4, "b")]).await;
    b.clock.advance(secs(61));
    renew(&b, "a").await;
    renew(&b, "c").await;
    assert_eq!(expired(&b).await, [2, 4]);
}

pub async fn keep_keeps_a_leases_deadlines(b: Bench) {
    lease(&b, [(1, "nobody")]).await;
    b.clock.advance(secs(50));
    b.store.update(vec![Change { timer: Timer::Keep, ..change(1, 0, cancelling("nobody")) }]).await.unwrap();
    b.clock.advance(secs(9));
    assert_eq!(expired(&b).await, NONE);
    b.clock.advance(secs(1));
    assert_eq!(expired(&b).await, [1]);
}

pub async fn a_finished_job_has_no_lease(b: Bench) {
    lease(&b, [(1, "nobody"), (2, "nobody")]).await;
    let end = Change { timer: Timer::Keep, ..change(1, 0, completed("nobody", b.clock_now())) };
    b.store.update(vec![end]).await.unwrap();
    b.clock.advance(secs(5_000));
    assert_eq!(expired(&b).await, [2]);
    assert_eq!(sorted(&b.store.leased(&[worker("nobody")]).await.unwrap()), [2]);
}

pub async fn expired_heeds_its_limit(b: Bench) {
    lease(&b, (0..10).map(|n| (n, if n % 2 == 0 { "a" } else { "b" }))).await;
    b.clock.advance(secs(60));
    let some = sorted(&b.store.expired(LEASE, 7).await.unwrap());
    assert_eq!(some.len(), 7);
    // Past both the floor and the hard end is still once.
    b.clock.advance(secs(1_000));
    assert_eq!(expired(&b).await, (0..10).collect::<Vec<_>>());
}

pub async fn leased_are_the_workers_own(b: Bench) {
    lease(&b, [(1, "a"), (2, "b"), (3, "a")]).await;
    b.store.insert(crate::store::make::insert([job(4)])).await.unwrap();
    b.store.update(vec![Change { timer: Timer::Keep, ..change(3, 0, cancelling("a")) }]).await.unwrap();
    assert_eq!(sorted(&b.store.leased(&[worker("a")]).await.unwrap()), [1, 3]);
    assert_eq!(sorted(&b.store.leased(&[worker("b")]).await.unwrap()), [2]);
    assert_eq!(b.store.leased(&[worker("c")]).await.unwrap(), []);
    let several = ["b", "c", "a", "b"].map(worker);
    assert_eq!(sorted(&b.store.leased(&several).await.unwrap()), [1, 2, 3]);
    assert_eq!(b.store.leased(&[]).await.unwrap(), []);
}
