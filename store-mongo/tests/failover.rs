//! Three servers, and what befalls them under load: the primary is killed, stepped down, frozen. Submissions succeed once or
//! fail in a way that can be repeated; nothing acknowledged is lost; no job is claimed twice under one version.

#![cfg(unix)]

mod support;

use cmdexec_core::store::{Insert, Inserted, Store};
use cmdexec_store_mongo::MongoStore;
use cmdexec_testkit::store::make::{id, insert, job, key};
use support::load::Load;
use support::set::Set;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_whatever_befalls_the_primary() {
    let mut set = Set::start().await;
    let stores = [MongoStore::open(&set.address()).await.unwrap(), MongoStore::open(&set.address()).await.unwrap()];
    let load = Load::start(&stores);
    load.goes_on(60, "the beginning").await;

    set.lose_primaries(&async |what: &str| load.goes_on(60, what).await).await;

    // As if it were cut off: it says nothing, and its connections stay open.
    let third = set.primary(None).await;
    set.members[third].pause();
    load.goes_on(60, "the primary was frozen").await;
    set.members[third].resume();
    load.goes_on(60, "it came back as a secondary").await;
    load.end().await;

    // Without a majority nothing is acknowledged; with one again, the repetition is known for what it is.
    let primary = set.primary(None).await;
    let others = || (0..3).filter(|n| *n != primary);
    others().for_each(|n| set.members[n].pause());
    let keyed = || Insert { key: Some(key("without a majority")), ..insert([job(99_999_999)]) };
    assert!(stores[0].insert(keyed()).await.unwrap_err().is_retryable());
    others().for_each(|n| set.members[n].resume());
    let answer = loop {
        match stores[1].insert(keyed()).await {
            Err(error) => assert!(error.is_retryable(), "{error}"),
            Ok(answer) => break answer,
        }
    };
    let is_the_one =
        answer == Inserted::New || matches!(&answer, Inserted::Known { ids, .. } if *ids == [id(99_999_999)]);
    assert!(is_the_one, "{answer:?}");
    assert!(stores[0].get(&[id(99_999_999)]).await.unwrap()[0].is_some());
}
