//! Streams of events: resumed where they broke, whoever broke them, and ended in a way that lets their readers come back.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use cmdexec_core::job::{JobSpec, Status};
use cmdexec_core::service::{JobQuery, JobService, JobServiceExt, OutputEvent, OutputQuery, Role, WatchQuery};
use futures_util::StreamExt;
use http::Method;
use support::running::Running;
use support::{World, send, unlimited};
use tokio::net::TcpListener;

/// One event of a text that was streamed.
fn events(text: &str) -> Vec<(Option<&str>, Option<&str>, Option<&str>)> {
    let field = |event: &'static str| event;
    let find = |lines: &str, name: &str| lines.lines().position(|line| line.starts_with(name));
    text.split("\n\n")
        .filter(|event| event.contains("event:"))
        .map(|event| {
            let get = |name: &str| find(event, field("")).and(event.lines().find_map(|line| line.strip_prefix(name)));
            (get("event: "), get("id: "), get("data: "))
        })
        .collect()
}

#[tokio::test]
async fn the_raw_log_is_the_jobs_bytes() {
    let mut running = Running::start().await;
    let world = World::over(running.services(), unlimited()).await;
    running.write("one\n").await;
    running.write("zwölf\n").await;
    let path = format!("/api/jobs/logs?jobId={}", running.leased.job);
    let answer = world.user(Method::GET, &path, None).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "one\nzwölf\n"));
    assert_eq!(answer.headers["content-type"], "text/plain");
    assert_eq!(world.user(Method::GET, &format!("{path}&stream=stderr"), None).await.text, "");
    assert_eq!(world.user(Method::GET, &format!("{path}&since=1.1.4"), None).await.text, "zwölf\n");
}

#[tokio::test]
async fn events_resume_at_their_ids() {
    let mut running = Running::start().await;
    let world = World::over(running.services(), unlimited()).await;
    for line in ["one\n", "two\n", "three\n"] {
        running.write(line).await;
    }
    running.end().await;
    let path = format!("/api/jobs/logs?jobId={}&follow=true", running.leased.job);
    let token = world.user_token("ada", Role::User);
    let request = world.request(Method::GET, &path).bearer_auth(&token);
    let whole = send(request).await;
    assert_eq!(whole.headers["content-type"], "text/event-stream");
    let all = events(&whole.text);
    assert_eq!(all.len(), 4, "{}", whole.text);
    assert_eq!(all[0], (Some("output"), Some("1.1.4"), Some(r#"{"stream":"stdout","data":"one\n"}"#)));
    assert_eq!(all[3], (Some("end"), None, Some(r#"{"status":"completed"}"#)));
    for (seen, event) in all.iter().take(3).enumerate() {
        let request = world.request(Method::GET, &path).bearer_auth(&token).header("last-event-id", event.1.unwrap());
        assert_eq!(events(&send(request).await.text), all[seen + 1..], "after {event:?}");
    }
    let wrong = world.request(Method::GET, &path).bearer_auth(&token).header("last-event-id", "x");
    assert_eq!(send(wrong).await.refused(422, "invalid").fields(), ["Last-Event-ID"]);
}

#[tokio::test]
async fn a_follower_survives_the_servers_restart() {
    let mut running = Running::start().await;
    let world = World::over(running.services(), unlimited()).await;
    let client = world.client("ada", Role::User);
    let query = OutputQuery { follow: true, ..OutputQuery::default() };
    let mut output = client.output(running.leased.job, query).await.unwrap();
    let mut updates = client.watch(WatchQuery::Job(running.leased.job)).await.unwrap();
    let mut everything = client.watch(WatchQuery::All).await.unwrap();
    assert_eq!(updates.next().await.unwrap().unwrap().status, Status::Running);
    running.write("one").await;
    let mut text = Vec::new();
    let Some(Ok(OutputEvent::Chunk { bytes, .. })) = output.next().await else { panic!() };
    text.extend_from_slice(&bytes);

    let address = world.address;
    assert_eq!(world.stop().await, 0, "no connection had to be cut");
    running.write("two").await;
    let listener = TcpListener::bind(address).await.unwrap();
    let world = World::on(listener, running.services(), unlimited());
    running.write("three").await;
    running.end().await;
    let end = loop {
        match output.next().await.unwrap().unwrap() {
            OutputEvent::Chunk { bytes, .. } => text.extend_from_slice(&bytes),
            OutputEvent::Gap { .. } | OutputEvent::Reset { .. } => panic!("nothing was lost or replaced"),
            OutputEvent::End { status } => break status,
        }
    };
    assert_eq!((String::from_utf8_lossy(&text).as_ref(), end), ("onetwothree", Status::Completed));
    assert!(output.next().await.is_none());
    assert_eq!(updates.next().await.unwrap().unwrap().status, Status::Completed);
    assert!(updates.next().await.is_none());
    // Of all jobs, changes were missed: whoever watches them must list again.
    assert!(everything.next().await.unwrap().is_err());
    assert!(everything.next().await.is_none());
    world.stop().await;
}

#[tokio::test]
async fn stopping_answers_everybody() {
    let running = Running::start().await;
    let world = World::over(running.services(), unlimited()).await;
    let worker = world.worker_token(Some("local"));
    let poll = world.request(Method::GET, "/api/jobs/get-job?wait=50").header("x-worker-token", worker);
    let poll = tokio::spawn(send(poll));
    let user = world.user_token("ada", Role::User);
    let follow = format!("/api/jobs/logs?jobId={}&follow=true", running.leased.job);
    let follow = tokio::spawn(send(world.request(Method::GET, &follow).bearer_auth(&user)));
    let wait = serde_json::json!({ "command": "x", "mode": "direct", "labels": ["none-has-it"] });
    let wait = tokio::spawn(send(world.request(Method::POST, "/api/execute").bearer_auth(&user).json(&wait)));
    // Until all three wait: the third is known by its job.
    while running.coordinator.jobs().list(&JobQuery::default()).await.unwrap().total < 2 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.stop().await, 0, "no connection had to be cut");
    assert_eq!(poll.await.unwrap().ok(200)["jobId"], serde_json::Value::Null);
    let followed = follow.await.unwrap();
    assert!(followed.text.contains("retry: 1000") && !followed.text.contains("event: end"), "{}", followed.text);
    wait.await.unwrap().ok(202);
}

#[tokio::test]
async fn a_poll_gets_a_job_the_moment_it_is_there() {
    let world = World::start().await;
    let client = world.client("ada", Role::User);
    let register = serde_json::json!({ "workerId": "w", "hostname": "h", "cpuCores": 1, "totalMemoryMb": 100 });
    world.worker(Method::POST, "/api/workers/register", Some(register)).await.ok(200);
    let poll = world.request(Method::GET, "/api/jobs/get-job?workerId=w&wait=30");
    let poll = tokio::spawn(send(poll.header("x-worker-token", world.worker_token(None))));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let job = client.submit(JobSpec::shell("x")).await.unwrap();
    let lease = tokio::time::timeout(Duration::from_secs(5), poll).await.unwrap().unwrap();
    assert_eq!(lease.ok(200)["jobId"], job.id.to_string());
}
