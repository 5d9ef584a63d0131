//! What clients and workers of earlier protocol versions send and expect, in exactly their forms.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::sync::Arc;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::service::{Role, Services};
use cmdexec_core::store::MemoryStore;
use http::Method;
use serde_json::{Value, json};
use support::{Answer, World, send, unlimited};

/// An older worker: a token with its id, nothing else that is new.
struct Older {
    world: World,
    token: String,
}

impl Older {
    async fn start() -> Self {
        let world = World::start().await;
        let token = world.worker_token(Some("agent-1"));
        let older = Self { world, token };
        let register = json!({
            "workerId": "agent-1", "hostname": "desk", "os": "linux", "cpuCount": 8, "cpuUsage": 3.5,
            "ramTotalMb": 16_000, "ramFreeMb": 8_000, "version": "1.0.0", "status": "IDLE",
        });
        let registered = older.call(Method::POST, "/api/workers/register", register).await;
        let body = registered.ok(200);
        assert_eq!((&body["ok"], &body["workerId"], &body["wsUrl"]), (&json!(true), &json!("agent-1"), &Value::Null));
        assert!(body["heartbeatIntervalMs"].is_u64() && body["pollIntervalMs"].is_u64());
        older
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        let request = self.world.request(method, path).bearer_auth(&self.token);
        send(if body.is_null() { request } else { request.json(&body) }).await
    }

    async fn submit(&self, spec: Value) -> String {
        let answer = self.world.user(Method::POST, "/api/jobs/submit", Some(spec)).await;
        answer.ok(201)["jobId"].as_str().map(str::to_owned).unwrap_or_default()
    }

    async fn job(&self, id: &str) -> Value {
        self.world.user(Method::GET, &format!("/api/jobs/status?jobId={id}"), None).await.ok(200).clone()
    }

    async fn get_job(&self) -> Value {
        self.call(Method::GET, "/api/jobs/get-job?workerId=agent-1", Value::Null).await.ok(200).clone()
    }
}

#[tokio::test]
async fn an_unmodified_worker_runs_a_job() {
    let older = Older::start().await;
    let none = older.get_job().await;
    assert_eq!(none, json!({ "success": true, "jobId": null, "job": null }));
    let id = older
        .submit(json!({ "command": "make test", "timeoutMs": 5_000, "requiredCpu": 1, "requiredRamMb": 512, "maxRetries": 2, "priority": "high" }))
        .await;
    let lease = older.get_job().await;
    for lease in [&lease, &lease["job"]] {
        assert_eq!((&lease["jobId"], &lease["command"]), (&json!(id), &json!("make test")));
        assert_eq!((&lease["timeout"], &lease["timeoutMs"]), (&json!(5), &json!(5_000)));
        assert!(lease.as_object().unwrap().contains_key("filename"));
    }
    let beat = json!({
        "workerId": "agent-1", "status": "BUSY", "cpuUsage": 50, "ramFreeMb": 4_000, "ramTotalMb": 16_000,
        "dockerContainers": 1, "dockerCpuUsage": 10.5, "dockerMemoryMb": 100,
    });
    let answer = older.call(Method::POST, "/api/workers/heartbeat", beat).await;
    let body = answer.ok(200);
    assert_eq!((&body["cancel"], &body["lost"]), (&json!([]), &json!([])));
    assert_eq!(body["timestamp"], body["serverTime"]);
    assert!(body["nextCheckIn"].as_u64().unwrap() > 0);
    let workers = older.world.user(Method::GET, "/api/workers/agent-1", None).await;
    assert_eq!(workers.ok(200)["ramUsage"], 75.0);
    assert_eq!(workers.body["metadata"]["osType"], "linux");

    // The token says who; streams are told by `type`.
    for (data, kind) in [("one\n", "stdout"), ("two\n", "stderr"), ("three\n", "stdout")] {
        let output = json!({ "jobId": id, "data": data, "type": kind });
        assert_eq!(older.call(Method::POST, "/api/jobs/stream-output", output).await.ok(200)["cancel"], false);
    }
    let output = json!({ "jobId": id, "workerId": "agent-1", "stream": "stdout", "output": "four\n" });
    older.call(Method::POST, "/api/jobs/stream-output", output).await.ok(200);
    let running = older.job(&id).await;
    assert_eq!((&running["status"], &running["assignedAgentId"]), (&json!("running"), &json!("agent-1")));
    assert_eq!((&running["stdout"], &running["stderr"]), (&json!("one\nthree\nfour\n"), &json!("two\n")));
    assert_eq!(
        (&running["maxAttempts"], &running["priority"], &running["memoryMb"]),
        (&json!(3), &json!(50), &json!(512))
    );
    let check = format!("/api/jobs/check-cancel?jobId={id}");
    let body = older.call(Method::GET, &check, Value::Null).await.ok(200).clone();
    assert_eq!(body, json!({ "success": true, "cancelled": false, "cancelRequested": false }));

    let result = json!({ "jobId": id, "workerId": "agent-1", "exitCode": 0, "stdout": "whole\n", "stderr": "", "duration": 1.5 });
    older.call(Method::POST, "/api/jobs/submit-result", result.clone()).await.ok(200);
    older.call(Method::POST, "/api/jobs/submit-result", result).await.ok(200);
    let done = older.job(&id).await;
    assert_eq!(
        (&done["status"], &done["exitCode"], &done["stdout"]),
        (&json!("completed"), &json!(0), &json!("whole\n"))
    );
    assert_eq!(done["result"], json!({ "success": true, "duration": 1.5, "lines": 1 }));
    let other = json!({ "jobId": id, "workerId": "agent-1", "exitCode": 1 });
    older.call(Method::POST, "/api/jobs/submit-result", other).await.refused(409, "lease_lost");
}

#[tokio::test]
async fn a_failure_is_put_and_tried_again() {
    let older = Older::start().await;
    let id = older.submit(json!({ "command": "x", "maxRetries": 0 })).await;
    older.get_job().await;
    let failure = json!({ "jobId": id, "errorMessage": "no docker" });
    older.call(Method::PUT, "/api/jobs/submit-result", failure).await.ok(200);
    let job = older.job(&id).await;
    assert_eq!((&job["status"], &job["reason"]), (&json!("failed"), &json!("executor_error")));
    assert!(job["errorMessage"].as_str().unwrap().contains("no docker"), "{job}");
    assert_eq!(job["errorMessage"], job["error"]);
    assert_eq!(job["resultFileUrl"], Value::Null);
}

#[tokio::test]
async fn a_cancelled_job_is_told_in_every_way() {
    let older = Older::start().await;
    let id = older.submit(json!({ "command": "sleep 9" })).await;
    older.get_job().await;
    let cancel = older.world.user(Method::POST, "/api/jobs/cancel", Some(json!({ "jobId": id }))).await;
    assert_eq!(cancel.ok(200)["status"], "cancelling");
    let check = format!("/api/jobs/check-cancel?jobId={id}");
    assert_eq!(older.call(Method::GET, &check, Value::Null).await.ok(200)["cancelRequested"], true);
    // A token that speaks for any worker does not say who asks.
    assert_eq!(older.world.worker(Method::GET, &check, None).await.ok(200)["cancelled"], true);
    let output = json!({ "jobId": id, "data": "x", "type": "stdout" });
    assert_eq!(older.call(Method::POST, "/api/jobs/stream-output", output).await.ok(200)["cancel"], true);
    let beat =
        older.call(Method::POST, "/api/workers/heartbeat", json!({ "workerId": "agent-1", "status": "BUSY" })).await;
    assert_eq!(beat.ok(200)["cancel"], json!([id]));
    older.call(Method::PUT, "/api/jobs/submit-result", json!({ "jobId": id, "error": "cancelled" })).await.ok(200);
    assert_eq!(older.job(&id).await["status"], "cancelled");
    let again = older.world.user(Method::POST, "/api/jobs/cancel", Some(json!({ "jobId": id }))).await;
    again.refused(409, "job_finished");
    // What is over is not worth going on with.
    assert_eq!(older.call(Method::GET, &check, Value::Null).await.ok(200)["cancelled"], true);
}

#[tokio::test]
async fn arguments_and_steps_reach_an_older_worker_as_one_line() {
    let older = Older::start().await;
    for (spec, line) in [
        (json!({ "args": ["printf", "%s|", "a b", "it's", "$HOME"] }), r"printf '%s|' 'a b' 'it'\''s' '$HOME'"),
        (
            json!({ "commands": ["echo one", "false", "echo 'x'"] }),
            r"/bin/sh -c 'echo one' && /bin/sh -c false && /bin/sh -c 'echo '\''x'\'''",
        ),
    ] {
        let id = older.submit(spec).await;
        let lease = older.get_job().await;
        assert_eq!((&lease["jobId"], &lease["command"]), (&json!(id), &json!(line)));
        assert!(lease.get("args").is_none() && lease.get("commands").is_none());
    }
    // A newer one says what it has, and gets them as they are.
    let newer =
        json!({ "workerId": "new", "hostname": "h", "cpuCores": 1, "totalMemory": 1 << 30, "executors": ["process"] });
    older.world.worker(Method::POST, "/api/workers/register", Some(newer)).await.ok(200);
    older.submit(json!({ "args": ["echo", "a b"] })).await;
    let lease = older.world.worker(Method::GET, "/api/jobs/get-job?workerId=new&max=5", None).await;
    assert_eq!(lease.ok(200)["jobs"][0]["args"], json!(["echo", "a b"]));
    assert!(lease.body["jobs"][0].get("command").is_none());
}

#[tokio::test]
async fn another_workers_word_does_not_count() {
    let older = Older::start().await;
    let id = older.submit(json!({ "command": "x" })).await;
    older.get_job().await;
    for (method, path, body) in [
        (Method::POST, "/api/jobs/stream-output", json!({ "jobId": id, "workerId": "other", "data": "x" })),
        (Method::POST, "/api/jobs/submit-result", json!({ "jobId": id, "workerId": "other", "exitCode": 0 })),
        (Method::PUT, "/api/jobs/submit-result", json!({ "jobId": id, "workerId": "other", "error": "x" })),
    ] {
        older.world.worker(method, path, Some(body)).await.refused(409, "lease_lost");
    }
    assert_eq!(older.job(&id).await["status"], "running");
    older.call(Method::POST, "/api/workers/heartbeat", json!({ "workerId": "agent-1" })).await.ok(200);
    let gone = older.world.worker(Method::POST, "/api/workers/heartbeat", Some(json!({ "workerId": "nobody" }))).await;
    gone.refused(404, "worker_not_found");
    let unknown = older.world.worker(Method::GET, "/api/jobs/get-job?workerId=nobody", None).await;
    unknown.refused(404, "worker_not_found");
}

#[tokio::test]
async fn lists_take_an_offset_and_tell_the_total() {
    let older = Older::start().await;
    for i in 0..5 {
        older.submit(json!({ "command": format!("echo {i}") })).await;
    }
    let page = older.world.user(Method::GET, "/api/jobs/list?limit=2&offset=1", None).await;
    let body = page.ok(200);
    assert_eq!((&body["total"], &body["jobs"][0]["command"]), (&json!(5), &json!("echo 3")));
    assert!(body["jobs"][0].get("stdout").is_none() && body["jobs"][0].get("env").is_none());
    let cursor = body["nextCursor"].as_str().unwrap();
    let next = older.world.user(Method::GET, &format!("/api/jobs/list?limit=500&cursor={cursor}"), None).await;
    assert_eq!((&next.ok(200)["jobs"][0]["command"], &next.body["nextCursor"]), (&json!("echo 1"), &Value::Null));
    let execute = json!({ "command": "true", "mode": "distributed" });
    older.world.user(Method::POST, "/api/execute", Some(execute)).await.ok(202);
    let short = json!({ "command": "true", "mode": "direct", "waitMs": 20 });
    older.world.user(Method::POST, "/api/execute", Some(short)).await.ok(202);
    let viewer =
        older.world.request(Method::GET, "/api/stats").bearer_auth(older.world.user_token("ada", Role::Viewer));
    assert_eq!(send(viewer).await.ok(200)["queueDepth"], 7);
}

#[tokio::test]
async fn after_a_restart_an_older_worker_is_still_known_as_one() {
    let coordinator = Coordinator::builder(MemoryStore::new()).build().await.unwrap();
    let services: Arc<dyn Services> = Arc::new(coordinator);
    let first = World::over(Arc::clone(&services), unlimited()).await;
    let register = |id: &str| json!({ "workerId": id, "hostname": "h", "cpuCores": 1, "totalMemoryMb": 100 });
    first.worker(Method::POST, "/api/workers/register", Some(register("old"))).await.ok(200);
    let mut newer = register("new");
    newer["executors"] = json!(["process"]);
    newer["slots"] = json!(1);
    first.worker(Method::POST, "/api/workers/register", Some(newer)).await.ok(200);
    first.stop().await;
    let second = World::over(services, unlimited()).await;
    for (id, key) in [("old", "command"), ("new", "args")] {
        second.user(Method::POST, "/api/jobs/create", Some(json!({ "args": ["true"] }))).await.ok(201);
        let lease = second.worker(Method::GET, &format!("/api/jobs/get-job?workerId={id}"), None).await;
        assert!(lease.ok(200).get(key).is_some(), "{id}: {}", lease.text);
    }
}

#[tokio::test]
async fn a_job_without_files_comes_with_an_empty_zip() {
    let older = Older::start().await;
    older.submit(json!({ "command": "x" })).await;
    let lease = older.get_job().await;
    let url = lease["fileUrl"].as_str().unwrap();
    assert_eq!(lease["fileUrl"], format!("/uploads/{}", lease["filename"].as_str().unwrap()));
    let request = older.world.request(Method::GET, url).header("x-worker-token", older.token.clone());
    let zip = request.send().await.unwrap().bytes().await.unwrap();
    assert_eq!((zip.len(), &zip[..4]), (22, &b"PK\x05\x06"[..]));
    assert_eq!(lease["job"]["fileUrl"], lease["fileUrl"]);
}

#[tokio::test]
async fn a_job_begins_where_it_is_to_begin_also_on_an_older_worker() {
    let older = Older::start().await;
    let upload =
        older.world.request(Method::POST, "/api/files/upload").bearer_auth(older.world.user_token("ada", Role::User));
    let file = send(upload.body("PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01x")).await.ok(201)["fileId"].clone();
    for (command, line) in [
        (json!({ "command": "echo a\necho b" }), "cd 'my dir' && /bin/sh -c 'echo a\necho b'"),
        (json!({ "args": ["echo", "a b"] }), "cd 'my dir' && echo 'a b'"),
        (json!({ "commands": ["a", "b c"] }), "cd 'my dir' && /bin/sh -c a && /bin/sh -c 'b c'"),
    ] {
        let mut spec = command;
        (spec["fileId"], spec["workingDirectory"], spec["filename"]) = (file.clone(), json!("my dir"), json!("p.zip"));
        older.submit(spec).await;
        let lease = older.get_job().await;
        assert_eq!((&lease["command"], &lease["filename"]), (&json!(line), &json!("p.zip")));
        assert!(lease.get("workingDirectory").is_none());
        assert_eq!(lease["fileUrl"], format!("/uploads/{}.zip", file.as_str().unwrap()));
    }
}

#[tokio::test]
async fn a_results_zip_is_kept_with_the_job() {
    let older = Older::start().await;
    let zip = "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==";
    let id = older.submit(json!({ "command": "x" })).await;
    older.get_job().await;
    let result =
        json!({ "jobId": id, "workerId": "agent-1", "exitCode": 0, "resultZipBase64": zip, "resultZipName": "r.zip" });
    for _ in 0..2 {
        older.call(Method::POST, "/api/jobs/submit-result", result.clone()).await.ok(200);
    }
    let job = older.job(&id).await;
    assert_eq!(job["status"], "completed");
    let url = job["resultFileUrl"].as_str().unwrap();
    assert_eq!(job["artifactsUrl"], url);
    let get = older.world.request(Method::GET, url).bearer_auth(older.world.user_token("ada", Role::User));
    assert_eq!(get.send().await.unwrap().bytes().await.unwrap().len(), 22);

    // A result counts also without its ZIP.
    let id = older.submit(json!({ "command": "x" })).await;
    older.get_job().await;
    let result = json!({ "jobId": id, "workerId": "agent-1", "exitCode": 0, "resultZipBase64": "bm8gemlw" });
    older.call(Method::POST, "/api/jobs/submit-result", result).await.ok(200);
    let job = older.job(&id).await;
    assert_eq!((&job["status"], &job["resultFileUrl"]), (&json!("completed"), &Value::Null));
    assert!(job["warnings"][0].as_str().unwrap().contains("not kept"), "{job}");
}
