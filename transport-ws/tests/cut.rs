//! A socket that is cut at any byte, in either direction: nothing is lost, and nothing happens twice.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::coordinator::{Coordinator, Options};
use cmdexec_core::executor::{FunctionExecutor, Stream};
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{Ended, JobServiceExt};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::worker::Worker;
use cmdexec_transport_ws::Client;
use futures_util::StreamExt;
use support::{World, quick, unlimited};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Where the first connection is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Never,
    /// After so many bytes of the worker's.
    Up(u64),
    /// After so many bytes of the server's.
    Down(u64),
}

/// A way to the server on which the first connection is cut, and later ones are not.
struct Proxy {
    address: SocketAddr,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Proxy {
    async fn start(to: SocketAddr, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (up, down) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (up, down) = (Arc::clone(&up), Arc::clone(&down));
            async move {
                let is_first = AtomicBool::new(true);
                let mut connections = JoinSet::new();
                loop {
                    let (near, _) = listener.accept().await.unwrap();
                    let cut = if is_first.swap(false, Ordering::Relaxed) { cut } else { Cut::Never };
                    let (up, down) = (Arc::clone(&up), Arc::clone(&down));
                    connections.spawn(async move {
                        let Ok(far) = TcpStream::connect(to).await else { return };
                        let (near_read, near_write) = near.into_split();
                        let (far_read, far_write) = far.into_split();
                        let most = |is_this: Option<u64>| is_this.unwrap_or(u64::MAX);
                        let most_up = most(if let Cut::Up(n) = cut { Some(n) } else { None });
                        let most_down = most(if let Cut::Down(n) = cut { Some(n) } else { None });
                        tokio::select! {
                            () = carry(near_read, far_write, most_up, &up) => {}
                            () = carry(far_read, near_write, most_down, &down) => {}
                        }
                    });
                }
            }
        });
        Self { address, up, down, tasks }
    }
}

/// Carries bytes, at most so many.
async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut most: u64,
    count: &AtomicU64,
) {
    let mut buffer = [0; 4096];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let allowed = usize::try_from(most.min(read as u64)).unwrap();
        if to.write_all(&buffer[..allowed]).await.is_err() {
            return;
        }
        count.fetch_add(allowed as u64, Ordering::Relaxed);
        most -= allowed as u64;
        if most == 0 {
            return;
        }
    }
}

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
    let bytes = (proxy.up.load(Ordering::Relaxed), proxy.down.load(Ordering::Relaxed));
    drop(proxy.tasks);
    world.stop().await;
    bytes
}

/// Each of so many bytes apart; every one with `CMDEXEC_CUT_STRIDE=1`.
fn stride() -> usize {
    std::env::var("CMDEXEC_CUT_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(17)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_socket_is_cut_a_job_runs_once_and_all_of_it_arrives() {
    let (up, down) = run(Cut::Never).await;
    assert!(up > 500 && down > 300, "{up} {down}");
    let cuts = (0..up).map(Cut::Up).chain((0..down).map(Cut::Down)).step_by(stride());
    let count = cuts.clone().count();
    // Most of each is waiting.
    futures_util::stream::iter(cuts)
        .for_each_concurrent(24, |cut| async move {
            tokio::spawn(run(cut)).await.unwrap();
        })
        .await;
    println!("cut at {count} of {} places", up + down);
}
