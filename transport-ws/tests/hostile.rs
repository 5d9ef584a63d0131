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
use cmdexec_core::token::{UserClaims, WorkerClaims};
use cmdexec_transport_ws::server::{Options, PATH, Subject};
use futures_util::SinkExt;
use serde_json::json;
use support::{Bare, World, now, unlimited};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Bytes, Message};

fn quick() -> Options {
    let mut options = unlimited();
    options.auth_timeout = Duration::from_millis(300);
    options.ping_interval = Duration::from_millis(200);
    options.write_timeout = Duration::from_millis(400);
    options
}

fn request(world: &World, protocols: Option<&str>) -> http::Request<()> {
    let mut request = format!("ws://{}{PATH}", world.address).into_client_request().unwrap();
    if let Some(protocols) = protocols {
        request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_token_may_come_in_either_header_as_a_subprotocol_or_first() {
    let world = World::start().await;
    let (user, worker) = (world.user_token("ada", Role::User), world.worker_token(Some("w")));
    for (header, value, who, name) in [
        ("x-worker-token", worker.clone(), "worker", "w"),
        ("authorization", format!("Bearer {worker}"), "worker", "w"),
        ("authorization", format!("bearer {user}"), "user", "ada"),
        ("sec-websocket-protocol", format!("cmdexec.v1, cmdexec.token.{user}"), "user", "ada"),
    ] {
        let welcome = world.bare(header, &value).await.next().await;
        assert_eq!((&welcome["body"]["as"], &welcome["body"]["name"]), (&json!(who), &json!(name)), "{header}");
    }
    let mut late = Bare::open(request(&world, Some("cmdexec.v1"))).await;
    late.say(&json!({ "type": "auth", "body": { "token": user } })).await;
    assert_eq!(late.next().await["type"], "welcome");
}

#[tokio::test]
async fn whoever_shows_no_good_token_is_closed_with_a_code() {
    let world = World::with(quick()).await;
    let other = cmdexec_core::token::Keys::new("x".repeat(40).as_str(), "y".repeat(40).as_str()).unwrap();
    let forged = other.mint_worker(&WorkerClaims::new(None, now()));
    let old = WorkerClaims { expires: now().before(Duration::from_secs(60)), ..WorkerClaims::new(None, now()) };
    let old = world.keys.mint_worker(&old);
    let user = world.user_token("ada", Role::User);
    for (token, code) in [("", 4401), ("x", 4401), (forged.as_str(), 4401), (user.as_str(), 4401), (old.as_str(), 4410)]
    {
        assert_eq!(world.bare("x-worker-token", token).await.closed().await.0, code, "{token:.20}");
    }
    // Silent, talkative, and in a hurry.
    assert_eq!(Bare::open(request(&world, None)).await.closed().await.0, 4401);
    for first in [json!({ "type": "heartbeat", "id": 1 }), json!({ "type": "auth" }), json!([]), json!("x")] {
        let mut bare = Bare::open(request(&world, None)).await;
        bare.say(&first).await;
        assert_eq!(bare.closed().await.0, 4401, "{first}");
    }
    assert_eq!(world.server.sockets(), 0);
}

#[tokio::test]
async fn versions_are_agreed_on_or_the_socket_is_closed() {
    let world = World::start().await;
    let token = world.user_token("ada", Role::User);
    let open = async |protocols: &str| {
        let mut request = request(&world, Some(protocols));
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    };
    let (socket, response) =
        tokio_tungstenite::connect_async(open("cmdexec.v9, cmdexec.v1, other").await).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "cmdexec.v1");
    assert_eq!(Bare(socket).next().await["body"]["version"], 1);
    let bytes =
        raw(&world, &format!("Authorization: Bearer {token}\r\nSec-WebSocket-Protocol: cmdexec.v9\r\n"), &[]).await;
    assert!(bytes.windows(2).any(|pair| pair == 4406_u16.to_be_bytes()), "{:?}", String::from_utf8_lossy(&bytes));
}

/// Sends a handshake with these headers and then bytes; everything that comes until the other end closes.
async fn raw(world: &World, headers: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let handshake = format!(
        "GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    stream.write_all(handshake.as_bytes()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await;
    let _ = read.expect("the connection stays open");
    all
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
        let bytes = raw(&world, &format!("x-worker-token: {token}\r\n"), frame).await;
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
    support_until(|| world.server.sockets() == 0).await;
    assert_eq!(world.bare("x-worker-token", &token).await.next().await["type"], "welcome");
}

async fn support_until(is_so: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain");
}

#[tokio::test]
async fn a_token_that_expires_closes_its_socket_then() {
    let clock = cmdexec_core::time::ManualClock::at(now());
    let store = cmdexec_core::store::MemoryStore::new();
    let coordinator = cmdexec_core::coordinator::Coordinator::builder(store).build().await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let services = std::sync::Arc::new(coordinator);
    let world = World::by(listener, services, unlimited(), std::sync::Arc::new(clock.clone()));
    let expires = now().after(Duration::from_secs(100));
    let claims = UserClaims { expires, ..UserClaims::new("ada".parse().unwrap(), Role::User, now()) };
    let mut bare = world.bare("authorization", &format!("Bearer {}", world.keys.mint_user(&claims))).await;
    assert_eq!(bare.next().await["type"], "welcome");
    clock.advance(Duration::from_secs(100));
    assert_eq!(bare.ask("stats", 1, json!({})).await["type"], "ok", "within the leeway");
    clock.advance(Duration::from_secs(31));
    assert_eq!(bare.closed().await.0, 4410);
}

#[tokio::test]
async fn revoked_credentials_close_their_sockets_and_no_others() {
    let world = World::start().await;
    let (mut gone, mut here) = (world.bare_worker("gone").await, world.bare_worker("here").await);
    assert_eq!(world.server.revoke(&Subject::Worker("gone".parse().unwrap())), 1);
    assert_eq!(gone.closed().await.0, 4403);
    assert_eq!(here.ask("drain", 1, json!({})).await["type"], "ok");
}

#[tokio::test]
async fn a_peer_that_is_gone_without_a_word_is_cut_within_two_intervals() {
    let world = World::with(quick()).await;
    // It answers no ping, because it does not read.
    let bare = world.bare_worker("w").await;
    let begun = tokio::time::Instant::now();
    support_until(|| world.server.sockets() == 0).await;
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(200), "{took:?}");
    drop(bare);
    // One that reads, and so answers pings, stays.
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
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let handshake = format!(
        "GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-worker-token: {token}\r\n\r\n"
    );
    stream.write_all(handshake.as_bytes()).await.unwrap();
    support_until(|| world.server.sockets() == 1).await;
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
    let world = World::with(quick()).await;
    let mut deaf = world.bare_user("deaf").await;
    let spec = json!({ "command": "x".repeat(60_000) });
    let submitted = deaf.ask("submit", 1, json!({ "jobs": [spec] })).await;
    let id = submitted["body"]["jobs"][0]["jobId"].clone();
    // It asks for much, and for its life, and reads nothing of it.
    for n in 2..2_000 {
        let ask = json!({ "type": "get", "id": n, "body": { "jobIds": vec![&id; 64] } });
        let ping = deaf.0.feed(Message::Ping(Bytes::new()));
        if tokio::time::timeout(Duration::from_millis(200), ping).await.is_err() {
            break;
        }
        let said = tokio::time::timeout(Duration::from_millis(200), deaf.0.send(Message::text(ask.to_string()))).await;
        if !matches!(said, Ok(Ok(()))) {
            break;
        }
    }
    let mut other = world.bare_user("other").await;
    assert_eq!(other.ask("stats", 1, json!({})).await["type"], "ok");
    drop(other);
    support_until(|| world.server.sockets() == 0).await;
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
        let mut request = request(&world, None);
        request.headers_mut().insert("x-worker-token", token.parse().unwrap());
        request.headers_mut().insert("x-forwarded-for", address.parse().unwrap());
        let mut bare = Bare::open(request).await;
        let body = json!({ "hostname": "h", "cpuCount": 1, "totalMemoryMb": 1 });
        let answer = bare.ask("register", 1, body).await;
        assert_eq!(answer["type"], expected, "{address}: {answer}");
    }
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
    let mut bare = world.bare_worker("w").await;
    let body = json!({ "workerId": "w", "hostname": "h", "cpuCount": 1, "totalMemoryMb": 1 });
    assert_eq!(bare.ask("register", 1, body).await["type"], "ok");
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
    let mut silent = Bare::open(request(&world, None)).await;
    let closing = world.server.clone();
    let closing = tokio::spawn(async move { closing.close(Duration::from_secs(4)).await });
    assert_eq!(silent.closed().await.0, 1001);
    assert_eq!(closing.await.unwrap(), 0);
}

#[tokio::test]
async fn credits_add_up_however_they_come() {
    let world = World::start().await;
    let ada = world.user("ada", Role::User);
    let mut bare = world.bare_worker("w").await;
    let body = json!({ "workerId": "w", "hostname": "h", "cpuCount": 1, "totalMemoryMb": 1 });
    assert_eq!(bare.ask("register", 1, body).await["type"], "ok");
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
