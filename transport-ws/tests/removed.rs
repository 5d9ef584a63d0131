//! What becomes of the sockets of workers that are removed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::service::{JobService, Role};
use cmdexec_core::store::{MemoryStore, Store};
use serde_json::{Value, json};
use support::{Bare, World, unlimited};

/// The sockets' server, and another coordinator over its store.
async fn two() -> (World, Coordinator) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let here = Coordinator::builder_shared(Arc::clone(&store)).build().await.unwrap();
    let there = Coordinator::builder_shared(store).build().await.unwrap();
    (World::over(Arc::new(here), unlimited()).await, there)
}

fn registration(id: &str) -> Value {
    json!({"workerId": id, "hostname": "h", "cpuCount": 1, "totalMemoryMb": 64, "slots": 1})
}

fn beat(id: &str) -> Value {
    json!({"workerId": id, "running": [], "status": "idle", "cpu": 0, "ram": 0})
}

async fn any_worker(world: &World) -> Bare {
    let mut bare = world.bare("x-worker-token", &world.worker_token(None)).await;
    assert_eq!(bare.next().await["type"], "welcome");
    bare
}

#[tokio::test]
async fn a_worker_that_is_removed_loses_its_socket_at_once_and_no_other_does() {
    let world = World::start().await;
    let (mut gone, mut here) = (world.bare_worker("gone").await, world.bare_worker("here").await);
    let mut silent = world.bare_worker("gone").await;
    for (bare, id) in [(&mut gone, "gone"), (&mut here, "here")] {
        assert_eq!(bare.ask("register", 1, registration(id)).await["type"], "ok");
    }
    // It waits for jobs, and so is told that it gets none.
    gone.say(&json!({"type": "ready", "body": {"credits": 1}})).await;
    world.user("root", Role::Admin).remove_worker(&"gone".parse().unwrap()).await.unwrap();
    for bare in [&mut gone, &mut silent] {
        assert_eq!(bare.closed().await, (4403, "the worker was removed".to_owned()));
    }
    assert_eq!(here.ask("heartbeat", 2, beat("here")).await["type"], "ok");
    assert_eq!(world.server.sockets(), 1);
    // Its token is good still: it may come, to report. To register again it may not.
    let mut again = world.bare_worker("gone").await;
    assert_eq!(again.ask("register", 1, registration("gone")).await["body"]["code"], "forbidden");
    assert_eq!(again.closed().await.0, 4403);
}

#[tokio::test]
async fn what_another_coordinator_removed_loses_its_socket_with_the_next_heartbeat() {
    let (world, other) = two().await;
    let mut bare = world.bare_worker("w").await;
    assert_eq!(bare.ask("register", 1, registration("w")).await["type"], "ok");
    other.jobs().remove_worker(&"w".parse().unwrap()).await.unwrap();
    assert_eq!(bare.ask("heartbeat", 2, beat("w")).await["body"]["code"], "forbidden", "it is answered first");
    assert_eq!(bare.closed().await.0, 4403);
}

#[tokio::test]
async fn a_socket_that_speaks_for_several_workers_closes_with_the_last() {
    let world = World::start().await;
    let mut bare = any_worker(&world).await;
    for (id, worker) in [(1, "one"), (2, "two")] {
        assert_eq!(bare.ask("register", id, registration(worker)).await["type"], "ok");
    }
    let root = world.user("root", Role::Admin);
    root.remove_worker(&"one".parse().unwrap()).await.unwrap();
    assert_eq!(bare.ask("heartbeat", 3, beat("two")).await["type"], "ok");
    root.remove_worker(&"two".parse().unwrap()).await.unwrap();
    assert_eq!(bare.closed().await.0, 4403);
}
