//! What travels, held still: an older client or worker must understand tomorrow's server, and an older server today's client.
//! A changed snapshot is a changed protocol.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use bytes::Bytes;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::{Capabilities, Kind, Limit, OutputChunk, Stream};
use cmdexec_core::id::{JobId, LeaseToken, WorkerId};
use cmdexec_core::job::{Details, JobSpec, Network, Outcome, Status};
use cmdexec_core::service::{
    Cursor, FinalOutput, FinishedAttempt, Heartbeat, JobQuery, JobService, LeaseRequest, OutputBatch, OutputPieces,
    OutputQuery, Registration, Submission, Usage, WatchQuery, WorkerService, WorkerStatus,
};
use cmdexec_core::store::{Chunk, Listed, MemoryStore};
use cmdexec_core::time::{ManualClock, Timestamp};
use cmdexec_transport_http::Client;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::{World, unlimited};
use tokio::net::TcpListener;

/// A conversation, as it is kept: what was asked, and what was answered.
struct Talk {
    world: World,
    text: String,
}

impl Talk {
    /// With a clock that stands still and chance that repeats itself, every answer is the same each time.
    async fn start() -> (Self, ManualClock) {
        let clock = ManualClock::default();
        let store = MemoryStore::with_clock(Arc::new(clock.clone()));
        let coordinator = Coordinator::builder(store).clock(Arc::new(clock.clone())).seed(1).build().await.unwrap();
        let world = World::over(Arc::new(coordinator), unlimited()).await;
        (Self { world, text: String::new() }, clock)
    }

    async fn user(&mut self, method: Method, path: &str, body: Option<Value>) -> Value {
        let answer = self.world.user(method.clone(), path, body.clone()).await;
        self.note(&method, path, body, &answer)
    }

    async fn worker(&mut self, method: Method, path: &str, body: Option<Value>) -> Value {
        let answer = self.world.worker(method.clone(), path, body.clone()).await;
        self.note(&method, path, body, &answer)
    }

    fn note(&mut self, method: &Method, path: &str, body: Option<Value>, answer: &support::Answer) -> Value {
        let _ = writeln!(self.text, "> {method} {path}");
        if let Some(body) = body {
            let _ = writeln!(self.text, "> {body}");
        }
        let kind = answer.headers.get("content-type").map_or("", |kind| kind.to_str().unwrap());
        let _ = writeln!(self.text, "< {} {kind}", answer.status);
        let shown = if kind.contains("json") { format!("{:#}", answer.body) } else { answer.text.clone() };
        let _ = writeln!(self.text, "{shown}\n");
        answer.body.clone()
    }
}

#[tokio::test]
async fn a_users_and_a_newer_workers_exchange() {
    let (mut talk, clock) = Talk::start().await;
    let spec = json!({
        "args": ["printf", "%s", "a b"], "name": "n", "env": { "A": "1" }, "timeout": 1.5, "cpus": 0.5, "memoryMb": 64,
        "pids": 10, "labels": ["gpu"], "priority": 3, "maxAttempts": 2, "retries": 1, "exclusive": true,
        "backoff": { "initialMs": 10, "factor": 1.5, "maxMs": 20 },
    });
    let job = talk.user(Method::POST, "/api/jobs/create", Some(spec)).await["jobId"].clone();
    let id = job.as_str().unwrap();
    let batch = json!({ "jobs": [{ "command": "a" }, { "commands": ["b", "c"], "runAt": "2026-01-02T00:00:00Z" }] });
    talk.user(Method::POST, "/api/jobs/create-batch", Some(batch)).await;
    let register = json!({
        "workerId": "w1", "hostname": "h", "cpuCores": 4, "totalMemory": 8_589_934_592_u64, "version": "2", "slots": 2,
        "executors": ["docker", { "kind": "process", "limits": ["memory", "noNetwork"] }], "metadata": { "osType": "linux", "tags": ["gpu"] },
    });
    talk.worker(Method::POST, "/api/workers/register", Some(register)).await;
    let leases = talk.worker(Method::GET, "/api/jobs/get-job?workerId=w1&max=1&wait=5", None).await;
    let token = leases["jobs"][0]["leaseToken"].clone();
    let beat = json!({ "workerId": "w1", "status": "busy", "cpuUsage": 12.5, "ramUsage": 50, "running": [{ "jobId": job, "leaseToken": token }] });
    talk.worker(Method::POST, "/api/workers/heartbeat", Some(beat)).await;
    let chunks = json!([{ "seq": 0, "stream": "stdout", "data": "out\n" }, { "seq": 1, "stream": "stderr", "dataBase64": "/w==" }]);
    let output = json!({ "workerId": "w1", "jobId": job, "leaseToken": token, "chunks": chunks });
    talk.worker(Method::POST, "/api/jobs/stream-output", Some(output)).await;
    let batches = json!({ "workerId": "w1", "batches": [
        { "jobId": job, "leaseToken": token, "chunks": [] },
        { "jobId": job, "leaseToken": "00000000000000000000000000000000", "chunks": [] },
    ] });
    talk.worker(Method::POST, "/api/jobs/stream-output", Some(batches)).await;
    talk.user(Method::GET, &format!("/api/jobs/status?jobId={id}"), None).await;
    talk.user(Method::GET, "/api/workers/list", None).await;
    talk.user(Method::GET, "/api/stats", None).await;
    clock.advance(Duration::from_millis(1_500));
    let results = json!({ "workerId": "w1", "results": [
        { "jobId": job, "leaseToken": token, "outcome": { "how": "signaled", "signal": 9 }, "durationMs": 1_250, "chunks": [{ "seq": 2, "stream": "stdout", "data": "end" }] },
        { "jobId": job, "leaseToken": "00000000000000000000000000000000", "exitCode": 0 },
    ] });
    talk.worker(Method::POST, "/api/jobs/submit-result", Some(results)).await;
    talk.user(Method::POST, "/api/jobs/cancel", Some(json!({ "jobId": job }))).await;
    talk.user(Method::GET, &format!("/api/jobs/status?jobId={id}"), None).await;
    talk.user(Method::GET, "/api/jobs/list?limit=2", None).await;
    talk.user(Method::GET, &format!("/api/jobs/logs?jobId={id}&follow=true"), None).await;
    talk.user(Method::GET, &format!("/api/jobs/watch?jobId={id}"), None).await;
    talk.user(Method::POST, "/api/jobs/cancel", Some(json!({ "jobId": job }))).await;
    talk.user(Method::POST, "/api/jobs/create", Some(json!({ "timeout": 0, "gpus": 1 }))).await;
    talk.user(Method::GET, "/api/jobs/status?jobId=019a0000-0000-7000-8000-000000000000", None).await;
    talk.worker(Method::POST, "/api/workers/heartbeat", Some(json!({ "workerId": "unknown" }))).await;
    insta::assert_snapshot!(talk.text);
}

#[tokio::test]
async fn an_older_workers_exchange() {
    let (mut talk, _clock) = Talk::start().await;
    let spec = json!({ "commands": ["a", "b c"], "timeoutMs": 5_000, "requiredCpu": 1, "requiredRamMb": 64, "maxRetries": 1, "priority": "low" });
    let job = talk.user(Method::POST, "/api/jobs/submit", Some(spec)).await["jobId"].clone();
    let id = job.as_str().unwrap();
    let register = json!({ "workerId": "old", "hostname": "h", "os": "linux", "cpuCount": 2, "cpuUsage": 1, "ramTotalMb": 1_000, "ramFreeMb": 500, "version": "1", "status": "IDLE" });
    talk.worker(Method::POST, "/api/workers/register", Some(register)).await;
    talk.worker(Method::GET, "/api/jobs/get-job?workerId=old", None).await;
    talk.worker(Method::GET, "/api/jobs/get-job?workerId=old", None).await;
    talk.worker(
        Method::POST,
        "/api/workers/heartbeat",
        Some(json!({ "workerId": "old", "status": "BUSY", "ramFreeMb": 1, "ramTotalMb": 4 })),
    )
    .await;
    talk.worker(
        Method::POST,
        "/api/jobs/stream-output",
        Some(json!({ "workerId": "old", "jobId": job, "data": "x", "type": "stderr" })),
    )
    .await;
    talk.worker(Method::GET, &format!("/api/jobs/check-cancel?jobId={id}&workerId=old"), None).await;
    talk.worker(
        Method::POST,
        "/api/jobs/submit-result",
        Some(json!({ "workerId": "old", "jobId": job, "exitCode": 0, "stdout": "whole", "stderr": "", "duration": 2 })),
    )
    .await;
    talk.user(Method::GET, &format!("/api/jobs/status?jobId={id}"), None).await;
    talk.worker(
        Method::PUT,
        "/api/jobs/submit-result",
        Some(json!({ "workerId": "old", "jobId": job, "errorMessage": "late" })),
    )
    .await;
    insta::assert_snapshot!(talk.text);
}

type Seen = Arc<Mutex<String>>;

/// Writes down what it is asked, and refuses it in a way that no client tries again.
async fn recorder() -> (Seen, String) {
    async fn record(State(seen): State<Seen>, request: Request) -> (StatusCode, &'static str) {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut seen = seen.lock().unwrap();
        let _ = writeln!(seen, "{} {}", parts.method, parts.uri);
        for name in ["accept", "authorization", "x-worker-token", "content-type", "idempotency-key", "last-event-id"] {
            for value in parts.headers.get_all(name) {
                let _ = writeln!(seen, "{name}: {}", value.to_str().unwrap());
            }
        }
        let _ = writeln!(seen, "{}\n", String::from_utf8_lossy(&body));
        (StatusCode::NOT_FOUND, r#"{"code":"job_not_found"}"#)
    }
    let seen = Seen::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(record).with_state(Arc::clone(&seen));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (seen, url)
}

#[tokio::test]
async fn what_the_client_asks() {
    let (seen, url) = recorder().await;
    let client = Client::builder(url).user_token("user").worker_token("worker").build().unwrap();
    let ids: Vec<JobId> = (1..=2).map(|i| JobId::from_bytes([i; 16])).collect();
    let (w, token): (WorkerId, _) = ("w".parse().unwrap(), LeaseToken::from_bits(7));
    let mut spec = JobSpec::steps(["a", "b"]);
    spec.name = Some("n".into());
    spec.container_image = Some("i".into());
    spec.env.insert("A".into(), "1".into());
    spec.timeout = Duration::from_millis(1_500);
    (spec.resources.cpu_millis, spec.resources.memory_mb, spec.resources.pids) = (Some(250), Some(64), Some(5));
    spec.network = Some(Network::None);
    spec.labels.insert("gpu".into());
    (spec.priority, spec.max_attempts, spec.retries, spec.exclusive) = (-1, 1, 2, true);
    spec.backoff.factor = 1.5;
    spec.run_at = Some(Timestamp::from_millis(0));
    let key = Some("key".to_owned());
    let one = Submission { specs: vec![spec], idempotency_key: key.clone() };
    let two = Submission { specs: vec![JobSpec::shell("a"), JobSpec::argv(["b", "c"])], idempotency_key: key };
    assert!(client.submit_batch(one).await.is_err());
    assert!(client.submit_batch(two).await.is_err());
    assert_eq!(client.get(&ids[..1]).await, Ok(vec![None]));
    assert!(client.get(&ids).await.is_err());
    assert!(client.list(&JobQuery::default()).await.is_err());
    let query = JobQuery {
        status: Some(Status::Failed),
        worker: Some(w.clone()),
        label: Some("a&b".into()),
        created_after: Some(Timestamp::from_millis(0)),
        before: Some(ids[0]),
        offset: 5,
        limit: 7,
    };
    assert!(client.list(&query).await.is_err());
    assert!(client.cancel(ids[0]).await.is_err());
    assert!(client.output(ids[0], OutputQuery::default()).await.is_err());
    let from = Some(Cursor { attempt: 1, next: 2, bytes: 3 });
    let query = OutputQuery { from, follow: true, stream: Some(Stream::Stderr), ..OutputQuery::default() };
    assert!(client.output(ids[0], query).await.is_err());
    let query = OutputQuery { since: Some(Timestamp::from_millis(0)), tail: Some(9), ..OutputQuery::default() };
    assert!(client.output(ids[0], query).await.is_err());
    assert!(client.watch(WatchQuery::All).await.is_err());
    assert!(client.watch(WatchQuery::Job(ids[0])).await.is_err());
    assert!(client.stats().await.is_err());
    assert!(client.workers(None).await.is_err());
    assert!(client.workers(Some(&[w.clone(), "v/1".parse().unwrap()])).await.is_err());
    assert!(client.remove_worker(&"v/1".parse().unwrap()).await.is_err());
    let mut registration = Registration::new("h", 4, 100);
    assert!(client.register(registration.clone()).await.is_err());
    registration.worker = Some(w.clone());
    registration.executors =
        Some(vec![Capabilities { kind: Kind::Process, limits: [Limit::Memory, Limit::NoNetwork].into(), gpus: 0 }]);
    (registration.slots, registration.version) = (Some(2), Some("1".into()));
    registration.labels.insert("gpu".into());
    assert!(client.register(registration).await.is_err());
    let usage = Usage { status: WorkerStatus::Busy, cpu: 1.5, ram: 2.0 };
    let held = Some(vec![Listed { job: ids[0], token }]);
    assert!(client.heartbeat(&w, Heartbeat { usage, held }).await.is_err());
    assert!(client.lease(&w, LeaseRequest { max: 3, wait: Duration::from_millis(2_500) }).await.is_err());
    let chunk = |seq, bytes: &'static [u8]| Chunk { seq, stream: Stream::Stdout, bytes: Bytes::from_static(bytes) };
    let plain = vec![OutputChunk { stream: Stream::Stderr, bytes: Bytes::from_static(b"p") }];
    let batches = vec![
        OutputBatch {
            job: ids[0],
            token: Some(token),
            pieces: OutputPieces::Numbered(vec![chunk(0, b"a\n"), chunk(1, b"\xff")]),
        },
        OutputBatch { job: ids[1], token: None, pieces: OutputPieces::Plain(plain) },
    ];
    assert!(client.append_output(&w, batches).await.is_err());
    let outcomes = [
        Outcome::Exited { code: 3 },
        Outcome::Signaled { signal: 9 },
        Outcome::TimedOut,
        Outcome::OutOfMemory,
        Outcome::Stopped,
        Outcome::Returned,
        Outcome::InputError { message: "i".into() },
        Outcome::ExecutorError { message: "e".into() },
    ];
    let ended = |outcome| FinishedAttempt {
        job: ids[0],
        token: Some(token),
        outcome,
        details: Details::default(),
        output: FinalOutput::None,
    };
    let mut reports: Vec<_> = outcomes.into_iter().map(ended).collect();
    reports[0].details.duration = Some(Duration::from_millis(1_234));
    reports[1].output = FinalOutput::Rest(vec![chunk(2, b"rest")]);
    reports[2].output = FinalOutput::Whole { stdout: "o".into(), stderr: Bytes::from_static(b"\xfe") };
    assert!(client.finish(&w, reports).await.is_err());
    let seen = seen.lock().unwrap().clone();
    insta::assert_snapshot!(seen);
}
