//! The way of output to the coordinator: numbered, coalesced, sent for many attempts at once, never more than bounded
//! memory, repeated until it is acknowledged.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::attempt::{Attempt, Why};
use super::backoff::Backoff;
use super::runtime::Shared;
use crate::Error;
use crate::executor::{OutputChunk, Stream};
use crate::service::{FinalOutput, OutputAck, OutputBatch, OutputPieces};
use crate::store::Chunk;

/// Output is sent when so much of it is there…
const FLUSH_BYTES: usize = 64 * 1024;

/// …or when the oldest of it has waited so long.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// How much of an attempt's output may wait to be acknowledged. Beyond it the command's pipe is no longer read.
const MOST_UNSENT: usize = 1024 * 1024;

/// How much travels in one call; transports allow several times as much, also where bytes become base64.
const CALL_BYTES: usize = 1024 * 1024;

/// How much travels inside a report instead of ahead of it.
const REST_BYTES: usize = 64 * 1024;

/// How long a call may take before it is given up and repeated.
const CALL_TIME: Duration = Duration::from_secs(30);

/// One attempt's output that is not acknowledged yet.
#[derive(Debug, Default)]
pub(super) struct Output {
    buffer: Mutex<Buffer>,
    /// Fires when some of it was acknowledged, or when nobody wants it any more.
    progress: Notify,
}

#[derive(Debug, Default)]
struct Buffer {
    /// Chunks that have their number.
    cut: VecDeque<Chunk>,
    /// What the next chunk will be made of: neighbours of one stream.
    open: Vec<Bytes>,
    open_stream: Option<Stream>,
    open_len: usize,
    next_seq: u64,
    /// How much waits, in `cut` and `open`.
    waiting: usize,
    /// How much is on its way.
    in_flight: usize,
    /// Whether the outbox knows that something waits.
    listed: bool,
    /// The command is over: what is left in its pipe is taken in at once.
    unbounded: bool,
    /// Nobody wants it.
    discarded: bool,
}

impl Buffer {
    fn push(&mut self, chunk: OutputChunk) {
        if self.discarded {
            return;
        }
        if self.open_stream != Some(chunk.stream) || self.open_len + chunk.bytes.len() > FLUSH_BYTES {
            self.cut_open();
        }
        self.open_stream = Some(chunk.stream);
        self.open_len += chunk.bytes.len();
        self.waiting += chunk.bytes.len();
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
    fn take(&mut self, most: usize) -> Vec<Chunk> {
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

    fn is_full(&self) -> bool {
        !self.unbounded && !self.discarded && self.waiting + self.in_flight >= MOST_UNSENT
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
        self.in_flight = 0;
        Some(if chunks.is_empty() { FinalOutput::None } else { FinalOutput::Rest(chunks) })
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody wants it any more: what is there is dropped, and so is what comes.
    pub(super) fn discard(&self) {
        let mut buffer = self.lock();
        buffer.discarded = true;
        buffer.cut = VecDeque::new();
        buffer.open = Vec::new();
        buffer.open_stream = None;
        buffer.waiting = 0;
        buffer.in_flight = 0;
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

    fn acknowledged(&self, bytes: usize) {
        let mut buffer = self.lock();
        buffer.in_flight = buffer.in_flight.saturating_sub(bytes);
        drop(buffer);
        self.progress.notify_waiters();
    }
}

/// What all attempts have to send.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Attempts with output, in the order in which it came.
    waiting: Mutex<VecDeque<Arc<Attempt>>>,
    /// Fires when there is some.
    some: Notify,
    /// Fires when it should not wait any longer.
    enough: Notify,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Attempt>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a command wrote; waits while too much of it is not acknowledged yet.
    pub(super) async fn take_in(&self, attempt: &Arc<Attempt>, chunk: OutputChunk) {
        let (is_first, is_enough) = {
            let mut buffer = attempt.output.lock();
            buffer.push(chunk);
            let is_first = !mem::replace(&mut buffer.listed, true);
            (is_first, buffer.waiting >= FLUSH_BYTES)
        };
        if is_first {
            self.lock().push_back(Arc::clone(attempt));
            self.some.notify_one();
        }
        if is_enough {
            self.enough.notify_one();
        }
        loop {
            let progress = attempt.output.progress.notified();
            if !attempt.output.lock().is_full() {
                return;
            }
            progress.await;
        }
    }

    /// What is there goes out now.
    pub(super) fn hurry(&self) {
        self.enough.notify_one();
    }

    /// The next call: output of several attempts, as much as one call holds.
    fn gather(&self) -> Vec<Sending> {
        let mut sendings = Vec::new();
        let mut bytes = 0;
        while bytes < CALL_BYTES {
            let Some(attempt) = self.lock().pop_front() else { break };
            let (chunks, left) = {
                let mut buffer = attempt.output.lock();
                let chunks = buffer.take(CALL_BYTES - bytes);
                buffer.listed = buffer.waiting > 0;
                (chunks, buffer.listed)
            };
            if left {
                self.lock().push_front(Arc::clone(&attempt));
            }
            if !chunks.is_empty() {
                let len = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
                bytes += len;
                sendings.push(Sending { attempt, chunks, len });
            }
        }
        sendings
    }
}

/// Output of one attempt that is on its way.
#[derive(Debug)]
struct Sending {
    attempt: Arc<Attempt>,
    chunks: Vec<Chunk>,
    len: usize,
}

/// Sends output until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        shared.output.some.notified().await;
        tokio::select! {
            biased;
            () = shared.output.enough.notified() => {}
            () = shared.clock.sleep(FLUSH_AFTER) => {}
        }
        loop {
            let sendings = shared.output.gather();
            if sendings.is_empty() {
                break;
            }
            send(&shared, sendings).await;
        }
    }
}

/// Sends until every piece is acknowledged or nobody wants it.
async fn send(shared: &Shared, mut sendings: Vec<Sending>) {
    let mut backoff = Backoff::for_calls();
    loop {
        sendings.retain(|sending| !sending.attempt.is_lost());
        if sendings.is_empty() {
            return;
        }
        let batches = sendings.iter().map(Sending::batch).collect();
        let call = shared.service.append_output(shared.id(), batches);
        let asked = match shared.within(CALL_TIME, call).await {
            Ok(answers) => {
                let mut asked = None;
                let mut answers = answers.into_iter();
                sendings.retain(|sending| match answers.next() {
                    Some(answer) => match answered(sending, answer) {
                        Next::Done => false,
                        Next::Again(after) => {
                            asked = asked.max(after);
                            true
                        }
                    },
                    None => true,
                });
                asked
            }
            Err(error) => {
                if let Some(sending) = sendings.pop_if(|_| is_final(&error)) {
                    if sendings.is_empty() {
                        // One attempt's output that the coordinator will never take: the job must not wait for it.
                        tracing::error!(job = %sending.attempt.job, %error, "output was refused and is dropped");
                        sending.attempt.output.acknowledged(sending.len);
                        return;
                    }
                    // One of them is at fault; each by itself.
                    sendings.push(sending);
                    for sending in sendings {
                        Box::pin(send(shared, vec![sending])).await;
                    }
                    return;
                }
                shared.failed(&error);
                error.retry_after()
            }
        };
        if sendings.is_empty() {
            return;
        }
        shared.pause(&mut backoff, asked).await;
    }
}

enum Next {
    Done,
    Again(Option<Duration>),
}

fn answered(sending: &Sending, answer: Result<OutputAck, Error>) -> Next {
    let attempt = &sending.attempt;
    match answer {
        Ok(ack) => {
            if ack.cancel {
                attempt.interrupt(Why::Cancelled);
            }
            attempt.output.acknowledged(sending.len);
        }
        Err(Error::LeaseLost | Error::JobNotFound) => attempt.interrupt(Why::Lost),
        Err(error) if is_final(&error) => {
            tracing::error!(job = %attempt.job, %error, "output was refused and is dropped");
            attempt.output.acknowledged(sending.len);
        }
        Err(error) => return Next::Again(error.retry_after()),
    }
    Next::Done
}

/// Whether sending the same again can't help.
fn is_final(error: &Error) -> bool {
    matches!(error, Error::Invalid(_) | Error::Forbidden(_))
}

impl Sending {
    fn batch(&self) -> OutputBatch {
        OutputBatch {
            job: self.attempt.job,
            token: Some(self.attempt.token),
            pieces: OutputPieces::Numbered(self.chunks.clone()),
        }
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
