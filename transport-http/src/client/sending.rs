//! A body on its way out that is not in memory: what its source ended with, and when it last went on.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::files::ByteStream;
use cmdexec_core::time::{Clock, SystemClock};
use futures_util::{Stream, StreamExt};

/// What is known of a body that is being sent.
#[derive(Debug, Clone)]
pub(super) struct Sending(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// When the connection last took a piece, or asked for one, by the clock's uptime.
    moved: Duration,
    /// Whether the next piece is being waited for: then it is not the connection that stands still.
    waits: bool,
    error: Option<Error>,
}

impl Sending {
    /// The body to send, and what tells of it.
    pub(super) fn begin(bytes: ByteStream) -> (Self, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
        let sending = Self(Arc::new(Mutex::new(State { moved: SystemClock.uptime(), waits: false, error: None })));
        let body = futures_util::stream::unfold((bytes, sending.clone()), async |(mut bytes, sending)| {
            sending.note(true, None);
            let piece = bytes.next().await;
            let error = piece.as_ref().and_then(|piece| piece.as_ref().err()).cloned();
            sending.note(false, error);
            // The error cuts the connection, so that the server takes no part for the whole.
            let piece = piece?.map_err(|error| io::Error::other(error.to_string()));
            Some((piece, (bytes, sending)))
        });
        (sending, body)
    }

    /// Completes when nothing has moved for this long.
    pub(super) async fn stalled(&self, patience: Duration) {
        loop {
            let still = {
                let state = self.lock();
                if state.waits { Duration::ZERO } else { SystemClock.uptime().saturating_sub(state.moved) }
            };
            let Some(left) = patience.checked_sub(still).filter(|left| !left.is_zero()) else { return };
            tokio::time::sleep(left).await;
        }
    }

    /// What the body's source ended with, if that was an error.
    pub(super) fn error(&self) -> Option<Error> {
        self.lock().error.take()
    }

    fn note(&self, waits: bool, error: Option<Error>) {
        let mut state = self.lock();
        (state.moved, state.waits) = (SystemClock.uptime(), waits);
        state.error = error.or(state.error.take());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
