//! A job's output to the byte: what is no text, what is lost, where to begin, and readers that do not read.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cmdexec_core::service::{JobService, OutputEvent, OutputQuery, Role};
use cmdexec_core::time::{Clock, SystemClock};
use futures_util::StreamExt;
use http::Method;
use serde_json::{Value, json};
use support::running::Running;
use support::{World, send, unlimited};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The events of a stream that was read to its end: their names and data.
fn events(text: &str) -> Vec<(&str, Value)> {
    text.split("\n\n")
        .filter_map(|event| {
            let get = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            Some((get("event: ")?, serde_json::from_str(get("data: ")?).unwrap()))
        })
        .collect()
}

#[tokio::test]
async fn a_character_in_two_pieces_is_neither_cut_nor_replaced() {
    let mut running = Running::start().await;
    let world = World::over(running.services(), unlimited()).await;
    let written: [&[u8]; 5] = ["naïve ".as_bytes(), &[0xe2, 0x82], &[0xac], b"\x1b[31mred\x1b[0m\n", &[0xff, 0x00]];
    for piece in written {
        running.write(piece).await;
    }
    running.end().await;
    let path = format!("/api/jobs/logs?jobId={}&follow=true", running.leased.job);
    let text = world.user(Method::GET, &path, None).await.text;
    assert!(!text.contains('\u{fffd}'), "{text}");
    let events = events(&text);
    let output = |data: &str, value: &str| ("output", json!({"stream": "stdout", data: value}));
    assert_eq!(
        events[..5],
        [
            output("data", "naïve "),
            output("dataBase64", &STANDARD.encode([0xe2, 0x82])),
            output("dataBase64", &STANDARD.encode([0xac])),
            output("data", "\x1b[31mred\x1b[0m\n"),
            output("dataBase64", &STANDARD.encode([0xff, 0x00])),
        ]
    );
    let raw =
        world.request(Method::GET, &path.replace("&follow=true", "")).bearer_auth(world.user_token("ada", Role::User));
    assert_eq!(raw.send().await.unwrap().bytes().await.unwrap(), written.concat());
    let client = world.client("ada", Role::User);
    let events: Vec<_> = client.output(running.leased.job, OutputQuery::default()).await.unwrap().collect().await;
    let bytes = events.into_iter().filter_map(|event| match event.unwrap() {
        OutputEvent::Chunk { bytes, .. } => Some(bytes),
        _ => None,
    });
    assert_eq!(bytes.collect::<Vec<_>>().concat(), written.concat());
}

#[tokio::test]
async fn bytes_come_as_they_are_in_a_body_of_their_own_type() {
    let running = Running::start().await;
    let world = World::over(running.services(), unlimited()).await;
    let (job, token) = (running.leased.job, running.leased.token.reveal());
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let lost = "00000000000000000000000000000000";
    let document = json!({ "workerId": running.me, "batches": [
        { "jobId": job, "leaseToken": token, "chunks": [
            { "seq": 0, "stream": "stdout", "length": 60_000 }, { "seq": 1, "stream": "stderr", "length": 39_000 },
        ] },
        { "jobId": job, "leaseToken": lost, "chunks": [{ "seq": 2, "stream": "stdout", "length": 500 }] },
        { "jobId": job, "leaseToken": token, "chunks": [{ "seq": 2, "stream": "stdout", "length": 500 }] },
    ] })
    .to_string();
    let length = u32::try_from(document.len()).unwrap().to_be_bytes();
    let request = || {
        let request = world.request(Method::POST, "/api/jobs/stream-output");
        let request = request.header("x-worker-token", world.worker_token(None));
        let request = request.header("content-type", "application/vnd.cmdexec.output");
        request.body([&length[..], document.as_bytes(), &bytes].concat())
    };
    // The second time changes nothing.
    for _ in 0..2 {
        let answer = send(request()).await;
        answer.ok(200);
        let oks: Vec<_> = answer.body["batches"].as_array().unwrap().iter().map(|batch| batch["ok"].clone()).collect();
        assert_eq!(oks, [true, false, true], "{}", answer.text);
    }
    let path = format!("/api/jobs/logs?jobId={job}");
    let raw = world.request(Method::GET, &path).bearer_auth(world.user_token("ada", Role::User));
    let kept = raw.send().await.unwrap().bytes().await.unwrap();
    assert_eq!(kept, [&bytes[..99_000], &bytes[99_500..]].concat());
}

#[tokio::test]
async fn what_is_lost_is_told_by_everything_that_shows_output() {
    let mut running = Running::with(|options| options.output_cap = 256 << 10).await;
    let world = World::over(running.services(), unlimited()).await;
    let path = format!("/api/jobs/logs?jobId={}", running.leased.job);
    assert!(!world.user(Method::GET, &path, None).await.headers.contains_key("x-dropped-bytes"));
    for letter in b'a'..=b'z' {
        running.write(vec![letter; 32 << 10]).await;
    }
    running.end().await;
    let job = world.user(Method::GET, &format!("/api/jobs/status?jobId={}", running.leased.job), None).await.body;
    let dropped = job["droppedBytes"].as_u64().unwrap();
    assert_eq!(job["truncated"], true);
    let raw = world.user(Method::GET, &path, None).await;
    assert_eq!(raw.headers["x-dropped-bytes"], dropped.to_string());
    assert_eq!(raw.text.len() as u64 + dropped, 26 * (32 << 10));
    let text = world.user(Method::GET, &format!("{path}&follow=true"), None).await.text;
    let gaps: Vec<_> = events(&text).into_iter().filter(|(name, _)| *name == "gap").collect();
    assert_eq!(gaps, [("gap", json!({ "bytes": dropped }))]);
    let client = world.client("ada", Role::User);
    let events: Vec<_> = client.output(running.leased.job, OutputQuery::default()).await.unwrap().collect().await;
    let is_gap = |event: &_| matches!(event, Ok(OutputEvent::Gap { bytes, .. }) if *bytes == dropped);
    assert_eq!(events.iter().filter(|event| is_gap(event)).count(), 1);
}

#[tokio::test]
async fn output_is_asked_for_by_time_and_lines() {
    let mut running = Running::start().await;
    let world = World::over(running.services(), unlimited()).await;
    running.write("one\ntwo\n").await;
    let path = format!("/api/jobs/logs?jobId={}", running.leased.job);
    let get = async |query: &str| world.user(Method::GET, &format!("{path}{query}"), None).await;
    assert_eq!(get("&tail=1").await.text, "two\n");
    assert_eq!(get("&since=2020-01-01T00:00:00Z").await.text, "one\ntwo\n");
    let soon = SystemClock.now().after(Duration::from_secs(600));
    assert_eq!(get(&format!("&since={soon}")).await.text, "");
    for (query, field) in [
        ("&since=yesterday", "since"),
        ("&since=1.2", "since"),
        ("&tail=-1", "tail"),
        ("&tail=100001", "tail"),
        ("&tail=x", "tail"),
    ] {
        assert_eq!(get(query).await.refused(422, "invalid").fields(), [field], "{query}");
    }
    running.end().await;
    let client = world.client("ada", Role::User);
    let query = OutputQuery { tail: Some(1), follow: true, ..OutputQuery::default() };
    let events: Vec<_> = client.output(running.leased.job, query).await.unwrap().collect().await;
    assert!(matches!(&events[0], Ok(OutputEvent::Chunk { bytes, .. }) if bytes == "two\n"));
    let query = OutputQuery { since: Some(soon), ..OutputQuery::default() };
    let events: Vec<_> = client.output(running.leased.job, query).await.unwrap().collect().await;
    assert_eq!(events.len(), 1);
}

/// A reader that stops reading is cut off, and what it has of the stream says where to go on.
#[tokio::test]
async fn a_follower_that_does_not_read_is_cut_off_and_can_resume() {
    let mut running = Running::with(|options| options.output_cap = 64 << 20).await;
    let mut options = unlimited();
    options.write_timeout = Duration::from_millis(300);
    let world = World::over(running.services(), options).await;
    let token = world.user_token("ada", Role::User);
    let path = format!("/api/jobs/logs?jobId={}&follow=true", running.leased.job);
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // More than the sockets between the two hold, of which nothing is read.
    let mut written = Vec::new();
    for n in 0..256_u32 {
        let piece = vec![b'a' + u8::try_from(n % 26).unwrap(); 64 << 10];
        running.write(&piece).await;
        written.extend_from_slice(&piece);
    }
    running.end().await;
    // Nothing is read for as long as the server still holds the connection.
    let port = stream.local_addr().unwrap().port();
    let cut_off = async {
        while is_held(world.address.port(), port) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), cut_off).await.expect("it was not cut off");
    let mut received = Vec::new();
    // It ends with a reset, or the end of the file; either way in the middle.
    let _ = stream.read_to_end(&mut received).await;
    let received = String::from_utf8(received).unwrap();
    assert!(!received.contains("event: end"));
    let whole = received.rfind("\n\n").unwrap_or(0);
    let (_, id) = received[..whole].rsplit_once("id: ").unwrap();
    let id = id.lines().next().unwrap();
    let bytes: usize = id.rsplit_once('.').unwrap().1.parse().unwrap();
    assert!(bytes < written.len());
    let request = world.request(Method::GET, &path).bearer_auth(&token).header("last-event-id", id);
    let rest = send(request).await.text;
    let rest: String = events(&rest).iter().filter_map(|(_, data)| data["data"].as_str()).collect();
    assert!(rest.as_bytes() == &written[bytes..]);
}

/// Whether the server's end of a connection is open, by what the kernel says.
fn is_held(server: u16, client: u16) -> bool {
    let (server, client) = (format!(":{server:04X}"), format!(":{client:04X}"));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // 01: established.
        fields.len() > 3 && fields[1].ends_with(&server) && fields[2].ends_with(&client) && fields[3] == "01"
    })
}
