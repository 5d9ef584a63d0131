//! A way to the server that is cut at a byte, and the bytes at which it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Where the first connection is cut.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    Never,
    /// After so many bytes of the client's.
    Up(u64),
    /// After so many bytes of the server's.
    Down(u64),
}

/// A way to the server on which the first connection is cut, and later ones are not.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub async fn start(to: SocketAddr, cut: Cut) -> Self {
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
        Self { address, up, down, _tasks: tasks }
    }

    /// How many bytes went each way.
    pub fn carried(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
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

/// Lets something happen that tells how many bytes it took each way, uncut and then cut at some 150 of them, evenly apart from where chance
/// says: `CMDEXEC_CUT_SEED` says again what a run that failed has printed, `CMDEXEC_CUT_STRIDE=1` cuts at every byte.
pub async fn everywhere<F>(run: impl Fn(Cut) -> F + Copy + Send + 'static)
where
    F: Future<Output = (u64, u64)> + Send + 'static,
{
    let seed = from_env("CMDEXEC_CUT_SEED").unwrap_or_else(rand::random);
    println!("CMDEXEC_CUT_SEED={seed}");
    let (up, down) = run(Cut::Never).await;
    assert!(up > 500 && down > 300, "{up} {down}");
    let stride = from_env("CMDEXEC_CUT_STRIDE").unwrap_or((up + down) / 150);
    let mut random = StdRng::seed_from_u64(seed);
    let mut places = |bytes| (random.random_range(0..stride)..bytes).step_by(usize::try_from(stride).unwrap());
    let cuts: Vec<_> = places(up).map(Cut::Up).chain(places(down).map(Cut::Down)).collect();
    println!("cut at {} of {} places", cuts.len(), up + down);
    // Most of each is waiting.
    futures_util::stream::iter(cuts)
        .for_each_concurrent(24, |cut| async move {
            tokio::spawn(run(cut)).await.unwrap_or_else(|error| panic!("{cut:?}: {error}"));
        })
        .await;
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
