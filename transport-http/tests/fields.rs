//! Every bad value of every field is a 422 that names it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use http::Method;
use serde_json::{Value, json};
use support::World;

/// A body that is fine, and what makes one of its fields wrong.
fn with(base: &Value, field: &str, wrong: &Value) -> Value {
    let mut body = base.clone();
    body[field] = wrong.clone();
    body
}

async fn refused(world: &World, worker: bool, method: &Method, path: &str, body: Value, field: &str) {
    let shown = body.to_string();
    let answer = if worker {
        world.worker(method.clone(), path, Some(body)).await
    } else {
        world.user(method.clone(), path, Some(body)).await
    };
    assert_eq!(answer.status, 422, "{path} {shown:.300}: {}", answer.text);
    answer.refused(422, "invalid");
    assert!(answer.fields().iter().any(|named| named == field), "{path} {shown:.300}: {:?}", answer.fields());
}

/// What is wrong for each field of a spec, beyond its type.
fn spec_cases() -> Vec<(&'static str, Value)> {
    let long = "x".repeat(600);
    vec![
        ("command", json!(1)),
        ("command", json!("")),
        ("command", json!("  ")),
        ("command", json!("a\0b")),
        ("name", json!(1)),
        ("name", json!("")),
        ("name", json!(long)),
        ("containerImage", json!(true)),
        ("containerImage", json!("a b")),
        ("env", json!([])),
        ("env", json!({ "A=B": "" })),
        ("timeout", json!("300")),
        ("timeout", json!(0)),
        ("timeout", json!(-1)),
        ("timeout", json!(86_401)),
        ("timeout", json!(1e300)),
        ("timeoutMs", json!("1")),
        ("timeoutMs", json!(0)),
        ("timeoutMs", json!(86_400_001)),
        ("cpus", json!("1")),
        ("cpus", json!(0)),
        ("cpus", json!(-1)),
        ("cpus", json!(1e9)),
        ("requiredCpu", json!(0)),
        ("memoryMb", json!("1")),
        ("memoryMb", json!(0)),
        ("memoryMb", json!(-1)),
        ("memoryMb", json!(1.5)),
        ("memoryMb", json!(u64::MAX)),
        ("requiredRamMb", json!(0)),
        ("requiredRamMb", json!([])),
        ("pids", json!(0)),
        ("pids", json!("1")),
        ("network", json!("host")),
        ("network", json!(1)),
        ("labels", json!("gpu")),
        ("labels", json!(["a b"])),
        ("labels", json!([""])),
        ("labels[1]", json!(["a", 1])),
        ("priority", json!(101)),
        ("priority", json!(-101)),
        ("priority", json!(1.5)),
        ("priority", json!("urgent")),
        ("maxAttempts", json!(0)),
        ("maxAttempts", json!(101)),
        ("maxAttempts", json!("3")),
        ("maxRetries", json!(-1)),
        ("maxRetries", json!("3")),
        ("retries", json!(-1)),
        ("retries", json!(101)),
        ("backoff", json!(1)),
        ("backoff.initialMs", json!({ "initialMs": -1 })),
        ("backoff.initialMs", json!({ "initialMs": "1" })),
        ("backoff.factor", json!({ "factor": 0.5 })),
        ("backoff.factor", json!({ "factor": "2" })),
        ("backoff.maxMs", json!({ "maxMs": 86_400_001 })),
        ("exclusive", json!("true")),
        ("exclusive", json!(1)),
        ("runAt", json!("tomorrow")),
        ("runAt", json!(1)),
        ("runAt", json!("1969-12-31T23:59:59Z")),
        ("idempotencyKey", json!("")),
        ("idempotencyKey", json!("a b")),
        ("idempotencyKey", json!(1)),
        ("idempotencyKey", json!("x".repeat(257))),
        ("fileId", json!("f")),
        ("fileId", json!(1)),
        ("fileId", json!("a".repeat(64))),
        ("fileUrl", json!(1)),
        ("fileUrl", json!("/uploads/x.zip")),
        ("fileUrl", json!("https://example.org/a.zip")),
        ("filename", json!(1)),
        ("filename", json!("a.zip")),
        ("filename", json!("a/b.zip")),
        ("workingDirectory", json!("a")),
        ("gpus", json!(1)), // without a container
        ("dependsOn", json!(["00000000-0000-0000-0000-000000000000"])),
        ("reuse", json!(true)),
        ("secrets", json!(["a"])),
        ("outputs", json!("dist/**")),
        ("outputs[0]", json!([1])),
    ]
}

#[tokio::test]
async fn every_wrong_field_of_a_spec_is_named() {
    let world = World::start().await;
    let fine = json!({ "command": "true" });
    let key = |field: &str| field.split(['.', '[']).next().unwrap().to_owned();
    for (field, wrong) in spec_cases() {
        let body = with(&fine, &key(field), &wrong);
        for path in ["/api/jobs/create", "/api/jobs/submit", "/api/execute"] {
            refused(&world, false, &Method::POST, path, body.clone(), field).await;
        }
        let batch = json!({ "jobs": [fine, body] });
        refused(&world, false, &Method::POST, "/api/jobs/create-batch", batch, &format!("jobs[1].{field}")).await;
    }
    for (field, body) in [
        ("command", json!({})),
        ("command", json!({ "command": null })),
        ("args", json!({ "command": "a", "args": ["b"] })),
        ("commands", json!({ "args": ["b"], "commands": ["c"] })),
        ("args", json!({ "args": [] })),
        ("args", json!({ "args": "a" })),
        ("args[0]", json!({ "args": [""] })),
        ("args[1]", json!({ "args": ["a", 1] })),
        ("commands", json!({ "commands": [] })),
        ("commands[0]", json!({ "commands": [" "] })),
        ("commands[1]", json!({ "commands": ["a", null] })),
        ("env.A", json!({ "command": "a", "env": { "A": 1 } })),
        ("body", json!([])),
        ("body", json!("true")),
        ("body", Value::Null),
    ] {
        refused(&world, false, &Method::POST, "/api/jobs/create", body, field).await;
    }
    let none = world.user(Method::GET, "/api/jobs/list", None).await;
    assert_eq!(none.body["total"], 0, "nothing that was refused is there");
}

#[tokio::test]
async fn all_wrong_fields_are_named_at_once() {
    let world = World::start().await;
    let body = json!({ "timeout": "x", "cpus": 0, "priority": 500, "env": { "A": 1 }, "gpus": 2, "unknown": [] });
    let answer = world.user(Method::POST, "/api/jobs/create", Some(body)).await;
    let mut fields = answer.refused(422, "invalid").fields();
    fields.sort();
    assert_eq!(fields, ["command", "cpus", "env.A", "gpus", "priority", "timeout"]);
    let jobs: Vec<Value> = (0..300).map(|_| json!({ "command": 1 })).collect();
    let answer = world.user(Method::POST, "/api/jobs/create-batch", Some(json!({ "jobs": jobs }))).await;
    assert_eq!(answer.refused(422, "invalid").fields().len(), 101);
}

#[tokio::test]
async fn every_wrong_field_of_the_users_other_bodies_is_named() {
    let world = World::start().await;
    let id = "019a0000-0000-7000-8000-000000000000";
    let many: Vec<Value> = (0..10_001).map(|_| json!({ "command": "true" })).collect();
    for (path, body, field) in [
        ("/api/jobs/create-batch", json!({}), "jobs"),
        ("/api/jobs/create-batch", json!({ "jobs": [] }), "jobs"),
        ("/api/jobs/create-batch", json!({ "jobs": {} }), "jobs"),
        ("/api/jobs/create-batch", json!({ "jobs": null }), "jobs"),
        ("/api/jobs/create-batch", json!({ "jobs": many }), "jobs"),
        ("/api/jobs/create-batch", json!({ "jobs": [1] }), "jobs[0]"),
        (
            "/api/jobs/create-batch",
            json!({ "jobs": [{ "command": "a", "idempotencyKey": "k" }] }),
            "jobs[0].idempotencyKey",
        ),
        ("/api/jobs/create-batch", json!({ "jobs": [{ "command": "a" }], "idempotencyKey": 1 }), "idempotencyKey"),
        ("/api/jobs/cancel", json!({}), "jobId"),
        ("/api/jobs/cancel", json!({ "jobId": 1 }), "jobId"),
        ("/api/jobs/cancel", json!({ "jobId": "x" }), "jobId"),
        ("/api/jobs/cancel", json!([id]), "body"),
        ("/api/jobs/status-batch", json!({}), "jobIds"),
        ("/api/jobs/status-batch", json!({ "jobIds": id }), "jobIds"),
        ("/api/jobs/status-batch", json!({ "jobIds": [id, "x"] }), "jobIds[1]"),
        ("/api/execute", json!({ "command": "a", "mode": "remote" }), "mode"),
        ("/api/execute", json!({ "command": "a", "mode": 1 }), "mode"),
        ("/api/execute", json!({ "command": "a", "waitMs": -1 }), "waitMs"),
        ("/api/execute", json!({ "command": "a", "waitMs": "1" }), "waitMs"),
    ] {
        refused(&world, false, &Method::POST, path, body, field).await;
    }
    let form = "--x\r\ncontent-disposition: form-data; name=\"mode\"\r\n\r\ntrue\r\n--x--\r\n";
    let request = world.request(Method::POST, "/api/execute").header("content-type", "multipart/form-data; boundary=x");
    let token = world.user_token("ada", cmdexec_core::service::Role::User);
    assert_eq!(
        support::send(request.bearer_auth(token).body(form)).await.refused(422, "invalid").fields(),
        ["mode", "command"]
    );
    let request =
        world.request(Method::POST, "/api/jobs/create").json(&json!({ "command": "a", "idempotencyKey": "b" }));
    let request = request.bearer_auth(world.user_token("ada", cmdexec_core::service::Role::User));
    let answer = support::send(request.header("idempotency-key", "c")).await;
    assert_eq!(answer.refused(422, "invalid").fields(), ["idempotencyKey"]);
}

#[tokio::test]
async fn every_wrong_query_parameter_is_named() {
    let world = World::start().await;
    let id = "019a0000-0000-7000-8000-000000000000";
    for (query, field) in [
        ("status".to_owned(), "jobId"),
        ("status?jobId=".to_owned(), "jobId"),
        ("status?jobId=x".to_owned(), "jobId"),
        (format!("status?jobId={id}&jobId=x"), "jobId"),
        ("list?status=done".to_owned(), "status"),
        ("list?status=queued&status=failed".to_owned(), "status"),
        ("list?workerId=a%20b".to_owned(), "workerId"),
        ("list?createdAfter=now".to_owned(), "createdAfter"),
        ("list?limit=0".to_owned(), "limit"),
        ("list?limit=501".to_owned(), "limit"),
        ("list?limit=x".to_owned(), "limit"),
        ("list?limit=-1".to_owned(), "limit"),
        ("list?cursor=x".to_owned(), "cursor"),
        ("list?offset=10001".to_owned(), "offset"),
        ("list?offset=x".to_owned(), "offset"),
        ("logs".to_owned(), "jobId"),
        (format!("logs?jobId={id}&follow=maybe"), "follow"),
        (format!("logs?jobId={id}&stream=both"), "stream"),
        (format!("logs?jobId={id}&since=x"), "since"),
        ("watch?jobId=x".to_owned(), "jobId"),
    ] {
        let answer = world.user(Method::GET, &format!("/api/jobs/{query}"), None).await;
        assert_eq!(answer.refused(422, "invalid").fields(), [field], "{query}");
    }
    let fine = world.user(Method::GET, "/api/jobs/list?unknown=1&limit=500&status=&cursor=", None).await;
    fine.ok(200);
    for (query, field) in [
        ("get-job", "workerId"),
        ("get-job?workerId=a%20b", "workerId"),
        ("get-job?workerId=w&wait=-1", "wait"),
        ("get-job?workerId=w&wait=61", "wait"),
        ("get-job?workerId=w&wait=NaN", "wait"),
        ("get-job?workerId=w&max=0", "max"),
        ("get-job?workerId=w&max=x", "max"),
        ("check-cancel", "jobId"),
        ("check-cancel?jobId=x", "jobId"),
    ] {
        let answer = world.worker(Method::GET, &format!("/api/jobs/{query}"), None).await;
        assert_eq!(answer.refused(422, "invalid").fields(), [field], "{query}");
    }
    let answer = world.user(Method::GET, "/api/workers/a%20b", None).await;
    assert_eq!(answer.refused(422, "invalid").fields(), ["workerId"]);
}

#[tokio::test]
async fn every_wrong_field_of_a_workers_bodies_is_named() {
    let world = World::start().await;
    let (id, token) = ("019a0000-0000-7000-8000-000000000000", "0".repeat(32));
    let register = json!({ "workerId": "w", "hostname": "h", "cpuCores": 2, "totalMemory": 1 << 30 });
    let beat = json!({ "workerId": "w", "status": "idle", "cpuUsage": 1, "ramUsage": 2 });
    let output = json!({ "workerId": "w", "jobId": id, "leaseToken": token, "data": "x" });
    let report = json!({ "workerId": "w", "jobId": id, "leaseToken": token, "exitCode": 0 });
    let failure = json!({ "workerId": "w", "jobId": id, "leaseToken": token, "error": "x" });
    let cases: Vec<(&str, Method, &Value, &str, &str, Value)> = vec![
        ("workers/register", Method::POST, &register, "workerId", "workerId", json!("a b")),
        ("workers/register", Method::POST, &register, "workerId", "workerId", json!(1)),
        ("workers/register", Method::POST, &register, "hostname", "hostname", json!("")),
        ("workers/register", Method::POST, &register, "hostname", "hostname", json!(1)),
        ("workers/register", Method::POST, &register, "hostname", "hostname", Value::Null),
        ("workers/register", Method::POST, &register, "cpuCores", "cpuCores", json!(0)),
        ("workers/register", Method::POST, &register, "cpuCores", "cpuCores", json!("2")),
        ("workers/register", Method::POST, &register, "cpuCores", "cpuCount", Value::Null),
        ("workers/register", Method::POST, &register, "cpuCount", "cpuCount", json!(1.5)),
        ("workers/register", Method::POST, &register, "totalMemory", "totalMemory", json!(0)),
        ("workers/register", Method::POST, &register, "totalMemory", "totalMemory", json!("1G")),
        ("workers/register", Method::POST, &register, "totalMemoryMb", "totalMemoryMb", json!(0)),
        ("workers/register", Method::POST, &register, "executors", "executors", json!("process")),
        ("workers/register", Method::POST, &register, "executors", "executors[0]", json!(["vm"])),
        ("workers/register", Method::POST, &register, "slots", "slots", json!(0)),
        ("workers/register", Method::POST, &register, "labels", "labels", json!("a")),
        ("workers/register", Method::POST, &register, "labels", "labels", json!(["a b"])),
        ("workers/register", Method::POST, &register, "version", "version", json!(1)),
        ("workers/register", Method::POST, &register, "status", "status", json!("HAPPY")),
        ("workers/register", Method::POST, &register, "os", "os", json!(1)),
        ("workers/register", Method::POST, &register, "cpuUsage", "cpuUsage", json!("1")),
        ("workers/register", Method::POST, &register, "ramFreeMb", "ramFreeMb", json!(-1)),
        ("workers/register", Method::POST, &register, "metadata", "metadata", json!([])),
        ("workers/register", Method::POST, &register, "metadata", "metadata.tags", json!({ "tags": "a" })),
        ("workers/register", Method::POST, &register, "metadata", "metadata.tags[0]", json!({ "tags": [1] })),
        ("workers/register", Method::POST, &register, "metadata", "metadata.tags", json!({ "tags": ["a b"] })),
        ("workers/heartbeat", Method::POST, &beat, "workerId", "workerId", Value::Null),
        ("workers/heartbeat", Method::POST, &beat, "workerId", "workerId", json!("")),
        ("workers/heartbeat", Method::POST, &beat, "status", "status", json!("lazy")),
        ("workers/heartbeat", Method::POST, &beat, "status", "status", json!(1)),
        ("workers/heartbeat", Method::POST, &beat, "cpuUsage", "cpuUsage", json!(-1)),
        ("workers/heartbeat", Method::POST, &beat, "ramUsage", "ramUsage", json!("1")),
        ("workers/heartbeat", Method::POST, &beat, "jobsCompleted", "jobsCompleted", json!(-1)),
        ("workers/heartbeat", Method::POST, &beat, "running", "running", json!({})),
        ("workers/heartbeat", Method::POST, &beat, "running", "running[0]", json!([1])),
        ("workers/heartbeat", Method::POST, &beat, "running", "running[0].jobId", json!([{ "leaseToken": token }])),
        ("workers/heartbeat", Method::POST, &beat, "running", "running[0].leaseToken", json!([{ "jobId": id }])),
        (
            "workers/heartbeat",
            Method::POST,
            &beat,
            "running",
            "running[0].leaseToken",
            json!([{ "jobId": id, "leaseToken": "x" }]),
        ),
        ("workers/heartbeat", Method::POST, &beat, "ramFreeMb", "ramFreeMb", json!("x")),
        ("workers/heartbeat", Method::POST, &beat, "dockerCpuUsage", "dockerCpuUsage", json!(-1)),
        ("jobs/stream-output", Method::POST, &output, "workerId", "workerId", Value::Null),
        ("jobs/stream-output", Method::POST, &output, "jobId", "jobId", Value::Null),
        ("jobs/stream-output", Method::POST, &output, "jobId", "jobId", json!("x")),
        ("jobs/stream-output", Method::POST, &output, "leaseToken", "leaseToken", json!("x")),
        ("jobs/stream-output", Method::POST, &output, "data", "data", json!(1)),
        ("jobs/stream-output", Method::POST, &output, "dataBase64", "dataBase64", json!("AA==")),
        ("jobs/stream-output", Method::POST, &output, "stream", "stream", json!("stdin")),
        ("jobs/stream-output", Method::POST, &output, "type", "stream", json!("stdin")),
        ("jobs/stream-output", Method::POST, &output, "chunks", "chunks", json!(1)),
        ("jobs/stream-output", Method::POST, &output, "chunks", "chunks[0]", json!([1])),
        ("jobs/stream-output", Method::POST, &output, "chunks", "chunks[0].seq", json!([{ "data": "x" }])),
        ("jobs/stream-output", Method::POST, &output, "chunks", "chunks[0].seq", json!([{ "seq": -1, "data": "x" }])),
        ("jobs/stream-output", Method::POST, &output, "chunks", "chunks[0].data", json!([{ "seq": 1 }])),
        (
            "jobs/stream-output",
            Method::POST,
            &output,
            "chunks",
            "chunks[0].dataBase64",
            json!([{ "seq": 1, "dataBase64": "!" }]),
        ),
        ("jobs/stream-output", Method::POST, &output, "batches", "batches", json!({})),
        ("jobs/stream-output", Method::POST, &output, "batches", "batches[0].jobId", json!([{}])),
        ("jobs/submit-result", Method::POST, &report, "workerId", "workerId", Value::Null),
        ("jobs/submit-result", Method::POST, &report, "jobId", "jobId", json!(1)),
        ("jobs/submit-result", Method::POST, &report, "leaseToken", "leaseToken", json!("zz")),
        ("jobs/submit-result", Method::POST, &report, "exitCode", "exitCode", Value::Null),
        ("jobs/submit-result", Method::POST, &report, "exitCode", "exitCode", json!("0")),
        ("jobs/submit-result", Method::POST, &report, "exitCode", "exitCode", json!(1u64 << 40)),
        ("jobs/submit-result", Method::POST, &report, "stdout", "stdout", json!(1)),
        ("jobs/submit-result", Method::POST, &report, "stderr", "stderr", json!([])),
        ("jobs/submit-result", Method::POST, &report, "duration", "duration", json!(-1)),
        ("jobs/submit-result", Method::POST, &report, "duration", "duration", json!("1s")),
        ("jobs/submit-result", Method::POST, &report, "durationMs", "durationMs", json!(1.5)),
        ("jobs/submit-result", Method::POST, &report, "outcome", "outcome", json!("exited")),
        ("jobs/submit-result", Method::POST, &report, "outcome", "outcome.how", json!({})),
        ("jobs/submit-result", Method::POST, &report, "outcome", "outcome.how", json!({ "how": "lost" })),
        ("jobs/submit-result", Method::POST, &report, "outcome", "outcome.code", json!({ "how": "exited" })),
        (
            "jobs/submit-result",
            Method::POST,
            &report,
            "outcome",
            "outcome.signal",
            json!({ "how": "signaled", "signal": 0 }),
        ),
        (
            "jobs/submit-result",
            Method::POST,
            &report,
            "outcome",
            "outcome.message",
            json!({ "how": "input_error", "message": 1 }),
        ),
        ("jobs/submit-result", Method::POST, &report, "chunks", "chunks[0].seq", json!([{ "data": "" }])),
        ("jobs/submit-result", Method::POST, &report, "artifacts", "artifacts", json!(["a"])),
        ("jobs/submit-result", Method::POST, &report, "resultZipBase64", "resultZipBase64", json!("!!")),
        ("jobs/submit-result", Method::POST, &report, "resultZipName", "resultZipName", json!(1)),
        ("jobs/submit-result", Method::POST, &report, "results", "results", json!({})),
        ("jobs/submit-result", Method::POST, &report, "results", "results[0].exitCode", json!([{ "jobId": id }])),
        ("jobs/submit-result", Method::PUT, &failure, "error", "error", Value::Null),
        ("jobs/submit-result", Method::PUT, &failure, "error", "error", json!(1)),
        ("jobs/submit-result", Method::PUT, &failure, "jobId", "jobId", json!("x")),
    ];
    for (path, method, base, key, field, wrong) in cases {
        refused(&world, true, &method, &format!("/api/{path}"), with(base, key, &wrong), field).await;
    }
}
