//! Streams of output and of changes: subscriptions, taken up where their socket broke.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::id::JobId;
use cmdexec_core::service::{Cursor, JobUpdate, OutputEvent, OutputQuery, OutputStream, UpdateStream, WatchQuery};
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_wire as wire;
use tokio::sync::mpsc;

use super::backoff::Backoff;
use super::link::Link;
use super::run::Command;
use crate::message::{Event, Kind, Subscribe, What};

/// How many events the server may send ahead of their reader. Each has at most 64 KiB.
const AHEAD: usize = 64;

/// The task's end of a stream.
pub(super) struct Sink(mpsc::Sender<Item>);

enum Item {
    /// From here on nothing is missed.
    Opened,
    Event(Event, Bytes),
    /// Nothing follows: the server says so, or why.
    End(Option<Error>),
}

/// What became of what was given to a sink.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sunk {
    Taken,
    /// Its reader is gone, or the server sent more than it was asked for.
    Gone,
}

impl Sink {
    fn new() -> (Self, mpsc::Receiver<Item>) {
        // One more for the beginning, and one for the end.
        let (sender, receiver) = mpsc::channel(AHEAD + 2);
        (Self(sender), receiver)
    }

    pub(super) fn opened(&self) {
        // It is the first, so that there is room.
        let _ = self.0.try_send(Item::Opened);
    }

    pub(super) fn push(&self, events: Vec<(Event, Bytes)>) -> Sunk {
        for (event, bytes) in events {
            if self.0.try_send(Item::Event(event, bytes)).is_err() {
                return Sunk::Gone;
            }
        }
        Sunk::Taken
    }

    pub(super) fn end(self, error: Option<Error>) {
        // There is room for it, or nobody reads.
        let _ = self.0.try_send(Item::End(error));
    }
}

/// A subscription that is begun again where it broke.
struct Stream {
    link: Arc<Link>,
    open: Option<(u64, mpsc::Receiver<Item>)>,
    /// How many events were read that the server does not know of.
    read: usize,
    backoff: Backoff,
    since: Option<Duration>,
}

impl Stream {
    fn new(link: Arc<Link>) -> Self {
        let backoff = Backoff::new(&link.core.options);
        Self { link, open: None, read: 0, backoff, since: None }
    }

    async fn begin(&mut self, mut subscribe: Subscribe) -> Result<(), Error> {
        subscribe.credits = Some(AHEAD);
        let (sink, mut receiver) = Sink::new();
        let id = self.link.subscribe(&subscribe, sink).await?;
        let answer = tokio::time::timeout(self.link.core.options.call_timeout, receiver.recv()).await;
        match answer {
            Ok(Some(Item::Opened)) => {
                (self.open, self.read) = (Some((id, receiver)), 0);
                Ok(())
            }
            Ok(Some(Item::End(Some(error)))) => Err(error),
            Ok(Some(_)) => Err(Error::Internal),
            Ok(None) | Err(_) => Err(Error::Unavailable { retry_after: wire::LATER }),
        }
    }

    /// Begins a stream, and again where the socket broke just then.
    async fn first(&mut self, subscribe: Subscribe) -> Result<(), Error> {
        let until = SystemClock.uptime() + self.link.core.options.retry_for;
        loop {
            match self.begin(subscribe.clone()).await {
                Err(error) if error.retry_after().is_some() && SystemClock.uptime() < until => {
                    tokio::time::sleep(self.backoff.pause()).await;
                }
                begun => return begun,
            }
        }
    }

    /// The next event; `None` after the last. Where the stream broke it is begun again as `again` says, unless that says it can't be.
    async fn next(&mut self, again: impl Fn() -> Option<Subscribe>) -> Option<Result<(Event, Bytes), Error>> {
        loop {
            let Some((id, receiver)) = &mut self.open else {
                let lost = || Error::Unavailable { retry_after: wire::LATER };
                let Some(subscribe) = again() else { return Some(Err(lost())) };
                let now = SystemClock.uptime();
                let since = *self.since.get_or_insert(now);
                if now.saturating_sub(since) > self.link.core.options.resume_for {
                    return Some(Err(lost()));
                }
                tokio::time::sleep(self.backoff.pause()).await;
                match self.begin(subscribe).await {
                    Ok(()) => continue,
                    Err(error) if error.retry_after().is_some() => continue,
                    Err(error) => return Some(Err(error)),
                }
            };
            match receiver.recv().await {
                Some(Item::Event(event, bytes)) => {
                    self.since = None;
                    self.backoff.reset();
                    self.read += 1;
                    if self.read >= AHEAD / 2 {
                        let more = Command::More { id: *id, credits: std::mem::take(&mut self.read) };
                        self.link.tell(more).await;
                    }
                    return Some(Ok((event, bytes)));
                }
                Some(Item::Opened) => {}
                Some(Item::End(Some(error))) if error.retry_after().is_some() => self.open = None,
                Some(Item::End(Some(error))) => return Some(Err(error)),
                Some(Item::End(None)) => return None,
                None => self.open = None,
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some((id, _)) = self.open {
            // Where there is no room, the server learns it with the next event.
            self.link.try_tell(Command::Unsubscribe(id));
        }
    }
}

/// A job's output, resumed at its last cursor whenever the socket breaks.
pub(super) async fn follow(link: Arc<Link>, id: JobId, query: OutputQuery) -> Result<OutputStream, Error> {
    let subscribe = move |from: Option<Cursor>| Subscribe {
        job_id: Some(id.as_uuid()),
        events: Some(vec![Kind::Output]),
        cursor: from.map(|from| from.to_string()),
        cursors: None,
        since: query.since.map(wire::Time),
        tail: query.tail,
        stream: query.stream,
        follow: Some(query.follow),
        packed: true,
        credits: None,
    };
    let mut stream = Stream::new(link);
    stream.first(subscribe(query.from)).await?;
    let state = (stream, query.from, false);
    Ok(Box::pin(futures_util::stream::unfold(state, move |(mut stream, mut cursor, over)| async move {
        if over {
            return None;
        }
        let event = loop {
            match stream.next(|| Some(subscribe(cursor))).await? {
                // Events of a newer server are passed over.
                Ok((event, bytes)) => {
                    if let Some(event) = output(event, bytes) {
                        break event;
                    }
                }
                Err(error) => break Err(error),
            }
        };
        cursor = event.as_ref().ok().and_then(OutputEvent::cursor).or(cursor);
        let over = matches!(event, Ok(OutputEvent::End { .. }) | Err(_));
        Some((event, (stream, cursor, over)))
    })))
}

/// The piece of output that an event is; `None` if it is something else, such as what a newer server says.
pub(super) fn output(event: Event, bytes: Bytes) -> Option<Result<OutputEvent, Error>> {
    let is_output = !matches!(event.event, What::Status | What::Other);
    is_output.then(|| event.into_output(bytes).ok_or(Error::Internal))
}

/// Changes of one job, resumed whenever the socket breaks; or of all jobs, which ends there with an error, because changes in
/// between are missed.
pub(super) async fn watch(link: Arc<Link>, query: WatchQuery) -> Result<UpdateStream, Error> {
    let subscribe = move || Subscribe {
        job_id: match query {
            WatchQuery::Job(id) => Some(id.as_uuid()),
            WatchQuery::All => None,
        },
        events: Some(vec![Kind::Status]),
        ..Subscribe::default()
    };
    let again = move || matches!(query, WatchQuery::Job(_)).then(subscribe);
    let mut stream = Stream::new(link);
    stream.first(subscribe()).await?;
    let state = (stream, None::<u64>, false);
    Ok(Box::pin(futures_util::stream::unfold(state, move |(mut stream, mut version, over)| async move {
        if over {
            return None;
        }
        loop {
            let event = match stream.next(again).await? {
                Ok((event, _)) => event,
                Err(error) => return Some((Err(error), (stream, version, true))),
            };
            let Some(update) = update(event) else { continue };
            let Ok(update) = update else { return Some((update, (stream, version, true))) };
            if matches!(query, WatchQuery::Job(_)) {
                // A stream that was begun again starts with where the job stands: perhaps with what is known.
                if version.is_some_and(|version| update.version <= version) {
                    continue;
                }
                version = Some(update.version);
            }
            return Some((Ok(update), (stream, version, false)));
        }
    })))
}

/// The change that an event is; `None` if it is something else.
pub(super) fn update(event: Event) -> Option<Result<JobUpdate, Error>> {
    (event.event == What::Status).then(|| event.into_update().ok_or(Error::Internal))
}
