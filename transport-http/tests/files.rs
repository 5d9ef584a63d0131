//! Files over HTTP: what comes in, who may have it out, and that nothing stays of what broke off.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::coordinator::{self, Coordinator};
use cmdexec_core::files::{Files, GetRange};
use cmdexec_core::service::{JobService, JobServiceExt, Role};
use cmdexec_core::store::MemoryStore;
use cmdexec_transport_http::server::Options;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::Method;
use serde_json::{Value, json};
use support::{Answer, World, send, unlimited};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Something that begins as a ZIP does.
fn zip(size: usize) -> Vec<u8> {
    let mut zip = b"PK\x03\x04".to_vec();
    zip.extend((4..size).map(|i| u8::try_from(i * 31 % 251).unwrap()));
    zip
}

fn post(world: &World, path: &str) -> reqwest::RequestBuilder {
    world.request(Method::POST, path).bearer_auth(world.user_token("ada", Role::User))
}

fn get(world: &World, path: &str) -> reqwest::RequestBuilder {
    world.request(Method::GET, path).bearer_auth(world.user_token("ada", Role::User))
}

async fn upload(world: &World, bytes: Vec<u8>) -> Value {
    send(post(world, "/api/files/upload?name=a.zip").body(bytes)).await.ok(201).clone()
}

/// A form of these parts: a name, with a file's name if it is one, and what is in it.
fn form(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, bytes) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body.extend(format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").into_bytes());
        body.extend_from_slice(bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--x--\r\n");
    body
}

async fn send_form(world: &World, path: &str, parts: &[(&str, Option<&str>, &[u8])]) -> Answer {
    send(post(world, path).header("content-type", "multipart/form-data; boundary=x").body(form(parts))).await
}

#[tokio::test]
async fn an_upload_says_where_it_is_and_comes_back_as_it_was() {
    let world = World::start().await;
    let bytes = zip(300_000);
    let body = upload(&world, bytes.clone()).await;
    let id = body["fileId"].as_str().unwrap();
    assert_eq!((&body["size"], &body["sha256"], &body["filename"]), (&json!(300_000), &json!(id), &json!("a.zip")));
    assert_eq!(body["fileUrl"], format!("/uploads/{id}.zip"));
    assert!(body["expiresAt"].is_string());
    assert_eq!((&body["file"]["fileId"], &body["file"]["filename"]), (&json!(id), &json!("a.zip")));

    for path in [format!("/uploads/{id}.zip"), format!("/uploads/{id}/any name"), format!("/api/files/download/{id}")] {
        let response = get(&world, &path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((header("content-type"), header("content-length")), ("application/zip".into(), "300000".into()));
        assert_eq!((header("etag"), header("accept-ranges")), (format!("\"{id}\""), "bytes".into()));
        assert_eq!(header("content-disposition"), "attachment; filename=\"a.zip\"");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert!(header("cache-control").contains("private"));
        assert_eq!(response.bytes().await.unwrap(), bytes);
    }
    let again = upload(&world, bytes).await;
    assert_eq!(again["fileId"], body["fileId"]);
    let list = send(get(&world, "/api/files/list")).await;
    assert_eq!(list.ok(200)["files"].as_array().unwrap().len(), 1);
    let one = send(get(&world, &format!("/api/files/{id}"))).await;
    assert_eq!(one.ok(200)["createdAt"], again["createdAt"]);
}

#[tokio::test]
async fn a_part_is_given_where_one_is_asked_for() {
    let world = World::start().await;
    let bytes = zip(1_000);
    let url = upload(&world, bytes.clone()).await["fileUrl"].as_str().unwrap().to_owned();
    let etag = format!("\"{}\"", &url[9..73]);
    for (range, part) in
        [("bytes=0-9", 0..10), ("bytes=990-", 990..1_000), ("bytes=-5", 995..1_000), ("bytes=7-5000", 7..1_000)]
    {
        let response = get(&world, &url).header("range", range).send().await.unwrap();
        assert_eq!(response.status(), 206, "{range}");
        let shown = format!("bytes {}-{}/1000", part.start, part.end - 1);
        assert_eq!(response.headers()["content-range"], shown);
        assert_eq!(response.headers()["content-length"], (part.end - part.start).to_string());
        assert_eq!(response.bytes().await.unwrap(), bytes[part]);
    }
    for range in ["bytes=1000-", "bytes=-0"] {
        let answer = send(get(&world, &url).header("range", range)).await;
        assert_eq!(answer.refused(416, "invalid").headers["content-range"], "bytes */1000", "{range}");
    }
    for (name, value, status) in [
        ("range", "bytes=0-1,5-6", 200),
        ("range", "bytes=9-0", 200),
        ("if-none-match", &*etag, 304),
        ("if-none-match", "\"other\"", 200),
    ] {
        let answer = get(&world, &url).header(name, value).send().await.unwrap();
        assert_eq!(answer.status(), status, "{name}: {value}");
        assert_eq!(answer.headers()["etag"], etag);
        assert_eq!(answer.bytes().await.unwrap().len(), if status == 200 { 1_000 } else { 0 });
    }
    for (tag, status) in [(&*etag, 206), ("\"other\"", 200)] {
        let answer = get(&world, &url).header("range", "bytes=0-1").header("if-range", tag).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    let head = world.request(Method::HEAD, &url).bearer_auth(world.user_token("ada", Role::User)).send().await.unwrap();
    assert_eq!((head.status().as_u16(), &head.headers()["content-length"]), (200, &"1000".parse().unwrap()));
    assert!(head.bytes().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_is_for_its_owner_an_admin_and_whoever_has_a_job_with_it() {
    let world = World::start().await;
    let body = upload(&world, zip(10)).await;
    let (id, url) = (body["fileId"].as_str().unwrap(), body["fileUrl"].as_str().unwrap());
    let as_user = |name, role| world.request(Method::GET, url).bearer_auth(world.user_token(name, role));
    send(world.request(Method::GET, url)).await.refused(401, "unauthenticated");
    send(as_user("bob", Role::User)).await.refused(404, "file_not_found");
    assert_eq!(send(as_user("root", Role::Admin)).await.status, 200);
    assert_eq!(send(as_user("ada", Role::Viewer)).await.status, 200);
    let cookie = format!("auth_token={}", world.user_token("ada", Role::User));
    assert_eq!(send(world.request(Method::GET, url).header("cookie", cookie)).await.status, 200);

    let register = json!({ "workerId": "w", "hostname": "h", "cpuCores": 1, "totalMemoryMb": 100, "executors": ["process"], "slots": 1 });
    world.worker(Method::POST, "/api/workers/register", Some(register)).await.ok(200);
    world.worker(Method::GET, url, None).await.refused(404, "file_not_found");
    world
        .user(Method::POST, "/api/jobs/create", Some(json!({ "command": "x", "fileUrl": url, "filename": "my.zip" })))
        .await
        .ok(201);
    world.worker(Method::GET, url, None).await.refused(404, "file_not_found");
    let lease = world.worker(Method::GET, "/api/jobs/get-job?workerId=w&max=1", None).await;
    let lease = &lease.ok(200)["jobs"][0];
    assert_eq!(
        (&lease["fileUrl"], &lease["fileSha256"], &lease["filename"]),
        (&json!(url), &json!(id), &json!("my.zip"))
    );
    assert_eq!(world.worker(Method::GET, url, None).await.status, 200);
    let token = |id: &str| world.worker_token(Some(id));
    let bearer = |id: &str| world.request(Method::GET, url).bearer_auth(token(id));
    assert_eq!(send(bearer("w")).await.status, 200);
    send(bearer("other")).await.refused(404, "file_not_found");
    let other = world.request(Method::GET, &format!("{url}?workerId=w")).header("x-worker-token", token("other"));
    send(other).await.refused(403, "forbidden");

    let delete = |path: String| world.request(Method::DELETE, &path).bearer_auth(world.user_token("ada", Role::User));
    send(delete(format!("/api/files/{id}"))).await.refused(409, "file_in_use");
    world
        .worker(
            Method::POST,
            "/api/jobs/submit-result",
            Some(json!({ "jobId": lease["jobId"], "workerId": "w", "leaseToken": lease["leaseToken"], "exitCode": 0 })),
        )
        .await
        .ok(200);
    assert_eq!(send(delete(url.to_owned())).await.status, 204);
    send(delete(format!("/api/files/{id}"))).await.refused(404, "file_not_found");
    send(get(&world, url)).await.refused(404, "file_not_found");
}

#[tokio::test]
async fn forms_are_read_as_browsers_send_them() {
    let world = World::start().await;
    let bytes = zip(100_000);
    let answer = send_form(
        &world,
        "/api/files/upload",
        &[("note", None, b"hi"), ("file", Some("ä b.zip"), &bytes), ("after", None, b"x")],
    )
    .await;
    let body = answer.ok(201);
    assert_eq!((&body["size"], &body["filename"]), (&json!(100_000), &json!("ä b.zip")));
    let saved = get(&world, body["fileUrl"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(
        saved.headers()["content-disposition"],
        "attachment; filename=\"_ b.zip\"; filename*=UTF-8''%C3%A4%20b.zip"
    );
    let twice =
        send_form(&world, "/api/files/upload", &[("file", Some("a"), &zip(9)), ("file", Some("b"), &zip(8))]).await;
    assert_eq!(twice.refused(422, "invalid").fields(), ["file"]);
    let none = send_form(&world, "/api/files/upload", &[("other", Some("a"), &zip(9))]).await;
    assert_eq!(none.refused(422, "invalid").fields(), ["file"]);
    let large =
        send_form(&world, "/api/files/upload", &[("other", None, &zip(2 << 20)), ("file", Some("a"), &zip(9))]).await;
    assert_eq!(large.refused(422, "invalid").fields(), ["other"]);
    let torn = post(&world, "/api/files/upload").header("content-type", "multipart/form-data; boundary=x");
    send(torn.body("--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nPK\x03\x04"))
        .await
        .refused(422, "invalid");
    let list = send(get(&world, "/api/files/list")).await;
    assert_eq!(list.ok(200)["files"].as_array().unwrap().len(), 1, "nothing of what was refused is there");
}

#[tokio::test]
async fn what_is_no_file_is_refused() {
    let mut options = unlimited();
    options.max_file_size = 1 << 20;
    let world = World::with(options).await;
    let upload = || post(&world, "/api/files/upload");
    assert_eq!(send(upload().body("no ZIP at all")).await.refused(422, "invalid").fields(), ["file"]);
    send(upload().header("content-type", "text/html").body(zip(9))).await.refused(415, "unsupported_media_type");
    send(upload().header("content-encoding", "gzip").body(zip(9))).await.refused(415, "unsupported_media_type");
    let large = send(upload().body(zip((1 << 20) + 1))).await;
    assert_eq!(large.refused(413, "file_too_large").body["limit"], 1 << 20);
    let viewer = world.request(Method::POST, "/api/files/upload").bearer_auth(world.user_token("ada", Role::Viewer));
    send(viewer.body(zip(9))).await.refused(403, "forbidden");
    for kind in ["application/zip", "application/octet-stream"] {
        send(upload().header("content-type", kind).body(zip(9))).await.ok(201);
    }
    let named = upload().header("x-filename", "%C3%BC.zip").body(zip(9));
    assert_eq!(send(named).await.ok(201)["filename"], "ü.zip");
}

/// A world that keeps its files in a folder.
async fn in_folder(options: Options, coordinator: coordinator::Options) -> (World, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::local(dir.path()).unwrap();
    let coordinator = Coordinator::builder(MemoryStore::new()).files(files).options(coordinator);
    (World::over(Arc::new(coordinator.build().await.unwrap()), options).await, dir)
}

fn kept(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { kept(&path) } else { vec![path] }).collect()
}

async fn becomes_empty(dir: &Path) {
    for _ in 0..1_000 {
        if kept(dir).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("left behind: {:?}", kept(dir));
}

/// An upload that has sent its head and a part of its body.
async fn begun(world: &World, length: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let token = world.user_token("ada", Role::User);
    let head =
        format!("POST /api/files/upload HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = zip(3 << 20);
    let piece = if length.starts_with("transfer") {
        [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat()
    } else {
        piece
    };
    stream.write_all(&piece).await.unwrap();
    stream
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let mut options = unlimited();
    options.body_idle_timeout = Duration::from_millis(200);
    let (world, dir) = in_folder(options, coordinator::Options::default()).await;
    for length in ["content-length: 9000000", "transfer-encoding: chunked"] {
        let stream = begun(&world, length).await;
        while kept(dir.path()).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stream);
        becomes_empty(dir.path()).await;
        // One that falls silent is told so.
        let mut stream = begun(&world, length).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        becomes_empty(dir.path()).await;
    }
    let list = send(get(&world, "/api/files/list")).await;
    assert_eq!(list.ok(200)["files"], json!([]));
}

#[tokio::test]
async fn what_is_announced_as_too_large_is_refused_before_it_comes() {
    let mut options = unlimited();
    options.max_file_size = 1_000;
    let world = World::with(options).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let token = world.user_token("ada", Role::User);
    let head = format!(
        "POST /api/files/upload HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nexpect: 100-continue\r\n"
    );
    stream.write_all(format!("{head}content-length: 1001\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("file_too_large"), "{answer}");

    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(format!("{head}content-length: 1000\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut told = [0; 25];
    stream.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&zip(1_000)).await.unwrap();
    answer.clear();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
}

#[tokio::test]
async fn one_user_has_half_of_the_room_for_uploads_and_waits_for_it() {
    let mut options = unlimited();
    options.max_uploads = 2;
    let (world, dir) = in_folder(options, coordinator::Options::default()).await;
    // Of two, one is one user's.
    let first = begun(&world, "content-length: 9000000").await;
    while kept(dir.path()).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let bob = world.request(Method::POST, "/api/files/upload").bearer_auth(world.user_token("bob", Role::User));
    send(bob.body(zip(9))).await.ok(201);
    let second = tokio::spawn(send(post(&world, "/api/files/upload").body(zip(8))));
    drop(first);
    second.await.unwrap().ok(201);
}

#[tokio::test]
async fn the_client_streams_both_ways() {
    let mut coordinator = coordinator::Options::default();
    coordinator.max_file_size = 8 << 20;
    let (world, dir) = in_folder(unlimited(), coordinator).await;
    let client = world.client("ada", Role::User);
    let bytes = Bytes::from(zip(5 << 20));
    let pieces = |bytes: Bytes| {
        let pieces: Vec<_> = bytes.chunks(70_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Box::pin(stream::iter(pieces))
    };
    let stored = client.upload(Some("ü\".zip"), pieces(bytes.clone())).await.unwrap();
    assert_eq!((stored.size, stored.name.as_deref()), (5 << 20, Some("ü\".zip")));
    let download = client.download(stored.id, Some(GetRange::Offset(1 << 20))).await.unwrap();
    assert_eq!((&download.file, download.range.clone()), (&stored, 1 << 20..5 << 20));
    let back: Vec<Bytes> = download.bytes.try_collect().await.unwrap();
    assert_eq!(back.concat(), bytes[1 << 20..]);
    for (range, field) in [(GetRange::Offset(5 << 20), "range"), (GetRange::Bounded(3..3), "range")] {
        let Err(Error::Invalid(problems)) = client.download(stored.id, Some(range)).await.map(drop) else { panic!() };
        assert_eq!(problems[0].field, field);
    }
    // What a source ends with is what the upload ends with, and nothing of it stays.
    let broken = stream::iter([Ok(bytes.slice(..1 << 20)), Err(Error::JobNotFound)]);
    assert_eq!(client.upload(None, Box::pin(broken)).await, Err(Error::JobNotFound));
    let large = client.upload(None, pieces(Bytes::from(zip(40 << 20)))).await;
    assert_eq!(large, Err(Error::FileTooLarge { most: 8 << 20 }));
    for _ in 0..1_000 {
        if kept(dir.path()).len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(kept(dir.path()).len(), 1);
}

#[tokio::test]
async fn an_execution_can_bring_its_file() {
    let world = World::start().await;
    let parts: [(&str, Option<&str>, &[u8]); 5] = [
        ("commands", None, b"make\n\nmake test\n"),
        ("file", Some("p.zip"), &zip(99)),
        ("env", None, b"{\"A\": \"1\"}"),
        ("timeout", None, b"5"),
        ("mode", None, b"distributed"),
    ];
    let answer = send_form(&world, "/api/execute", &parts).await;
    let id = answer.ok(202)["jobId"].as_str().unwrap().to_owned();
    let job = world.user(Method::GET, &format!("/api/jobs/status?jobId={id}"), None).await.ok(200).clone();
    assert_eq!(
        (&job["commands"], &job["env"], &job["timeout"]),
        (&json!(["make", "make test"]), &json!({ "A": "1" }), &json!(5))
    );
    assert!(job["fileUrl"].as_str().unwrap().starts_with("/uploads/"));
    let wrong = send_form(
        &world,
        "/api/execute",
        &[
            ("commands", None, b"x"),
            ("timeout", None, b"soon"),
            ("timeout", None, b"1"),
            ("fileId", None, b"y"),
            ("file", Some("a"), &zip(9)),
        ],
    )
    .await;
    let mut fields = wrong.refused(422, "invalid").fields();
    fields.sort();
    assert_eq!(fields, ["fileId", "timeout", "timeout"]);

    let parts: [(&str, Option<&str>, &[u8]); 2] = [("command", None, b"sleep 9"), ("mode", None, b"direct")];
    let request =
        post(&world, "/api/execute").header("content-type", "multipart/form-data; boundary=x").body(form(&parts));
    let mut response = request.send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    let exec = response.headers()["x-exec-id"].to_str().unwrap().to_owned();
    let stop = world.user(Method::DELETE, "/api/execute", Some(json!({ "execId": exec }))).await;
    assert_eq!(stop.ok(200)["status"], "cancelled");
    let mut text = String::new();
    while let Some(piece) = response.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert!(text.contains("event: end") && text.contains("cancelled"), "{text}");
    world.user(Method::DELETE, "/api/execute", Some(json!({ "execId": exec }))).await.refused(409, "job_finished");
}

#[tokio::test]
async fn a_quota_holds_over_http_too() {
    let mut coordinator = coordinator::Options::default();
    coordinator.file_quota = 2_000;
    let (world, _dir) = in_folder(unlimited(), coordinator).await;
    let client = world.client("ada", Role::User);
    let first = client.upload_bytes(None, zip(1_500).into()).await.unwrap();
    assert_eq!(client.upload_bytes(None, zip(600).into()).await, Err(Error::QuotaExceeded { quota: 2_000 }));
    client.delete_file(first.id).await.unwrap();
    client.upload_bytes(None, zip(600).into()).await.unwrap();
    let bob = world.client("bob", Role::User);
    bob.upload_bytes(None, zip(1_999).into()).await.unwrap();
}

#[tokio::test]
async fn lists_go_on_where_they_stopped() {
    let world = World::start().await;
    let client = world.client("ada", Role::User);
    let mut ids = Vec::new();
    for size in 10..17 {
        ids.push(client.upload_bytes(None, zip(size).into()).await.unwrap().id);
    }
    ids.sort();
    let mut seen: Vec<cmdexec_core::files::FileId> = Vec::new();
    let mut path = "/api/files/list?limit=3".to_owned();
    loop {
        let page = send(get(&world, &path)).await.ok(200).clone();
        seen.extend(
            page["files"]
                .as_array()
                .unwrap()
                .iter()
                .map(|file| file["fileId"].as_str().unwrap().parse::<cmdexec_core::files::FileId>().unwrap()),
        );
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("/api/files/list?limit=3&cursor={cursor}");
    }
    assert_eq!(seen, ids);
    for wrong in ["limit=0", "limit=501", "cursor=x"] {
        send(get(&world, &format!("/api/files/list?{wrong}"))).await.refused(422, "invalid");
    }
    let all = client.files(None, 500).await.unwrap();
    assert_eq!(stream::iter(all).map(|file| file.id).collect::<Vec<_>>().await, ids);
}
