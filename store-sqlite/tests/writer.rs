//! The writer when something goes wrong in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cmdexec_core::store::{Inserted, Store, Written};
use cmdexec_core::time::{Clock, Sleep, SystemClock, Timestamp};
use cmdexec_store_sqlite::SqliteStore;
use cmdexec_testkit::store::make::{change, id, insert, job, running};
use futures_util::future::join_all;

/// Panics when it is asked for the time, while it is told to: the writer asks within its transaction.
#[derive(Debug, Clone, Default)]
struct Broken(Arc<AtomicBool>);

impl Clock for Broken {
    fn now(&self) -> Timestamp {
        assert!(!self.0.load(Ordering::SeqCst), "the clock is broken");
        SystemClock.now()
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        SystemClock.sleep(duration)
    }
}

#[tokio::test]
async fn a_panic_is_an_error_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Broken::default();
    let options = SqliteStore::options().clock(Arc::new(clock.clone()));
    let store = options.open(dir.path().join("jobs.db")).await.unwrap();
    store.insert(insert([job(1)])).await.unwrap();
    clock.0.store(true, Ordering::SeqCst);
    let error = store.insert(insert([job(2)])).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    clock.0.store(false, Ordering::SeqCst);
    assert_eq!(store.get(&[id(2)]).await.unwrap(), [None]);
    assert_eq!(store.insert(insert([job(2)])).await.unwrap(), Inserted::New);
    assert_eq!(store.update(vec![change(1, 0, running("w"))]).await.unwrap(), [Written::Yes]);
    store.close().await;
}

/// All of them are handed over before the first is done, so that they share a transaction or two.
#[tokio::test]
async fn a_refused_call_harms_no_other_in_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path().join("jobs.db")).await.unwrap();
    store.insert(insert([job(50)])).await.unwrap();
    // Where the batch that is refused comes to be refused, its first job is written already.
    let batches = (0..100).map(|n| if n == 50 { insert([job(1_000), job(n)]) } else { insert([job(n)]) });
    let answers = join_all(batches.map(|batch| store.insert(batch))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.is_ok(), n != 50, "{n}: {answer:?}");
    }
    let ids: Vec<_> = (0..100).map(id).collect();
    assert!(store.get(&ids).await.unwrap().iter().all(Option::is_some));
    assert_eq!(store.get(&[id(1_000)]).await.unwrap(), [None]);
    let queued: u64 = store.counts().await.unwrap().into_iter().map(|(_, jobs)| jobs).sum();
    assert_eq!(queued, 100);
}
