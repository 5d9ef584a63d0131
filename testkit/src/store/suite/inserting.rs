//! Insertions, and the keys that make repeated ones known.

use cmdexec_core::job::{JobSpec, Timer};
use cmdexec_core::store::{ErrorKind, Insert, Inserted, Key, StoredKey, Written};

use super::kind;
use crate::store::Bench;
use crate::store::make::{
    append, change, chunk, completed, failed, id, insert, job, job_of, key, lease_timer, owner, running, secs,
};

fn keyed(n: u32, key: Key) -> Insert {
    Insert { key: Some(key), ..insert([job(n)]) }
}

fn known(n: u32) -> Inserted {
    Inserted::Known { ids: vec![id(n)], fingerprint: [7; 32] }
}

pub async fn a_job_is_read_as_it_was_inserted(b: Bench) {
    let mut spec = JobSpec::argv(["/bin/echo", "a \"b\" \\ 'c'"]);
    spec.name = Some("ä name".to_owned());
    spec.labels = ["gpu".to_owned(), "x".to_owned()].into();
    spec.resources.memory_mb = Some(512);
    spec.priority = -3;
    let whole = job_of(1, spec);
    let ended = cmdexec_core::job::Job { owner: owner("ann"), life: completed("w", b.clock_now()), ..job(2) };
    b.store.insert(insert([whole.clone(), ended.clone()])).await.unwrap();
    assert_eq!(b.store.get(&[id(2), id(1)]).await.unwrap(), [Some(ended), Some(whole)]);
}

pub async fn an_insertion_is_all_or_nothing(b: Bench) {
    b.store.insert(insert([job(2)])).await.unwrap();
    let answer = b.store.insert(insert([job(1), job(2), job(3)])).await;
    assert_eq!(kind(answer), ErrorKind::Conflict);
    let found = b.store.get(&[id(1), id(2), id(3)]).await.unwrap();
    assert_eq!(found, [None, Some(job(2)), None]);
}

pub async fn a_batch_that_names_an_id_twice_conflicts(b: Bench) {
    assert_eq!(kind(b.store.insert(insert([job(1), job(1)])).await), ErrorKind::Conflict);
    assert_eq!(b.store.get(&[id(1)]).await.unwrap(), [None]);
}

pub async fn a_conflict_fails_nobody_else(b: Bench) {
    b.store.insert(insert([job(0)])).await.unwrap();
    // Every third is a conflict; a store that groups them must tell them apart.
    let calls = (0..30).map(|n| b.store.insert(insert([job(if n % 3 == 0 { 0 } else { n })])));
    let answers = futures_util::future::join_all(calls).await;
    for (n, answer) in answers.into_iter().enumerate() {
        if n % 3 == 0 {
            assert_eq!(kind(answer), ErrorKind::Conflict, "{n}");
        } else {
            assert_eq!(answer.unwrap(), Inserted::New, "{n}");
        }
    }
}

pub async fn a_job_keeps_its_version(b: Bench) {
    let leased = cmdexec_core::job::Job { version: 9, life: running("w"), ..job(1) };
    let jobs = vec![(leased.clone(), lease_timer(60, 100)), (job(2), Timer::None)];
    b.store.insert(Insert { jobs, key: None }).await.unwrap();
    assert_eq!(b.store.get(&[id(1), id(2)]).await.unwrap(), [Some(leased), Some(job(2))]);
    let ends = [change(1, 8, completed("w", b.clock_now())), change(2, 1, running("w"))];
    assert_eq!(b.store.update(ends.into()).await.unwrap(), [Written::Stale, Written::Stale]);
    let end = vec![change(1, 9, completed("w", b.clock_now()))];
    assert_eq!(b.store.update(end).await.unwrap(), [Written::Yes]);
    assert_eq!(b.store.get(&[id(1)]).await.unwrap()[0].as_ref().unwrap().version, 10);
}

pub async fn an_empty_insertion_is_fine(b: Bench) {
    assert_eq!(b.store.insert(insert([])).await.unwrap(), Inserted::New);
    let empty = || Insert { jobs: vec![], key: Some(key("k")) };
    assert_eq!(b.store.insert(empty()).await.unwrap(), Inserted::New);
    let known = Inserted::Known { ids: vec![], fingerprint: [7; 32] };
    assert_eq!(b.store.insert(empty()).await.unwrap(), known);
}

pub async fn a_repeated_key_adds_nothing(b: Bench) {
    assert_eq!(b.store.insert(keyed(1, key("k"))).await.unwrap(), Inserted::New);
    let other = Key { fingerprint: [8; 32], ..key("k") };
    assert_eq!(b.store.insert(keyed(2, other)).await.unwrap(), known(1));
    assert_eq!(b.store.get(&[id(2)]).await.unwrap(), [None]);
}

pub async fn a_key_is_its_owners(b: Bench) {
    assert_eq!(b.store.insert(keyed(1, key("k"))).await.unwrap(), Inserted::New);
    let hers = Key { owner: owner("ann"), ..key("k") };
    assert_eq!(b.store.insert(keyed(2, hers)).await.unwrap(), Inserted::New);
    assert_eq!(b.store.insert(keyed(3, key("K"))).await.unwrap(), Inserted::New);
}

pub async fn a_key_wins_over_a_conflict(b: Bench) {
    assert_eq!(b.store.insert(keyed(1, key("k"))).await.unwrap(), Inserted::New);
    assert_eq!(b.store.insert(keyed(1, key("k"))).await.unwrap(), known(1));
}

pub async fn a_key_is_forgotten_after_its_time(b: Bench) {
    b.store.insert(keyed(1, key("k"))).await.unwrap();
    b.clock.advance(secs(59));
    assert_eq!(b.store.insert(keyed(2, key("k"))).await.unwrap(), known(1));
    b.clock.advance(secs(1));
    assert_eq!(b.store.insert(keyed(2, key("k"))).await.unwrap(), Inserted::New);
    // The key's time starts anew.
    b.clock.advance(secs(59));
    assert_eq!(b.store.insert(keyed(3, key("k"))).await.unwrap(), known(2));
}

pub async fn a_key_outlives_its_jobs(b: Bench) {
    let ended = cmdexec_core::job::Job { life: failed(b.clock_now()), ..job(1) };
    b.store.insert(Insert { key: Some(key("k")), ..insert([ended]) }).await.unwrap();
    b.clock.advance(secs(30));
    assert_eq!(b.store.purge(secs(1), 10).await.unwrap(), 1);
    assert_eq!(b.store.insert(keyed(2, key("k"))).await.unwrap(), known(1));
}

pub async fn a_failed_insertion_uses_no_key(b: Bench) {
    b.store.insert(insert([job(1)])).await.unwrap();
    assert_eq!(kind(b.store.insert(keyed(1, key("k"))).await), ErrorKind::Conflict);
    assert_eq!(b.store.insert(keyed(2, key("k"))).await.unwrap(), Inserted::New);
}

pub async fn one_of_many_concurrent_insertions_with_a_key_adds(b: Bench) {
    let calls = (0..20).map(|n| {
        let store = b.store.clone();
        tokio::spawn(async move { store.insert(keyed(n, key("k"))).await.unwrap() })
    });
    let answers: Vec<Inserted> = futures_util::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == Inserted::New).count(), 1);
    let ids: Vec<_> = (0..20).map(id).collect();
    let added: Vec<_> = b.store.get(&ids).await.unwrap().into_iter().flatten().map(|job| job.id).collect();
    assert_eq!(added.len(), 1);
    let all_name_it = answers.iter().all(|answer| match answer {
        Inserted::New => true,
        Inserted::Known { ids, .. } => *ids == added,
    });
    assert!(all_name_it);
}

pub async fn unknown_ids_are_none(b: Bench) {
    b.store.insert(Insert { jobs: vec![(job(1), Timer::Keep)], key: None }).await.unwrap();
    let found = b.store.get(&[id(9), id(1), id(9), id(1)]).await.unwrap();
    assert_eq!(found, [None, Some(job(1)), None, Some(job(1))]);
    assert_eq!(b.store.get(&[]).await.unwrap(), []);
    // Output of a job that isn't there is nowhere.
    b.store.append_output(vec![append(9, 1, [chunk(0, "a")])]).await.unwrap();
}

pub async fn keys_are_listed_and_put_elsewhere(b: Bench) {
    for (n, name) in (0..).zip(["b", "a", "a\0"]) {
        b.store.insert(Insert { key: Some(key(name)), ..insert([job(n), job(n + 10)]) }).await.unwrap();
    }
    b.clock.advance(secs(10));
    let all = b.store.list_keys(None, 9).await.unwrap();
    let stored = |name: &str, n| StoredKey { key: Key { ttl: secs(50), ..key(name) }, ids: vec![id(n), id(n + 10)] };
    assert_eq!(all, [stored("a", 1), stored("a\0", 2), stored("b", 0)]);
    let first = &all[0].key;
    assert_eq!(b.store.list_keys(Some((&first.owner, &first.key)), 1).await.unwrap(), all[1..2]);
    // Without their jobs, and over one that is there.
    let moved = StoredKey { ids: vec![id(77)], ..stored("new", 0) };
    let over = StoredKey { ids: vec![id(78)], ..stored("b", 0) };
    b.store.put_keys(vec![moved, over]).await.unwrap();
    for (name, n) in [("new", 77), ("b", 78)] {
        let repeated = Insert { key: Some(key(name)), ..insert([job(50)]) };
        let known = Inserted::Known { ids: vec![id(n)], fingerprint: [7; 32] };
        assert_eq!(b.store.insert(repeated).await.unwrap(), known);
    }
    b.clock.advance(secs(50));
    assert_eq!(b.store.list_keys(None, 9).await.unwrap(), []);
}
