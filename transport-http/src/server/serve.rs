//! Connections: accepted up to a bound, HTTP/1 and HTTP/2 on the same port, and an end that loses nothing in flight.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::{Peer, Server};

/// Runs what hyper wants to run beside a connection where the server can wait for it.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tracked {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// What every connection has at hand.
struct Connections {
    router: Router,
    http1: http1::Builder,
    http2: http2::Builder<Tracked>,
    tasks: TaskTracker,
    head_timeout: Duration,
    write_timeout: Duration,
    closing: CancellationToken,
    /// Fires when the time for requests in flight is over.
    cut: CancellationToken,
}

impl Server {
    /// Answers on `listener` until `shutdown` fires. Then it accepts no more, closes ([`Server::close`]), answers what is in
    /// flight, and returns how many connections were cut because they took longer than [`super::Options::drain`].
    ///
    /// # Errors
    /// The listener is broken. Trouble with single connections, or a want of file descriptors, is waited out.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> io::Result<usize> {
        let options = &self.app.options;
        let tasks = TaskTracker::new();
        let connections = Arc::new(Connections {
            router: self.router(),
            http1: http1(options.head_timeout),
            http2: http2(options.head_timeout, &tasks),
            tasks: tasks.clone(),
            head_timeout: options.head_timeout,
            write_timeout: options.write_timeout,
            closing: self.app.closing.clone(),
            cut: CancellationToken::new(),
        });
        let room = Arc::new(Semaphore::new(options.max_connections));
        let accepting = accept(&listener, &connections, &room);
        let broken = tokio::select! {
            () = shutdown.cancelled() => None,
            error = accepting => Some(error),
        };
        drop(listener);
        self.close();
        tasks.close();
        let left = match tokio::time::timeout(options.drain, tasks.wait()).await {
            Ok(()) => 0,
            Err(_) => {
                let left = options.max_connections - room.available_permits();
                connections.cut.cancel();
                tasks.wait().await;
                left
            }
        };
        broken.map_or(Ok(left), Err)
    }
}

fn http1(head_timeout: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        // Heads that don't fit in are refused; it may have grown to nearly twice as much when hyper looks.
        .max_buf_size(64 * 1024);
    http
}

fn http2(head_timeout: Duration, tasks: &TaskTracker) -> http2::Builder<Tracked> {
    let mut http = http2::Builder::new(Tracked(tasks.clone()));
    http.timer(TokioTimer::new())
        .max_concurrent_streams(256)
        // A slow reader's part of an answer waits where it came from, not here.
        .max_send_buf_size(64 * 1024)
        .max_header_list_size(32 * 1024)
        // A peer that is gone is found by its silence: HTTP/2 has no head to wait for between requests.
        .keep_alive_interval(head_timeout)
        .keep_alive_timeout(head_timeout);
    http
}

/// Accepts for ever; gives what makes that impossible.
async fn accept(listener: &TcpListener, connections: &Arc<Connections>, room: &Arc<Semaphore>) -> io::Error {
    loop {
        let Ok(permit) = Arc::clone(room).acquire_owned().await else {
            return io::Error::other("the semaphore was closed");
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small, and each is awaited.
                let _ = stream.set_nodelay(true);
                connections.tasks.spawn(connection(Arc::clone(connections), stream, Peer(peer), permit));
            }
            Err(error) if is_passing(&error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return error,
        }
    }
}

/// Whether the next `accept` may succeed: the trouble was that connection's, or there are no file descriptors just now.
fn is_passing(error: &io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::OutOfMemory
    ) || matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

async fn connection(connections: Arc<Connections>, stream: TcpStream, peer: Peer, permit: OwnedSemaphorePermit) {
    let begun = tokio::select! {
        biased;
        begun = tokio::time::timeout(connections.head_timeout, speaks_http2(&stream)) => begun,
        () = connections.closing.cancelled() => return,
    };
    // Otherwise it has gone, or said nothing in the time for a head.
    let Ok(Ok(is_http2)) = begun else { return };
    let router = connections.router.clone();
    let called = Arc::new(AtomicBool::new(false));
    let service = hyper::service::service_fn({
        let called = Arc::clone(&called);
        move |mut request: http::Request<Incoming>| {
            called.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(peer);
            router.clone().call(request)
        }
    });
    let mut stream = TimeoutStream::new(stream);
    // Otherwise a reader that stops reading would keep its connection, and what is buffered for it, for ever.
    stream.set_write_timeout(Some(connections.write_timeout));
    let io = TokioIo::new(Box::pin(stream));
    // In boxes: the task would have room for both kinds, twice.
    let ended = if is_http2 {
        let connection = Box::pin(connections.http2.serve_connection(io, service));
        drive(&connections, &called, connection, http2::Connection::graceful_shutdown).await
    } else {
        let connection = Box::pin(connections.http1.serve_connection(io, service).with_upgrades());
        drive(&connections, &called, connection, http1::UpgradeableConnection::graceful_shutdown).await
    };
    if let Err(error) = ended {
        // Peers break off for reasons of their own.
        tracing::debug!(%error, "a connection ended badly");
    }
    drop(permit);
}

/// Answers on a connection until it ends, or is to end: then what is in flight is still answered.
async fn drive<C>(
    connections: &Connections,
    called: &AtomicBool,
    mut connection: Pin<Box<C>>,
    end: impl FnOnce(Pin<&mut C>),
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = uncalled(called, connections.head_timeout) => Ok(()),
        () = connections.closing.cancelled() => {
            end(connection.as_mut());
            tokio::select! {
                ended = connection => ended,
                () = connections.cut.cancelled() => Ok(()),
            }
        }
    }
}

/// Whether the peer begins as HTTP/2 does, which no request of HTTP/1 begins like.
///
/// hyper-util would find out by itself; but it hands what it has read for that to the connection as a first piece, for which the
/// connection doubles its buffer, and each one that is idle then costs 8 KiB more.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8; 3] = b"PRI";
    let mut begin = [0; PREFACE.len()];
    loop {
        let read = stream.peek(&mut begin).await?;
        let said = begin.get(..read).unwrap_or_default();
        if said.is_empty() || !PREFACE.starts_with(said) {
            return Ok(false);
        }
        if read == PREFACE.len() {
            return Ok(true);
        }
        // A byte or two, which stay readable: there is no event to wait for.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Completes if there was no request at all in the time for a head. hyper's own bound is for each head of HTTP/1.
async fn uncalled(called: &AtomicBool, head_timeout: Duration) {
    tokio::time::sleep(head_timeout).await;
    if called.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}
