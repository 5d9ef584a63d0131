//! A primary on the wrong side of a broken network, and secondaries that are behind.

#![cfg(target_os = "linux")]

mod support;

use std::time::Duration;

use cmdexec_core::job::Status;
use cmdexec_core::store::{Change, Error, ErrorKind, Insert, Inserted, ListQuery, Store, Written};
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_store_mongo::MongoStore;
use cmdexec_testkit::store::make::{change, id, insert, job, key, lease_timer, running};
use mongodb::bson::{Document, doc};
use support::load::Load;
use support::set::Set;
use support::{acknowledged, direct};

/// What is waited for whatever the machine is busy with.
const BOUND: Duration = Duration::from_secs(60);

/// How many jobs show that the load goes on: each write takes until the members' next heartbeat while one is cut off.
const MORE: u32 = 12;

/// Until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = SystemClock.uptime();
    while !is_so().await {
        assert!(SystemClock.uptime().saturating_sub(begun) < BOUND, "not within {BOUND:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn is_unavailable<T>(answer: &Result<T, Error>) -> bool {
    answer.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::Unavailable { .. }))
}

fn keyed(n: u32) -> Insert {
    Insert { key: Some(key(&format!("k{n}"))), ..insert([job(n)]) }
}

/// Whether an insertion that was repeated came to the job that it was for.
fn is_its_own(answer: &Inserted, n: u32) -> bool {
    match answer {
        Inserted::New => true,
        Inserted::Known { ids, .. } => *ids == [id(n)],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_cut_off_steps_down_and_nothing_acknowledged_is_lost() {
    const CONTESTED: std::ops::Range<u32> = 90_000_000..90_000_040;
    const WRONG: u32 = 91_000_000;
    let (set, net) = Set::over_net().await;
    let stores = [MongoStore::open(&set.address()).await.unwrap(), MongoStore::open(&set.address()).await.unwrap()];
    stores[0].insert(insert(CONTESTED.map(job))).await.unwrap();
    let load = Load::start(&stores);
    load.goes_on(MORE, "the beginning").await;

    // A coordinator that is on the same side as the primary, and knows no other server.
    let old = set.primary(None).await;
    let address = format!("mongodb://{}/failover?directConnection=true", set.members[old].own_address());
    let beside = MongoStore::open(&address).await.unwrap();
    let claims = |worker: &'static str| {
        let claim = move |n| Change { timer: lease_timer(60, 600), ..change(n, 0, running(worker)) };
        CONTESTED.map(claim).collect::<Vec<_>>()
    };
    net.cut(old);
    // For some two seconds its server still believes that it is the primary.
    let (claimed, submitted, plain) = tokio::join!(
        beside.update(claims("wrong")),
        beside.insert(keyed(WRONG)),
        beside.insert(insert([job(WRONG + 1)])),
    );
    assert!(is_unavailable(&claimed), "{claimed:?}");
    assert!(is_unavailable(&submitted) && is_unavailable(&plain), "{submitted:?} {plain:?}");
    until("the old primary steps down", async || !set.is_primary(old).await).await;
    load.goes_on(MORE, "the primary was cut off").await;

    // Nobody has the jobs that were claimed there, and whoever claims them now has them for good.
    let right = acknowledged(BOUND, async || stores[1].update(claims("right")).await).await;
    assert_eq!(right, vec![Written::Yes; CONTESTED.len()]);
    let twice = stores[0].update(claims("twice")).await.unwrap();
    assert_eq!(twice, vec![Written::Stale; CONTESTED.len()]);

    net.mend();
    load.goes_on(MORE, "it came back").await;
    let is_back = async || {
        let admin = direct(&set.members[old].own_address()).await.database("admin");
        let hello = admin.run_command(doc! { "hello": 1 }).await;
        hello.is_ok_and(|hello| {
            hello.get_bool("secondary").unwrap_or(false) || hello.get_bool("isWritablePrimary").unwrap_or(false)
        })
    };
    until("it has taken back what nobody else had", is_back).await;
    load.goes_on(MORE, "it took back what nobody else had").await;
    load.end().await;

    let ids: Vec<_> = CONTESTED.map(id).collect();
    for found in stores[0].get(&ids).await.unwrap() {
        let found = found.unwrap();
        let lease = found.life.lease().unwrap();
        assert_eq!((found.version, found.status(), lease.worker.as_str()), (1, Status::Running, "right"));
    }
    // What was not acknowledged there may be repeated, here or there.
    let repeated = acknowledged(BOUND, async || stores[0].insert(keyed(WRONG)).await).await;
    assert!(is_its_own(&repeated, WRONG), "{repeated:?}");
    let again = acknowledged(BOUND, async || stores[1].insert(keyed(WRONG)).await).await;
    assert!(matches!(&again, Inserted::Known { ids, .. } if *ids == [id(WRONG)]), "{again:?}");
    assert!(stores[0].get(&[id(WRONG)]).await.unwrap()[0].is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_secondary_lacks_is_read_all_the_same_and_what_no_majority_has_is_not() {
    let set = Set::start().await;
    let primary = set.primary(None).await;
    let (late, prompt) = ((primary + 1) % 3, (primary + 2) % 3);
    // It follows an hour behind.
    let admin = direct(&set.members[primary].address).await.database("admin");
    let current = admin.run_command(doc! { "replSetGetConfig": 1 }).await.unwrap();
    let mut config = current.get_document("config").unwrap().clone();
    let version = config.get_i32("version").unwrap() + 1;
    config.insert("version", version);
    let member = config.get_array_mut("members").unwrap()[late].as_document_mut().unwrap();
    member.extend(doc! { "priority": 0, "secondaryDelaySecs": 3_600 });
    admin.run_command(doc! { "replSetReconfig": config }).await.unwrap();
    let late = direct(&set.members[late].address).await;
    until("it knows that it is to be late", async || {
        let known = late.database("admin").run_command(doc! { "replSetGetConfig": 1 }).await;
        known.is_ok_and(|known| known.get_document("config").unwrap().get_i32("version").unwrap() == version)
    })
    .await;

    // Whatever the address says.
    let address = format!("{}&readPreference=secondary&readConcernLevel=local&w=1", set.address());
    let store = MongoStore::open(&address).await.unwrap();
    for n in 0..50 {
        store.insert(keyed(n)).await.unwrap();
        assert!(store.get(&[id(n)]).await.unwrap()[0].is_some(), "job {n} was read where it is not yet");
    }
    let all = ListQuery { limit: 99, ..ListQuery::default() };
    assert_eq!(store.list(&all).await.unwrap().jobs.len(), 50);
    let there = late.database("failover").collection::<Document>("jobs");
    assert_eq!(there.count_documents(doc! {}).await.unwrap(), 0, "it is not late");

    // Two of three are no majority without the third, although the primary goes on to be it.
    set.members[prompt].pause();
    let (submitted, plain, claimed) = tokio::join!(
        store.insert(keyed(100)),
        store.insert(insert([job(101)])),
        store.update(vec![change(0, 0, running("w"))]),
    );
    assert!(is_unavailable(&submitted) && is_unavailable(&plain), "{submitted:?} {plain:?}");
    assert!(is_unavailable(&claimed), "{claimed:?}");
    let found = store.get(&[id(0), id(100), id(101)]).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().status(), Status::Queued, "no majority has the claim");
    assert_eq!(found[1..], [None, None], "no majority has them");
    set.members[prompt].resume();
    let repeated = acknowledged(BOUND, async || store.insert(keyed(100)).await).await;
    assert!(is_its_own(&repeated, 100), "{repeated:?}");
    until("what was written meanwhile is there", async || {
        store.get(&[id(101)]).await.is_ok_and(|found| found[0].is_some())
    })
    .await;
}
