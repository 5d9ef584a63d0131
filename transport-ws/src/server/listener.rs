//! A port of its own: connections that become sockets, and nothing else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{PATH, Server};

impl Server {
    /// Turns requests for [`PATH`] on `listener` into sockets until `shutdown` fires; the sockets go on then ([`Server::close`]).
    ///
    /// # Errors
    /// The listener is broken. Trouble with single connections, or a want of file descriptors, is waited out.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        // Those that are sockets already are counted by themselves.
        let room = Arc::new(Semaphore::new(self.shared.options.max_sockets));
        loop {
            // It is never closed.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => drop(self.shared.tasks.spawn(connection(self.clone(), stream, permit))),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
                Err(error) => {
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn connection(server: Server, stream: TcpStream, permit: OwnedSemaphorePermit) {
    // Pushed jobs are small, and awaited.
    let _ = stream.set_nodelay(true);
    let (timeout, cut) = (server.shared.options.auth_timeout, server.shared.closing.clone());
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let response = if request.uri().path() == PATH {
            server.upgrade(&mut request)
        } else {
            let mut response: Response<Full<Bytes>> = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        };
        async { Ok::<_, std::convert::Infallible>(response) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_buf_size(32 * 1024)
        // One request, which becomes a socket or is refused.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        // It ends when the connection is upgraded: whoever takes longer than a head and an answer may, never gets there.
        ended = tokio::time::timeout(timeout * 2, http) => {
            if let Ok(Err(error)) = ended {
                tracing::debug!(%error, "a connection ended badly");
            }
        }
        () = cut.cancelled() => {}
    }
    drop(permit);
}
