//! When something behind the server, or the way to it, is broken.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::job::JobSpec;
use cmdexec_core::service::{JobQuery, JobService, JobServiceExt, Role};
use cmdexec_core::store::MemoryStore;
use cmdexec_testkit::store::{Call, Fault, FaultyStore};
use cmdexec_transport_http::Client;
use http::Method;
use serde_json::json;
use support::{World, send, unlimited};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn over_faults() -> (World, Arc<FaultyStore>) {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let coordinator = Coordinator::builder_shared(Arc::clone(&store) as _).build().await.unwrap();
    (World::over(Arc::new(coordinator), unlimited()).await, store)
}

fn impatient() -> cmdexec_transport_http::client::Options {
    let mut options = cmdexec_transport_http::client::Options::default();
    options.retry_for = Duration::from_millis(500);
    options
}

#[tokio::test]
async fn a_store_that_is_down_is_503_and_unhealthy() {
    let (world, store) = over_faults().await;
    send(world.request(Method::GET, "/api/health")).await.ok(200);
    store.set_down(true);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let health = send(world.request(Method::GET, "/api/health")).await;
    assert_eq!((health.status, &health.body["status"]), (503, &json!("unhealthy")), "{}", health.text);
    assert!(health.body["checks"].is_object());
    let create = world.user(Method::POST, "/api/jobs/create", Some(json!({ "command": "a" }))).await;
    create.refused(503, "unavailable");
    assert!(create.headers.contains_key("retry-after"));
    let token = world.user_token("ada", Role::User);
    let client = Client::builder(&world.url).user_token(token).options(impatient()).build().unwrap();
    assert!(matches!(client.list(&JobQuery::default()).await, Err(Error::Unavailable { .. })));
    store.set_down(false);
    client.submit(JobSpec::shell("a")).await.unwrap();
}

#[tokio::test]
async fn a_submission_whose_answer_was_lost_is_made_once() {
    let (world, store) = over_faults().await;
    let client = world.client("ada", Role::User);
    store.inject(Call::Insert, Fault::LoseReply);
    let job = client.submit(JobSpec::shell("a")).await.unwrap();
    assert!(!job.repeated, "the caller did not repeat anything");
    let page = client.list(&JobQuery::default()).await.unwrap();
    assert_eq!((page.total, page.jobs[0].id), (1, job.id));
}

/// Passes the first connections on only so far, and cuts them; later ones wholly.
async fn cutting_proxy(to: std::net::SocketAddr, cuts: Vec<usize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut cuts = cuts.into_iter();
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(to).await.unwrap();
            let cut = cuts.next();
            tokio::spawn(async move {
                let Some(cut) = cut else {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    return;
                };
                let mut request = vec![0; 64 * 1024];
                let n = near.read(&mut request).await.unwrap_or(0);
                let _ = far.write_all(&request[..n]).await;
                let mut answer = vec![0; cut];
                if far.read_exact(&mut answer).await.is_ok() {
                    let _ = near.write_all(&answer).await;
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn answers_that_break_off_are_asked_for_again() {
    let world = World::start().await;
    let url = cutting_proxy(world.address, vec![0, 10, 200, 350]).await;
    let client = Client::builder(url).user_token(world.user_token("ada", Role::User)).build().unwrap();
    let job = client.submit(JobSpec::shell("a")).await.unwrap();
    assert_eq!(client.list(&JobQuery::default()).await.unwrap().total, 1);
    client.cancel(job.id).await.unwrap();
    assert_eq!(client.trouble(), None);
}

#[tokio::test]
async fn what_answers_is_not_always_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new()
        .route("/api/stats", axum::routing::get(|| async { "<html>welcome</html>" }))
        .route("/api/jobs/list", axum::routing::get(|| async { vec![b' '; 5_000_000] }))
        .fallback(|| async { (http::StatusCode::BAD_GATEWAY, "bad gateway") });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut options = impatient();
    options.max_answer = 1_000_000;
    let client = Client::builder(&url).options(options).build().unwrap();
    assert_eq!(client.stats().await, Err(Error::Internal));
    assert!(client.trouble().unwrap().contains("/api/stats answered what was not expected"));
    assert!(matches!(client.list(&JobQuery::default()).await, Err(Error::Unavailable { .. })));
    assert!(client.trouble().unwrap().contains("larger than"), "{:?}", client.trouble());
    assert!(matches!(client.workers(None).await, Err(Error::Unavailable { .. })));
    assert!(client.trouble().unwrap().contains("is that a Command Executor server?"));
}

#[test]
fn urls_that_are_none_are_refused() {
    for wrong in ["", "localhost:3000", "ftp://x", "http://", "http://user:pw@x", "http://x?y"] {
        assert!(Client::builder(wrong).build().is_err(), "{wrong}");
    }
    assert!(Client::builder("https://example.org/prefix/").build().is_ok());
    assert!(Client::builder("http://x").user_token("a\nb").build().is_err());
}
