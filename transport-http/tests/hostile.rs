//! Bodies and connections that mean harm are answered with 4xx or cut, and the server lives.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use cmdexec_core::service::Role;
use http::Method;
use serde_json::json;
use support::{World, send, unlimited};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends bytes, and gives what comes back until the server closes.
async fn raw(world: &World, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_no_json_is_400() {
    let world = World::start().await;
    let token = world.user_token("ada", Role::User);
    let deep = format!("{{\"command\":{}", "[".repeat(100_000));
    let balanced = format!("{{\"x\":{}{}}}", "[".repeat(1_000), "]".repeat(1_000));
    let bodies: Vec<Vec<u8>> = vec![
        vec![],
        b"{".to_vec(),
        b"{\"command\":\"tr".to_vec(),
        b"{\"command\":\"true\"} x".to_vec(),
        b"command=true".to_vec(),
        b"{\"command\":\"a\",\"command\":\"b\"}".to_vec(),
        b"{\"command\":\"a\",\"env\":{\"A\":\"1\",\"A\":\"2\"}}".to_vec(),
        b"{\"command\":\"a\",\"unknown\":{\"A\":1,\"A\":2}}".to_vec(),
        b"{\"command\":\"\xff\xfe\"}".to_vec(),
        b"{\"command\":\"\\ud800\"}".to_vec(),
        b"{'command':'true'}".to_vec(),
        b"\xef\xbb\xbf{\"command\":\"true\"}".to_vec(),
        deep.into_bytes(),
        balanced.into_bytes(),
    ];
    for path in
        ["/api/jobs/create", "/api/jobs/create-batch", "/api/execute", "/api/jobs/cancel", "/api/jobs/status-batch"]
    {
        for body in &bodies {
            // A short route takes no long body.
            let expected = if path.ends_with("cancel") || path.ends_with("-batch") && body.len() > 64 * 1024 {
                [400, 413]
            } else {
                [400, 400]
            };
            let request = world.request(Method::POST, path).bearer_auth(&token);
            let answer = send(request.header("content-type", "application/json").body(body.clone())).await;
            assert!(
                expected.contains(&answer.status),
                "{path} {:.60?}: {}",
                String::from_utf8_lossy(body),
                answer.text
            );
            assert!(answer.body["code"].is_string(), "{}", answer.text);
        }
    }
    let worker = world.worker_token(None);
    for path in ["workers/register", "workers/heartbeat", "jobs/stream-output", "jobs/submit-result"] {
        for body in bodies.iter().filter(|body| body.len() < 10_000) {
            let request = world.request(Method::POST, &format!("/api/{path}")).header("x-worker-token", &worker);
            let answer = send(request.header("content-type", "application/json").body(body.clone())).await;
            // Half a character is taken from workers that cut their output.
            let is_cut = path.starts_with("jobs/") && body.windows(6).any(|piece| piece == b"\\ud800");
            let (status, code) = if is_cut { (422, "invalid") } else { (400, "malformed") };
            answer.refused(status, code);
        }
    }
    world.user(Method::POST, "/api/jobs/create", Some(json!({ "command": "true" }))).await.ok(201);
}

#[tokio::test]
async fn what_is_too_large_is_413() {
    let world = World::start().await;
    let (user, worker) = (world.user_token("ada", Role::User), world.worker_token(Some("w")));
    let mib = 1024 * 1024;
    for (path, limit) in [
        ("jobs/create", mib),
        ("execute", mib),
        ("jobs/create-batch", 64 * mib),
        ("jobs/cancel", 64 * 1024),
        ("workers/register", 64 * 1024),
        ("workers/heartbeat", 64 * 1024),
        ("jobs/stream-output", 4 * mib),
        ("jobs/submit-result", 32 * mib),
    ] {
        let is_worker = path.starts_with("workers") || path.ends_with("output") || path.ends_with("result");
        for chunked in [false, true] {
            let body = vec![b' '; limit + 1];
            let request = world.request(Method::POST, &format!("/api/{path}"));
            let request =
                if is_worker { request.header("x-worker-token", &worker) } else { request.bearer_auth(&user) };
            let request = request.header("content-type", "application/json");
            let request = if chunked {
                let pieces: Vec<_> =
                    body.chunks(100_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
                request.body(reqwest::Body::wrap_stream(futures_util::stream::iter(pieces)))
            } else {
                request.body(body)
            };
            send(request).await.refused(413, "payload_too_large");
        }
    }
    // Exactly as large as it may be.
    let padded = ["{\"command\":\"true\"}", &" ".repeat(mib - 18)].concat();
    let request = world.request(Method::POST, "/api/jobs/create").bearer_auth(&user);
    send(request.header("content-type", "application/json").body(padded)).await.ok(201);
}

#[tokio::test]
async fn other_media_types_are_415() {
    const PACKED: &str = "application/vnd.cmdexec.output";
    let world = World::start().await;
    let token = world.user_token("ada", Role::User);
    let create = || world.request(Method::POST, "/api/jobs/create").bearer_auth(&token).body("{\"command\":\"true\"}");
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json", ""] {
        send(create().header("content-type", kind)).await.refused(415, "unsupported_media_type");
    }
    for kind in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"] {
        send(create().header("content-type", kind)).await.ok(201);
    }
    send(create()).await.ok(201);
    let compressed = create().header("content-type", "application/json").header("content-encoding", "gzip");
    send(compressed).await.refused(415, "unsupported_media_type");
    // Output has a type of its own, nothing else has.
    let output = || {
        let request = world.request(Method::POST, "/api/jobs/stream-output");
        request.header("x-worker-token", world.worker_token(Some("w")))
    };
    send(create().header("content-type", PACKED)).await.refused(415, "unsupported_media_type");
    send(output().header("content-type", "application/octet-stream").body("{}"))
        .await
        .refused(415, "unsupported_media_type");
    let compressed = output().header("content-type", PACKED).header("content-encoding", "gzip");
    send(compressed.body("x")).await.refused(415, "unsupported_media_type");
    for body in [&b""[..], b"\0\0\0", b"\0\0\0\x03{}", b"\0\0\0\x01{}", b"\xff\xff\xff\xff{}"] {
        send(output().header("content-type", PACKED).body(body)).await.refused(400, "malformed");
    }
    send(output().header("content-type", PACKED).body(&b"\0\0\0\x02{}"[..])).await.refused(422, "invalid");
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems_too() {
    let world = World::start().await;
    for path in
        ["/", "/api", "/api/jobs", "/api/jobs/create/x", "/api/files", "/uploads", "/metrics", "/api/auth/login"]
    {
        send(world.request(Method::GET, path)).await.refused(404, "not_found");
    }
    for (method, path) in [
        (Method::GET, "/api/jobs/create"),
        (Method::DELETE, "/api/jobs/list"),
        (Method::PATCH, "/api/health"),
        (Method::PUT, "/api/execute"),
    ] {
        let answer = send(world.request(method, path)).await;
        answer.refused(405, "method_not_allowed");
        assert!(answer.headers.contains_key("allow"), "{path}");
    }
}

#[tokio::test]
async fn broken_http_is_refused_and_the_server_lives() {
    let world = World::start().await;
    let token = world.user_token("ada", Role::User);
    let big_head = format!("GET /api/health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(200_000));
    assert!(raw(&world, big_head.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many = format!("GET /api/health HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: a\r\n".repeat(200));
    assert!(raw(&world, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    assert!(raw(&world, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.starts_with("HTTP/1.1 400"));
    assert!(raw(&world, b"GET / HTTP/9.9\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let long_uri = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(80_000));
    let answer = raw(&world, long_uri.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431"), "{answer:.100}");
    // A body that ends before it should.
    let short = format!(
        "POST /api/jobs/create HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 50\r\n\r\n{{\"command\""
    );
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(short.as_bytes()).await.unwrap();
    drop(stream);
    // Two lengths: who reads which is how requests are smuggled.
    let smuggled = b"POST /api/jobs/create HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!";
    assert!(raw(&world, smuggled).await.starts_with("HTTP/1.1 400"));
    send(world.request(Method::GET, "/api/health")).await.ok(200);
    assert_eq!(world.user(Method::GET, "/api/jobs/list", None).await.body["total"], 0);
}

#[tokio::test]
async fn the_slow_are_cut() {
    let mut options = unlimited();
    options.head_timeout = Duration::from_millis(300);
    options.body_idle_timeout = Duration::from_millis(300);
    let world = World::with(options).await;
    let token = world.user_token("ada", Role::User);
    // Neither a head nor nothing at all is waited for.
    assert!(!raw(&world, b"GET /api/health HTT").await.contains("200 OK"));
    assert_eq!(raw(&world, b"").await, "");
    let body = format!(
        "POST /api/jobs/create HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 50\r\n\r\n{{"
    );
    let answer = raw(&world, body.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"timeout\""), "{answer}");
}
