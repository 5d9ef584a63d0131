//! Servers that are paused, or whose disk is full, and batches larger than a message.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::id::LeaseToken;
use cmdexec_core::job::{Job, JobSpec};
use cmdexec_core::store::{Beat, Error, ErrorKind, Insert, Inserted, Listed, Renewed, Store};
use cmdexec_store_mongo::MongoStore;
use cmdexec_testkit::disk::Disk;
use cmdexec_testkit::store::make::{id, insert, job, job_of, key, worker};
use mongodb::bson::doc;
use support::set::Set;
use support::{Place, acknowledged, direct};

/// What a call may take whatever befalls the server: it is repeated for some seconds, and its last try may be waited for.
const BOUND: Duration = Duration::from_secs(60);

/// What became of a call, which must not take for ever.
async fn bounded<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(BOUND, call).await.unwrap_or_else(|_| panic!("nobody answers within {BOUND:?}"))
}

fn keyed(n: u32, jobs: impl IntoIterator<Item = Job>) -> Insert {
    Insert { key: Some(key(&format!("k{n}"))), ..insert(jobs) }
}

/// Repeats an insertion until it is acknowledged.
async fn repeated(store: &MongoStore, batch: impl Fn() -> Insert) -> Inserted {
    acknowledged(2 * BOUND, async || bounded(store.insert(batch())).await).await
}

async fn are_there(store: &MongoStore, numbers: impl Iterator<Item = u32>) {
    for n in numbers {
        assert!(store.get(&[id(n)]).await.unwrap()[0].is_some(), "job {n} is lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_is_not_waited_for_without_end() {
    let set = Set::of(1, None).await;
    let store = MongoStore::open(&set.address()).await.unwrap();
    for n in 0..10 {
        assert_eq!(store.insert(keyed(n, [job(n)])).await.unwrap(), Inserted::New);
    }
    set.members[0].pause();
    let asked = [id(1)];
    let (single, plain, batch, read) = tokio::join!(
        bounded(store.insert(keyed(10, [job(10)]))),
        bounded(store.insert(insert([job(11)]))),
        bounded(store.insert(keyed(12, [job(12), job(13)]))),
        bounded(store.get(&asked)),
    );
    let kinds = [single.err(), plain.err(), batch.err(), read.err()].map(|error| error.map(|error| error.kind()));
    for kind in kinds {
        assert!(matches!(kind, Some(ErrorKind::Unavailable { .. })), "{kind:?}");
    }
    set.members[0].resume();
    for n in [10, 12] {
        let batch = || if n == 10 { keyed(n, [job(n)]) } else { keyed(n, [job(n), job(n + 1)]) };
        let is_it = match repeated(&store, batch).await {
            Inserted::New => true,
            Inserted::Known { ids, .. } => ids[0] == id(n),
        };
        assert!(is_it, "the key of job {n} is another's");
    }
    are_there(&store, (0..=10).chain([12, 13])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let Some(disk) = Disk::mount(400) else { return };
    let mut set = Set::of(1, Some(disk.path())).await;
    let store = MongoStore::open(&set.address()).await.unwrap();
    let large = |n| {
        let mut spec = JobSpec::shell("true");
        spec.env.insert("X".to_owned(), noise(n, 200_000));
        keyed(n, [job_of(n, spec)])
    };
    for n in 0..20 {
        assert_eq!(store.insert(large(n)).await.unwrap(), Inserted::New);
    }
    disk.fill();
    let mut refused = None;
    for n in 20..2_000 {
        if let Err(error) = bounded(store.insert(large(n))).await {
            assert!(matches!(error.kind(), ErrorKind::Unavailable { .. }), "{error}");
            refused = Some(n);
            break;
        }
    }
    let refused = refused.unwrap_or_else(|| panic!("the disk is not full"));
    disk.empty();
    // It may have ended, which is how it protects its data.
    set.members[0].kill();
    set.members[0].start();
    repeated(&store, || large(refused)).await;
    are_there(&store, 0..=refused).await;
    println!("refused the {refused}th");
    store.close().await;
    drop(set);
}

/// Text that does not compress.
fn noise(seed: u32, length: usize) -> String {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + u8::try_from(state % 26).unwrap())
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_that_nothing_was_heard_of_is_written_once_and_answered_as_it_would_have_been() {
    let set = Set::of(1, None).await;
    let store = MongoStore::open(&set.address()).await.unwrap();
    let holding = |n| Some(vec![Listed { job: id(n), token: LeaseToken::from_bits(n.into()) }]);
    let beat = |n| vec![(worker("w"), Beat { held: holding(n), completed: 1, ..Beat::default() })];
    store.register_worker(&worker("w"), Bytes::new()).await.unwrap();
    store.renew(beat(1)).await.unwrap();
    let admin = direct(&set.members[0].address).await.database("admin");
    let lost = doc! { "failCommands": ["update"], "writeConcernError": { "code": 91, "errmsg": "going down" } };
    admin
        .run_command(doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": lost })
        .await
        .unwrap();
    assert_eq!(store.renew(beat(2)).await.unwrap(), [Renewed::Yes { before: holding(1) }]);
    assert_eq!(store.renew(beat(3)).await.unwrap(), [Renewed::Yes { before: holding(2) }]);
    let row = store.get_workers(&[worker("w")]).await.unwrap().remove(0).unwrap();
    assert_eq!(row.beat.completed, 3);
    let failed = admin.run_command(doc! { "configureFailPoint": "failCommand", "mode": "off" }).await.unwrap();
    assert_eq!(failed.get_i32("count").unwrap(), 1, "nothing failed");
}

fn megabyte(n: u32) -> Job {
    job_of(n, JobSpec::shell("x".repeat(1_000_000)))
}

fn kind(answer: Result<Inserted, Error>) -> ErrorKind {
    answer.unwrap_err().kind()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_larger_than_a_message_is_all_or_nothing() {
    let place = Place::new();
    let store = MongoStore::options().database(place.name()).open(place.address()).await.unwrap();
    // A message may have 48 MB.
    let conflicting = insert((0..60).map(megabyte).chain([job(59)]));
    assert_eq!(kind(store.insert(conflicting).await), ErrorKind::Conflict);
    assert!(store.get(&[id(0), id(59)]).await.unwrap().iter().all(Option::is_none));
    store.insert(insert([job(59)])).await.unwrap();
    assert_eq!(kind(store.insert(insert((0..60).map(megabyte))).await), ErrorKind::Conflict);
    let ids: Vec<_> = (0..59).map(id).collect();
    assert!(store.get(&ids).await.unwrap().iter().all(Option::is_none), "a part of the batch is there");
    let batch = || keyed(1, (100..160).map(megabyte));
    let ids: Vec<_> = (100..160).map(id).collect();
    // One whose end was not heard of is known.
    let inserted = repeated(&store, batch).await;
    assert!(
        matches!(&inserted, Inserted::New) || matches!(&inserted, Inserted::Known { ids: known, .. } if *known == ids)
    );
    for job in store.get(&ids).await.unwrap() {
        assert_eq!(job.unwrap().spec, JobSpec::shell("x".repeat(1_000_000)).into());
    }
    assert!(matches!(store.insert(batch()).await.unwrap(), Inserted::Known { ids: known, .. } if known == ids));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_the_servers_cache_has_no_room_for_is_refused_for_good() {
    // Its cache has 256 MB.
    let set = Set::of(1, None).await;
    let store = MongoStore::open(&set.address()).await.unwrap();
    let error = store.insert(insert((0..60).map(megabyte))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("no room for 60 jobs"), "{error}");
    assert!(store.get(&[id(0)]).await.unwrap()[0].is_none());
}
