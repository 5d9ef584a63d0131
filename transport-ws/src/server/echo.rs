//! What a conformance client talks to: the handshake, the frames and the closing of a session, behind which each message comes back.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::handshake::READ_BUFFER;
use crate::socket::{self, Ended, Event};

/// How long the end of a socket may take.
const CLOSING: Duration = Duration::from_secs(2);

/// Begins a socket that sends back what it gets, messages of at most `most` bytes: the answer, and what is to be run beside it.
#[doc(hidden)]
pub fn echo<B>(
    request: &mut Request<B>,
    most: usize,
) -> (Response<Full<Bytes>>, impl Future<Output = ()> + Send + 'static) {
    let response = create_response_with_body(request, Full::default);
    let is_socket = response.is_ok();
    let response = response.unwrap_or_else(|_| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        response
    });
    let upgrade = hyper::upgrade::on(request);
    let run = async move {
        if !is_socket {
            return;
        }
        let Ok(io) = upgrade.await else { return };
        let mut socket = socket::serving(TokioIo::new(io), socket::config(most, READ_BUFFER)).await;
        let closing = loop {
            // As a session does: nothing is read while what it was sent before waits.
            let may_read = socket.unflushed() == 0;
            match socket.next(may_read).await {
                Event::Message(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message),
                Event::Message(_) | Event::Flushed => {}
                Event::Ended(Ended::Broken(closing)) => break closing,
                Event::Ended(Ended::Gone(_)) => return,
            }
        };
        // Whether it was heard makes no difference any more.
        let _ = tokio::time::timeout(CLOSING, socket.close(&closing)).await;
    };
    (response, run)
}
