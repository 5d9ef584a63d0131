//! Sockets that go away and come back: the other way in between, what is cancelled, and servers that end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::FunctionExecutor;
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::limiter::RequestLimits;
use cmdexec_core::service::{JobService, JobServiceExt, LeaseRequest, Registration, Role, WatchQuery, WorkerService};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::worker::Worker;
use cmdexec_testkit::service::{FaultyWorkerService, WorkerCall};
use cmdexec_transport_http as http;
use cmdexec_transport_ws::Client;
use cmdexec_transport_ws::client::Fallback;
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use support::{World, quick, unlimited, until};
use tokio::net::TcpListener;

/// A server without a socket beside it, as older ones are.
async fn plain(coordinator: &Arc<Coordinator>, world: &World) -> (String, tokio_util::sync::CancellationToken) {
    let mut options = http::server::Options::default();
    options.limits = RequestLimits::none();
    let server = http::Server::builder(Arc::clone(coordinator) as _, world.tokens.keys.clone()).options(options);
    let server = server.build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move { server.serve(listener, stop).await }
    });
    (url, stop)
}

#[tokio::test]
async fn a_worker_goes_on_by_http_while_there_is_no_socket_and_returns_to_it() {
    let coordinator = Arc::new(Coordinator::builder(MemoryStore::new()).build().await.unwrap());
    let world = World::over(Arc::clone(&coordinator) as _, unlimited()).await;
    let (url, _stop) = plain(&coordinator, &world).await;
    let address = world.address;
    let token = world.worker_token(Some("w"));
    let mut options = quick();
    options.retry_for = Duration::ZERO;
    let socket = Client::builder(format!("ws://{address}")).worker_token(&token).options(options).build().unwrap();
    let other = http::Client::builder(url).worker_token(&token).build().unwrap();
    let service = Fallback::new(socket.clone(), Arc::new(other));
    let directory = tempfile::tempdir().unwrap();
    let executor = FunctionExecutor::new(|_| async { Outcome::Exited { code: 0 } });
    let worker = Worker::builder(Arc::new(service), executor).id("w".parse().unwrap()).slots(2);
    let worker = worker.work_dir(directory.path()).start().await.unwrap();
    let jobs = coordinator.jobs();

    tokio::time::timeout(Duration::from_secs(5), socket.opened()).await.unwrap();
    assert_eq!(jobs.run(JobSpec::shell("over the socket")).await.unwrap().status, Status::Completed);
    world.stop().await;
    tokio::time::timeout(Duration::from_secs(5), socket.closed()).await.unwrap();
    assert_eq!(jobs.run(JobSpec::shell("by http")).await.unwrap().status, Status::Completed);
    assert!(!socket.is_open());
    assert!(socket.trouble().is_some());

    let world = World::on(TcpListener::bind(address).await.unwrap(), Arc::clone(&coordinator) as _, unlimited());
    tokio::time::timeout(Duration::from_secs(5), socket.opened()).await.unwrap();
    // The question by HTTP is given up, and what comes now comes over the socket.
    let done = tokio::time::timeout(Duration::from_secs(5), jobs.run(JobSpec::shell("over the socket again"))).await;
    let done = done.unwrap().unwrap();
    assert_eq!((done.status, done.attempts.len()), (Status::Completed, 1));
    worker.shutdown().await;
    world.stop().await;
}

/// A job that is cancelled while it runs is stopped before a heartbeat could say so.
async fn is_stopped_at_once(user: &Client) {
    let job = user.submit(JobSpec::shell("sleep")).await.unwrap();
    let mut updates = user.watch(WatchQuery::Job(job.id)).await.unwrap();
    while updates.next().await.unwrap().unwrap().status != Status::Running {}
    user.cancel(job.id).await.unwrap();
    // Heartbeats come every 10 s.
    let done = tokio::time::timeout(Duration::from_secs(4), user.wait(job.id)).await.unwrap().unwrap();
    assert_eq!(done.status, Status::Cancelled);
}

#[tokio::test]
async fn what_is_cancelled_is_stopped_at_once() {
    let world = World::start().await;
    let (client, directory) = (world.worker(Some("w")), tempfile::tempdir().unwrap());
    let executor = FunctionExecutor::new(|context| async move {
        context.stop.cancelled().await;
        Outcome::Stopped
    });
    let worker = Worker::builder(Arc::new(client), executor).id("w".parse().unwrap()).work_dir(directory.path());
    let worker = worker.start().await.unwrap();
    let ada = world.user("ada", Role::User);
    is_stopped_at_once(&ada).await;
    worker.shutdown().await;
}

#[tokio::test]
async fn a_service_that_is_dropped_ends_its_hints_so_that_the_next_one_is_asked() {
    let world = World::start().await;
    let id = "w".parse().unwrap();
    let service = Fallback::new(world.worker(Some("w")), Arc::new(world.plain_worker(Some("w"))));
    service.socket().opened().await;
    let mut stops = service.stops(&id).await.unwrap();
    assert_eq!(stops.next().now_or_never(), None);
    drop(service);
    let ended = tokio::time::timeout(Duration::from_secs(5), stops.next()).await;
    assert_eq!(ended.unwrap(), None);
}

#[tokio::test]
async fn what_is_cancelled_is_stopped_at_once_also_after_a_change_of_tokens() {
    let world = World::start().await;
    let connect = || {
        let mut options = quick();
        options.retry_for = Duration::ZERO;
        let socket = Client::builder(world.url()).worker_token(world.worker_token(Some("w"))).options(options);
        Fallback::new(socket.build().unwrap(), Arc::new(world.plain_worker(Some("w"))))
    };
    let service = FaultyWorkerService::new(Arc::new(connect()));
    let executor = FunctionExecutor::new(|context| async move {
        if context.spec.command == JobSpec::shell("sleep").command {
            context.stop.cancelled().await;
            return Outcome::Stopped;
        }
        Outcome::Exited { code: 0 }
    });
    let directory = tempfile::tempdir().unwrap();
    let worker = Worker::builder(Arc::new(service.clone()), executor).id("w".parse().unwrap());
    let worker = worker.work_dir(directory.path()).start().await.unwrap();
    let ada = world.user("ada", Role::User);

    until(|| service.calls(WorkerCall::Stops) == 1).await;
    let next = connect();
    let socket = next.socket().clone();
    service.replace(Arc::new(next));
    // The question for jobs that the one before was asked ends, and with it the last that holds it.
    assert_eq!(ada.run(JobSpec::shell("true")).await.unwrap().status, Status::Completed);
    tokio::time::timeout(Duration::from_secs(20), async {
        until(|| service.calls(WorkerCall::Stops) == 2).await;
        socket.opened().await;
    })
    .await
    .unwrap();
    is_stopped_at_once(&ada).await;
    worker.shutdown().await;
}

#[tokio::test]
async fn a_server_that_ends_says_so_and_leaves_no_lease_behind() {
    let coordinator = Arc::new(Coordinator::builder(MemoryStore::new()).build().await.unwrap());
    let world = World::over(Arc::clone(&coordinator) as _, unlimited()).await;
    let mut bare = world.bare_worker("w").await;
    let body = json!({ "workerId": "w", "hostname": "h", "cpuCount": 1, "totalMemoryMb": 1, "executors": ["process"] });
    assert_eq!(bare.ask("register", 1, body).await["type"], "ok");
    bare.say(&json!({ "type": "ready", "body": { "credits": 3 } })).await;
    assert_eq!(bare.ask("heartbeat", 2, json!({ "status": "idle", "cpuUsage": 0, "ramUsage": 0 })).await["type"], "ok");
    let stopping = tokio::spawn(world.stop());
    assert_eq!(bare.next().await["type"], "drain");
    assert_eq!(bare.closed().await.0, 1001);
    assert_eq!(stopping.await.unwrap(), 0, "no socket had to be cut");
    let job = coordinator.jobs().submit(JobSpec::shell("true")).await.unwrap();
    assert_eq!(coordinator.jobs().job(job.id).await.unwrap().status, Status::Queued);
}

#[tokio::test]
async fn jobs_that_nobody_waits_for_any_more_go_back_at_once() {
    let world = World::start().await;
    let (gone, here) = (world.worker(Some("gone")), world.worker(Some("here")));
    for (service, id) in [(&gone, "gone"), (&here, "here")] {
        let registration = Registration { worker: Some(id.parse().unwrap()), ..Registration::new("h", 1, 1) };
        service.register(registration).await.unwrap();
    }
    let request = LeaseRequest { max: 4, wait: Duration::from_secs(30) };
    let id = "gone".parse().unwrap();
    tokio::select! {
        _ = gone.lease(&id, request) => panic!("there was nothing to lease"),
        () = tokio::time::sleep(Duration::from_millis(50)) => {}
    }
    // Its credits stand for a moment: whatever comes on them goes back.
    world.user("ada", Role::User).submit(JobSpec::shell("true")).await.unwrap();
    let id = "here".parse().unwrap();
    let leased = here.lease(&id, request);
    let leased = tokio::time::timeout(Duration::from_secs(4), leased).await.unwrap().unwrap();
    assert_eq!(leased.len(), 1);
}
