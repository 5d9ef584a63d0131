//! What is left after closing, dropping and opening again.

use bytes::Bytes;
use cmdexec_core::job::{Job, Timer};
use cmdexec_core::store::{Beat, Change, ErrorKind, Insert, Inserted, ListQuery, RecordWrite, Written};

use super::{kind, numbers};
use crate::store::Bench;
use crate::store::make::{append, change, chunk, id, insert, job, key, lease_timer, running, scheduled, secs, worker};

pub async fn everything_is_there_after_reopening(b: Bench) {
    b.store.insert(Insert { key: Some(key("k")), ..insert([job(1), job(2)]) }).await.unwrap();
    b.store.update(vec![change(1, 0, running("w"))]).await.unwrap();
    b.store.append_output(vec![append(1, 1, [chunk(0, "out")])]).await.unwrap();
    b.store.register_worker(&worker("w"), Bytes::from("info")).await.unwrap();
    b.store.renew(vec![(worker("w"), Beat { completed: 2, ..Beat::default() })]).await.unwrap();
    let write = RecordWrite { key: "r".to_owned(), value: Some(Bytes::from("v")), version: 0, ttl: None };
    b.store.put_records("kind", vec![write.clone()]).await.unwrap();
    let before = b.store.list(&ListQuery { limit: 9, ..ListQuery::default() }).await.unwrap();
    let workers = b.store.list_workers(None, 9).await.unwrap();

    let Some(b) = b.reopened().await else { return };
    assert_eq!(b.store.list(&ListQuery { limit: 9, ..ListQuery::default() }).await.unwrap(), before);
    assert_eq!(b.store.list_workers(None, 9).await.unwrap(), workers);
    assert_eq!(b.store.read_output(id(1), 1, 0, 9).await.unwrap(), [chunk(0, "out")]);
    assert_eq!(b.store.put_records("kind", vec![write]).await.unwrap(), [Written::Stale]);
    let repeated = Insert { key: Some(key("k")), ..insert([job(7)]) };
    let known = Inserted::Known { ids: vec![id(1), id(2)], fingerprint: [7; 32] };
    assert_eq!(b.store.insert(repeated).await.unwrap(), known);
    // It goes on as if nothing had been.
    b.store.insert(insert([job(3)])).await.unwrap();
    assert_eq!(b.store.update(vec![change(1, 1, running("v"))]).await.unwrap(), [Written::Yes]);
    assert_eq!(numbers(&b.store.ready(&job(1).class, None, 9).await.unwrap()), [2, 3]);
}

pub async fn counts_and_deadlines_survive_reopening(b: Bench) {
    let leased = Change { timer: lease_timer(60, 100), ..change(1, 0, running("w")) };
    b.store.insert(insert([job(1), job(2)])).await.unwrap();
    b.store.update(vec![leased]).await.unwrap();
    let due = (Job { life: scheduled(), ..job(3) }, Timer::DueIn(secs(30)));
    b.store.insert(Insert { jobs: vec![due], key: None }).await.unwrap();
    let mut counts = b.store.counts().await.unwrap();
    counts.sort_unstable();

    let Some(b) = b.reopened().await else { return };
    let mut again = b.store.counts().await.unwrap();
    again.sort_unstable();
    assert_eq!(again, counts);
    assert_eq!(b.store.classes().await.unwrap()[0].queued, 1);
    assert_eq!(b.store.next_due().await.unwrap(), Some(secs(30)));
    b.clock.advance(secs(60));
    assert_eq!(numbers(&b.store.expired(secs(60), 9).await.unwrap()), [1]);
}

pub async fn a_dropped_call_is_done_or_not_done(b: Bench) {
    let batches: Vec<u32> = (0..40).collect();
    for n in &batches {
        // Polled a few times and dropped: wherever it was, all three jobs are there or none is.
        let call = b.store.insert(insert((0..3).map(|k| job(n * 10 + k))));
        tokio::select! {
            biased;
            _ = call => {}
            () = async { for _ in 0..n % 5 { tokio::task::yield_now().await; } } => {}
        }
    }
    // Later calls are unharmed, and come after whatever is still done.
    b.store.insert(insert([job(9_999)])).await.unwrap();
    for n in batches {
        let ids: Vec<_> = (0..3).map(|k| id(n * 10 + k)).collect();
        let found = b.store.get(&ids).await.unwrap().into_iter().flatten().count();
        assert!(found == 0 || found == 3, "{found} of batch {n}");
    }
}

pub async fn a_closed_store_answers_no_more(b: Bench) {
    b.store.insert(insert([job(1)])).await.unwrap();
    b.store.close().await;
    let is_unavailable = |kind| matches!(kind, ErrorKind::Unavailable { .. });
    assert!(is_unavailable(kind(b.store.insert(insert([job(2)])).await)));
    assert!(is_unavailable(kind(b.store.get(&[id(1)]).await)));
    assert!(is_unavailable(kind(b.store.purge(secs(0), 1).await)));
}

pub async fn closing_twice_is_fine(b: Bench) {
    let calls = (0..20).map(|n| b.store.insert(insert([job(n)])));
    let (answers, ()) = tokio::join!(futures_util::future::join_all(calls), b.store.close());
    b.store.close().await;
    let acknowledged: Vec<u32> = (0..20).filter(|n| answers[*n as usize].is_ok()).collect();
    // What was acknowledged is there; what was refused is not.
    let Some(b) = b.reopened().await else { return };
    let found = b.store.get(&(0..20).map(id).collect::<Vec<_>>()).await.unwrap();
    let found: Vec<u32> = (0..20).filter(|n| found[*n as usize].is_some()).collect();
    assert_eq!(found, acknowledged);
}
