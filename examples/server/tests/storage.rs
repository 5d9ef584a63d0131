//! Files in a bucket, through the server as it is started and a server that speaks S3.
//!
//! `CMDEXEC_TEST_S3` is the address of such a server; `scripts/test` starts one.
#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

#[path = "older/http.rs"]
#[expect(dead_code, reason = "the rest is the older agent's")]
mod http;

use http::{Body, Http};

const SECRET: &str = "the secret of the users, long enough";

struct Site {
    server: Child,
    folder: tempfile::TempDir,
    address: String,
    http: Http,
    authorization: String,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Site {
    /// A server that keeps its files in this bucket.
    fn new(endpoint: &str, bucket: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = server(folder.path(), &format!("s3://{bucket}/some/prefix"));
        command.env("AWS_ENDPOINT", endpoint).env("AWS_ALLOW_HTTP", "true").env("AWS_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "secret");
        let mut server = command.stdout(Stdio::piped()).spawn().unwrap();
        let line = BufReader::new(server.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        let address = line.strip_prefix("listening on http://").unwrap().to_owned();
        let http = Http::to(&format!("http://{address}"));
        let claims = json!({ "sub": "ada", "role": "user", "iat": 1_000_000_000, "exp": 4_000_000_000_u64 });
        let token = jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes()));
        Self { server, folder, address, http, authorization: format!("Bearer {}", token.unwrap()) }
    }

    fn send(&mut self, method: &str, target: &str, more: &[(&str, &str)], body: &Body<'_>) -> http::Reply {
        let headers = [&[("Authorization", &*self.authorization)], more].concat();
        self.http.send(method, target, &headers, body)
    }
}

fn server(folder: &Path, storage: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cmdexec-server"));
    command.env_clear().args(["--port", "0", "--metrics-bind", "off", "--storage-url", storage]);
    command.env("DATABASE_URL", format!("sqlite://{}", folder.join("jobs.db").display()));
    command.env("JWT_SECRET", SECRET);
    command
}

/// Counted as skipped where the tests are run by `scripts/test`.
fn endpoint() -> Option<String> {
    let endpoint = std::env::var("CMDEXEC_TEST_S3").ok();
    if endpoint.is_none() {
        cmdexec_testkit::skip("there is no S3 server (CMDEXEC_TEST_S3)");
    }
    endpoint
}

/// What is in a bucket: the keys of its objects, or with `uploads` those of uploads that have not ended.
fn keys(endpoint: &str, bucket: &str, what: &str) -> Vec<String> {
    let listing = Http::to(endpoint).send("GET", &format!("/{bucket}?{what}"), &[], &Body::None);
    assert_eq!(listing.status, 200);
    let listing = String::from_utf8(listing.body).unwrap();
    let keys = listing.split("<Key>").skip(1).map(|part| part.split("</Key>").next().unwrap().to_owned());
    keys.collect()
}

/// A ZIP without entries, behind so many bytes that look like one's beginning.
fn zip(len: usize) -> Vec<u8> {
    let mut bytes = b"PK\x03\x04".to_vec();
    bytes.extend((0..len).map(|i| u8::try_from(i % 251).unwrap()));
    bytes
}

#[test]
fn files_are_kept_in_a_bucket() {
    let Some(endpoint) = endpoint() else { return };
    let bucket = format!("files-{}", std::process::id());
    assert_eq!(Http::to(&endpoint).send("PUT", &format!("/{bucket}"), &[], &Body::None).status, 200);
    let mut site = Site::new(&endpoint, &bucket);

    // Larger than a part, so that it travels in several.
    let large = zip(12 << 20);
    let stored = site.send("POST", "/api/files/upload", &[], &Body::Chunked("application/zip", &large));
    assert_eq!(stored.status, 201, "{}", String::from_utf8_lossy(&stored.body));
    let stored: Value = serde_json::from_slice(&stored.body).unwrap();
    let url = stored.get("fileUrl").and_then(Value::as_str).unwrap().to_owned();
    let again = site.send("POST", "/api/files/upload", &[], &Body::Sized("application/zip", &large));
    assert_eq!(again.status, 201);
    let kept = keys(&endpoint, &bucket, "list-type=2");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept.iter().all(|key| key.starts_with("some/prefix/files/")), "{kept:?}");
    assert!(!site.folder.path().join("files").exists());

    assert!(site.send("GET", &url, &[], &Body::None).body == large);
    let part = site.send("GET", &url, &[("Range", "bytes=5242870-5242889")], &Body::None);
    assert_eq!((part.status, part.body.as_slice()), (206, large.get(5_242_870..5_242_890).unwrap()));
    assert_eq!(part.header("content-range"), Some(&*format!("bytes 5242870-5242889/{}", large.len())));

    // Cut off in the middle of a part: nothing of it stays.
    let mut cut = TcpStream::connect(&site.address).unwrap();
    let head = format!(
        "POST /api/files/upload HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Length: 20000000\r\n\r\n",
        site.authorization
    );
    cut.write_all(head.as_bytes()).unwrap();
    cut.write_all(&zip(7 << 20)).unwrap();
    let is_begun = || !keys(&endpoint, &bucket, "uploads").is_empty();
    until("the upload has begun", is_begun);
    drop(cut);
    until("the upload is gone", || !is_begun());
    assert_eq!(keys(&endpoint, &bucket, "list-type=2"), kept);

    assert_eq!(site.send("DELETE", &url, &[], &Body::None).status, 204);
    // Its bytes go with the next sweep after an hour.
    assert_eq!(site.send("GET", &url, &[], &Body::None).status, 404);
}

#[test]
fn a_storage_that_can_not_be_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let ended = server(folder.path(), "ftp://host/path").output().unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("STORAGE_URL") && said.contains("s3://"), "{said}");
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("waited in vain: {what}");
}
