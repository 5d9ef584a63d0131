//! Subscriptions: streams of the service, made into events, as many as their reader has asked for.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::id::JobId;
use cmdexec_core::service::{JobService, JobUpdate, OutputEvent, OutputQuery, WatchQuery};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::asked::user::Wanted;
use super::everything::everything;
use super::session::{Done, Session};
use crate::message::{self, Event, Events, What};
use crate::refusal::Refusal;

/// How many events travel in one message, and after how many bytes of them it goes: what is behind it should not wait for long.
const TOGETHER: usize = 16;
const TOGETHER_BYTES: usize = 64 * 1024;

/// By how many events a subscription may be ahead of its reader; more credits are not counted.
const MOST_CREDITS: usize = 100_000;

/// An event, and the bytes that it brings.
pub(super) type Item = Result<(Event, Bytes), Error>;
pub(super) type Source = BoxStream<'static, Item>;

/// A socket's subscriptions.
#[derive(Default)]
pub(super) struct Subscriptions(HashMap<u64, Subscription>);

struct Subscription {
    credits: usize,
    packed: bool,
    stop: CancellationToken,
    /// The stream, while nobody reads it because its reader has had enough.
    parked: Option<Source>,
}

/// A subscription's stream is there, or can't be had.
pub(super) struct Opened {
    id: u64,
    stop: CancellationToken,
    source: Result<Source, Error>,
}

/// What a subscription gave.
pub(super) struct Given {
    id: u64,
    /// Tells it from an earlier one with its id.
    stop: CancellationToken,
    events: Vec<Item>,
    /// `None`: nothing follows.
    source: Option<Source>,
}

impl Subscriptions {
    pub(super) fn clear(&mut self) {
        self.0.drain().for_each(|(_, subscription)| subscription.stop.cancel());
    }
}

impl Session {
    /// Begins a subscription.
    pub(super) fn subscribe(
        &mut self,
        id: u64,
        jobs: Arc<dyn JobService>,
        wanted: Wanted,
        counted: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> Result<(), Error> {
        if self.subscriptions.0.len() >= self.shared.options.max_subscriptions {
            return Err(Error::Forbidden("there are as many subscriptions as one socket may have"));
        }
        if self.subscriptions.0.contains_key(&id) {
            return Err(Error::invalid("id", "is that of a subscription already"));
        }
        let (credits, packed) = (wanted.credits.min(MOST_CREDITS), wanted.packed);
        let stop = CancellationToken::new();
        let opened = async move {
            counted.await?;
            open(jobs, wanted).await
        };
        self.subscriptions.0.insert(id, Subscription { credits, packed, stop: stop.clone(), parked: None });
        self.doing.push(async move { Done::Opened(Opened { id, stop, source: opened.await }) }.boxed());
        Ok(())
    }

    /// Takes in that a subscription is open, from which on nothing is missed; or why it is not.
    pub(super) fn opened(&mut self, opened: Opened) {
        let Opened { id, stop, source } = opened;
        let Some(subscription) = self.subscriptions.0.get_mut(&id).filter(|_| !stop.is_cancelled()) else { return };
        match source {
            Ok(source) => {
                subscription.parked = Some(source);
                self.say("ok", Some(id), &serde_json::json!({}));
                self.resume(id);
            }
            Err(error) => {
                self.subscriptions.0.remove(&id);
                self.refuse(id, error);
            }
        }
    }

    /// Reads every stream on that rested because too much was unsent.
    pub(super) fn resume_all(&mut self) {
        let parked = self.subscriptions.0.iter().filter(|(_, subscription)| subscription.parked.is_some());
        let ids: Vec<_> = parked.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.resume(id));
    }

    /// Reads a subscription's stream while its reader wants more and takes what it has been sent.
    fn resume(&mut self, id: u64) {
        let may_say = self.may_say();
        let Some(subscription) = self.subscriptions.0.get_mut(&id) else { return };
        if subscription.credits == 0 || !may_say {
            return;
        }
        let Some(mut source) = subscription.parked.take() else { return };
        let (most, stop) = (subscription.credits.min(TOGETHER), subscription.stop.clone());
        let given = async move {
            let mut events = Vec::new();
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                next = source.next() => next,
            };
            let (mut next, mut bytes) = (next, 0);
            while let Some(event) = next {
                let failed = event.is_err();
                bytes += event.as_ref().map_or(0, |(_, bytes)| bytes.len());
                events.push(event);
                if failed || events.len() == most || bytes >= TOGETHER_BYTES {
                    break;
                }
                match source.next().now_or_never() {
                    Some(more @ Some(_)) => next = more,
                    // Its end; it is found again.
                    Some(None) => return Done::Given(Given { id, stop, events, source: None }),
                    None => break,
                }
            }
            let is_over = events.last().is_none_or(Result::is_err);
            Done::Given(Given { id, stop, events, source: (!is_over).then_some(source) })
        };
        self.doing.push(given.boxed());
    }

    /// Takes in what a subscription gave.
    pub(super) fn given(&mut self, given: Given) {
        let Given { id, stop, events, source } = given;
        let Some(subscription) = self.subscriptions.0.get_mut(&id).filter(|_| !stop.is_cancelled()) else { return };
        subscription.credits = subscription.credits.saturating_sub(events.len());
        let (is_over, mut error) = (source.is_none(), None);
        subscription.parked = source;
        let good: Vec<_> = events.into_iter().filter_map(|event| event.map_err(|e| error = Some(e)).ok()).collect();
        let packed = subscription.packed;
        if packed && good.iter().any(|(event, _)| event.event == What::Output) {
            self.push(message::packed_events(id, good));
        } else if !good.is_empty() {
            let events = good.into_iter().map(|(event, bytes)| event.with(&bytes)).collect();
            self.say("event", Some(id), &Events { events });
        }
        match (error, is_over) {
            (Some(error), _) => {
                self.subscriptions.0.remove(&id);
                self.say("error", Some(id), &Refusal::from(error));
            }
            (None, true) => {
                self.subscriptions.0.remove(&id);
                self.say("end", Some(id), &serde_json::json!({}));
            }
            (None, false) => self.resume(id),
        }
    }

    /// A reader takes so many more.
    pub(super) fn more(&mut self, id: u64, credits: usize) {
        if let Some(subscription) = self.subscriptions.0.get_mut(&id) {
            subscription.credits = subscription.credits.saturating_add(credits).min(MOST_CREDITS);
            self.resume(id);
        }
    }

    /// Ends a subscription; it is answered by `end`.
    pub(super) fn unsubscribe(&mut self, id: u64) {
        if let Some(subscription) = self.subscriptions.0.remove(&id) {
            subscription.stop.cancel();
            self.say("end", Some(id), &serde_json::json!({}));
        }
    }
}

/// The stream that a subscription is to.
async fn open(jobs: Arc<dyn JobService>, wanted: Wanted) -> Result<Source, Error> {
    let Wanted { job, status, output, query, cursors, .. } = wanted;
    let Some(job) = job else {
        return if output {
            Ok(everything(jobs, query, status, cursors).await?.boxed())
        } else {
            Ok(changes(jobs.watch(WatchQuery::All).await?).boxed())
        };
    };
    let mut sources: Vec<Source> = Vec::new();
    if status {
        sources.push(changes(jobs.watch(WatchQuery::Job(job)).await?).boxed());
    }
    if output {
        sources.push(written(&*jobs, job, query).await?);
    }
    Ok(stream::select_all(sources).boxed())
}

fn changes(updates: impl Stream<Item = Result<JobUpdate, Error>> + Send + 'static) -> impl Stream<Item = Item> + Send {
    updates.map(|update| update.map(|update| (Event::of_update(&update), Bytes::new())))
}

/// One job's output.
pub(super) async fn written(jobs: &dyn JobService, job: JobId, query: OutputQuery) -> Result<Source, Error> {
    let output = jobs.output(job, query).await?;
    Ok(output.map(move |event| event.map(|event| with_bytes(job, event))).boxed())
}

fn with_bytes(job: JobId, event: OutputEvent) -> (Event, Bytes) {
    let said = Event::of_output(job, &event);
    let bytes = if let OutputEvent::Chunk { bytes, .. } = event { bytes } else { Bytes::new() };
    (said, bytes)
}
