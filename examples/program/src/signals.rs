//! The signals that ask a program to end.

use std::io;

use tokio_util::sync::CancellationToken;

/// What the signals have asked for so far.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Fires at the first signal: end in order.
    pub asked: CancellationToken,
    /// Fires at the second: end at once.
    pub forced: CancellationToken,
}

/// Listens for SIGTERM and SIGINT (elsewhere: Ctrl-C) from now on, as long as the runtime lives.
///
/// # Errors
/// The system refuses the handlers.
pub fn listen() -> io::Result<Shutdown> {
    let shutdown = Shutdown::default();
    let mut signals = Signals::new()?;
    let heard = shutdown.clone();
    tokio::spawn(async move {
        signals.next().await;
        heard.asked.cancel();
        signals.next().await;
        heard.forced.cancel();
    });
    Ok(shutdown)
}

#[cfg(unix)]
struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
