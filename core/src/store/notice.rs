//! What a store says of the writes of others.

use std::fmt;
use std::pin::Pin;

use futures_util::Stream;

use crate::id::JobId;
use crate::job::{Class, Place, Status};

/// Something that another process wrote to the store.
///
/// A hint: it saves waiting for the next look, and decides nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A job was added, or its life was written.
    Job {
        /// Which job.
        id: JobId,
        /// Its version since that write.
        version: u64,
        /// Its status by that write.
        status: Status,
        /// Where it waits, if it is queued and the store knows that without looking.
        queued: Option<(Class, Place)>,
    },
    /// There is more output of a job.
    Output(JobId),
    /// Some notices were missed: anything may have been written.
    Missed,
}

/// Notices as they come. Ends with the store.
pub struct Notices(Pin<Box<dyn Stream<Item = Notice> + Send>>);

impl Notices {
    /// Notices from a stream.
    pub fn new(stream: impl Stream<Item = Notice> + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

impl Stream for Notices {
    type Item = Notice;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Option<Notice>> {
        self.0.as_mut().poll_next(context)
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notices")
    }
}
