//! One end of a WebSocket: what is to be sent waits in its buffer while the other end takes it, and reading goes on beside.

use std::future::poll_fn;
use std::pin::Pin;
#[cfg(feature = "server")]
use std::sync::Arc;
#[cfg(feature = "server")]
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
#[cfg(feature = "server")]
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
#[cfg(feature = "server")]
use tokio_util::io::InspectWriter;

use crate::close::{Closing, Code};

/// How much is gathered before it is written without being flushed.
const GATHER: usize = 16 * 1024;

/// What a frame has at the most besides its payload.
const HEAD: usize = 14;

/// One end of a socket.
pub(crate) struct Socket<S> {
    ws: WebSocketStream<S>,
    /// How much was sent since the buffer was last empty.
    unflushed: usize,
    /// How many bytes the other end has taken in all, where that is counted.
    #[cfg(feature = "server")]
    taken: Arc<AtomicU64>,
}

/// What happens at a socket.
#[derive(Debug)]
pub(crate) enum Event {
    Message(Message),
    /// What waited has been taken.
    Flushed,
    /// The other end is gone, or says what is no WebSocket; with what to say to it.
    Ended(Ended),
}

/// How a socket ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The connection is gone.
    Gone(#[cfg_attr(not(feature = "client"), expect(dead_code, reason = "a server says it to nobody"))] String),
    /// The other end broke the rules.
    Broken(Closing),
}

/// Settings for a socket whose messages have at most so many bytes.
pub(crate) fn config(most: usize, read_buffer: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(read_buffer)
        .write_buffer_size(GATHER)
        .max_message_size(Some(most))
        .max_frame_size(Some(most))
}

/// The server's end of a connection that was upgraded.
#[cfg(feature = "server")]
pub(crate) async fn serving<S: AsyncRead + AsyncWrite + Unpin>(
    io: S,
    config: WebSocketConfig,
) -> Socket<impl AsyncRead + AsyncWrite + Unpin> {
    let taken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&taken);
    let io = InspectWriter::new(io, move |bytes| {
        count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    });
    let ws = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    Socket { ws, unflushed: 0, taken }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// The client's end.
    #[cfg(feature = "client")]
    pub(crate) fn over(ws: WebSocketStream<S>) -> Self {
        Self {
            ws,
            unflushed: 0,
            #[cfg(feature = "server")]
            taken: Arc::default(),
        }
    }

    /// How much waits to be taken, at most.
    #[cfg(feature = "server")]
    pub(crate) fn unflushed(&self) -> usize {
        self.unflushed
    }

    /// How many bytes the other end has taken in all.
    #[cfg(feature = "server")]
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Puts a message behind what waits.
    pub(crate) fn send(&mut self, message: Message) {
        self.unflushed += message.len() + HEAD;
        // What fails here fails again when it is flushed, where it is heeded.
        let _ = Pin::new(&mut self.ws).start_send(message);
    }

    /// What happens next. Cancellation safe.
    pub(crate) async fn next(&mut self, may_read: bool) -> Event {
        poll_fn(|cx| self.poll(cx, may_read)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, may_read: bool) -> Poll<Event> {
        if self.unflushed > 0
            && let Poll::Ready(flushed) = Pin::new(&mut self.ws).poll_flush(cx)
        {
            self.unflushed = 0;
            return Poll::Ready(flushed.map_or_else(ended, |()| Event::Flushed));
        }
        if !may_read {
            return Poll::Pending;
        }
        match Pin::new(&mut self.ws).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => {
                if let Message::Ping(payload) = &message {
                    // Its answer waits too.
                    self.unflushed += payload.len() + HEAD;
                }
                Poll::Ready(Event::Message(message))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(ended(error)),
            Poll::Ready(None) => Poll::Ready(Event::Ended(Ended::Gone("closed".to_owned()))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Says why it ends, and waits until the other end has heard it. To be bounded in time.
    #[cfg(feature = "server")]
    pub(crate) async fn close(mut self, closing: &Closing) {
        self.send(Message::Close(Some(closing.frame())));
        loop {
            match self.next(true).await {
                Event::Ended(_) => return,
                Event::Message(_) | Event::Flushed => {}
            }
        }
    }
}

fn ended(error: Error) -> Event {
    Event::Ended(match error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            let reason = format!("a message may have {max_size} bytes, not {size}");
            Ended::Broken(Closing::new(Code::TooLarge, reason))
        }
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ended::Gone("reset".to_owned()),
        Error::Protocol(error) => Ended::Broken(Closing::new(Code::Protocol, error.to_string())),
        Error::Utf8(_) => Ended::Broken(Closing::new(Code::NotUtf8, "a text is not UTF-8")),
        error => Ended::Gone(error.to_string()),
    })
}
