//! Request limits, and what answers say of them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use cmdexec_core::service::Role;
use cmdexec_transport_http::server::Options;
use http::Method;
use serde_json::json;
use support::{World, send};

fn few() -> Options {
    let mut options = Options::default();
    let limits = &mut options.limits;
    (limits.jobs, limits.heartbeats, limits.registrations, limits.requests) = (3, 2, 1, 4);
    options
}

#[tokio::test]
async fn each_limit_counts_for_itself_and_by_user() {
    let world = World::with(few()).await;
    let create = Some(json!({ "command": "true" }));
    for left in [2, 1, 0] {
        let answer = world.user(Method::POST, "/api/jobs/create", create.clone()).await;
        answer.ok(201);
        assert_eq!(answer.headers["ratelimit-limit"], "3");
        assert_eq!(answer.headers["ratelimit-remaining"], left.to_string());
        assert_eq!(answer.headers["x-ratelimit-limit"], "3");
        assert_eq!(answer.headers["x-ratelimit-remaining"], left.to_string());
        assert_eq!(answer.headers["ratelimit-policy"], "3;w=60");
    }
    let refused = world.user(Method::POST, "/api/jobs/create", create.clone()).await;
    refused.refused(429, "rate_limited");
    let after: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&after));
    assert_eq!(refused.body["retryAfterSeconds"], after);
    assert_eq!(
        (&refused.headers["ratelimit-remaining"], &refused.headers["x-ratelimit-remaining"]),
        (&"0".parse().unwrap(), &"0".parse().unwrap())
    );
    assert!(refused.headers["x-ratelimit-reset"].to_str().unwrap().parse::<u64>().unwrap() > 1_000_000_000);
    // A batch counts once, against the same limit; the alias and executing too.
    for path in ["/api/jobs/create-batch", "/api/jobs/submit", "/api/execute"] {
        world.user(Method::POST, path, create.clone()).await.refused(429, "rate_limited");
    }
    // Reading has a limit of its own, and others have theirs.
    for _ in 0..4 {
        world.user(Method::GET, "/api/jobs/list", None).await.ok(200);
    }
    world.user(Method::GET, "/api/stats", None).await.refused(429, "rate_limited");
    let eve = world.user_token("eve", Role::User);
    send(world.request(Method::POST, "/api/jobs/create").bearer_auth(&eve).json(&create)).await.ok(201);
    for _ in 0..20 {
        send(world.request(Method::GET, "/api/health")).await.ok(200);
    }
}

#[tokio::test]
async fn a_batch_counts_once() {
    let world = World::with(few()).await;
    let jobs: Vec<_> = (0..100).map(|_| json!({ "command": "true" })).collect();
    let answer = world.user(Method::POST, "/api/jobs/create-batch", Some(json!({ "jobs": jobs }))).await;
    assert_eq!(answer.ok(201)["jobs"].as_array().unwrap().len(), 100);
    assert_eq!(answer.headers["ratelimit-remaining"], "2");
}

#[tokio::test]
async fn who_has_no_token_counts_by_address() {
    let mut options = few();
    options.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let world = World::with(options).await;
    let from = |address: &str| send(world.request(Method::GET, "/api/stats").header("x-forwarded-for", address));
    for _ in 0..4 {
        from("1.1.1.1").await.refused(401, "unauthenticated");
    }
    from("1.1.1.1").await.refused(429, "rate_limited");
    from("6.6.6.6, 1.1.1.1").await.refused(429, "rate_limited");
    from("2.2.2.2").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn workers_are_limited_in_registering_and_beating_only() {
    let world = World::with(few()).await;
    let register = |id: &str| json!({ "workerId": id, "hostname": "h", "cpuCores": 1, "totalMemoryMb": 100 });
    let first = world.worker(Method::POST, "/api/workers/register", Some(register("w1"))).await;
    first.ok(200);
    assert_eq!(first.headers["ratelimit-remaining"], "0");
    world.worker(Method::POST, "/api/workers/register", Some(register("w1"))).await.refused(429, "rate_limited");
    world.worker(Method::POST, "/api/workers/register", Some(register("w2"))).await.ok(200);
    for _ in 0..2 {
        world.worker(Method::POST, "/api/workers/heartbeat", Some(json!({ "workerId": "w1" }))).await.ok(200);
    }
    let refused = world.worker(Method::POST, "/api/workers/heartbeat", Some(json!({ "workerId": "w1" }))).await;
    refused.refused(429, "rate_limited");
    assert!(refused.headers.contains_key("retry-after") && refused.headers.contains_key("x-ratelimit-limit"));
    for _ in 0..20 {
        let answer = world.worker(Method::GET, "/api/jobs/get-job?workerId=w1", None).await;
        answer.ok(200);
        assert!(!answer.headers.contains_key("ratelimit-limit"));
    }
}

#[tokio::test]
async fn one_worker_has_so_many_calls_at_once() {
    let mut options = support::unlimited();
    options.max_worker_calls = 3;
    options.body_idle_timeout = std::time::Duration::from_millis(50);
    let world = World::with(options).await;
    let register = |id: &str| json!({ "workerId": id, "hostname": "h", "cpuCores": 1, "totalMemoryMb": 100 });
    for id in ["w1", "w2"] {
        world.worker(Method::POST, "/api/workers/register", Some(register(id))).await.ok(200);
    }
    let token = world.worker_token(None);
    let poll = || world.request(Method::GET, "/api/jobs/get-job?workerId=w1&wait=30").header("x-worker-token", &token);
    let polls: Vec<_> = (0..3).map(|_| tokio::spawn(send(poll()))).collect();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let refused = world.worker(Method::GET, "/api/jobs/get-job?workerId=w1", None).await;
    assert_eq!(refused.refused(429, "rate_limited").headers["retry-after"], "1");
    world.worker(Method::GET, "/api/jobs/get-job?workerId=w2", None).await.ok(200);
    polls.iter().for_each(tokio::task::JoinHandle::abort);
    drop(polls);
    // A call is over when its caller is gone.
    loop {
        if world.worker(Method::GET, "/api/jobs/get-job?workerId=w1", None).await.status == 200 {
            break;
        }
        tokio::task::yield_now().await;
    }
}
