//! One attempt under way: its output, its time, and being told to stop. Shared by executors whose jobs write to pipes: each brings
//! a [`Control`], and [`conduct`] keeps the [`Executor`](super::Executor)'s promises about endings and output with it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::unix::pipe;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::executor::{OutputSink, RunContext, StepLog, Stream};
use crate::job::{Outcome, Step};

/// What is read from a pipe at most at a time, which is also what a pipe holds by default.
const READ: usize = 64 * 1024;
/// A chunk smaller than this is copied, so that it does not keep a whole buffer alive while it waits for its reader.
const COPY_BELOW: usize = 16 * 1024;
/// After everything is dead a pipe has an end. Where something got away and holds it open, what is read is bounded:
/// by a silence of this length,
const DRAIN_SILENCE: Duration = Duration::from_secs(1);
/// and by this much, which is the most that a pipe may hold.
const DRAIN_BYTES: usize = 1024 * 1024;

/// A way of running commands, once they have been asked for.
#[expect(async_fn_in_trait, reason = "whoever conducts knows which it has")]
pub trait Control {
    /// Waits until every process of the job is gone. Cancellation safe.
    async fn ended(&mut self) -> Over;
    /// Asks every process of the job to end.
    async fn terminate(&mut self);
    /// Ends every process of the job.
    async fn kill(&mut self);
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// Its last command's end, or why there is none.
    pub end: End,
    /// How each of its commands ended that was begun, in order, if it is a job of steps.
    pub steps: Vec<Step>,
    /// The kernel killed one of its processes for want of memory.
    pub out_of_memory: bool,
}

/// How a job's last command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// It was told to end before its last command began, and the one before exited with 0.
    Cut,
    /// It was never started, or its end is not known.
    Refused(String),
}

impl Over {
    /// Without steps, and not for want of memory.
    pub fn of(end: End) -> Self {
        Self { end, steps: Vec::new(), out_of_memory: false }
    }
}

/// Why the executor ended a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Stop,
    Timeout,
}

/// Both ends of a pipe for one stream.
#[derive(Debug)]
pub struct Pipe {
    /// Where the executor reads.
    pub reader: pipe::Receiver,
    /// What the job's processes write to. Whoever holds it keeps the pipe open.
    pub writer: OwnedFd,
}

impl Pipe {
    /// A new one.
    ///
    /// # Errors
    /// The system's: too many open files.
    pub fn open() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader: pipe::Receiver::from_owned_fd(reader.into())?, writer: writer.into() })
    }
}

/// Sees a job that has been started through to its end, while its output flows: its timeout counts from here. Returns when
/// everything that was written has been handed on, and has then said how its steps ended. Dropping the future drops `job`.
pub async fn conduct(
    mut job: impl Control,
    context: &RunContext,
    grace: Duration,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
) -> Outcome {
    let dead = CancellationToken::new();
    let control = async {
        let over = attend(&mut job, context, grace).await;
        dead.cancel();
        // The descriptors that the way of running still holds would keep the pipes open.
        drop(job);
        over
    };
    let ((mut over, cause), ()) = tokio::join!(control, pump([stdout, stderr], &context.output, &dead));
    let steps = std::mem::take(&mut over.steps);
    let outcome = decide(over, cause);
    tell(steps, &outcome, &context.steps);
    outcome
}

/// Waits for a job's end, and brings it about when its time is over or it is told to stop.
async fn attend(job: &mut impl Control, context: &RunContext, grace: Duration) -> (Over, Option<Cause>) {
    let cause = tokio::select! {
        biased;
        over = job.ended() => return (over, None),
        () = context.stop.cancelled() => Cause::Stop,
        () = sleep(context.spec.timeout) => Cause::Timeout,
    };
    job.terminate().await;
    if let Ok(over) = timeout(grace, job.ended()).await {
        return (over, Some(cause));
    }
    job.kill().await;
    (job.ended().await, Some(cause))
}

/// Carries both streams from their pipes to the sink, as fast as the sink takes them.
///
/// Pipes keep no order between them. What is read from one is handed on before the other is read, in the order in which
/// they became readable; where both are, they take turns. So two writes keep their order across streams if the first was read
/// before the second was made, which is soon while the sink takes what it is given.
async fn pump(pipes: [pipe::Receiver; 2], sink: &OutputSink, dead: &CancellationToken) {
    let [stdout, stderr] = pipes.map(|pipe| Source { pipe, is_open: true, left: DRAIN_BYTES });
    let (mut next, mut other) = ((Stream::Stdout, stdout), (Stream::Stderr, stderr));
    let mut buffer = BytesMut::new();
    while next.1.is_open || other.1.is_open {
        let ready = tokio::select! {
            biased;
            ready = readable(&mut next.1, &mut other.1) => Some(ready),
            () = dead.cancelled() => None,
        };
        let ready = match ready {
            Some(ready) => ready,
            None => match timeout(DRAIN_SILENCE, readable(&mut next.1, &mut other.1)).await {
                Ok(ready) => ready,
                Err(_) => return,
            },
        };
        // Whose turn it is after this one: the other's.
        if ready == Turn::Next {
            std::mem::swap(&mut next, &mut other);
        }
        let (stream, source) = &mut other;
        if let Some(bytes) = source.read(&mut buffer, dead.is_cancelled()) {
            sink.write(*stream, bytes).await;
        }
    }
}

/// Which of two is readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Next,
    Other,
}

/// Waits until one of two sources has something, or an end; the first one if both have. Cancellation safe.
async fn readable(next: &mut Source, other: &mut Source) -> Turn {
    tokio::select! {
        biased;
        () = next.readable(), if next.is_open => Turn::Next,
        () = other.readable(), if other.is_open => Turn::Other,
    }
}

/// One stream's pipe.
struct Source {
    pipe: pipe::Receiver,
    is_open: bool,
    /// How much is read of it once everything is dead.
    left: usize,
}

impl Source {
    async fn readable(&mut self) {
        self.is_open = self.pipe.readable().await.is_ok();
    }

    /// What there is, if there is something.
    fn read(&mut self, buffer: &mut BytesMut, is_dead: bool) -> Option<Bytes> {
        buffer.reserve(READ);
        match self.pipe.try_read_buf(buffer) {
            Ok(count) if count > 0 => {
                if is_dead {
                    self.left = self.left.saturating_sub(count);
                    self.is_open = self.left > 0;
                }
                if count < COPY_BELOW {
                    let bytes = Bytes::copy_from_slice(buffer);
                    buffer.clear();
                    return Some(bytes);
                }
                Some(buffer.split().freeze())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Ok(_) | Err(_) => {
                self.is_open = false;
                None
            }
        }
    }
}

/// The outcome, from how the job ended and whether the executor had a hand in it.
fn decide(over: Over, cause: Option<Cause>) -> Outcome {
    let Over { end, out_of_memory, .. } = over;
    match (end, cause) {
        (End::Refused(message), _) => Outcome::ExecutorError { message },
        // Its time was over before it was, whatever it made of the polite signal.
        (_, Some(Cause::Timeout)) => Outcome::TimedOut,
        // Some of its work was never begun.
        (End::Cut, _) => Outcome::Stopped,
        // It finished its work before the signal reached it, or as the answer to it.
        (End::Exited(0), _) => Outcome::Exited { code: 0 },
        (_, Some(Cause::Stop)) => Outcome::Stopped,
        (_, None) if out_of_memory => Outcome::OutOfMemory,
        (End::Exited(code), None) => Outcome::Exited { code },
        (End::Signaled(signal), None) => Outcome::Signaled { signal },
    }
}

/// Says how the steps ended. The one that the executor put an end to has no code of its own, whatever it made of the signal.
fn tell(mut steps: Vec<Step>, outcome: &Outcome, log: &StepLog) {
    if let (Outcome::Stopped | Outcome::TimedOut, Some(last)) = (outcome, steps.last_mut()) {
        last.exit_code = None;
    }
    steps.into_iter().for_each(|step| log.ended(step));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_is_what_the_evidence_says() {
        let of = |end: &End, out_of_memory, cause| decide(Over { out_of_memory, ..Over::of(end.clone()) }, cause);
        let (zero, one, killed) = (End::Exited(0), End::Exited(1), End::Signaled(9));
        let exited = |code| Outcome::Exited { code };
        // A code that looks like a signal is a code.
        assert_eq!(of(&End::Exited(137), false, None), exited(137));
        assert_eq!(of(&killed, false, None), Outcome::Signaled { signal: 9 });
        assert_eq!(of(&killed, true, None), Outcome::OutOfMemory);
        // The shell survived the child that the kernel killed, and passed its end on.
        assert_eq!(of(&End::Exited(137), true, None), Outcome::OutOfMemory);
        // It lost a child and did its work all the same.
        assert_eq!(of(&zero, true, None), exited(0));
        for (end, stopped) in [(&zero, exited(0)), (&one, Outcome::Stopped), (&killed, Outcome::Stopped)] {
            assert_eq!(of(end, false, Some(Cause::Stop)), stopped);
            assert_eq!(of(end, false, Some(Cause::Timeout)), Outcome::TimedOut);
        }
        assert_eq!(of(&End::Cut, false, Some(Cause::Stop)), Outcome::Stopped);
        assert_eq!(of(&End::Cut, false, Some(Cause::Timeout)), Outcome::TimedOut);
        let refused = of(&End::Refused("why".to_owned()), false, Some(Cause::Stop));
        assert_eq!(refused, Outcome::ExecutorError { message: "why".to_owned() });
    }
}
