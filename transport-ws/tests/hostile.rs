//! Peers that mean no good, or know no better: each is closed with a code that says why, and nobody else notices.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "how long a real peer is borne with is measured")]

mod support;

use std::time::Duration;

use cmdexec_core::job::JobSpec;
use cmdexec_core::service::{JobServiceExt, LeaseRequest, Registration, Role, WorkerService};
use cmdexec_core::time::ManualClock;
use cmdexec_transport_ws::server::{Options, PATH};
use futures_util::SinkExt;
use serde_json::json;
use support::{Bare, World, unlimited, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Bytes, Message};

fn quick() -> Options {
    let mut options = unlimited();
    options.auth_timeout = Duration::from_millis(300);
    options.ping_interval = Duration::from_millis(200);
    options.write_timeout = Duration::from_millis(400);
    options
}

#[tokio::test]
async fn what_is_no_message_closes_its_socket_and_no_other() {
    let world = World::start().await;
    let mut good = world.bare_worker("good").await;
    for text in [
        "",
        "x",
        "{",
        "[]",
        "{}",
        r#"{"type":1}"#,
        r#"{"type":"ready","body":{}}"#,
        r#"{"type":"heartbeat"}"#,
        r#"{"type":"ready","type":"ready"}"#,
        r#"{"type":"ready","id":-1}"#,
    ] {
        let mut bad = world.bare_worker("bad").await;
        bad.0.send(Message::text(text)).await.unwrap();
        assert_eq!(bad.closed().await.0, 4400, "{text}");
    }
    let mut bad = world.bare_user("bad").await;
    bad.0.send(Message::binary(vec![0; 64])).await.unwrap();
    assert_eq!(bad.closed().await.0, 4400);
    // A frame that is not masked, and one with bits that mean nothing here: compression was not agreed on.
    let token = world.worker_token(Some("bad"));
    for (frame, code) in [
        (&[0x81, 0x00][..], 1002_u16),
        (&[0xC1, 0x80, 0, 0, 0, 0][..], 1002),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xFF][..], 1007),
    ] {
        let bytes = world.raw(&[("x-worker-token", &token)], frame).await;
        assert!(bytes.windows(2).any(|pair| pair == code.to_be_bytes()), "{frame:x?}");
    }
    let body = json!({ "workerId": "good", "hostname": "h", "cpuCount": 1, "totalMemoryMb": 1 });
    assert_eq!(good.ask("register", 1, body).await["type"], "ok");
}

#[tokio::test]
async fn what_is_wrong_in_a_message_is_said_and_the_socket_goes_on() {
    let world = World::start().await;
    let mut worker = world.bare_worker("w").await;
    let answer = worker.ask("heartbeat", 7, json!({ "status": "asleep" })).await;
    assert_eq!((&answer["type"], &answer["body"]["code"]), (&json!("error"), &json!("invalid")));
    assert_eq!(answer["body"]["problems"][0]["field"], "status");
    assert_eq!(worker.ask("levitate", 8, json!({})).await["body"]["code"], "unsupported");
    let other = json!({ "workerId": "other", "status": "idle", "cpuUsage": 0, "ramUsage": 0 });
    assert_eq!(worker.ask("heartbeat", 9, other).await["body"]["code"], "forbidden");
    // Of a newer peer: passed over.
    worker.say(&json!({ "type": "levitate" })).await;
    let mut user = world.bare_user("ada").await;
    assert_eq!(user.ask("heartbeat", 1, json!({})).await["body"]["code"], "unsupported");
    let submitted = user.ask("submit", 2, json!({ "jobs": [{ "command": "true", "timeout": -1 }] })).await;
    assert_eq!(submitted["body"]["problems"][0]["field"], "jobs[0].timeout");
}

#[tokio::test]
async fn a_message_that_is_too_large_closes_its_socket() {
    let mut options = quick();
    options.max_message = 128 * 1024;
    let world = World::with(options).await;
    let mut bad = world.bare_worker("w").await;
    let _ = bad.0.send(Message::text("x".repeat(128 * 1024 + 1))).await;
    assert_eq!(bad.closed().await.0, 1009);
}

#[tokio::test]
async fn a_peer_that_is_gone_without_a_word_is_cut_after_two_intervals() {
    const MOMENT: Duration = Duration::from_millis(1);
    let clock = ManualClock::default();
    let options = unlimited();
    let interval = options.ping_interval;
    let world = World::timed(options, &clock).await;
    let token = world.worker_token(Some("w"));
    let mut gone = world.handshake(&[("x-worker-token", &token)]).await;
    hear(&mut gone, b"\"welcome\"").await;
    clock.advance(interval * 5 / 4);
    hear(&mut gone, &[0x89, 0]).await;
    // It does not answer.
    clock.advance((interval * 3 / 4).saturating_sub(MOMENT));
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.server.sockets(), 1);
    clock.advance(MOMENT);
    hear(&mut gone, &4408_u16.to_be_bytes()).await;
    assert_eq!(world.server.sockets(), 0);
}

/// Reads until this has come.
async fn hear(stream: &mut TcpStream, what: &[u8]) {
    let mut heard = Vec::new();
    while !heard.windows(what.len()).any(|piece| piece == what) {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_buf(&mut heard)).await;
        assert!(read.expect("nothing came").unwrap() > 0, "{:?}", String::from_utf8_lossy(&heard));
    }
}

#[tokio::test]
async fn a_peer_that_answers_pings_stays() {
    let world = World::with(quick()).await;
    let mut bare = world.bare_worker("w").await;
    let _ = tokio::time::timeout(Duration::from_millis(1_500), bare.message_or_ping()).await;
    assert_eq!(world.server.sockets(), 1);
}

trait Pings {
    async fn message_or_ping(&mut self);
}

impl Pings for Bare {
    async fn message_or_ping(&mut self) {
        loop {
            let message = self.message().await;
            assert!(matches!(message, Message::Ping(_) | Message::Pong(_)), "{message:?}");
        }
    }
}

#[tokio::test]
async fn a_message_that_trickles_is_cut() {
    let world = World::with(quick()).await;
    let token = world.worker_token(Some("slow"));
    let mut stream = world.handshake(&[("x-worker-token", &token)]).await;
    until(|| world.server.sockets() == 1).await;
    // The head of a text of 1,000 bytes, and then one byte at a time.
    stream.write_all(&[0x81, 0xFE, 0x03, 0xE8, 0, 0, 0, 0]).await.unwrap();
    for _ in 0..200 {
        if stream.write_all(b"x").await.is_err() || world.server.sockets() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.server.sockets(), 0);
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_cut_and_holds_up_nobody() {
    // As long as this clock stands still, the deaf peer is not cut.
    let clock = ManualClock::default();
    let options = unlimited();
    let write_timeout = options.write_timeout;
    let world = World::timed(options, &clock).await;
    let mut deaf = world.bare_user("deaf").await;
    let spec = json!({ "command": "x".repeat(60_000) });
    let submitted = deaf.ask("submit", 1, json!({ "jobs": [spec] })).await;
    let id = submitted["body"]["jobs"][0]["jobId"].clone();
    let mut other = world.bare_user("other").await;
    // It asks for much, and for its life, and reads nothing of it.
    let mut is_stuck = false;
    for n in 2..2_000 {
        let ask = json!({ "type": "get", "id": n, "body": { "jobIds": vec![&id; 64] } });
        let said = async {
            deaf.0.feed(Message::Ping(Bytes::new())).await?;
            deaf.0.send(Message::text(ask.to_string())).await
        };
        is_stuck = tokio::time::timeout(Duration::from_millis(200), said).await.is_err();
        if is_stuck {
            break;
        }
        prompt(&mut other).await;
    }
    assert!(is_stuck);
    for _ in 0..100 {
        prompt(&mut other).await;
        assert_eq!(world.server.sockets(), 2, "the deaf one's is still open");
    }
    // It may have taken something in the first time that it had.
    for _ in 0..2 {
        clock.advance(write_timeout);
        prompt(&mut other).await;
    }
    until(|| world.server.sockets() == 1).await;
    prompt(&mut other).await;
}

/// A peer is answered at once.
async fn prompt(peer: &mut Bare) {
    let answer = tokio::time::timeout(Duration::from_secs(2), peer.ask("stats", 1, json!({}))).await;
    assert_eq!(answer.expect("it waits for another")["type"], "ok");
}

#[tokio::test]
async fn what_is_no_handshake_is_told_so() {
    let world = World::start().await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
}

#[tokio::test]
async fn a_removed_workers_credits_are_void() {
    let world = World::start().await;
    let worker = world.worker(Some("w"));
    let id = "w".parse().unwrap();
    worker.register(Registration { worker: Some(id), ..Registration::new("h", 1, 1) }).await.unwrap();
    let id = "w".parse().unwrap();
    let request = LeaseRequest { max: 1, wait: Duration::from_secs(30) };
    let waiting = tokio::spawn({
        let worker = worker.clone();
        async move { worker.lease(&"w".parse().unwrap(), request).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    cmdexec_core::service::JobService::remove_worker(&world.user("root", Role::Admin), &id).await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(cmdexec_core::Error::Forbidden(_))));
    world.user("ada", Role::User).submit(JobSpec::shell("true")).await.unwrap();
    assert!(matches!(worker.lease(&id, request).await, Err(cmdexec_core::Error::Forbidden(_))));
}

#[tokio::test]
async fn a_peer_that_is_not_read_is_pinged_all_the_same_and_not_taken_for_gone() {
    let mut options = quick();
    options.max_calls = 1;
    let world = World::with(options).await;
    let mut bare = world.bare_registered("w").await;
    // A question that waits for five intervals, and is all that may be under way.
    bare.say(&json!({ "type": "ready", "id": 2, "body": { "credits": 1, "waitMs": 1_000 } })).await;
    let mut pings = 0;
    loop {
        match bare.message().await {
            Message::Ping(_) => pings += 1,
            Message::Text(text) => {
                assert!(text.contains("\"jobs\":[]"), "{text}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(pings >= 2, "{pings}");
}

#[tokio::test]
async fn a_server_that_ends_does_not_wait_for_those_who_have_not_said_who_they_are() {
    let world = World::start().await;
    let mut silent = Bare::open(world.request(&[])).await;
    let closing = world.server.clone();
    let closing = tokio::spawn(async move { closing.close(Duration::from_secs(4)).await });
    assert_eq!(silent.closed().await.0, 1001);
    assert_eq!(closing.await.unwrap(), 0);
}
