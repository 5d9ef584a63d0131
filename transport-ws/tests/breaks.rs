//! What a client does when its socket breaks, or is there no longer though nobody said so, before a server that does what it is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::{OutputChunk, Stream};
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{
    FinalOutput, FinishedAttempt, Heartbeat, JobServiceExt, LeaseRequest, LeasedJob, OutputAck, OutputBatch,
    OutputEvent, OutputPieces, OutputQuery, Registration, Usage, WorkerService, WorkerStatus,
};
use cmdexec_core::store::{Chunk, Listed, MemoryStore};
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_transport_ws::Client;
use cmdexec_transport_ws::client::{Fallback, Options};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// How often the server would like to hear something.
const INTERVAL_MS: u64 = 400;
const INTERVAL: Duration = Duration::from_millis(INTERVAL_MS);

/// Speaks the client's version.
#[expect(clippy::result_large_err, clippy::unnecessary_wraps, reason = "tungstenite asks for this form")]
fn versioned(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    response.headers_mut().insert("sec-websocket-protocol", "cmdexec.v1".parse().unwrap());
    Ok(response)
}

/// A server that says what it is told to.
struct Server(TcpListener);

struct Socket(WebSocketStream<TcpStream>);

impl Server {
    async fn start() -> (Self, Client) {
        Self::with(|_| {}).await
    }

    async fn with(set: impl FnOnce(&mut Options)) -> (Self, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut options = Options::default();
        options.backoff = Duration::from_millis(2);
        set(&mut options);
        let client = Client::builder(format!("ws://{}", listener.local_addr().unwrap())).worker_token("any");
        (Self(listener), client.options(options).build().unwrap())
    }

    /// The next socket.
    async fn open(&self) -> Socket {
        let accepted = tokio::time::timeout(Duration::from_secs(20), self.0.accept()).await;
        let (stream, _) = accepted.expect("the client does not come").unwrap();
        Socket(tokio_tungstenite::accept_hdr_async(stream, versioned).await.unwrap())
    }

    /// The next socket, made welcome.
    async fn accept(&self) -> Socket {
        let mut socket = self.open().await;
        let limits = json!({"messageBytes": 65536, "messagesPerSecond": 100, "requests": 10, "requestBytes": 65536});
        let body = json!({
            "version": 1, "as": "worker", "expiresAt": "2099-01-01T00:00:00.000Z",
            "pingIntervalMs": INTERVAL_MS, "limits": limits,
        });
        socket.say(&json!({"type": "welcome", "body": body})).await;
        socket
    }
}

impl Socket {
    async fn say(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message of the client's.
    async fn next(&mut self) -> Value {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(20), self.0.next()).await;
            if let Message::Text(text) = next.expect("nothing came").unwrap().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }
}

fn beat() -> Heartbeat {
    Heartbeat { usage: Usage { status: WorkerStatus::Idle, cpu: 0.0, ram: 0.0 }, held: Some(Vec::new()) }
}

#[tokio::test]
async fn a_beat_is_not_said_again_but_what_is_harmless_to_repeat_is() {
    let (server, client) = Server::start().await;
    let worker: WorkerId = "w".parse().unwrap();
    let beating = tokio::spawn({
        let (client, worker) = (client.clone(), worker.clone());
        async move { client.heartbeat(&worker, beat()).await }
    });
    let mut socket = server.accept().await;
    assert_eq!(socket.next().await["type"], "heartbeat");
    let registering = tokio::spawn({
        let client = client.clone();
        async move { client.register(Registration::new("h", 1, 64)).await }
    });
    assert_eq!(socket.next().await["type"], "register");
    drop(socket);

    let mut socket = server.accept().await;
    let again = socket.next().await;
    assert_eq!(again["type"], "register", "first of all what was not answered, and no beat");
    socket.say(&json!({"type": "ok", "id": again["id"], "body": registered()})).await;
    assert_eq!(registering.await.unwrap().unwrap().worker, worker);
    assert!(matches!(beating.await.unwrap(), Err(Error::Unavailable { .. })));
}

#[tokio::test]
async fn a_job_that_was_pushed_into_a_broken_socket_is_not_begun_with_over_the_next() {
    // What nobody waits for is not given back meanwhile.
    let (server, client) = Server::with(|options| options.linger = Duration::from_hours(1)).await;
    let worker: WorkerId = "w".parse().unwrap();
    let lease = |wait: u64| {
        let (client, worker) = (client.clone(), worker.clone());
        tokio::spawn(
            async move { client.lease(&worker, LeaseRequest { max: 1, wait: Duration::from_secs(wait) }).await },
        )
    };
    let gone = lease(60);
    let mut socket = server.accept().await;
    assert_eq!(socket.next().await["type"], "ready");
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    socket.say(&pushed(1)).await;
    drop(socket);

    // Until then, the client has heard the job and the end.
    let mut socket = server.accept().await;
    let here = lease(60);
    let ready = socket.next().await;
    assert_eq!((&ready["type"], &ready["body"]["credits"]), (&json!("ready"), &json!(1)), "the first is forgotten");
    socket.say(&pushed(2)).await;
    let leased = here.await.unwrap().unwrap();
    assert_eq!(leased.iter().map(|leased| leased.attempt).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn who_is_closed_instead_of_welcomed_says_why_to_every_call() {
    for (code, said) in [
        (4401, Error::Unauthenticated),
        (4410, Error::Unauthenticated),
        (4403, Error::Forbidden("the server revoked these credentials")),
        (4406, Error::Forbidden("the server speaks no version of this protocol that this end does")),
    ] {
        let (server, client) = Server::with(|options| {
            (options.backoff, options.max_backoff) = (Duration::from_hours(1), Duration::from_hours(1));
        })
        .await;
        let closing = async {
            let mut socket = server.open().await;
            let frame = CloseFrame { code: code.into(), reason: "because".into() };
            socket.0.close(Some(frame)).await.unwrap();
            socket
        };
        let (_socket, answer) = tokio::join!(closing, client.register(Registration::new("h", 1, 64)));
        assert_eq!(answer, Err(said), "{code}");
        let trouble = client.trouble().unwrap();
        assert!(trouble.ends_with(&format!("the server closed the socket: because ({code})")), "{trouble}");
    }
}

#[tokio::test]
async fn a_server_that_closes_behind_its_welcome_is_left_alone_for_longer_each_time() {
    let first = Duration::from_millis(20);
    let (server, client) = Server::with(|options| options.backoff = first).await;
    let opening = tokio::spawn({
        let client = client.clone();
        async move { client.opened().await }
    });
    let begun = SystemClock.uptime();
    for _ in 0..5 {
        server.accept().await.0.close(None).await.unwrap();
    }
    drop(server.accept().await);
    // Each pause is at least half of its bound.
    let least = first / 2 * (1 + 2 + 4 + 8 + 16);
    let took = SystemClock.uptime().saturating_sub(begun);
    assert!(took >= least, "{took:?}");
    opening.abort();
}

#[tokio::test]
async fn a_server_that_answers_is_come_back_to_soon_each_time_that_it_breaks() {
    let (server, client) = Server::with(|options| {
        (options.backoff, options.max_backoff) = (Duration::from_millis(1), Duration::from_hours(1));
        options.retry_for = Duration::from_mins(1);
    })
    .await;
    // If pauses went on to grow, the last would take minutes.
    for _ in 0..20 {
        let answering = async {
            let mut socket = server.accept().await;
            let id = &socket.next().await["id"];
            socket.say(&json!({"type": "ok", "id": id, "body": registered()})).await;
        };
        let ((), answer) = tokio::join!(answering, client.register(Registration::new("h", 1, 64)));
        answer.unwrap();
    }
}

fn registered() -> Value {
    json!({"ok": true, "workerId": "w", "heartbeatIntervalMs": 1000, "pollIntervalMs": 1000, "leaseMs": 3000})
}

/// A job, pushed for the attempt of this number.
fn pushed(attempt: u32) -> Value {
    let lease = json!({
        "jobId": "019b76da-a800-7000-be5a-069934cc0618", "attempt": attempt, "command": "true", "timeout": 60,
        "leaseToken": "b0f4d125cc0d694a6d8fc15a3248c9da", "leaseTtlMs": 60_000,
        "leaseExpiresAt": "2099-01-01T00:00:00.000Z",
    });
    json!({"type": "jobs", "body": {"workerId": "w", "jobs": [lease]}})
}

/// A worker's service over a socket that a server breaks, with a coordinator behind it by which the worker has a job.
async fn falling_back() -> (Server, Fallback, Coordinator, LeasedJob) {
    let (server, socket) = Server::with(|options| options.retry_for = Duration::ZERO).await;
    let coordinator = Coordinator::builder(MemoryStore::new()).build().await.unwrap();
    let other = coordinator.as_worker(WorkerId::local());
    other.register(Registration { worker: Some(WorkerId::local()), ..Registration::new("h", 1, 64) }).await.unwrap();
    coordinator.jobs().submit(JobSpec::shell("true")).await.unwrap();
    let request = LeaseRequest { max: 1, wait: Duration::from_secs(20) };
    let leased = other.lease(&WorkerId::local(), request).await.unwrap().remove(0);
    (server, Fallback::new(socket, other), coordinator, leased)
}

/// Says output over a socket that breaks when it was said; what came of it, and what the coordinator has.
async fn said_into_a_break(pieces: OutputPieces) -> (Result<(), Error>, Bytes) {
    let (server, service, coordinator, leased) = falling_back().await;
    let (job, batch) = (leased.job, OutputBatch { job: leased.job, token: Some(leased.token), pieces });
    let (mut socket, ()) = tokio::join!(server.accept(), service.socket().opened());
    let breaking = async {
        assert_eq!(socket.next().await["type"], "output");
        drop(socket);
    };
    let worker = WorkerId::local();
    let saying = service.append_output(&worker, vec![batch]);
    let ((), answer) = tokio::join!(breaking, saying);
    let answer = answer.map(|mut acks| assert_eq!(acks.remove(0), Ok(OutputAck { cancel: false })));
    let output = coordinator.jobs().job(job).await.unwrap().stdout;
    (answer, output)
}

#[tokio::test]
async fn output_whose_answer_is_lost_goes_another_way_only_if_it_has_numbers() {
    let bytes = Bytes::from_static(b"once");
    let numbered = OutputPieces::Numbered(vec![Chunk { seq: 0, stream: Stream::Stdout, bytes: bytes.clone() }]);
    assert_eq!(said_into_a_break(numbered).await, (Ok(()), "once".into()));
    // The server may have it.
    let plain = OutputPieces::Plain(vec![OutputChunk { stream: Stream::Stdout, bytes }]);
    let (answer, output) = said_into_a_break(plain).await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    assert_eq!(output, "");
}

#[tokio::test]
async fn what_is_too_large_for_a_socket_goes_another_way_as_it_is() {
    let (server, service, coordinator, leased) = falling_back().await;
    let chunk = |seq, byte| Chunk { seq, stream: Stream::Stdout, bytes: vec![byte; 65_536].into() };
    let pieces = OutputPieces::Numbered(vec![chunk(0, b'a'), chunk(1, b'b')]);
    let batch = OutputBatch { job: leased.job, token: Some(leased.token), pieces };
    let mut report = FinishedAttempt::new(&leased, Outcome::Exited { code: 0 });
    report.output = FinalOutput::Rest(vec![chunk(2, b'c')]);
    let listed = Listed { job: leased.job, token: leased.token };
    let beat = Heartbeat { held: Some(vec![listed; 1_000]), ..beat() };
    let worker = WorkerId::local();
    let (mut socket, ()) = tokio::join!(server.accept(), service.socket().opened());
    // The server's limit is 64 KiB.
    service.append_output(&worker, vec![batch.clone()]).await.unwrap().remove(0).unwrap();
    service.heartbeat(&worker, beat).await.unwrap();
    service.finish(&worker, vec![report]).await.unwrap().remove(0).unwrap();
    assert_eq!(coordinator.jobs().job(leased.job).await.unwrap().status, Status::Completed);
    let output = coordinator.jobs().output(leased.job, OutputQuery::default()).await.unwrap();
    let bytes = output.map(|event| match event.unwrap() {
        OutputEvent::Chunk { bytes, .. } => bytes.len(),
        _ => 0,
    });
    assert_eq!(bytes.fold(0, |all, bytes| async move { all + bytes }).await, 3 * 65_536);
    // Nothing of it came here, and nothing broke.
    let refused = service.socket().append_output(&worker, vec![batch]).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    assert!(service.socket().is_open());
    socket.0.close(None).await.unwrap();
    while let Some(Ok(message)) = socket.0.next().await {
        assert!(!message.is_text() && !message.is_binary(), "{message:?}");
    }
}

#[tokio::test]
async fn a_server_that_has_fallen_silent_is_given_up_within_two_intervals() {
    let (server, client) = Server::start().await;
    let opening = tokio::spawn({
        let client = client.clone();
        async move { client.opened().await }
    });
    // From now on it reads nothing and says nothing, and nobody closes the connection.
    let silent = server.accept().await;
    let begun = SystemClock.uptime();
    opening.await.unwrap();
    client.closed().await;
    let took = SystemClock.uptime().saturating_sub(begun);
    assert!(took > INTERVAL, "it was given the time to answer: {took:?}");
    assert!(client.trouble().unwrap().contains("two intervals"), "{:?}", client.trouble());

    // One that answers pings, as reading does, is kept.
    let mut heard = server.accept().await;
    let reading = tokio::spawn(async move { while heard.0.next().await.is_some() {} });
    client.opened().await;
    assert!(tokio::time::timeout(INTERVAL * 4, client.closed()).await.is_err());
    reading.abort();
    drop(silent);
}
