//! Removal of what is over.

use bytes::Bytes;
use cmdexec_core::job::{Job, Status};
use cmdexec_core::store::{Extent, Insert, Inserted, RecordWrite};

use crate::store::Bench;
use crate::store::make::{START, append, chunk, completed, failed, id, insert, job, key, running, secs};

fn ended(n: u32, after: u64) -> Job {
    Job { life: failed(START.after(secs(after))), ..job(n) }
}

async fn there(b: &Bench, most: u32) -> Vec<u32> {
    let found = b.store.get(&(0..most).map(id).collect::<Vec<_>>()).await.unwrap();
    (0..most).filter(|n| found[*n as usize].is_some()).collect()
}

pub async fn purge_removes_what_ended_long_ago(b: Bench) {
    let life = completed("w", START);
    let jobs = [job(0), ended(1, 0), Job { life: running("w"), ..job(2) }, ended(3, 40), Job { life, ..job(4) }];
    b.store.insert(insert(jobs)).await.unwrap();
    b.clock.advance(secs(60));
    // "Longer ago than": what ended exactly then stays.
    assert_eq!(b.store.purge(secs(60), 9).await.unwrap(), 0);
    assert_eq!(b.store.purge(secs(59), 9).await.unwrap(), 2);
    assert_eq!(there(&b, 5).await, [0, 2, 3]);
    let mut counts = b.store.counts().await.unwrap();
    counts.retain(|(_, jobs)| *jobs > 0);
    counts.sort_unstable();
    assert_eq!(counts, [(Status::Queued, 1), (Status::Running, 1), (Status::Failed, 1)]);
}

pub async fn purge_takes_output_along(b: Bench) {
    b.store.insert(insert([ended(1, 0)])).await.unwrap();
    b.store.append_output(vec![append(1, 1, [chunk(0, "out")])]).await.unwrap();
    b.clock.advance(secs(10));
    assert_eq!(b.store.purge(secs(1), 9).await.unwrap(), 1);
    b.store.insert(insert([job(1)])).await.unwrap();
    assert_eq!(b.store.output_extent(id(1), 1).await.unwrap(), Extent::default());
    assert_eq!(b.store.read_output(id(1), 1, 0, 9).await.unwrap(), []);
}

pub async fn purge_heeds_its_limit_and_takes_the_oldest(b: Bench) {
    b.store.insert(insert((0..10).map(|n| ended(n, u64::from(10 - n))))).await.unwrap();
    b.clock.advance(secs(100));
    assert_eq!(b.store.purge(secs(0), 4).await.unwrap(), 4);
    assert_eq!(there(&b, 10).await, [0, 1, 2, 3, 4, 5]);
    assert_eq!(b.store.purge(secs(0), 0).await.unwrap(), 0);
    assert_eq!(b.store.purge(secs(0), 100).await.unwrap(), 6);
}

pub async fn purge_forgets_keys_and_records_that_are_over(b: Bench) {
    let keyed = |n| Insert { key: Some(key("k")), ..insert([job(n)]) };
    b.store.insert(keyed(1)).await.unwrap();
    let ttl = Some(secs(60));
    let write = RecordWrite { key: "r".to_owned(), value: Some(Bytes::from("v")), version: 0, ttl };
    b.store.put_records("kind", vec![write]).await.unwrap();
    b.clock.advance(secs(59));
    b.store.purge(secs(0), 9).await.unwrap();
    assert_eq!(b.store.insert(keyed(2)).await.unwrap(), Inserted::Known { ids: vec![id(1)], fingerprint: [7; 32] });
    assert_eq!(b.store.list_records("kind", None, 9).await.unwrap().len(), 1);
    b.clock.advance(secs(1));
    b.store.purge(secs(0), 9).await.unwrap();
    assert_eq!(b.store.insert(keyed(2)).await.unwrap(), Inserted::New);
    assert_eq!(b.store.list_records("kind", None, 9).await.unwrap(), []);
}

pub async fn a_purged_id_may_be_used_again(b: Bench) {
    b.store.insert(insert([ended(1, 0)])).await.unwrap();
    b.clock.advance(secs(10));
    b.store.purge(secs(1), 9).await.unwrap();
    assert_eq!(b.store.insert(insert([job(1)])).await.unwrap(), Inserted::New);
    assert_eq!(b.store.get(&[id(1)]).await.unwrap(), [Some(job(1))]);
}
