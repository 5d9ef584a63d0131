//! What a store says of databases that it can't use.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use cmdexec_core::store::{ErrorKind, Store};
use cmdexec_store_mongo::MongoStore;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use support::Place;

async fn refusal(place: &Place) -> (ErrorKind, String) {
    let error = MongoStore::options().database(place.name()).open(place.address()).await.unwrap_err();
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn another_program_s_jobs_are_refused_and_left_alone() {
    let place = Place::new();
    let database = Client::with_uri_str(place.address()).await.unwrap().database(place.name());
    database.collection::<Document>("jobs").insert_one(doc! { "command": "true" }).await.unwrap();
    let (kind, what) = refusal(&place).await;
    assert!(kind == ErrorKind::Invalid && what.contains("MONGODB_DB"), "{what}");
    assert_eq!(database.list_collection_names().await.unwrap(), ["jobs"]);
}

#[tokio::test]
async fn a_newer_version_s_database_is_refused() {
    let place = Place::new();
    let database = Client::with_uri_str(place.address()).await.unwrap().database(place.name());
    database.collection::<Document>("meta").insert_one(doc! { "_id": "schema", "version": 99 }).await.unwrap();
    let (kind, what) = refusal(&place).await;
    assert!(kind == ErrorKind::Invalid && what.contains("version 99"), "{what}");
}

#[tokio::test]
async fn wrong_addresses_are_told_from_servers_that_are_away() {
    assert_eq!(MongoStore::open("mysql://here").await.unwrap_err().kind(), ErrorKind::Invalid);
    let away = "mongodb://127.0.0.1:1/?replicaSet=rs0&serverSelectionTimeoutMS=200";
    let kind = MongoStore::open(away).await.unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::Unavailable { .. }), "{kind:?}");
}

#[tokio::test]
async fn many_may_open_a_new_database_at_once() {
    let place = Place::new();
    let open = || MongoStore::options().database(place.name()).open(place.address());
    let stores = futures_util::future::join_all((0..6).map(|_| open())).await;
    for store in stores {
        assert!(store.unwrap().classes().await.unwrap().is_empty());
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_server_that_is_no_member_of_a_replica_set_is_refused() {
    let alone = support::set::Set::alone();
    let address = format!("mongodb://{}/?directConnection=true", alone.members[0].address);
    let (kind, what) = loop {
        let error = MongoStore::open(&address).await.unwrap_err();
        if !error.is_retryable() {
            break (error.kind(), error.to_string());
        }
    };
    assert!(kind == ErrorKind::Invalid && what.contains("--replSet"), "{what}");
    let database = Client::with_uri_str(&address).await.unwrap().database("cmdexec");
    assert!(database.list_collection_names().await.unwrap().is_empty(), "something was made there");
}
