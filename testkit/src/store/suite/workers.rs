//! Registrations and heartbeats.

use bytes::Bytes;
use cmdexec_core::id::LeaseToken;
use cmdexec_core::store::{Beat, ErrorKind, Listed, Renewed, WorkerRow};

use super::kind;
use crate::store::Bench;
use crate::store::make::{START, id, secs, worker};

fn holding(jobs: &[u32]) -> Beat {
    let held = |n: &u32| Listed { job: id(*n), token: LeaseToken::from_bits(u128::from(*n) << 100) };
    Beat { held: Some(jobs.iter().map(held).collect()), ..Beat::default() }
}

async fn register(b: &Bench, name: &str, info: &'static str) {
    b.store.register_worker(&worker(name), Bytes::from(info)).await.unwrap();
}

async fn row(b: &Bench, name: &str) -> WorkerRow {
    b.store.get_workers(&[worker(name)]).await.unwrap().remove(0).unwrap()
}

pub async fn a_registration_is_read_as_it_was_written(b: Bench) {
    b.clock.advance(secs(5));
    register(&b, "w", "\0info").await;
    let now = START.after(secs(5));
    let expected = WorkerRow {
        id: worker("w"),
        info: Bytes::from("\0info"),
        beat: Beat::default(),
        registered: now,
        renewed: now,
        removed: false,
    };
    let found = b.store.get_workers(&[worker("x"), worker("w")]).await.unwrap();
    assert_eq!(found, [None, Some(expected)]);
}

pub async fn registering_again_keeps_counts_and_beat(b: Bench) {
    register(&b, "w", "old").await;
    let beat = Beat { completed: 3, failed: 1, report: serde_json::json!({"load": 0.5}), ..holding(&[1]) };
    b.store.renew(vec![(worker("w"), beat.clone())]).await.unwrap();
    b.clock.advance(secs(9));
    register(&b, "w", "new").await;
    let found = row(&b, "w").await;
    assert_eq!(found.info, Bytes::from("new"));
    assert_eq!(found.beat, beat);
    assert_eq!((found.registered, found.renewed), (START, START.after(secs(9))));
}

pub async fn a_beat_answers_with_the_one_before(b: Bench) {
    register(&b, "w", "").await;
    register(&b, "v", "").await;
    let one = |name: &str, beat: Beat| (worker(name), beat);
    let before = |held: Beat| Renewed::Yes { before: held.held };
    let first = b.store.renew(vec![one("w", holding(&[1, 2]))]).await.unwrap();
    assert_eq!(first, [before(Beat::default())]);
    let second = b.store.renew(vec![one("v", holding(&[3])), one("w", holding(&[]))]).await.unwrap();
    assert_eq!(second, [before(Beat::default()), before(holding(&[1, 2]))]);
    // One that does not say what it holds is another thing than one that holds nothing.
    let third = b.store.renew(vec![one("w", Beat::default())]).await.unwrap();
    assert_eq!(third, [before(holding(&[]))]);
    let fourth = b.store.renew(vec![one("w", Beat::default())]).await.unwrap();
    assert_eq!(fourth, [before(Beat::default())]);
}

pub async fn counts_of_beats_add_up(b: Bench) {
    register(&b, "w", "").await;
    for _ in 0..3 {
        let beat = Beat { completed: 2, failed: 1, ..Beat::default() };
        b.store.renew(vec![(worker("w"), beat)]).await.unwrap();
    }
    let beat = row(&b, "w").await.beat;
    assert_eq!((beat.completed, beat.failed), (6, 3));
    let most = Beat { completed: u64::MAX, ..Beat::default() };
    b.store.renew(vec![(worker("w"), most)]).await.unwrap();
    assert_eq!(row(&b, "w").await.beat.completed, u64::MAX);
}

pub async fn counts_with_a_name_are_added_once(b: Bench) {
    register(&b, "w", "").await;
    let beat = async |name: Option<u128>, completed| {
        let tally = name.map(LeaseToken::from_bits);
        b.store.renew(vec![(worker("w"), Beat { tally, completed, failed: 1, ..Beat::default() })]).await.unwrap();
        let kept = row(&b, "w").await.beat;
        (kept.completed, kept.failed, kept.tally)
    };
    let [one, two] = [1, 2].map(|name| Some(LeaseToken::from_bits(name)));
    assert_eq!(beat(Some(1), 2).await, (2, 1, one));
    assert_eq!(beat(Some(1), 2).await, (2, 1, one));
    // What has no name is added, and leaves the name of what had one.
    assert_eq!(beat(None, 3).await, (5, 2, one));
    assert_eq!(beat(Some(1), 2).await, (5, 2, one));
    assert_eq!(beat(Some(2), 4).await, (9, 3, two));
    assert_eq!(beat(Some(1), 2).await, (11, 4, one));
}

pub async fn an_unknown_worker_is_told(b: Bench) {
    register(&b, "w", "").await;
    let beats = vec![(worker("x"), Beat::default()), (worker("w"), Beat::default())];
    let answers = b.store.renew(beats).await.unwrap();
    assert_eq!(answers, [Renewed::Unknown, Renewed::Yes { before: None }]);
    assert_eq!(b.store.get_workers(&[worker("x")]).await.unwrap(), [None]);
}

pub async fn a_removed_worker_stays_removed(b: Bench) {
    register(&b, "w", "info").await;
    b.store.renew(vec![(worker("w"), holding(&[1]))]).await.unwrap();
    assert!(b.store.remove_worker(&worker("w")).await.unwrap());
    assert!(!b.store.remove_worker(&worker("w")).await.unwrap());
    assert!(!b.store.remove_worker(&worker("x")).await.unwrap());
    assert_eq!(kind(b.store.register_worker(&worker("w"), Bytes::new()).await), ErrorKind::Conflict);
    assert_eq!(b.store.list_workers(None, 9).await.unwrap(), []);
    b.clock.advance(secs(7));
    let answer = b.store.renew(vec![(worker("w"), Beat::default())]).await.unwrap();
    assert_eq!(answer, [Renewed::Removed { before: holding(&[1]).held }]);
    let found = row(&b, "w").await;
    assert!(found.removed);
    assert_eq!((found.info, found.renewed), (Bytes::from("info"), START), "its leases are to end");
}

pub async fn workers_are_listed_by_id(b: Bench) {
    for name in ["b", "a", "d", "C", "e"] {
        register(&b, name, "").await;
    }
    b.store.remove_worker(&worker("d")).await.unwrap();
    let names = |rows: Vec<WorkerRow>| rows.iter().map(|row| row.id.to_string()).collect::<Vec<_>>();
    assert_eq!(names(b.store.list_workers(None, 9).await.unwrap()), ["C", "a", "b", "e"]);
    assert_eq!(names(b.store.list_workers(Some(&worker("a")), 1).await.unwrap()), ["b"]);
    assert_eq!(names(b.store.list_workers(Some(&worker("c")), 9).await.unwrap()), ["e"]);
}

pub async fn all_workers_are_listed_and_put_elsewhere(b: Bench) {
    for name in ["gone", "here"] {
        register(&b, name, "info").await;
        b.store.renew(vec![(worker(name), Beat { completed: 2, failed: 1, ..holding(&[1]) })]).await.unwrap();
    }
    b.store.remove_worker(&worker("gone")).await.unwrap();
    let all = b.store.list_all_workers(None, 9).await.unwrap();
    assert_eq!(all, [row(&b, "gone").await, row(&b, "here").await]);
    assert!(all[0].removed && !all[1].removed);
    assert_eq!(b.store.list_all_workers(Some(&worker("gone")), 9).await.unwrap(), all[1..]);
    assert_eq!(b.store.list_all_workers(None, 1).await.unwrap(), all[..1]);

    let long_ago = START.before(secs(1_000));
    let old = |name: &str, removed| WorkerRow {
        id: worker(name),
        info: Bytes::from("\0old"),
        beat: Beat { completed: 70, failed: 3, ..holding(&[2]) },
        registered: long_ago,
        renewed: long_ago.after(secs(500)),
        removed,
    };
    // New ones, and one in the place of what is known; and then once more.
    let put = vec![old("a", true), old("b", false), old("here", false)];
    b.store.put_workers(put.clone()).await.unwrap();
    b.store.put_workers(put.clone()).await.unwrap();
    b.store.put_workers(Vec::new()).await.unwrap();
    let expected = [&put[..2], &all[..1], &put[2..]].concat();
    assert_eq!(b.store.list_all_workers(None, 9).await.unwrap(), expected);
    assert_eq!(b.store.list_workers(None, 9).await.unwrap(), put[1..]);
    assert_eq!(kind(b.store.register_worker(&worker("a"), Bytes::new()).await), ErrorKind::Conflict);
    // They are workers as any others.
    let beats = vec![(worker("b"), Beat { completed: 1, ..Beat::default() })];
    assert_eq!(b.store.renew(beats).await.unwrap(), [Renewed::Yes { before: holding(&[2]).held }]);
    let found = row(&b, "b").await;
    assert_eq!((found.beat.completed, found.registered, found.renewed), (71, long_ago, START));

    let twice = vec![old("c", false), old("c", true)];
    assert_eq!(kind(b.store.put_workers(twice).await), ErrorKind::Invalid);
    assert_eq!(b.store.get_workers(&[worker("c")]).await.unwrap(), [None]);
}

pub async fn a_batch_may_not_name_a_worker_twice(b: Bench) {
    register(&b, "w", "").await;
    let twice = vec![(worker("w"), Beat::default()), (worker("w"), holding(&[1]))];
    assert_eq!(kind(b.store.renew(twice).await), ErrorKind::Invalid);
    assert_eq!(row(&b, "w").await.beat, Beat::default());
}
