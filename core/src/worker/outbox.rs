//! The way of output to the coordinator: of many attempts in one call, soon but not at once, repeated until it is
//! acknowledged or nobody wants it.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::attempt::{Attempt, Why};
use super::backoff::Backoff;
use super::output::FLUSH_BYTES;
use super::runtime::Shared;
use crate::Error;
use crate::executor::OutputChunk;
use crate::service::{OutputAck, OutputBatch, OutputPieces};
use crate::store::Chunk;

/// Output is sent when an attempt has [`FLUSH_BYTES`] of it, or when the oldest of it has waited so long.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// How much travels in one call; transports allow several times as much, also where bytes become base64.
const CALL_BYTES: usize = 1024 * 1024;

/// How long a call may take before it is given up and repeated.
const CALL_TIME: Duration = Duration::from_secs(30);

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
