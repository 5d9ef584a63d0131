//! The way of output to the coordinator: of many attempts in one call, each in its turn, soon, and repeated until it is
//! acknowledged or nobody wants it.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;

use super::attempt::{Attempt, Why};
use super::backoff::Backoff;
use super::output::FLUSH_BYTES;
use super::runtime::{Shared, optional};
use crate::Error;
use crate::executor::OutputChunk;
use crate::service::{OutputAck, OutputBatch, OutputPieces};
use crate::store::Chunk;
use crate::time::Sleep;

/// Output is sent when an attempt has [`FLUSH_BYTES`] of it, or so long after the last call at the latest; what comes after a
/// longer silence goes at once.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// The first that an attempt wrote follows the last call no sooner than this: somebody may wait for it, but under load it shares a
/// call with others, or goes with its report.
const LINGER: Duration = Duration::from_millis(5);

/// How much travels in one call, so that what each costs beside its bytes counts little; transports take 4 MiB at once.
const CALL_BYTES: usize = 3 * 1024 * 1024;

/// How much of a call one attempt gets before the others that have output get as much.
const TURN_BYTES: usize = 128 * 1024;

/// How many calls are under way at once, each with other attempts' output: one that takes long or must be repeated holds up
/// nobody else, and what an attempt wrote arrives in its order. Only one of them has output of attempts that write much, which
/// would otherwise take all there is of everything.
const CALLS: usize = 4;

/// How long a call may take before it is given up and repeated.
const CALL_TIME: Duration = Duration::from_secs(30);

/// What all attempts have to send.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Attempts with output, in the order in which it came.
    waiting: Mutex<VecDeque<Arc<Attempt>>>,
    /// Fires when there is some.
    some: Notify,
    /// Fires when there is the first of an attempt.
    first: Notify,
    /// Fires when it should not wait any longer.
    enough: Notify,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Attempt>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a command wrote; waits while too much of it is not acknowledged yet.
    pub(super) async fn take_in(&self, attempt: &Arc<Attempt>, chunk: OutputChunk) {
        let (is_new, is_first, is_enough) = {
            let mut buffer = attempt.output.lock();
            let is_first = !buffer.has_numbers();
            buffer.push(chunk);
            let is_new = !mem::replace(&mut buffer.listed, true);
            (is_new, is_first, buffer.waiting >= FLUSH_BYTES)
        };
        if is_new {
            self.lock().push_back(Arc::clone(attempt));
            if is_first { self.first.notify_one() } else { self.some.notify_one() }
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

    /// The next call: output of the attempts that have none under way, in turns, as much as one call holds; of those that
    /// write much only if it may be long.
    fn gather(&self, may_be_long: bool) -> Vec<Sending> {
        let mut waiting = self.lock();
        let mut sendings: Vec<Sending> = Vec::new();
        let mut busy = Vec::new();
        let mut bytes = 0;
        while bytes < CALL_BYTES {
            let Some(attempt) = waiting.pop_front() else { break };
            let place = sendings.iter().position(|sending| Arc::ptr_eq(&sending.attempt, &attempt));
            let mut buffer = attempt.output.lock();
            let is_long = buffer.waiting > FLUSH_BYTES;
            if place.is_none() && (buffer.is_under_way() || is_long && !may_be_long) {
                drop(buffer);
                busy.push(attempt);
                continue;
            }
            let chunks = buffer.take(TURN_BYTES.min(CALL_BYTES - bytes));
            buffer.listed = buffer.waiting > 0;
            let is_left = buffer.listed;
            drop(buffer);
            if is_left {
                waiting.push_back(Arc::clone(&attempt));
            }
            if chunks.is_empty() {
                continue;
            }
            let len = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
            bytes += len;
            match place.and_then(|place| sendings.get_mut(place)) {
                Some(sending) => {
                    sending.chunks.extend(chunks);
                    sending.len += len;
                }
                None => sendings.push(Sending { attempt, chunks, len }),
            }
        }
        busy.into_iter().rev().for_each(|attempt| waiting.push_front(attempt));
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

/// A call has returned.
struct Sent {
    was_long: bool,
}

/// Sends output until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut calls = FuturesUnordered::new();
    let mut due: Option<Sleep> = None;
    let mut last: Option<Duration> = None;
    let mut is_one_long = false;
    // Whether something is overdue, and waits for a call to return.
    let mut is_behind = false;
    loop {
        let wait = tokio::select! {
            biased;
            Some(Sent { was_long }) = calls.next() => {
                is_one_long &= !was_long;
                if !is_behind {
                    continue;
                }
                None
            }
            () = shared.output.enough.notified() => None,
            () = optional(due.as_mut()) => None,
            () = shared.output.first.notified() => until(last, LINGER, shared.clock.uptime()),
            () = shared.output.some.notified(), if due.is_none() => until(last, FLUSH_AFTER, shared.clock.uptime()),
        };
        if let Some(wait) = wait {
            due = Some(shared.clock.sleep(wait));
            continue;
        }
        due = None;
        while calls.len() < CALLS {
            let sendings = shared.output.gather(!is_one_long);
            if sendings.is_empty() {
                break;
            }
            last = Some(shared.clock.uptime());
            let is_long = sendings.iter().any(|sending| sending.len > FLUSH_BYTES);
            is_one_long |= is_long;
            calls.push(send(&shared, sendings).map(move |()| Sent { was_long: is_long }));
        }
        is_behind = !shared.output.lock().is_empty();
    }
}

/// How long to wait for the next call, so that it follows the last one no sooner than `pace`; `None`: not at all.
fn until(last: Option<Duration>, pace: Duration, now: Duration) -> Option<Duration> {
    let wait = (last? + pace).saturating_sub(now);
    (!wait.is_zero()).then_some(wait)
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
            Err(error) if is_final(&error) => {
                if let [sending] = &*sendings {
                    // The coordinator will never take it, and the job must not wait for it.
                    drop_refused(sending, &error);
                } else {
                    // One of them is at fault; each by itself.
                    for sending in sendings {
                        Box::pin(send(shared, vec![sending])).await;
                    }
                }
                return;
            }
            Err(error) => {
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
        Err(error) if is_final(&error) => drop_refused(sending, &error),
        Err(error) => return Next::Again(error.retry_after()),
    }
    Next::Done
}

fn drop_refused(sending: &Sending, error: &Error) {
    tracing::error!(job = %sending.attempt.job, %error, "output was refused and is dropped");
    sending.attempt.output.acknowledged(sending.len);
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
