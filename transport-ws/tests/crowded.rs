//! As much as may be: of sockets, of what one asks at once and in a second, of requests and of credits. More waits, or is refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "how long a real peer is borne with is measured")]

mod support;

use std::time::Duration;

use cmdexec_core::job::JobSpec;
use cmdexec_core::service::{JobServiceExt, Role};
use serde_json::json;
use support::{Bare, World, unlimited, until};
use tokio_tungstenite::tungstenite::Error;

#[tokio::test]
async fn a_handshake_beyond_as_many_sockets_as_may_be_is_refused() {
    let mut options = unlimited();
    options.max_sockets = 2;
    let world = World::with(options).await;
    let mut first = world.bare_worker("w1").await;
    let second = world.bare_worker("w2").await;
    let refused = tokio_tungstenite::connect_async(world.request(&[])).await;
    let Err(Error::Http(response)) = refused else { panic!("{refused:?}") };
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    assert_eq!(first.ask("drain", 1, json!({})).await["type"], "ok");
    drop(second);
    until(|| world.server.sockets() == 1).await;
    assert_eq!(world.bare_worker("w3").await.ask("drain", 1, json!({})).await["type"], "ok");
}

#[tokio::test]
async fn as_many_sockets_as_may_be_are_open_with_a_token() {
    let mut options = unlimited();
    options.max_sockets_per_token = 2;
    let world = World::with(options).await;
    let token = world.worker_token(Some("w"));
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut bare = world.bare("x-worker-token", &token).await;
        assert_eq!(bare.next().await["type"], "welcome");
        open.push(bare);
    }
    assert_eq!(world.bare("x-worker-token", &token).await.closed().await.0, 4429);
    assert_eq!(world.bare_worker("other").await.ask("drain", 1, json!({})).await["type"], "ok");
    drop(open);
    until(|| world.server.sockets() == 0).await;
    assert_eq!(world.bare("x-worker-token", &token).await.next().await["type"], "welcome");
}

#[tokio::test]
async fn who_asks_for_much_at_once_is_read_later_and_answered() {
    for (calls, bytes) in [(1, usize::MAX), (usize::MAX, 1)] {
        let mut options = unlimited();
        (options.max_calls, options.max_call_bytes) = (calls, bytes);
        let world = World::with(options).await;
        let mut bare = world.bare_registered("w").await;
        bare.say(&json!({ "type": "ready", "id": 0, "body": { "credits": 1, "waitMs": 60_000 } })).await;
        for id in 1..100 {
            bare.say(&json!({ "type": "started", "id": id, "body": { "jobs": [] } })).await;
        }
        let nothing = tokio::time::timeout(Duration::from_millis(200), bare.next()).await;
        assert!(nothing.is_err(), "before the question is answered, nothing more is read: {nothing:?}");
        world.user("ada", Role::User).submit(JobSpec::shell("true")).await.unwrap();
        for id in 0..100 {
            let answer = bare.next().await;
            assert_eq!((&answer["id"], &answer["type"]), (&json!(id), &json!("ok")), "one after the other");
        }
    }
}

#[tokio::test]
async fn who_says_much_is_read_later_and_not_closed() {
    let mut options = unlimited();
    options.max_messages_per_second = 50;
    let world = World::with(options).await;
    let mut bare = world.bare_worker("w").await;
    let begun = tokio::time::Instant::now();
    for id in 0..120 {
        bare.say(&json!({ "type": "drain", "id": id, "body": {} })).await;
    }
    for id in 0..120 {
        assert_eq!(bare.next().await["id"], id);
    }
    assert!(begun.elapsed() > Duration::from_millis(1_500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn requests_count_against_the_limits() {
    let mut options = unlimited();
    (options.limits.jobs, options.limits.requests) = (1, 2);
    let world = World::with(options).await;
    let mut bare = world.bare_user("ada").await;
    let submit = || json!({ "jobs": [{ "command": "true" }] });
    assert_eq!(bare.ask("submit", 1, submit()).await["type"], "ok");
    assert_eq!(bare.ask("submit", 2, submit()).await["body"]["code"], "rate_limited");
    for id in 3..5 {
        assert_eq!(bare.ask("stats", id, json!({})).await["type"], "ok");
    }
    let refused = bare.ask("stats", 5, json!({})).await;
    assert!(refused["body"]["retryAfterMs"].as_u64().unwrap() > 0, "{refused}");
}

#[tokio::test]
async fn registrations_without_an_id_count_for_their_address() {
    let mut options = unlimited();
    options.limits.registrations = 1;
    let world = World::with(options).await;
    let token = world.worker_token(None);
    for (address, expected) in [("192.0.2.1", "ok"), ("192.0.2.2", "ok"), ("192.0.2.1", "error")] {
        let mut bare = Bare::open(world.request(&[("x-worker-token", &token), ("x-forwarded-for", address)])).await;
        let body = json!({ "hostname": "h", "cpuCount": 1, "totalMemoryMb": 1 });
        let answer = bare.ask("register", 1, body).await;
        assert_eq!(answer["type"], expected, "{address}: {answer}");
    }
}

#[tokio::test]
async fn credits_add_up_however_they_come() {
    let world = World::start().await;
    let ada = world.user("ada", Role::User);
    let mut bare = world.bare_registered("w").await;
    let ready = |credits: usize| json!({ "type": "ready", "body": { "credits": credits } });
    let got = async |bare: &mut Bare, count: usize| {
        let mut jobs = 0;
        while jobs < count {
            jobs += bare.next().await["body"]["jobs"].as_array().unwrap().len();
        }
        assert_eq!(jobs, count);
    };
    bare.say(&ready(1)).await;
    bare.say(&ready(2)).await;
    for _ in 0..4 {
        ada.submit(JobSpec::shell("true")).await.unwrap();
    }
    got(&mut bare, 3).await;
    // The fourth waits for another credit, and none that was taken back counts.
    assert_eq!(bare.ask("drain", 2, json!({})).await["type"], "ok");
    bare.say(&ready(1)).await;
    got(&mut bare, 1).await;
    bare.say(&ready(3)).await;
    assert_eq!(bare.ask("drain", 3, json!({})).await["type"], "ok");
    ada.submit(JobSpec::shell("true")).await.unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(200), bare.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    // 10,000 may stand, and a job uses one up.
    bare.say(&ready(9_999)).await;
    got(&mut bare, 1).await;
    bare.say(&ready(2)).await;
    assert_eq!(bare.ask("drain", 4, json!({})).await["type"], "ok");
    bare.say(&ready(9_999)).await;
    bare.say(&ready(2)).await;
    assert_eq!(bare.closed().await.0, 4400);
}
