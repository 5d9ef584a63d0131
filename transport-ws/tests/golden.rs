//! What travels, held still: old and new ends must understand each other. A changed line is a changed protocol.
//!
//! `GOLDEN=write` writes down what comes now, to be looked at.
#![allow(clippy::result_large_err, reason = "the handshake callback's type is the library's")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::coordinator::{Coordinator, Options};
use cmdexec_core::executor::{Capabilities, Kind, Limit, Stream};
use cmdexec_core::files::{FileId, Files};
use cmdexec_core::id::{JobId, LeaseToken, WorkerId};
use cmdexec_core::job::{Details, JobSpec, Outcome, Status};
use cmdexec_core::service::{
    Cursor, FinalOutput, FinishedAttempt, Heartbeat, JobQuery, JobService, LeaseRequest, OutputBatch, OutputPieces,
    OutputQuery, Registration, Role, Submission, Usage, WatchQuery, WorkerService, WorkerStatus,
};
use cmdexec_core::store::{Chunk, Listed, MemoryStore};
use cmdexec_core::time::{Clock, ManualClock, Timestamp};
use cmdexec_core::token::{UserClaims, WorkerClaims};
use cmdexec_transport_ws::Client;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use support::{Bare, World, quick, unlimited};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

const SESSION: &str = "../docs/push-session.txt";
const CLIENT: &str = "tests/golden/client.txt";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Compares with a file, or writes it.
fn golden(name: &str, text: &str) {
    if std::env::var_os("GOLDEN").is_some_and(|what| what == "write") {
        std::fs::write(file(name), text).unwrap();
    }
    let kept = std::fs::read_to_string(file(name)).unwrap_or_default();
    for (n, (kept, now)) in kept.lines().zip(text.lines()).enumerate() {
        assert_eq!(kept, now, "{name}:{}", n + 1);
    }
    assert_eq!(kept.lines().count(), text.lines().count());
}

/// A binary message as its line says it: its id, its document, and its bytes as a text.
fn binary(id: u64, document: &str, bytes: &[u8]) -> String {
    format!("binary {id} {document} + {}", json!(String::from_utf8_lossy(bytes)))
}

/// The id, the document and the bytes of a binary message.
fn unpacked(message: &[u8]) -> (u64, &str, &[u8]) {
    let (id, packed) = message.split_first_chunk().unwrap();
    let (length, rest) = packed.split_first_chunk().unwrap();
    let (document, bytes) = rest.split_at(u32::from_be_bytes(*length) as usize);
    (u64::from_be_bytes(*id), std::str::from_utf8(document).unwrap(), bytes)
}

/// The message that a line says.
fn message(line: &str) -> Message {
    let Some(line) = line.strip_prefix("binary ") else { return Message::text(line.to_owned()) };
    let (id, packed) = line.split_once(' ').unwrap();
    let (document, bytes) = packed.split_once(" + ").unwrap();
    let (id, length) = (id.parse::<u64>().unwrap(), u32::try_from(document.len()).unwrap());
    let bytes: String = serde_json::from_str(bytes).unwrap();
    Message::binary([&id.to_be_bytes()[..], &length.to_be_bytes(), document.as_bytes(), bytes.as_bytes()].concat())
}

/// A socket, and what came in a message of several events and was not looked at yet.
struct End {
    bare: Bare,
    events: VecDeque<String>,
}

impl End {
    fn new(bare: Bare) -> Self {
        Self { bare, events: VecDeque::new() }
    }

    /// The line of the next message; of several events, of one.
    async fn next(&mut self) -> String {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            match self.bare.message().await {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if message["type"] != "event" {
                        return message.to_string();
                    }
                    for event in message["body"]["events"].as_array().unwrap() {
                        let alone = json!({ "type": "event", "id": message["id"], "body": { "events": [event] } });
                        self.events.push_back(alone.to_string());
                    }
                }
                Message::Binary(message) => {
                    let (id, document, mut bytes) = unpacked(&message);
                    let document: Value = serde_json::from_str(document).unwrap();
                    for event in document["events"].as_array().unwrap() {
                        let length = event["length"].as_u64().unwrap_or(0).try_into().unwrap();
                        let (own, rest) = bytes.split_at(length);
                        self.events.push_back(binary(id, &json!({ "events": [event] }).to_string(), own));
                        bytes = rest;
                    }
                }
                Message::Close(Some(frame)) => return format!("closed {} {}", u16::from(frame.code), frame.reason),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_session_is_replayed_word_for_word() {
    // With a clock that stands still and chance that repeats itself, every answer is the same each time.
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(Arc::new(clock.clone()));
    let mut options = Options::default();
    options.output_cap = 256 * 1024;
    let coordinator = Coordinator::builder(store).options(options).clock(Arc::new(clock.clone())).seed(1);
    let coordinator = Arc::new(coordinator.files(Files::in_memory()).build().await.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::by(listener, coordinator, unlimited(), Arc::new(clock.clone()));
    let user = world.tokens.keys.mint_user(&UserClaims::new("ada".parse().unwrap(), Role::User, clock.now()));
    let worker = world.tokens.keys.mint_worker(&WorkerClaims::new(Some("w1".parse().unwrap()), clock.now()));
    let bearer = format!("Bearer {user}");
    let mut ends = HashMap::new();
    for (name, headers) in [
        ("worker", &[("x-worker-token", worker.as_str())][..]),
        ("user", &[("authorization", &bearer)]),
        ("watcher", &[("authorization", &bearer)]),
        ("page", &[]),
    ] {
        ends.insert(name, End::new(Bare::open(world.request(headers)).await));
    }
    let mut known = HashMap::from([("$ada", user), ("$page", "x".repeat(60_000))]);
    let session = std::fs::read_to_string(file(SESSION)).unwrap();
    let mut played = String::new();
    let mut ending = None;
    for line in session.lines() {
        if let Some((name, said)) = line.split_once("> ").filter(|(name, _)| ends.contains_key(name)) {
            let meant = known.iter().fold(said.to_owned(), |text, (name, value)| text.replace(name, value));
            ends.get_mut(name).unwrap().bare.0.send(message(&meant)).await.unwrap();
            // A later job stands where the first did, so the text is kept as it was meant.
            let _ = writeln!(played, "{name}> {said}");
        } else if let Some((name, _)) = line.split_once("< ").filter(|(name, _)| ends.contains_key(name)) {
            let heard = ends.get_mut(name).unwrap().next().await;
            if name == "worker"
                && let Some(lease) = serde_json::from_str::<Value>(&heard).ok().as_ref().and_then(pushed)
            {
                known.insert("$job", lease["jobId"].as_str().unwrap().to_owned());
                known.insert("$token", lease["leaseToken"].as_str().unwrap().to_owned());
            }
            let _ = writeln!(played, "{name}< {}", heard.replace(&known["$page"], "$page"));
        } else {
            if line == "! the server ends" {
                let server = world.server.clone();
                ending = Some(tokio::spawn(async move { server.close(Duration::from_secs(5)).await }));
            }
            let _ = writeln!(played, "{line}");
        }
    }
    golden(SESSION, &played);
    drop(ends);
    assert_eq!(ending.expect("the session has an end").await.unwrap(), 0);
}

/// The first lease of `jobs`.
fn pushed(message: &Value) -> Option<&Value> {
    (message["type"] == "jobs").then(|| &message["body"]["jobs"][0])
}

fn job() -> JobId {
    JobId::from_bytes([1; 16])
}

fn token() -> LeaseToken {
    LeaseToken::from_bits(7)
}

/// A server that answers next to nothing with what makes sense: its answers to what a client says.
fn answers(text: &str) -> Vec<Message> {
    let said: Value = serde_json::from_str(text).unwrap();
    let (kind, id) = (said["type"].as_str().unwrap(), &said["id"]);
    let refusal = json!({ "type": "error", "id": id, "body": { "code": "job_not_found" } });
    let answers = match kind {
        // Before the credits were taken back, a job came for one.
        "drain" => {
            let lease = json!({
                "jobId": job(), "leaseToken": token(), "attempt": 1, "command": "true",
                "leaseTtlMs": 60_000, "leaseExpiresAt": "2026-01-01T00:01:00.000Z",
            });
            vec![json!({ "type": "jobs", "body": { "workerId": "w1", "jobs": [lease] } }), refusal]
        }
        // Of all jobs there is something to hear.
        "subscribe" if said["body"]["jobId"].is_null() => {
            let at = "2026-01-01T00:00:00.000Z";
            let event = json!({ "event": "status", "jobId": job(), "status": "queued", "version": 0, "at": at });
            let events = json!({ "type": "event", "id": id, "body": { "events": vec![event; 32] } });
            vec![json!({ "type": "ok", "id": id, "body": {} }), events]
        }
        "more" | "unsubscribe" => Vec::new(),
        _ if id.is_null() => Vec::new(),
        _ => vec![refusal],
    };
    answers.into_iter().map(|answer| Message::text(answer.to_string())).collect()
}

/// Everything that the client can say.
#[tokio::test]
async fn what_the_client_says() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let (said, mut heard) = tokio::sync::mpsc::channel::<String>(1_024);
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let callback = |request: &http::Request<()>, mut response: http::Response<()>| {
            let headers = request.headers();
            assert_eq!(
                (&headers["sec-websocket-protocol"], &headers["x-worker-token"]),
                (&"cmdexec.v1".parse().unwrap(), &"t".parse().unwrap())
            );
            response.headers_mut().insert("sec-websocket-protocol", "cmdexec.v1".parse().unwrap());
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, callback).await.unwrap();
        let welcome = json!({ "type": "welcome", "body": {
            "version": 1, "as": "worker", "expiresAt": "2026-01-02T00:00:00.000Z", "pingIntervalMs": 60_000, "of": "a newer server",
            "limits": { "messageBytes": 65_536, "messagesPerSecond": 1, "requests": 1, "requestBytes": 1 },
        } });
        socket.send(Message::text(welcome.to_string())).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            let (line, answers) = match &message {
                Message::Text(text) => (text.to_string(), answers(text)),
                Message::Binary(message) => {
                    let (id, document, bytes) = unpacked(message);
                    let bytes = String::from_utf8_lossy(bytes).replace(&"b".repeat(5_000), "$much");
                    let refusal = json!({ "type": "error", "id": id, "body": { "code": "job_not_found" } });
                    (binary(id, document, bytes.as_bytes()), vec![Message::text(refusal.to_string())])
                }
                _ => continue,
            };
            said.send(line).await.unwrap();
            for answer in answers {
                socket.send(answer).await.unwrap();
            }
        }
    });
    let mut text = String::new();
    let client = Client::builder(&url).worker_token("t").options(quick()).build().unwrap();
    let worker: WorkerId = "w1".parse().unwrap();
    let registration = Registration {
        worker: Some(worker.clone()),
        executors: Some(vec![Capabilities { kind: Kind::Process, limits: [Limit::Memory].into(), gpus: 0 }]),
        slots: Some(2),
        labels: ["gpu".to_owned()].into(),
        version: Some("1".to_owned()),
        ..Registration::new("h", 4, 8_192)
    };
    let _ = client.register(registration).await;
    let usage = Usage { status: WorkerStatus::Busy, cpu: 1.5, ram: 2.0 };
    let _ =
        client.heartbeat(&worker, Heartbeat { usage, held: Some(vec![Listed { job: job(), token: token() }]) }).await;
    let _ = client.lease(&worker, LeaseRequest { max: 3, wait: Duration::ZERO }).await;
    let _ = client.lease(&worker, LeaseRequest { max: 3, wait: Duration::from_millis(10) }).await;
    // Once it is noticed that nobody waits any more, the credits are taken back, and what came for them is given back.
    while !text.contains("\"returned\"") {
        let _ = writeln!(text, "{}", heard.recv().await.unwrap());
    }
    let chunk = |seq, bytes: Vec<u8>| Chunk { seq, stream: Stream::Stdout, bytes: bytes.into() };
    for bytes in [vec![b'a'], vec![0xFF], vec![b'b'; 5_000]] {
        let pieces = OutputPieces::Numbered(vec![chunk(3, bytes)]);
        let batch = OutputBatch { job: job(), token: Some(token()), pieces };
        let _ = client.append_output(&worker, vec![batch]).await;
    }
    let report = FinishedAttempt {
        job: job(),
        token: Some(token()),
        outcome: Outcome::Signaled { signal: 9 },
        details: Details::lasting(Duration::from_millis(12)),
        output: FinalOutput::Rest(vec![chunk(4, b"end".to_vec())]),
    };
    let _ = client.finish(&worker, vec![report]).await;
    let specs = vec![JobSpec::shell("a"), JobSpec::steps(["b", "c"])];
    let _ = client.submit_batch(Submission { specs, idempotency_key: Some("key".to_owned()) }).await;
    let _ = client.get(&[job()]).await;
    let query = JobQuery {
        status: Some(Status::Queued),
        worker: Some(worker.clone()),
        label: Some("gpu".to_owned()),
        created_after: Some(Timestamp::from_millis(0)),
        before: Some(job()),
        offset: 1,
        limit: 2,
    };
    let _ = client.list(&query).await;
    let _ = client.cancel(job()).await;
    let _ = client.stats().await;
    let _ = client.workers(None).await;
    let _ = client.workers(Some(std::slice::from_ref(&worker))).await;
    let _ = client.remove_worker(&worker).await;
    let _ = client.files(Some(FileId::from_sha256([1; 32])), 5).await;
    let _ = client.file(FileId::from_sha256([1; 32])).await;
    let _ = client.delete_file(FileId::from_sha256([1; 32])).await;
    let output = OutputQuery {
        from: Some(Cursor { attempt: 1, next: 2, bytes: 3 }),
        since: Some(Timestamp::from_millis(0)),
        tail: Some(10),
        follow: true,
        stream: Some(Stream::Stderr),
    };
    let _ = client.output(job(), output).await;
    let _ = client.watch(WatchQuery::Job(job())).await;
    let mut changes = client.watch(WatchQuery::All).await.unwrap();
    for _ in 0..32 {
        changes.next().await.unwrap().unwrap();
    }
    drop(changes);
    while !text.contains("\"unsubscribe\"") {
        let _ = writeln!(text, "{}", heard.recv().await.unwrap());
    }
    drop(client);
    assert_eq!(heard.recv().await, None);
    serving.await.unwrap();
    golden(CLIENT, &text);
}

/// Who says or hears what: `worker says ready`, and `either hears ok`.
type Messages = BTreeSet<String>;

/// The messages that the protocol's tables name.
fn documented() -> Messages {
    let protocol = std::fs::read_to_string(file("../docs/protocol.md")).unwrap();
    let (mut messages, mut table) = (Messages::new(), None);
    for line in protocol.lines() {
        let Some(first) = line.strip_prefix("| ").and_then(|row| row.split(" |").next()) else {
            // The line below a table's head belongs to it.
            table = table.filter(|_| line.starts_with('|'));
            continue;
        };
        let Some(who) = table else {
            table =
                Some(first.trim_start_matches("a ")).filter(|who| who.ends_with(" says") || who.ends_with(" hears"));
            continue;
        };
        // Every other piece stands between backticks.
        messages.extend(first.split('`').skip(1).step_by(2).map(|kind| format!("{who} {kind}")));
    }
    messages
}

/// The messages of the golden session, of which a binary one has no type.
fn played(documented: &Messages) -> Messages {
    let session = std::fs::read_to_string(file(SESSION)).unwrap();
    let message = |line: &str| {
        let (name, way, message) = match (line.split_once("> {"), line.split_once("< {")) {
            (Some((name, message)), None) => (name, "says", message),
            (_, Some((name, message))) => (name, "hears", message),
            (None, None) => return None,
        };
        let message: Value = serde_json::from_str(&format!("{{{message}")).unwrap();
        let (who, kind) = (if name == "worker" { "worker" } else { "user" }, message["type"].as_str().unwrap());
        let shared = format!("either {way} {kind}");
        Some(if documented.contains(&shared) { shared } else { format!("{who} {way} {kind}") })
    };
    session.lines().filter(|line| !line.starts_with('#')).filter_map(message).collect()
}

#[test]
fn every_message_of_the_protocol_is_held_still() {
    let documented = documented();
    let mut played = played(&documented);
    // It is the answer that the session's `levitate` is there for.
    assert!(played.remove("user says levitate"));
    assert_eq!(played, documented);
    let session = std::fs::read_to_string(file(SESSION)).unwrap();
    for part in ["worker> binary", "page< binary"] {
        assert!(session.contains(part), "{part}");
    }
    for event in ["status", "output", "gap", "reset", "end"] {
        assert!(session.contains(&format!("\"event\":\"{event}\"")), "{event}");
    }
    // The library's client says no `auth`, because it can send headers, and leaves out what need not be said.
    let client = std::fs::read_to_string(file(CLIENT)).unwrap();
    let said: BTreeSet<_> =
        client.lines().filter_map(|line| Some(line.strip_prefix("{\"type\":\"")?.split_once('"')?.0)).collect();
    let known = documented.iter().filter_map(|message| Some(message.split_once(" says ")?.1));
    assert_eq!(said, known.filter(|kind| !["auth", "started"].contains(kind)).collect());
}
