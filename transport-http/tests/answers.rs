//! Every answer of every documented route: the server gives what the document says, and the document names what it gives.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::files::Files;
use cmdexec_core::service::Role;
use cmdexec_core::store::MemoryStore;
use cmdexec_testkit::store::FaultyStore;
use cmdexec_transport_http::server::Options;
use http::Method;
use serde_json::{Value, json};
use support::{Answer, World, send, unlimited};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A request that a route takes: its operation by the document's name, its path, and its body.
type Good = (&'static str, String, Option<Value>);

const NOBODY: &str = "0197f2b0-0000-7000-8000-000000000000";

/// One good request for each operation, about a job and the worker `w`.
fn good(job: &str) -> Vec<Good> {
    let spec = json!({ "command": "true" });
    let report = json!({ "jobId": job, "workerId": "w", "exitCode": 0 });
    vec![
        ("POST /api/jobs/create", "/api/jobs/create".into(), Some(spec.clone())),
        ("POST /api/jobs/submit", "/api/jobs/submit".into(), Some(spec.clone())),
        ("POST /api/jobs/create-batch", "/api/jobs/create-batch".into(), Some(json!({ "jobs": [spec] }))),
        ("POST /api/execute", "/api/execute".into(), Some(spec.clone())),
        ("GET /api/jobs/status", format!("/api/jobs/status?jobId={job}"), None),
        ("POST /api/jobs/status-batch", "/api/jobs/status-batch".into(), Some(json!({ "jobIds": [job] }))),
        ("GET /api/jobs/list", "/api/jobs/list?limit=5".into(), None),
        ("GET /api/jobs/logs", format!("/api/jobs/logs?jobId={job}"), None),
        ("GET /api/jobs/watch", format!("/api/jobs/watch?jobId={job}"), None),
        ("GET /api/stats", "/api/stats".into(), None),
        ("POST /api/jobs/cancel", "/api/jobs/cancel".into(), Some(json!({ "jobId": job }))),
        ("GET /api/workers/list", "/api/workers/list?workerId=w".into(), None),
        ("GET /api/workers/{workerId}", "/api/workers/w".into(), None),
        ("DELETE /api/workers/{workerId}", "/api/workers/w".into(), None),
        ("POST /api/workers/register", "/api/workers/register".into(), Some(registration("w"))),
        ("POST /api/workers/heartbeat", "/api/workers/heartbeat".into(), Some(json!({ "workerId": "w" }))),
        ("GET /api/jobs/get-job", "/api/jobs/get-job?workerId=w".into(), None),
        ("GET /api/jobs/check-cancel", format!("/api/jobs/check-cancel?jobId={job}&workerId=w"), None),
        (
            "POST /api/jobs/stream-output",
            "/api/jobs/stream-output".into(),
            Some(json!({ "jobId": job, "workerId": "w", "data": "x" })),
        ),
        ("POST /api/jobs/submit-result", "/api/jobs/submit-result".into(), Some(report)),
        (
            "PUT /api/jobs/submit-result",
            "/api/jobs/submit-result".into(),
            Some(json!({ "jobId": job, "workerId": "w", "error": "x" })),
        ),
        ("DELETE /api/execute", "/api/execute".into(), Some(json!({ "execId": job }))),
    ]
}

/// The same about a file, where what is sent is not JSON.
fn about_files(file: &str, job: &str) -> Vec<Good> {
    vec![
        ("POST /api/files/upload", "/api/files/upload?name=a".into(), None),
        ("POST /api/jobs/artifacts", format!("/api/jobs/artifacts?jobId={job}&workerId=w"), None),
        ("GET /api/files/list", "/api/files/list?limit=5".into(), None),
        ("GET /api/files/{fileId}", format!("/api/files/{file}"), None),
        ("GET /uploads/{file}", format!("/uploads/{file}.zip"), None),
        ("GET /uploads/{fileId}/{name}", format!("/uploads/{file}/x"), None),
        ("GET /api/files/download/{fileId}", format!("/api/files/download/{file}"), None),
        ("DELETE /api/files/{fileId}", format!("/api/files/{file}"), None),
        ("DELETE /uploads/{file}", format!("/uploads/{file}.zip"), None),
    ]
}

/// A ZIP without entries, with a comment.
fn zip(comment: u8) -> Vec<u8> {
    [b"PK\x05\x06".as_slice(), &[0; 16], &[1, 0, comment]].concat()
}

fn registration(id: &str) -> Value {
    json!({ "workerId": id, "hostname": "h", "cpuCount": 2, "totalMemoryMb": 512 })
}

/// The same request with something wrong in a field; `None` where there is no field.
fn wrong((operation, path, _): &Good) -> Option<Good> {
    let path = match *operation {
        "GET /api/stats" => return None,
        "GET /api/jobs/status" | "GET /api/jobs/logs" | "GET /api/jobs/watch" => path.replace("jobId=", "jobId=x"),
        "GET /api/jobs/check-cancel" => path.replace("jobId=", "jobId=x"),
        "GET /api/jobs/list" => path.replace("limit=5", "limit=0"),
        "GET /api/jobs/get-job" => format!("{path}&max=0"),
        "GET /api/workers/list" => path.replace("workerId=w", "workerId=%20"),
        "GET /api/workers/{workerId}" | "DELETE /api/workers/{workerId}" => "/api/workers/%20".into(),
        _ => path.clone(),
    };
    Some((operation, path, Some(json!({}))))
}

/// Holds answers against the document, and notes which came.
struct Walk {
    document: Value,
    seen: BTreeSet<(String, u16)>,
}

impl Walk {
    async fn begin(world: &World) -> Self {
        let document = send(world.request(Method::GET, "/api/openapi.json")).await.body;
        Self { document, seen: BTreeSet::new() }
    }

    #[track_caller]
    fn note(&mut self, operation: &str, answer: &Answer, status: u16) {
        assert_eq!(answer.status, status, "{operation}: {}", answer.text);
        let (method, path) = operation.split_once(' ').unwrap();
        let documented = &self.document["paths"][path][method.to_lowercase().as_str()]["responses"][status.to_string()];
        assert!(documented.is_object(), "{operation} answers {status}, which the document does not know");
        let kind = answer.headers.get("content-type").map_or("", |kind| kind.to_str().unwrap());
        let kind = kind.split(';').next().unwrap();
        let is_empty = documented["content"].as_object().is_none_or(serde_json::Map::is_empty);
        let content = &documented["content"][kind];
        assert_eq!(is_empty, answer.text.is_empty() && kind.is_empty(), "{operation} {status}: {kind}");
        assert!(is_empty || content.is_object(), "{operation} {status}: {kind} is not documented");
        if kind.ends_with("json") {
            let fits = self.fits(&content["schema"], &answer.body);
            assert!(fits, "{operation} {status}: {} is not {}", answer.text, content["schema"]);
        }
        self.seen.insert((operation.to_owned(), status));
    }

    /// Whether a value is what a schema says: as much of JSON Schema as the document uses.
    fn fits(&self, schema: &Value, value: &Value) -> bool {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.fits(&self.document["components"]["schemas"][reference.rsplit('/').next().unwrap()], value);
        }
        let all = |name: &str| schema[name].as_array();
        if let Some(parts) = all("allOf")
            && !parts.iter().all(|part| self.fits(part, value))
        {
            return false;
        }
        if let Some(choices) = all("oneOf").or(all("anyOf"))
            && !choices.iter().any(|choice| self.fits(choice, value))
        {
            return false;
        }
        if let Some(names) = all("enum")
            && !names.contains(value)
        {
            return false;
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(many) => many.iter().map(|one| one.as_str().unwrap()).collect(),
            _ => Vec::new(),
        };
        let is = |kind: &&str| match *kind {
            "null" => value.is_null(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("the type {other} is new here"),
        };
        if !types.is_empty() && !types.iter().any(is) {
            return false;
        }
        let required = all("required").into_iter().flatten();
        let has_all = required.filter(|_| value.is_object()).all(|name| value.get(name.as_str().unwrap()).is_some());
        let properties = schema["properties"].as_object().into_iter().flatten();
        let properties_fit =
            properties.filter_map(|(name, schema)| Some((schema, value.get(name)?))).all(|(s, v)| self.fits(s, v));
        let items_fit = value.as_array().into_iter().flatten().all(|item| self.fits(&schema["items"], item));
        has_all && properties_fit && items_fit
    }

    /// What the document names and no answer was.
    fn unseen(&self) -> Vec<(String, u16)> {
        let mut named = Vec::new();
        for (path, item) in self.document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                for status in operation["responses"].as_object().unwrap().keys() {
                    named.push((format!("{} {path}", method.to_uppercase()), status.parse().unwrap()));
                }
            }
        }
        named.retain(|answer| !self.seen.contains(answer));
        named
    }

    fn is_worker(&self, operation: &str) -> bool {
        let (method, path) = operation.split_once(' ').unwrap();
        self.document["paths"][path][method.to_lowercase().as_str()]["tags"][0] == "worker protocol"
    }
}

/// A request with the token of an admin, or of any worker.
fn with_token(world: &World, walk: &Walk, (operation, path, body): &Good) -> reqwest::RequestBuilder {
    let request = bare(world, (operation, path));
    let request = if walk.is_worker(operation) {
        request.header("x-worker-token", world.worker_token(None))
    } else {
        request.bearer_auth(world.user_token("root", Role::Admin))
    };
    if operation.ends_with("files/upload") || operation.ends_with("artifacts") {
        return request.body(zip(0));
    }
    body.iter().fold(request, reqwest::RequestBuilder::json)
}

fn bare(world: &World, (operation, path): (&str, &str)) -> reqwest::RequestBuilder {
    world.request(operation.split_once(' ').unwrap().0.parse().unwrap(), path)
}

/// A request whose body does not come: only its first byte, of so many.
async fn unfinished(world: &World, walk: &Walk, (operation, path, _): &Good, length: usize) -> Answer {
    let token =
        if walk.is_worker(operation) { world.worker_token(None) } else { world.user_token("root", Role::Admin) };
    let method = operation.split_once(' ').unwrap().0;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{{"
    );
    raw(world, &head).await
}

/// Sends bytes as they are.
async fn raw(world: &World, head: &str) -> Answer {
    let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let text = text.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
    });
    let headers = headers.collect();
    Answer { status, headers, body: serde_json::from_str(body).unwrap(), text: body.to_owned() }
}

#[tokio::test]
async fn the_document_names_every_answer_and_no_other() {
    let mut options = unlimited();
    options.body_idle_timeout = Duration::from_millis(50);
    let world = World::with(options).await;
    let mut walk = Walk::begin(&world).await;
    refusals(&world, &mut walk).await;
    users(&world, &mut walk).await;
    workers(&world, &mut walk).await;
    files(&world, &mut walk).await;
    too_many(&mut walk).await;
    unavailable(&mut walk).await;
    assert_eq!(walk.unseen(), []);
}

/// What every route refuses in the same way.
async fn refusals(world: &World, walk: &mut Walk) {
    for request in good(NOBODY) {
        let (operation, path, body) = &request;
        walk.note(operation, &send(bare(world, (operation, path))).await, 401);
        let forbidden = if walk.is_worker(operation) {
            let other = bare(world, (operation, path)).header("x-worker-token", world.worker_token(Some("other")));
            body.iter().fold(other, reqwest::RequestBuilder::json)
        } else {
            let cookie = format!("auth_token={}", world.user_token("root", Role::Admin));
            bare(world, (operation, path)).header("cookie", cookie).header("origin", "https://elsewhere.example")
        };
        walk.note(operation, &send(forbidden).await, 403);
        if let Some(wrong) = wrong(&request) {
            walk.note(operation, &send(with_token(world, walk, &wrong)).await, 422);
        }
        if body.is_some() {
            let typed = |kind: &str| {
                let bodiless = (*operation, path.clone(), None);
                with_token(world, walk, &bodiless).header("content-type", kind).body("{")
            };
            let (malformed, unsupported) = (typed("application/json"), typed("text/csv"));
            walk.note(operation, &send(malformed).await, 400);
            walk.note(operation, &send(unsupported).await, 415);
            walk.note(operation, &unfinished(world, walk, &request, 10).await, 408);
            walk.note(operation, &unfinished(world, walk, &request, 100 << 20).await, 413);
        }
    }
}

async fn users(world: &World, walk: &mut Walk) {
    for (operation, path, body) in good(NOBODY).into_iter().take(4) {
        let keyed = |body: Option<Value>| {
            with_token(world, walk, &(operation, path.clone(), body)).header("idempotency-key", path.clone())
        };
        let (first, again) = (keyed(body.clone()), keyed(body));
        let other = json!({ "command": "false", "jobs": [{ "command": "false" }] });
        let other = keyed(Some(other));
        let is_executed = operation == "POST /api/execute";
        walk.note(operation, &send(first).await, if is_executed { 202 } else { 201 });
        walk.note(operation, &send(again).await, 200);
        walk.note(operation, &send(other).await, 409);
    }
    let call = async |operation: &'static str, path: &str, body: Option<Value>, walk: &Walk| {
        send(with_token(world, walk, &(operation, path.to_owned(), body))).await
    };
    let job = job(world).await;
    world.worker(Method::POST, "/api/workers/register", Some(registration("w"))).await.ok(200);
    for (operation, path, body) in good(&job).into_iter().skip(4).take(6) {
        if operation != "GET /api/jobs/watch" {
            walk.note(operation, &call(operation, &path, body, walk).await, 200);
        }
    }
    for operation in ["GET /api/jobs/status", "GET /api/jobs/logs", "GET /api/jobs/watch"] {
        let path = operation.replace("GET ", "") + "?jobId=" + NOBODY;
        walk.note(operation, &call(operation, &path, None, walk).await, 404);
    }
    let cancel = "POST /api/jobs/cancel";
    for (id, status) in [(job.as_str(), 200), (&job, 409), (NOBODY, 404)] {
        let answer = call(cancel, "/api/jobs/cancel", Some(json!({ "jobId": id })), walk).await;
        walk.note(cancel, &answer, status);
    }
    let stop = "DELETE /api/execute";
    let stopped = self::job(world).await;
    for (id, status) in [(stopped.as_str(), 200), (&stopped, 409), (NOBODY, 404)] {
        let answer = call(stop, "/api/execute", Some(json!({ "execId": id })), walk).await;
        walk.note(stop, &answer, status);
    }
    // A job that has ended ends its streams.
    let watch = "GET /api/jobs/watch";
    walk.note(watch, &call(watch, &format!("/api/jobs/watch?jobId={job}"), None, walk).await, 200);
    let logs = "GET /api/jobs/logs";
    walk.note(logs, &call(logs, &format!("/api/jobs/logs?jobId={job}&follow=true"), None, walk).await, 200);
    for operation in ["GET /api/workers/list", "GET /api/workers/{workerId}"] {
        let path = operation.replace("GET ", "").replace("{workerId}", "w");
        walk.note(operation, &call(operation, &path, None, walk).await, 200);
    }
    let get = "GET /api/workers/{workerId}";
    walk.note(get, &call(get, "/api/workers/nobody", None, walk).await, 404);
    let remove = "DELETE /api/workers/{workerId}";
    for status in [204, 404] {
        walk.note(remove, &call(remove, "/api/workers/w", None, walk).await, status);
    }
    walk.note("GET /api/health", &send(world.request(Method::GET, "/api/health")).await, 200);
}

async fn workers(world: &World, walk: &mut Walk) {
    let call = async |operation: &'static str, query: &str, body: Option<Value>, walk: &Walk| {
        let path = operation.split_once(' ').unwrap().1.to_owned() + query;
        send(with_token(world, walk, &(operation, path, body))).await
    };
    // Others wait, and are not this worker's.
    let spec = json!({ "command": "true", "labels": ["mine"], "priority": 9 });
    let register = "POST /api/workers/register";
    let mut me = registration("me");
    me["labels"] = json!(["mine"]);
    walk.note(register, &call(register, "", Some(me), walk).await, 200);
    let beat = "POST /api/workers/heartbeat";
    walk.note(beat, &call(beat, "", Some(json!({ "workerId": "me" })), walk).await, 200);
    walk.note(beat, &call(beat, "", Some(json!({ "workerId": "nobody" })), walk).await, 404);
    let poll = "GET /api/jobs/get-job";
    walk.note(poll, &call(poll, "?workerId=nobody", None, walk).await, 404);
    let ask = async |walk: &mut Walk| {
        world.user(Method::POST, "/api/jobs/create", Some(spec.clone())).await.ok(201);
        let answer = call(poll, "?workerId=me", None, walk).await;
        walk.note(poll, &answer, 200);
        answer.body["jobId"].as_str().unwrap().to_owned()
    };
    let (job, failed) = (ask(walk).await, ask(walk).await);
    let output = "POST /api/jobs/stream-output";
    let piece = |job: &str| Some(json!({ "jobId": job, "workerId": "me", "data": "x" }));
    walk.note(output, &call(output, "", piece(&job), walk).await, 200);
    walk.note(output, &call(output, "", piece(NOBODY), walk).await, 409);
    let check = "GET /api/jobs/check-cancel";
    walk.note(check, &call(check, &format!("?jobId={job}"), None, walk).await, 200);
    walk.note(check, &call(check, &format!("?jobId={NOBODY}"), None, walk).await, 404);
    for (operation, job, said) in [
        ("POST /api/jobs/submit-result", &job, json!({ "exitCode": 0, "stdout": "a\nb", "stderr": "" })),
        ("PUT /api/jobs/submit-result", &failed, json!({ "error": "no room" })),
    ] {
        for (id, status) in [(job.as_str(), 200), (NOBODY, 409)] {
            let mut report = said.clone();
            (report["jobId"], report["workerId"]) = (json!(id), json!("me"));
            walk.note(operation, &call(operation, "", Some(report), walk).await, status);
        }
    }
    // A job with everything that there is to show, waited for.
    let execute = "POST /api/execute";
    let mut direct = spec.clone();
    (direct["mode"], direct["waitMs"], direct["idempotencyKey"]) = (json!("direct"), json!(0), json!("waited"));
    walk.note(execute, &call(execute, "", Some(direct.clone()), walk).await, 202);
    let lease = call(poll, "?workerId=me&max=2", None, walk).await;
    walk.note(poll, &lease, 200);
    let report = json!({ "jobId": lease.body["jobs"][0]["jobId"], "workerId": "me", "exitCode": 3, "stdout": "x" });
    call("POST /api/jobs/submit-result", "", Some(report), walk).await.ok(200);
    direct["waitMs"] = json!(20_000);
    let done = call(execute, "", Some(direct), walk).await;
    walk.note(execute, &done, 200);
    assert_eq!((&done.body["exitCode"], &done.body["idempotencyKey"]), (&json!(3), &json!("waited")));
    let status = format!("/api/jobs/status?jobId={}", done.body["jobId"].as_str().unwrap());
    let operation = "GET /api/jobs/status";
    walk.note(operation, &send(with_token(world, walk, &(operation, status, None))).await, 200);
}

async fn files(world: &World, walk: &mut Walk) {
    let upload = async |comment| {
        let request =
            world.request(Method::POST, "/api/files/upload").bearer_auth(world.user_token("root", Role::Admin));
        send(request.body(zip(comment))).await
    };
    let first = upload(b'a').await;
    walk.note("POST /api/files/upload", &first, 201);
    let file = first.body["fileId"].as_str().unwrap();
    world.worker(Method::POST, "/api/workers/register", Some(registration("f"))).await.ok(200);
    let spec = json!({ "command": "x", "labels": ["files"], "fileId": file, "priority": 99 });
    let mut me = registration("f");
    me["labels"] = json!(["files"]);
    world.worker(Method::POST, "/api/workers/register", Some(me)).await.ok(200);
    let root = ("POST /api/jobs/create", "/api/jobs/create".to_owned(), Some(spec));
    send(with_token(world, walk, &root)).await.ok(201);
    let lease = world.worker(Method::GET, "/api/jobs/get-job?workerId=f", None).await;
    let job = lease.ok(200)["jobId"].as_str().unwrap().to_owned();
    let unknown = "0".repeat(64);
    for (operation, path, _) in about_files(file, &job) {
        let request = |path: String| with_token(world, walk, &(operation, path, None));
        let (ok, wrong, missing) = match operation {
            "POST /api/files/upload" => (request(path.clone()), request(path.clone() + "&name=b"), None),
            "POST /api/jobs/artifacts" => (
                request(path.replace("=w", "=f")),
                request(path.replace("jobId=", "jobId=x")),
                Some(request(path.clone())),
            ),
            "GET /api/files/list" => (request(path.clone()), request(path.replace('5', "0")), None),
            _ => {
                let other = |id: &str| request(path.replace(file, id));
                (request(path.clone()), other("x"), Some(other(&unknown)))
            }
        };
        let (wrong, missing) = (
            send(wrong).await,
            match missing {
                Some(missing) => Some(send(missing).await),
                None => None,
            },
        );
        let ok = send(ok).await;
        let (unauthenticated, foreign) = (bare(world, (operation, &path)), bare(world, (operation, &path)));
        let foreign = if walk.is_worker(operation) {
            foreign.header("x-worker-token", world.worker_token(Some("other")))
        } else {
            let cookie = format!("auth_token={}", world.user_token("root", Role::Admin));
            foreign.header("cookie", cookie).header("origin", "https://elsewhere.example")
        };
        walk.note(operation, &send(unauthenticated).await, 401);
        walk.note(operation, &send(foreign).await, 403);
        walk.note(operation, &wrong, 422);
        let is_delete = operation.starts_with("DELETE");
        let is_upload = operation.starts_with("POST");
        walk.note(
            operation,
            &ok,
            if is_delete {
                409
            } else if is_upload {
                201
            } else {
                200
            },
        );
        if let Some(missing) = missing {
            walk.note(operation, &missing, if is_upload { 409 } else { 404 });
        }
        if is_upload {
            refused_uploads(world, walk, operation, &path.replace("=w", "=f")).await;
        }
        if operation.contains("/uploads/") && !is_delete || operation.contains("/download/") {
            let etag = format!("\"{file}\"");
            for (name, value, status) in
                [("range", "bytes=1-2", 206), ("if-none-match", &*etag, 304), ("range", "bytes=999-", 416)]
            {
                let asked = with_token(world, walk, &(operation, path.clone(), None)).header(name, value);
                let answer = send(asked).await;
                walk.note(operation, &answer, status);
            }
        }
    }
    let report = json!({ "jobId": job, "workerId": "f", "exitCode": 0 });
    world.worker(Method::POST, "/api/jobs/submit-result", Some(report)).await.ok(200);
    for operation in ["DELETE /api/files/{fileId}", "DELETE /uploads/{file}"] {
        let path = operation.replace("DELETE ", "").replace("{fileId}", file).replace("{file}", &format!("{file}.zip"));
        walk.note(operation, &send(with_token(world, walk, &(operation, path, None))).await, 204);
        upload(b'a').await.ok(201);
    }
}

/// What an upload may be refused for.
async fn refused_uploads(world: &World, walk: &mut Walk, operation: &'static str, path: &str) {
    let typed = with_token(world, walk, &(operation, path.to_owned(), None)).header("content-type", "text/csv");
    walk.note(operation, &send(typed).await, 415);
    let token =
        if walk.is_worker(operation) { world.worker_token(None) } else { world.user_token("root", Role::Admin) };
    for (body, status) in [
        ("content-length: 10\r\n\r\nP", 408),
        ("expect: 100-continue\r\ncontent-length: 999999999999\r\n\r\n", 413),
        ("transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
    ] {
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n{body}");
        let answer = raw(world, &head).await;
        walk.note(operation, &answer, status);
    }
}

/// A plain job of an admin's that no worker takes.
async fn job(world: &World) -> String {
    let spec = json!({ "command": "true", "labels": ["nowhere"] });
    world.user(Method::POST, "/api/jobs/create", Some(spec)).await.ok(201)["jobId"].as_str().unwrap().to_owned()
}

async fn too_many(walk: &mut Walk) {
    let mut options = Options::default();
    let limits = &mut options.limits;
    (limits.jobs, limits.heartbeats, limits.registrations, limits.requests) = (1, 1, 1, 1);
    options.max_worker_calls = 1;
    options.body_idle_timeout = std::time::Duration::from_millis(50);
    let world = World::with(options).await;
    // It can run nothing of what is submitted here, so that its poll goes on waiting.
    let mut waiting = registration("w");
    waiting["executors"] = json!(["docker"]);
    world.worker(Method::POST, "/api/workers/register", Some(waiting)).await.ok(200);
    let poll = world.request(Method::GET, "/api/jobs/get-job?workerId=w&wait=60");
    let polling = tokio::spawn(send(poll.header("x-worker-token", world.worker_token(None))));
    let all = good(NOBODY).into_iter().chain(about_files(&"0".repeat(64), NOBODY));
    for request in all {
        // The first is let through, and the poll has to arrive.
        let mut answer = send(with_token(&world, walk, &request)).await;
        for _ in 0..1_000 {
            if answer.status == 429 {
                break;
            }
            answer = send(with_token(&world, walk, &request)).await;
        }
        walk.note(request.0, &answer, 429);
        assert!(answer.headers.contains_key("retry-after"));
    }
    polling.abort();
}

async fn unavailable(walk: &mut Walk) {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let coordinator =
        Coordinator::builder_shared(Arc::clone(&store) as _).files(Files::in_memory()).build().await.unwrap();
    let world = World::over(Arc::new(coordinator), unlimited()).await;
    world.worker(Method::POST, "/api/workers/register", Some(registration("w"))).await.ok(200);
    store.set_down(true);
    for request in good(NOBODY).into_iter().chain(about_files(&"0".repeat(64), NOBODY)) {
        walk.note(request.0, &send(with_token(&world, walk, &request)).await, 503);
    }
    walk.note("GET /api/health", &send(world.request(Method::GET, "/api/health")).await, 503);
}
