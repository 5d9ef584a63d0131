//! The newest output of a job, read once for everybody who follows it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::reader::Reader;
use super::subject::Subject;
use crate::Error;
use crate::coordinator::{Shared, lock};
use crate::id::JobId;
use crate::service::{Cursor, OutputEvent};

/// How much of a job's newest output is held for those who follow it. Who falls behind by more reads the store until it
/// has caught up.
const HELD: usize = 1 << 20;

/// What a short event counts for beside its bytes.
const EVENT: usize = 128;

/// The jobs whose output is followed.
#[derive(Debug, Default)]
pub(in crate::coordinator) struct Followed {
    jobs: Mutex<HashMap<JobId, Arc<Live>>>,
    /// One for each such job; they end with the coordinator, or when nobody follows any more.
    tasks: TaskTracker,
}

impl Followed {
    /// Follows a job's newest output with others, or from `cursor` on if there are no others.
    pub(super) fn join(&self, shared: &Arc<Shared>, job: JobId, cursor: Cursor) -> (Arc<Live>, watch::Receiver<u64>) {
        let mut jobs = lock(&self.jobs);
        let live = jobs.entry(job).or_insert_with(|| {
            let live = Arc::new(Live::new(cursor));
            self.tasks.spawn(run(Arc::clone(shared), job, Arc::clone(&live), cursor));
            live
        });
        (Arc::clone(live), live.end.subscribe())
    }

    /// Forgets a job that nobody follows, or whose output is over.
    fn forget(&self, job: JobId, live: &Arc<Live>, is_over: bool) -> bool {
        let mut jobs = lock(&self.jobs);
        // Who joins does so under the same lock.
        let forgotten = is_over || live.end.receiver_count() == 0;
        if forgotten && jobs.get(&job).is_some_and(|known| Arc::ptr_eq(known, live)) {
            jobs.remove(&job);
        }
        forgotten
    }

    /// Completes once nothing is read for anybody any more. The hub must be closed.
    pub(in crate::coordinator) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Reads what is new of a job's output until it is over or nobody follows it.
async fn run(shared: Arc<Shared>, job: JobId, live: Arc<Live>, cursor: Cursor) {
    let mut subject = Subject::new(Arc::clone(&shared), job);
    let mut reader = Reader { cursor };
    while !shared.followed.forget(job, &live, false) {
        match read(&mut subject, &mut reader).await {
            Ok((events, _)) if !events.is_empty() => live.push(events.into_iter().map(Ok)),
            Ok((_, Some(end))) => {
                live.push([Ok(end)]);
                break;
            }
            Ok((_, None)) => {
                let waited = tokio::select! {
                    waited = subject.wait() => waited,
                    () = live.end.closed() => Ok(()),
                };
                if let Err(error) = waited {
                    live.push([Err(error)]);
                    break;
                }
            }
            Err(error) => {
                live.push([Err(error)]);
                break;
            }
        }
    }
    shared.followed.forget(job, &live, true);
}

/// What is new, and the end if nothing can follow.
pub(super) async fn read(
    subject: &mut Subject,
    reader: &mut Reader,
) -> Result<(Vec<OutputEvent>, Option<OutputEvent>), Error> {
    let job = subject.stored().await?;
    let events = reader.read(&subject.shared, &job).await?;
    let status = job.status();
    Ok((events, status.is_finished().then_some(OutputEvent::End { status })))
}

/// The newest events of one job, numbered.
#[derive(Debug)]
pub(super) struct Live {
    held: Mutex<Held>,
    /// One more than the number of the newest event.
    end: watch::Sender<u64>,
}

#[derive(Debug)]
struct Held {
    /// The number of the oldest event.
    first: u64,
    /// The place before it.
    start: Cursor,
    /// An error or an end is the last.
    events: VecDeque<Result<OutputEvent, Error>>,
    size: usize,
}

/// What there is with a number.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    Event(Result<OutputEvent, Error>),
    /// It comes next.
    Not,
    /// It is not held any more.
    Past,
}

impl Live {
    fn new(start: Cursor) -> Self {
        let held = Mutex::new(Held { first: 0, start, events: VecDeque::new(), size: 0 });
        Self { held, end: watch::Sender::new(0) }
    }

    fn push(&self, events: impl IntoIterator<Item = Result<OutputEvent, Error>>) {
        let mut held = lock(&self.held);
        for event in events {
            held.size += size(&event);
            held.events.push_back(event);
        }
        while held.size > HELD
            && let Some(oldest) = held.events.pop_front()
        {
            held.size -= size(&oldest);
            held.first += 1;
            held.start = place(&oldest).unwrap_or(held.start);
        }
        let end = held.first + held.events.len() as u64;
        drop(held);
        self.end.send_replace(end);
    }

    pub(super) fn get(&self, number: u64) -> Found {
        let held = lock(&self.held);
        let Some(at) = number.checked_sub(held.first) else { return Found::Past };
        match usize::try_from(at).ok().and_then(|at| held.events.get(at)) {
            Some(event) => Found::Event(event.clone()),
            None => Found::Not,
        }
    }

    /// The number of the event that follows a place, if the place is one that is held.
    pub(super) fn find(&self, cursor: Cursor) -> Option<u64> {
        let key = |cursor: Cursor| (cursor.attempt, cursor.next);
        let held = lock(&self.held);
        if key(held.start) == key(cursor) {
            return Some(held.first);
        }
        let at = held.events.partition_point(|event| place(event).is_some_and(|place| key(place) < key(cursor)));
        let is_there = held.events.get(at).and_then(place).is_some_and(|place| key(place) == key(cursor));
        is_there.then(|| held.first + at as u64 + 1)
    }
}

fn size(event: &Result<OutputEvent, Error>) -> usize {
    EVENT + if let Ok(OutputEvent::Chunk { bytes, .. }) = event { bytes.len() } else { 0 }
}

/// The place behind an event.
fn place(event: &Result<OutputEvent, Error>) -> Option<Cursor> {
    event.as_ref().ok()?.cursor()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::Stream;

    fn event(next: u64, len: usize) -> OutputEvent {
        let cursor = Cursor { attempt: 1, next, bytes: 0 };
        OutputEvent::Chunk { cursor, stream: Stream::Stdout, bytes: vec![0; len].into() }
    }

    #[test]
    fn a_place_is_found_and_what_is_too_old_is_past() {
        let at = |next| Cursor { attempt: 1, next, bytes: 0 };
        let live = Live::new(at(4));
        assert_eq!((live.find(at(4)), live.find(at(5))), (Some(0), None));
        assert_eq!(live.get(0), Found::Not);
        live.push([Ok(event(5, 1)), Ok(event(8, 1))]);
        assert_eq!([4, 5, 6, 8, 9].map(|next| live.find(at(next))), [Some(0), Some(1), None, Some(2), None]);
        assert_eq!(live.get(1), Found::Event(Ok(event(8, 1))));
        live.push([Ok(event(9, HELD - EVENT - 1))]);
        assert_eq!((live.get(1), live.find(at(5))), (Found::Past, None));
        assert_eq!((live.find(at(8)), live.find(at(9))), (Some(2), Some(3)));
    }
}
