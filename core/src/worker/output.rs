//! One attempt's output until it is acknowledged: numbered, coalesced, and never more than a bound.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::executor::{OutputChunk, Stream};
use crate::service::FinalOutput;
use crate::store::Chunk;

/// How large a chunk is at most, and how much output does not wait for more.
pub(super) const FLUSH_BYTES: usize = 64 * 1024;

/// How much of an attempt's output may wait to be acknowledged: one call's and the next. Beyond it the command's pipe is no
/// longer read.
const MOST_UNSENT: usize = 6 * 1024 * 1024;

/// How much of all attempts' output may wait to be acknowledged; beyond it each attempt may have [`LEAST_UNSENT`].
const MOST_OF_ALL: usize = 24 * 1024 * 1024;
const LEAST_UNSENT: usize = 256 * 1024;

/// How much travels inside a report instead of ahead of it.
const REST_BYTES: usize = 64 * 1024;

/// How much of all attempts' output is not acknowledged yet. Clones are the same count.
#[derive(Debug, Clone, Default)]
pub(super) struct Unsent(Arc<AtomicUsize>);

/// One attempt's output that is not acknowledged yet.
#[derive(Debug, Default)]
pub(super) struct Output {
    buffer: Mutex<Buffer>,
    /// Fires when some of it was acknowledged, or when nobody wants it any more.
    pub(super) progress: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// Chunks that have their number.
    cut: VecDeque<Chunk>,
    /// What the next chunk will be made of: neighbours of one stream.
    open: Vec<Bytes>,
    open_stream: Option<Stream>,
    open_len: usize,
    next_seq: u64,
    /// How much waits, in `cut` and `open`.
    pub(super) waiting: usize,
    /// How much is on its way.
    in_flight: usize,
    /// Whether the outbox knows that something waits.
    pub(super) listed: bool,
    /// The command is over: what is left in its pipe is taken in at once.
    unbounded: bool,
    /// Nobody wants it.
    discarded: bool,
    all: Unsent,
}

impl Buffer {
    pub(super) fn push(&mut self, chunk: OutputChunk) {
        if self.discarded {
            return;
        }
        if self.open_stream != Some(chunk.stream) || self.open_len + chunk.bytes.len() > FLUSH_BYTES {
            self.cut_open();
        }
        self.open_stream = Some(chunk.stream);
        self.open_len += chunk.bytes.len();
        self.waiting += chunk.bytes.len();
        self.all.0.fetch_add(chunk.bytes.len(), Ordering::Relaxed);
        self.open.push(chunk.bytes);
    }

    /// Gives what is open its number.
    fn cut_open(&mut self) {
        let Some(stream) = self.open_stream.take() else { return };
        let mut parts = mem::take(&mut self.open);
        let bytes = match parts.pop() {
            // One write, one chunk: nothing is copied.
            Some(only) if parts.is_empty() => only,
            last => {
                let mut joined = BytesMut::with_capacity(self.open_len);
                parts.iter().chain(&last).for_each(|part| joined.extend_from_slice(part));
                joined.freeze()
            }
        };
        self.open_len = 0;
        // One write of an executor may be larger than a chunk should be.
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(FLUSH_BYTES));
            self.cut.push_back(Chunk { seq: self.next_seq, stream, bytes: piece });
            self.next_seq += 1;
        }
    }

    /// Takes chunks of at most so many bytes, at least one if there is one.
    pub(super) fn take(&mut self, most: usize) -> Vec<Chunk> {
        self.cut_open();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(chunk) = self.cut.pop_front_if(|chunk| taken.is_empty() || bytes + chunk.bytes.len() <= most) {
            bytes += chunk.bytes.len();
            taken.push(chunk);
        }
        self.waiting -= bytes;
        self.in_flight += bytes;
        taken
    }

    /// Whether some of it has its number.
    pub(super) fn has_numbers(&self) -> bool {
        self.next_seq > 0
    }

    pub(super) fn is_full(&self) -> bool {
        let unsent = self.waiting + self.in_flight;
        let is_much = unsent >= LEAST_UNSENT && self.all.0.load(Ordering::Relaxed) >= MOST_OF_ALL;
        !self.unbounded && !self.discarded && (unsent >= MOST_UNSENT || is_much)
    }

    /// Whether some of it is on its way.
    pub(super) fn is_under_way(&self) -> bool {
        self.in_flight > 0
    }

    /// Counts what is on its way as arrived, as far as so many bytes.
    fn arrived(&mut self, bytes: usize) {
        let bytes = bytes.min(self.in_flight);
        self.in_flight -= bytes;
        self.all.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What is left for the report, unless more than that is left or some of it is still on its way.
    fn rest(&mut self) -> Option<FinalOutput> {
        if self.discarded {
            return Some(FinalOutput::None);
        }
        if self.in_flight > 0 || self.waiting > REST_BYTES {
            return None;
        }
        let chunks = self.take(REST_BYTES);
        self.arrived(REST_BYTES);
        Some(if chunks.is_empty() { FinalOutput::None } else { FinalOutput::Rest(chunks) })
    }
}

impl Output {
    pub(super) fn new(all: Unsent) -> Self {
        Self { buffer: Mutex::new(Buffer { all, ..Buffer::default() }), progress: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody wants it any more: what is there is dropped, and so is what comes.
    pub(super) fn discard(&self) {
        let mut buffer = self.lock();
        buffer.discarded = true;
        buffer.cut = VecDeque::new();
        buffer.open = Vec::new();
        buffer.open_stream = None;
        buffer.in_flight += mem::take(&mut buffer.waiting);
        buffer.arrived(usize::MAX);
        drop(buffer);
        self.progress.notify_waiters();
    }

    /// The command is over: from now on what comes is taken in without waiting.
    pub(super) fn lift_bound(&self) {
        self.lock().unbounded = true;
        self.progress.notify_waiters();
    }

    /// What goes with the report, if it is little and nothing is on its way.
    pub(super) fn rest_now(&self) -> Option<FinalOutput> {
        self.lock().rest()
    }

    /// What goes with the report, once it is little and nothing is on its way; `None`: nobody wants it any more.
    pub(super) async fn rest(&self) -> Option<FinalOutput> {
        loop {
            let progress = self.progress.notified();
            {
                let mut buffer = self.lock();
                if buffer.discarded {
                    return None;
                }
                if let Some(rest) = buffer.rest() {
                    return Some(rest);
                }
            }
            progress.await;
        }
    }

    pub(super) fn acknowledged(&self, bytes: usize) {
        self.lock().arrived(bytes);
        self.progress.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(stream: Stream, bytes: &'static [u8]) -> OutputChunk {
        OutputChunk { stream, bytes: Bytes::from_static(bytes) }
    }

    fn seqs(chunks: &[Chunk]) -> Vec<(u64, Stream, &[u8])> {
        chunks.iter().map(|chunk| (chunk.seq, chunk.stream, &*chunk.bytes)).collect()
    }

    #[test]
    fn neighbours_of_one_stream_become_one_chunk_and_numbers_count_across_streams() {
        let mut buffer = Buffer::default();
        buffer.push(wrote(Stream::Stdout, b"a"));
        buffer.push(wrote(Stream::Stdout, b"b"));
        buffer.push(wrote(Stream::Stderr, b"c"));
        buffer.push(wrote(Stream::Stdout, b"d"));
        let taken = buffer.take(usize::MAX);
        assert_eq!(
            seqs(&taken),
            [(0, Stream::Stdout, &b"ab"[..]), (1, Stream::Stderr, b"c"), (2, Stream::Stdout, b"d")]
        );
        assert_eq!((buffer.waiting, buffer.in_flight), (0, 4));
        buffer.push(wrote(Stream::Stdout, b"e"));
        assert_eq!(seqs(&buffer.take(usize::MAX)), [(3, Stream::Stdout, &b"e"[..])]);
    }

    #[test]
    fn a_chunk_is_never_larger_than_a_flush() {
        let mut buffer = Buffer::default();
        let large = Bytes::from(vec![7; 2 * FLUSH_BYTES + 1]);
        buffer.push(OutputChunk { stream: Stream::Stdout, bytes: large });
        let lens: Vec<_> = buffer.take(usize::MAX).iter().map(|chunk| chunk.bytes.len()).collect();
        assert_eq!(lens, [FLUSH_BYTES, FLUSH_BYTES, 1]);
    }

    #[test]
    fn little_that_is_left_goes_with_the_report_but_never_ahead_of_what_is_on_its_way() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.rest(), Some(FinalOutput::None));
        buffer.push(wrote(Stream::Stdout, b"a"));
        let on_its_way = buffer.take(usize::MAX);
        buffer.push(wrote(Stream::Stdout, b"b"));
        assert_eq!(buffer.rest(), None);
        buffer.in_flight -= on_its_way.len();
        let Some(FinalOutput::Rest(rest)) = buffer.rest() else { panic!("no rest") };
        assert_eq!(seqs(&rest), [(1, Stream::Stdout, &b"b"[..])]);
        buffer.push(OutputChunk { stream: Stream::Stdout, bytes: vec![0; REST_BYTES + 1].into() });
        assert_eq!(buffer.rest(), None);
    }

    #[test]
    fn what_nobody_wants_is_dropped_and_holds_up_nobody() {
        let output = Output::default();
        output.lock().push(OutputChunk { stream: Stream::Stdout, bytes: vec![0; MOST_UNSENT].into() });
        assert!(output.lock().is_full());
        output.discard();
        output.lock().push(wrote(Stream::Stdout, b"a"));
        let buffer = output.lock();
        assert_eq!((buffer.is_full(), buffer.waiting), (false, 0));
    }
}
