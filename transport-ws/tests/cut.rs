//! A socket that is cut at any byte, in either direction: nothing is lost, and nothing happens twice.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::coordinator::{Coordinator, Options};
use cmdexec_core::executor::{FunctionExecutor, Stream};
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{
    Ended, FinishedAttempt, JobQuery, JobService, JobServiceExt, LeaseRequest, OutputBatch, OutputEvent, OutputPieces,
    OutputQuery, Registration, Role, Submission, UserPrincipal, WatchQuery,
};
use cmdexec_core::store::{Chunk, MemoryStore};
use cmdexec_core::worker::Worker;
use cmdexec_transport_ws::Client;
use futures_util::StreamExt;
use support::proxy::{Cut, Proxy, everywhere};
use support::{World, quick, unlimited};
use tokio::sync::watch;

/// Runs a job by a worker whose first connection is cut; how many bytes went each way.
async fn run(cut: Cut) -> (u64, u64) {
    let mut options = Options::default();
    // Short, so that what never arrived is soon had back, and long enough for a machine that is busy.
    (options.lease, options.heartbeat_timeout) = (Duration::from_secs(9), Duration::from_secs(9));
    let coordinator = Arc::new(Coordinator::builder(MemoryStore::new()).options(options).build().await.unwrap());
    let world = World::over(Arc::clone(&coordinator) as _, unlimited()).await;
    let proxy = Proxy::start(world.address, cut).await;
    let client = Client::builder(format!("ws://{}", proxy.address)).worker_token(world.worker_token(Some("w")));
    let client = client.options(quick()).build().unwrap();
    let runs = Arc::<AtomicUsize>::default();
    let executor = FunctionExecutor::new({
        let runs = Arc::clone(&runs);
        move |context| {
            runs.fetch_add(1, Ordering::Relaxed);
            async move {
                for text in ["one ", "two ", "three"] {
                    context.output.write(Stream::Stdout, Bytes::from_static(text.as_bytes())).await;
                    // Longer than output waits for company.
                    tokio::time::sleep(Duration::from_millis(8)).await;
                }
                Outcome::Exited { code: 0 }
            }
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let worker = Worker::builder(Arc::new(client), executor).id("w".parse().unwrap()).slots(1);
    let mut worker = worker.work_dir(directory.path()).start().await.unwrap();
    let jobs = coordinator.jobs();
    let job = jobs.submit(JobSpec::shell("true")).await.unwrap();
    let done = tokio::time::timeout(Duration::from_secs(60), jobs.wait(job.id)).await;
    let done = done.unwrap_or_else(|_| panic!("{cut:?}: the job did not end")).unwrap();

    assert_eq!(done.status, Status::Completed, "{cut:?}: {done:?}");
    assert_eq!(done.stdout, "one two three", "{cut:?}");
    // What was handed out into a broken socket goes back without having run.
    let ran: Vec<_> = done.attempts.iter().filter(|attempt| attempt.outcome != Some(Ended::Returned)).collect();
    assert_eq!((ran.len(), runs.load(Ordering::Relaxed)), (1, 1), "{cut:?}: {:?}", done.attempts);
    worker.drain();
    let ended = tokio::time::timeout(Duration::from_secs(30), worker.wait()).await.unwrap();
    assert_eq!(ended.unreported, [], "{cut:?}");
    let bytes = proxy.carried();
    drop(proxy);
    world.stop().await;
    bytes
}

/// Submits a job, and hears what becomes of it and what it writes, over a socket whose first connection is cut; how many bytes went each way.
/// The job goes on only when what it did was heard, so that all of it is heard over a socket.
async fn hear(cut: Cut) -> (u64, u64) {
    let coordinator = Arc::new(Coordinator::builder(MemoryStore::new()).build().await.unwrap());
    let world = World::over(Arc::clone(&coordinator) as _, unlimited()).await;
    let proxy = Proxy::start(world.address, cut).await;
    let client = Client::builder(format!("ws://{}", proxy.address)).user_token(world.user_token("ada", Role::User));
    let client = client.options(quick()).build().unwrap();
    let heard = watch::Sender::new(Heard::default());
    let hearing = async {
        let submission = Submission { specs: vec![JobSpec::shell("true")], idempotency_key: None };
        let job = client.submit_batch(submission).await.unwrap().remove(0).id;
        let watching = async {
            let mut updates = client.watch(WatchQuery::Job(job)).await.unwrap();
            while heard.borrow().statuses.last() != Some(&Status::Completed) {
                let status = updates.next().await.unwrap().unwrap().status;
                heard.send_modify(|heard| heard.statuses.push(status));
            }
        };
        let following = async {
            let query = OutputQuery { follow: true, ..OutputQuery::default() };
            let mut events = client.output(job, query).await.unwrap();
            while let Some(event) = events.next().await {
                match event.unwrap() {
                    OutputEvent::Chunk { bytes, .. } => {
                        heard.send_modify(|heard| heard.output.extend_from_slice(&bytes));
                    }
                    OutputEvent::Reset { .. } => assert_eq!(heard.borrow().output.len(), 0, "there is but one attempt"),
                    OutputEvent::Gap { .. } => panic!("nothing is too much"),
                    OutputEvent::End { status } => assert_eq!(status, Status::Completed),
                }
            }
        };
        tokio::join!(watching, following);
    };
    let pieces: Vec<_> = (0..PIECES).map(|n| format!("piece {n}, ")).collect();
    let working = async {
        let (id, worker) = (WorkerId::local(), coordinator.as_worker(WorkerId::local()));
        worker.register(Registration { worker: Some(id.clone()), ..Registration::new("h", 1, 64) }).await.unwrap();
        let statuses = async |count| {
            heard.subscribe().wait_for(|heard| heard.statuses.len() == count).await.unwrap();
        };
        statuses(1).await;
        let request = LeaseRequest { max: 2, wait: Duration::from_secs(60) };
        let leased = worker.lease(&id, request).await.unwrap();
        assert_eq!(leased.len(), 1);
        statuses(2).await;
        let mut written = 0;
        for (seq, piece) in (0..).zip(&pieces) {
            written += piece.len();
            let chunk = Chunk { seq, stream: Stream::Stdout, bytes: Bytes::copy_from_slice(piece.as_bytes()) };
            let pieces = OutputPieces::Numbered(vec![chunk]);
            let batch = OutputBatch { job: leased[0].job, token: Some(leased[0].token), pieces };
            worker.append_output(&id, vec![batch]).await.unwrap().remove(0).unwrap();
            heard.subscribe().wait_for(|heard| heard.output.len() >= written).await.unwrap();
        }
        let report = FinishedAttempt::new(&leased[0], Outcome::Exited { code: 0 });
        worker.finish(&id, vec![report]).await.unwrap().remove(0).unwrap();
    };
    let both = async { tokio::join!(hearing, working) };
    let ended = tokio::time::timeout(Duration::from_secs(60), both).await;
    assert!(ended.is_ok(), "{cut:?}: something is lost behind {:?}", heard.borrow());
    let heard = heard.send_replace(Heard::default());
    assert_eq!(heard.statuses, [Status::Queued, Status::Running, Status::Completed], "{cut:?}");
    assert_eq!(String::from_utf8(heard.output).unwrap(), pieces.concat(), "{cut:?}");
    let ada = UserPrincipal { owner: "ada".parse().unwrap(), role: Role::User };
    assert_eq!(coordinator.as_user(ada).list(&JobQuery::default()).await.unwrap().total, 1, "{cut:?}");
    let bytes = proxy.carried();
    drop(proxy);
    world.stop().await;
    bytes
}

/// What a user has heard of a job.
#[derive(Debug, Default)]
struct Heard {
    statuses: Vec<Status>,
    output: Vec<u8>,
}

/// More than the client takes before it says that it takes more.
const PIECES: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_socket_is_cut_a_job_runs_once_and_all_of_it_arrives() {
    everywhere(run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_socket_is_cut_a_user_submits_once_and_hears_everything_once() {
    everywhere(hear).await;
}
