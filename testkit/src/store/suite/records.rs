//! Small versioned things by kind and key.

use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::store::{ErrorKind, Record, RecordWrite, Written};

use super::kind;
use crate::store::Bench;
use crate::store::make::{almost, secs};

fn write(key: &str, version: u64, value: &'static str) -> RecordWrite {
    RecordWrite { key: key.to_owned(), value: Some(Bytes::from(value)), version, ttl: None }
}

fn remove(key: &str, version: u64) -> RecordWrite {
    RecordWrite { value: None, ..write(key, version, "") }
}

fn record(key: &str, version: u64, value: &'static str) -> Record {
    Record { key: key.to_owned(), value: Bytes::from(value), version }
}

async fn put(b: &Bench, write: RecordWrite) -> Written {
    b.store.put_records("user", vec![write]).await.unwrap().remove(0)
}

async fn get(b: &Bench, key: &str) -> Option<Record> {
    b.store.get_records("user", &[key.to_owned()]).await.unwrap().remove(0)
}

pub async fn a_record_is_read_as_it_was_written(b: Bench) {
    assert_eq!(put(&b, write("ann", 0, "\0one")).await, Written::Yes);
    let keys = ["x".to_owned(), "ann".to_owned(), "ann".to_owned()];
    let found = b.store.get_records("user", &keys).await.unwrap();
    let expected = Some(record("ann", 1, "\0one"));
    assert_eq!(found, [None, expected.clone(), expected]);
    assert_eq!(b.store.get_records("user", &[]).await.unwrap(), []);
}

pub async fn a_write_names_the_version_it_replaces(b: Bench) {
    assert_eq!(put(&b, write("ann", 1, "early")).await, Written::Missing);
    assert_eq!(put(&b, write("ann", 0, "one")).await, Written::Yes);
    assert_eq!(put(&b, write("ann", 0, "other")).await, Written::Stale);
    assert_eq!(put(&b, write("ann", 1, "two")).await, Written::Yes);
    assert_eq!(put(&b, write("ann", 1, "late")).await, Written::Stale);
    assert_eq!(get(&b, "ann").await, Some(record("ann", 2, "two")));
    let answers = b.store.put_records("user", vec![write("ann", 9, ""), write("bob", 0, "new"), write("c", 3, "")]);
    assert_eq!(answers.await.unwrap(), [Written::Stale, Written::Yes, Written::Missing]);
    assert_eq!(get(&b, "bob").await, Some(record("bob", 1, "new")));
}

pub async fn a_record_is_removed_by_its_version(b: Bench) {
    assert_eq!(put(&b, remove("ann", 0)).await, Written::Yes);
    assert_eq!(put(&b, remove("ann", 1)).await, Written::Missing);
    put(&b, write("ann", 0, "one")).await;
    assert_eq!(put(&b, remove("ann", 0)).await, Written::Stale);
    assert_eq!(put(&b, remove("ann", 1)).await, Written::Yes);
    assert_eq!(get(&b, "ann").await, None);
    assert_eq!(put(&b, write("ann", 0, "again")).await, Written::Yes);
    assert_eq!(get(&b, "ann").await, Some(record("ann", 1, "again")));
}

pub async fn a_record_ends_with_its_time(b: Bench) {
    put(&b, RecordWrite { ttl: Some(secs(10)), ..write("ann", 0, "one") }).await;
    b.clock.advance(almost(10));
    assert_eq!(get(&b, "ann").await, Some(record("ann", 1, "one")));
    b.clock.advance(Duration::from_millis(1));
    assert_eq!(get(&b, "ann").await, None);
    assert_eq!(b.store.list_records("user", None, 9).await.unwrap(), []);
    assert_eq!(put(&b, write("ann", 1, "two")).await, Written::Missing);
    assert_eq!(put(&b, write("ann", 0, "anew")).await, Written::Yes);
    assert_eq!(get(&b, "ann").await, Some(record("ann", 1, "anew")));
}

pub async fn a_write_without_a_time_to_live_stays(b: Bench) {
    put(&b, RecordWrite { ttl: Some(secs(10)), ..write("ann", 0, "one") }).await;
    put(&b, write("ann", 1, "two")).await;
    b.clock.advance(secs(100));
    b.store.purge(secs(0), 9).await.unwrap();
    assert_eq!(get(&b, "ann").await, Some(record("ann", 2, "two")));
}

pub async fn kinds_are_apart(b: Bench) {
    put(&b, write("a", 0, "user's")).await;
    b.store.put_records("use", vec![write("ra", 0, "other")]).await.unwrap();
    b.store.put_records("users", vec![write("a", 0, "third")]).await.unwrap();
    assert_eq!(get(&b, "a").await, Some(record("a", 1, "user's")));
    assert_eq!(b.store.list_records("user", None, 9).await.unwrap(), [record("a", 1, "user's")]);
}

pub async fn records_are_listed_by_key(b: Bench) {
    for key in ["b", "", "ä", "a", "B"] {
        put(&b, write(key, 0, "")).await;
    }
    let keys = |records: Vec<Record>| records.into_iter().map(|record| record.key).collect::<Vec<_>>();
    let list = |after, limit| b.store.list_records("user", after, limit);
    assert_eq!(keys(list(None, 9).await.unwrap()), ["", "B", "a", "b", "ä"]);
    assert_eq!(keys(list(Some(""), 2).await.unwrap()), ["B", "a"]);
    assert_eq!(keys(list(Some("aa"), 9).await.unwrap()), ["b", "ä"]);
    assert_eq!(keys(list(None, 0).await.unwrap()), [""; 0]);
}

pub async fn of_concurrent_writes_of_one_version_one_wins_the_record(b: Bench) {
    let calls = (0..20).map(|_| {
        let store = b.store.clone();
        tokio::spawn(async move { store.put_records("user", vec![write("ann", 0, "me")]).await.unwrap().remove(0) })
    });
    let answers: Vec<_> = futures_util::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|written| **written == Written::Yes).count(), 1);
    assert_eq!(answers.iter().filter(|written| **written == Written::Stale).count(), 19);
}

pub async fn a_batch_may_not_name_a_key_twice(b: Bench) {
    let answer = b.store.put_records("user", vec![write("a", 0, "x"), write("a", 1, "y")]).await;
    assert_eq!(kind(answer), ErrorKind::Invalid);
    assert_eq!(get(&b, "a").await, None);
}
