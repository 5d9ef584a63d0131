//! What travels, held still: old and new ends must understand each other. A changed line is a changed protocol.
//!
//! `GOLDEN=write` writes down what comes now, to be looked at.
#![allow(clippy::result_large_err, reason = "the handshake callback's type is the library's")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::coordinator::Coordinator;
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

/// A socket, and what came in a message of several events and was not looked at yet.
struct End {
    bare: Bare,
    events: VecDeque<Value>,
}

impl End {
    /// The next message; of several events, one.
    async fn next(&mut self) -> Value {
        if let Some(event) = self.events.pop_front() {
            return event;
        }
        let message = self.bare.next().await;
        if message["type"] == "event" {
            for event in message["body"]["events"].as_array().unwrap() {
                let alone = json!({ "type": "event", "id": message["id"], "body": { "events": [event] } });
                self.events.push_back(alone);
            }
            return self.events.pop_front().unwrap();
        }
        message
    }
}

#[tokio::test]
async fn a_session_is_replayed_word_for_word() {
    const SESSION: &str = "../docs/push-session.txt";
    // With a clock that stands still and chance that repeats itself, every answer is the same each time.
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(Arc::new(clock.clone()));
    let coordinator = Coordinator::builder(store).clock(Arc::new(clock.clone())).seed(1).files(Files::in_memory());
    let coordinator = Arc::new(coordinator.build().await.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::by(listener, coordinator, unlimited(), Arc::new(clock.clone()));
    let user = UserClaims::new("ada".parse().unwrap(), Role::User, clock.now());
    let user = format!("Bearer {}", world.keys.mint_user(&user));
    let worker = world.keys.mint_worker(&WorkerClaims::new(Some("w1".parse().unwrap()), clock.now()));
    let mut ends = HashMap::new();
    for (name, header, token) in
        [("worker", "x-worker-token", &worker), ("user", "authorization", &user), ("watcher", "authorization", &user)]
    {
        ends.insert(name, End { bare: world.bare(header, token).await, events: VecDeque::new() });
    }
    let session = std::fs::read_to_string(file(SESSION)).unwrap();
    let (mut played, mut known) = (String::new(), HashMap::<&str, String>::new());
    for line in session.lines() {
        if let Some((name, said)) = line.split_once("> ").filter(|(name, _)| ends.contains_key(name)) {
            let message = known.iter().fold(said.to_owned(), |text, (name, value)| text.replace(name, value));
            ends.get_mut(name).unwrap().bare.0.send(Message::text(message.clone())).await.unwrap();
            // A later job stands where the first did, so the text is kept as it was meant.
            let _ = writeln!(played, "{name}> {said}");
        } else if let Some((name, _)) = line.split_once("< ").filter(|(name, _)| ends.contains_key(name)) {
            let heard = ends.get_mut(name).unwrap().next().await;
            if let Some(lease) = heard["body"]["jobs"][0].as_object().filter(|_| heard["type"] == "jobs") {
                known.insert("$job", lease["jobId"].as_str().unwrap().to_owned());
                known.insert("$token", lease["leaseToken"].as_str().unwrap().to_owned());
            }
            let _ = writeln!(played, "{name}< {heard}");
        } else {
            let _ = writeln!(played, "{line}");
        }
    }
    golden(SESSION, &played);
}

fn job() -> JobId {
    JobId::from_bytes([1; 16])
}

fn token() -> LeaseToken {
    LeaseToken::from_bits(7)
}

/// Everything that the client can say, to a server that answers nothing that makes sense.
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
            let (text, id) = match &message {
                Message::Text(text) => (text.to_string(), serde_json::from_str::<Value>(text).unwrap()["id"].clone()),
                Message::Binary(bytes) => {
                    let (id, packed) = bytes.split_at(8);
                    let (length, rest) = packed.split_at(4);
                    let (document, rest) = rest.split_at(u32::from_be_bytes(length.try_into().unwrap()) as usize);
                    let id = u64::from_be_bytes(id.try_into().unwrap());
                    (format!("binary {id} {} + {} bytes", String::from_utf8_lossy(document), rest.len()), json!(id))
                }
                _ => continue,
            };
            said.send(text).await.unwrap();
            if !id.is_null() {
                let refusal = json!({ "type": "error", "id": id, "body": { "code": "job_not_found" } });
                socket.send(Message::text(refusal.to_string())).await.unwrap();
            }
        }
    });
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
    let _ = client.watch(WatchQuery::All).await;
    drop(client);
    let mut text = String::new();
    while let Some(message) = heard.recv().await {
        // Credits that nobody waits for are taken back when that is noticed.
        if !message.contains("\"drain\"") {
            let _ = writeln!(text, "{message}");
        }
    }
    serving.await.unwrap();
    golden("tests/golden/client.txt", &text);
}
