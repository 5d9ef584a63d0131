//! Who may what: tokens of every kind on routes of every kind.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cmdexec_core::service::Role;
use cmdexec_core::token::{Keys, UserClaims, WorkerClaims};
use cmdexec_testkit::tokens::{USER_SECRET, WORKER_SECRET};
use http::Method;
use serde_json::{Value, json};
use support::{World, now, send, unlimited};

const ID: &str = "019a0000-0000-7000-8000-000000000000";

/// Every user route, and whether it changes something.
const USER_ROUTES: [(Method, &str, bool); 12] = [
    (Method::POST, "/api/jobs/create", true),
    (Method::POST, "/api/jobs/submit", true),
    (Method::POST, "/api/jobs/create-batch", true),
    (Method::POST, "/api/jobs/cancel", true),
    (Method::POST, "/api/execute", true),
    (Method::GET, "/api/jobs/status?jobId=019a0000-0000-7000-8000-000000000000", false),
    (Method::POST, "/api/jobs/status-batch", false),
    (Method::GET, "/api/jobs/list", false),
    (Method::GET, "/api/jobs/logs?jobId=019a0000-0000-7000-8000-000000000000", false),
    (Method::GET, "/api/stats", false),
    (Method::GET, "/api/workers/list", false),
    (Method::GET, "/api/workers/w", false),
];

const WORKER_ROUTES: [(Method, &str); 7] = [
    (Method::POST, "/api/workers/register"),
    (Method::POST, "/api/workers/heartbeat"),
    (Method::GET, "/api/jobs/get-job?workerId=w"),
    (Method::POST, "/api/jobs/stream-output"),
    (Method::GET, "/api/jobs/check-cancel?jobId=019a0000-0000-7000-8000-000000000000"),
    (Method::POST, "/api/jobs/submit-result"),
    (Method::PUT, "/api/jobs/submit-result"),
];

/// A token with a head and claims of one's own, signed with nothing.
fn forged(head: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(head), part(claims))
}

#[tokio::test]
async fn bad_credentials_are_401_everywhere() {
    let world = World::start().await;
    let good = world.user_token("ada", Role::Admin);
    let seconds = now().as_millis() / 1_000;
    let claims = json!({ "sub": "ada", "role": "admin", "workerId": "w", "iat": seconds, "exp": seconds + 3_600 });
    let others =
        Keys::new("another secret of thirty-two characters", "yet another secret of thirty-two char.").unwrap();
    let swapped = Keys::new(WORKER_SECRET, USER_SECRET).unwrap();
    let past = now().before(Duration::from_secs(90_000));
    let mut without_expiry = claims.clone();
    without_expiry.as_object_mut().unwrap().remove("exp");
    let signature = good.rsplit('.').next().unwrap();
    let mut cut = good.clone();
    cut.pop();
    let bad: Vec<String> = vec![
        String::new(),
        "x".to_owned(),
        "a.b.c".to_owned(),
        cut,
        format!("{good}x"),
        good.replace('.', ""),
        "ü".to_owned(),
        "x".repeat(20_000),
        others.mint_user(&UserClaims::new("ada".parse().unwrap(), Role::Admin, now())),
        others.mint_worker(&WorkerClaims::new(None, now())),
        world.tokens.keys.mint_user(&UserClaims::new("ada".parse().unwrap(), Role::Admin, past)),
        world.tokens.keys.mint_worker(&WorkerClaims::new(None, past)),
        // The right secrets for the wrong audience.
        swapped.mint_user(&UserClaims::new("ada".parse().unwrap(), Role::Admin, now())),
        swapped.mint_worker(&WorkerClaims::new(None, now())),
        forged(&json!({ "alg": "none", "typ": "JWT" }), &claims, ""),
        forged(&json!({ "alg": "none", "typ": "JWT" }), &claims, signature),
        forged(&json!({ "alg": "HS512", "typ": "JWT" }), &claims, signature),
        forged(&json!({ "alg": "RS256", "typ": "JWT" }), &claims, signature),
        forged(&json!({ "alg": "HS256", "typ": "JWT" }), &claims, signature),
        forged(&json!({ "alg": "HS256", "typ": "JWT" }), &without_expiry, signature),
    ];
    for token in &bad {
        for (method, path, _) in USER_ROUTES {
            let request = world.request(method.clone(), path).header("authorization", format!("Bearer {token}"));
            send(request).await.refused(401, "unauthenticated");
        }
        for (method, path) in WORKER_ROUTES {
            send(world.request(method.clone(), path).header("x-worker-token", token))
                .await
                .refused(401, "unauthenticated");
        }
    }
    for (method, path, _) in USER_ROUTES {
        let answer = send(world.request(method.clone(), path)).await;
        answer.refused(401, "unauthenticated");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        // A worker's token is no user's.
        send(world.request(method.clone(), path).bearer_auth(world.worker_token(None)))
            .await
            .refused(401, "unauthenticated");
        send(world.request(method, path).header("authorization", format!("Basic {good}")))
            .await
            .refused(401, "unauthenticated");
    }
    for (method, path) in WORKER_ROUTES {
        send(world.request(method.clone(), path)).await.refused(401, "unauthenticated");
        send(world.request(method, path).header("x-worker-token", &good)).await.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn roles_and_owners_are_kept() {
    let world = World::start().await;
    let call = |method: &Method, path: &str, name: &str, role: Role, body: Option<Value>| {
        let request = world.request(method.clone(), path).bearer_auth(world.user_token(name, role));
        send(body.into_iter().fold(request, |request, body| request.json(&body)))
    };
    for (method, path, changes) in USER_ROUTES {
        let answer = call(&method, path, "ada", Role::Viewer, None).await;
        assert_eq!(answer.status == 403, changes, "{path}: {}", answer.text);
    }
    for role in [Role::Viewer, Role::User] {
        call(&Method::DELETE, "/api/workers/w", "ada", role, None).await.refused(403, "forbidden");
    }
    call(&Method::DELETE, "/api/workers/w", "root", Role::Admin, None).await.refused(404, "worker_not_found");
    let job = call(&Method::POST, "/api/jobs/create", "ada", Role::User, Some(json!({ "command": "a" }))).await;
    let id = job.ok(201)["jobId"].as_str().unwrap().to_owned();
    let status = format!("/api/jobs/status?jobId={id}");
    let cancel = Some(json!({ "jobId": id }));
    // To others it does not exist.
    call(&Method::GET, &status, "eve", Role::User, None).await.refused(404, "job_not_found");
    call(&Method::GET, &format!("/api/jobs/logs?jobId={id}"), "eve", Role::User, None)
        .await
        .refused(404, "job_not_found");
    call(&Method::GET, &format!("/api/jobs/watch?jobId={id}"), "eve", Role::User, None)
        .await
        .refused(404, "job_not_found");
    call(&Method::POST, "/api/jobs/cancel", "eve", Role::User, cancel.clone()).await.refused(404, "job_not_found");
    assert_eq!(call(&Method::GET, "/api/jobs/list", "eve", Role::User, None).await.ok(200)["total"], 0);
    assert_eq!(call(&Method::GET, &status, "root", Role::Admin, None).await.ok(200)["owner"], "ada");
    call(&Method::GET, &status, "ada", Role::Viewer, None).await.ok(200);
    call(&Method::POST, "/api/jobs/cancel", "root", Role::Admin, cancel).await.ok(200);
    let missing = call(&Method::GET, &format!("/api/jobs/status?jobId={ID}"), "ada", Role::User, None).await;
    missing.refused(404, "job_not_found");
}

#[tokio::test]
async fn a_bound_worker_speaks_for_no_other() {
    let world = World::start().await;
    let bound = world.worker_token(Some("w1"));
    let call = |method: Method, path: &str, body: Value| {
        let request = world.request(method, path).header("x-worker-token", &bound);
        send(if body.is_null() { request } else { request.json(&body) })
    };
    let register = |id: Value| json!({ "workerId": id, "hostname": "h", "cpuCores": 1, "totalMemoryMb": 100 });
    call(Method::POST, "/api/workers/register", register(json!("w2"))).await.refused(403, "forbidden");
    assert_eq!(call(Method::POST, "/api/workers/register", register(Value::Null)).await.ok(200)["workerId"], "w1");
    call(Method::POST, "/api/workers/register", register(json!("w1"))).await.ok(200);
    let as_other = [
        (Method::POST, "/api/workers/heartbeat", json!({ "workerId": "w2" })),
        (Method::GET, "/api/jobs/get-job?workerId=w2", Value::Null),
        (Method::POST, "/api/jobs/stream-output", json!({ "workerId": "w2", "jobId": ID, "data": "" })),
        (Method::GET, "/api/jobs/check-cancel?jobId=019a0000-0000-7000-8000-000000000000&workerId=w2", Value::Null),
        (Method::POST, "/api/jobs/submit-result", json!({ "workerId": "w2", "jobId": ID, "exitCode": 0 })),
        (Method::PUT, "/api/jobs/submit-result", json!({ "workerId": "w2", "jobId": ID, "error": "x" })),
    ];
    for (method, path, body) in as_other {
        call(method, path, body).await.refused(403, "forbidden");
    }
    call(Method::POST, "/api/workers/heartbeat", json!({})).await.ok(200);
    call(Method::GET, "/api/jobs/get-job", Value::Null).await.ok(200);
    call(Method::POST, "/api/jobs/submit-result", json!({ "jobId": ID, "exitCode": 0 }))
        .await
        .refused(409, "lease_lost");
}

#[tokio::test]
async fn the_cookie_counts_for_pages_of_this_server_only() {
    let mut options = unlimited();
    options.cors_origins = vec!["https://app.example".to_owned()];
    let world = World::with(options).await;
    let cookie = format!("a=b; auth_token={}", world.user_token("ada", Role::User));
    let create =
        || world.request(Method::POST, "/api/jobs/create").header("cookie", &cookie).json(&json!({ "command": "a" }));
    send(create()).await.ok(201);
    send(create().header("origin", format!("http://{}", world.address))).await.ok(201);
    let allowed = send(create().header("origin", "https://app.example")).await;
    allowed.ok(201);
    assert_eq!(allowed.headers["access-control-allow-origin"], "https://app.example");
    send(create().header("origin", "https://evil.example")).await.refused(403, "forbidden");
    send(create().header("origin", "null")).await.refused(403, "forbidden");
    let preflight = world
        .request(Method::OPTIONS, "/api/jobs/create")
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "POST");
    assert!(!send(preflight).await.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn answers_say_nothing_of_the_inside() {
    let world = World::start().await;
    let answer = world.user(Method::GET, "/api/jobs/status?jobId=x", None).await;
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert!(answer.headers.contains_key("x-request-id") && answer.headers.contains_key("content-security-policy"));
    assert!(!answer.headers.contains_key("server"));
    let named = send(world.request(Method::GET, "/api/health").header("x-request-id", "abc-1")).await;
    assert_eq!(named.headers["x-request-id"], "abc-1");
    let unfit = send(world.request(Method::GET, "/api/health").header("x-request-id", "a b")).await;
    assert_ne!(unfit.headers["x-request-id"], "a b");
}
