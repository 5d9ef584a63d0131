//! Every question is answered by an index, and every index answers one: as the server's own profiler explains it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::files::FileId;
use cmdexec_core::job::{JobSpec, Status, Timer};
use cmdexec_core::store::{Append, Beat, Insert, ListQuery, RecordWrite, Store};
use cmdexec_store_mongo::MongoStore;
use cmdexec_testkit::store::make::{
    append, change, chunk, completed, id, job, job_of, key, lease_timer, owner, running, scheduled, secs, worker,
};
use futures_util::TryStreamExt;
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use support::Place;

const JOBS: u32 = 700;

async fn fill(store: &MongoStore) {
    let mut spec = JobSpec::shell("true");
    spec.input = Some(FileId::from_sha256([1; 32]));
    let jobs = (0..JOBS).map(|n| match n % 7 {
        0 => (cmdexec_core::job::Job { life: scheduled(), ..job(n) }, Timer::DueIn(secs(0))),
        1 => (job_of(n, spec.clone()), Timer::None),
        2 => (cmdexec_core::job::Job { owner: owner("ann"), ..job(n) }, Timer::None),
        _ => (job(n), Timer::None),
    });
    store.insert(Insert { jobs: jobs.collect(), key: Some(key("batch")) }).await.unwrap();
    let running = (3..JOBS).step_by(7).map(|n| cmdexec_core::store::Change {
        timer: lease_timer(0, u64::from(n)),
        ..change(n, 0, running(&format!("w{}", n % 5)))
    });
    store.update(running.collect()).await.unwrap();
    let now = store.now();
    let ended = (4..JOBS).step_by(7).map(|n| change(n, 0, completed("w9", now.before(secs(u64::from(n))))));
    store.update(ended.collect()).await.unwrap();
    for n in 0..5 {
        store.register_worker(&worker(&format!("w{n}")), Bytes::from("info")).await.unwrap();
    }
}

/// Every method that asks or changes, with answers that are a small part of all.
async fn ask(store: &MongoStore) {
    let class = job(1).class;
    let first = store.ready(&class, None, 5).await.unwrap();
    store.ready(&class, first.last().map(cmdexec_core::job::Job::place), 5).await.unwrap();
    store.classes().await.unwrap();
    store.due(5).await.unwrap();
    store.next_due().await.unwrap();
    store.expired(Duration::ZERO, 5).await.unwrap();
    store.leased(&[worker("w1")]).await.unwrap();
    store.counts().await.unwrap();
    store.get(&[id(5), id(6)]).await.unwrap();
    let base = || ListQuery { limit: 5, count_to: 9, ..ListQuery::default() };
    for query in [
        base(),
        ListQuery { before: Some(id(300)), ..base() },
        ListQuery { owner: Some(owner("ann")), ..base() },
        ListQuery { status: Some(Status::Completed), ..base() },
        ListQuery { owner: Some(owner("ann")), status: Some(Status::Queued), ..base() },
        ListQuery { worker: Some(worker("w2")), ..base() },
        ListQuery { input: Some(FileId::from_sha256([1; 32])), ..base() },
    ] {
        store.list(&query).await.unwrap();
    }
    let loud = |seq| chunk(seq, &"x".repeat(80_000));
    store.append_output(vec![append(5, 1, [loud(0), loud(1)]), append(6, 1, [chunk(0, "quiet")])]).await.unwrap();
    store.append_output(vec![Append { trim: Some((0, 0)), ..append(5, 1, [loud(2)]) }]).await.unwrap();
    store.read_output(id(5), 1, 0, 1 << 20).await.unwrap();
    store.output_extent(id(5), 1).await.unwrap();
    store.output_index(id(5), 1, 0, 10).await.unwrap();
    store.output_times(id(5), 1, 0, 10).await.unwrap();
    store.renew(vec![(worker("w1"), Beat::default())]).await.unwrap();
    store.get_workers(&[worker("w1")]).await.unwrap();
    store.list_workers(None, 3).await.unwrap();
    let all = store.list_all_workers(None, 3).await.unwrap();
    store.put_workers(all).await.unwrap();
    for kind in ["user", "file", "other"] {
        for n in 0..9 {
            let ttl = (n % 2 == 0).then_some(Duration::ZERO);
            let write = RecordWrite { key: format!("{n}"), value: Some(Bytes::from("v")), version: 0, ttl };
            store.put_records(kind, vec![write]).await.unwrap();
        }
        store.get_records(kind, &["1".to_owned()]).await.unwrap();
        store.list_records(kind, Some("1"), 3).await.unwrap();
    }
    store.purge(secs(1), 5).await.unwrap();
}

/// The names of the indexes in an explanation, wherever they stand in it.
fn named(explained: &Bson, names: &mut BTreeSet<String>) {
    match explained {
        Bson::Document(document) => {
            for (field, value) in document {
                match value.as_str() {
                    Some(name) if field == "indexName" => {
                        names.insert(name.to_owned());
                    }
                    _ => named(value, names),
                }
            }
        }
        Bson::Array(values) => values.iter().for_each(|value| named(value, names)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_has_its_index_and_every_index_its_question() {
    let place = Place::new();
    let store = MongoStore::options().database(place.name()).open(place.address()).await.unwrap();
    fill(&store).await;
    let database = Client::with_uri_str(place.address()).await.unwrap().database(place.name());
    database.run_command(doc! { "profile": 2 }).await.unwrap();
    ask(&store).await;
    database.run_command(doc! { "profile": 0 }).await.unwrap();

    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let profile = database.collection::<Document>("system.profile");
    let entries: Vec<Document> = profile.find(doc! {}).await.unwrap().try_collect().await.unwrap();
    assert!(entries.len() > 50, "{} questions", entries.len());
    for entry in &entries {
        let (space, plan) = (entry.get_str("ns").unwrap(), entry.get_str("planSummary").unwrap_or_default());
        assert!(!plan.contains("COLLSCAN"), "no index for {entry:#?}");
        // What is looked at is what is answered, or little more.
        let number = |field: &str| entry.get(field).and_then(|n| n.as_i64().or(n.as_i32().map(i64::from))).unwrap_or(0);
        let examined = number("docsExamined");
        assert!(
            examined <= number("nreturned") + number("ndeleted") + number("nMatched") + 20,
            "{examined} for {entry:#?}"
        );
        let collection = space.split_once('.').unwrap().1.to_owned();
        named(&Bson::Document(entry.clone()), used.entry(collection).or_default());
    }
    for (collection, used) in &used {
        let names = database.collection::<Document>(collection).list_index_names().await.unwrap_or_default();
        for name in names.iter().filter(|name| *name != "_id_") {
            assert!(used.contains(name), "nobody asks by {collection}.{name}; asked was by {used:?}");
        }
    }
    assert!(used.len() >= 9, "{used:?}");
}
