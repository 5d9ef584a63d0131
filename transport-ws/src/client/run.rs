//! The task that has the socket: opens it again whenever it breaks, and turns whatever happens into one event.

use std::collections::HashMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::job::Outcome;
use cmdexec_core::service::{FinishedAttempt, LeasedJob};
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_wire::{self as wire, ReportAcks};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite::{Bytes, Message, Utf8Bytes};

use super::backoff::Backoff;
use super::connect::{Failed, Stream, closed};
use super::link::{Core, State};
use super::streams::{Sink, Sunk};
use crate::message::{self, Cancel, Drain, Envelope, Events, Jobs, More, Ready, Void, Welcome};
use crate::refusal::Refusal;
use crate::silence::{Due, Silence};
use crate::socket::{Ended, Event as SocketEvent, Socket};

/// How many commands are taken up before what they say is sent.
const IN_A_ROW: usize = 64;

/// What callers say to the task.
pub(super) enum Command {
    /// A request; its answer goes to `reply`, which is dropped if there will be none.
    Call {
        id: u64,
        message: Message,
        reply: oneshot::Sender<Utf8Bytes>,
    },
    /// What a worker's callers want may have changed.
    Credit(WorkerId),
    Subscribe {
        id: u64,
        message: Message,
        sink: Sink,
    },
    /// A subscription's reader takes so many more.
    More {
        id: u64,
        credits: usize,
    },
    Unsubscribe(u64),
}

/// One socket, while it is open.
struct Running<'a> {
    core: &'a Core,
    /// Gives ids for the task's own requests: high ones, which callers don't get to.
    next: u64,
    calls: HashMap<u64, oneshot::Sender<Utf8Bytes>>,
    /// Drains that are under way.
    drains: HashMap<u64, WorkerId>,
    subscriptions: HashMap<u64, Sink>,
    outbox: Vec<Message>,
    linger: Option<Pin<Box<Sleep>>>,
    /// Whether a call or a subscription was answered with what it asked for.
    is_of_use: bool,
}

/// Keeps a socket open until every handle is gone.
pub(super) async fn run(core: Arc<Core>, mut commands: mpsc::Receiver<Command>, own: mpsc::WeakSender<Command>) {
    let mut backoff = Backoff::new(&core.options);
    // The task is ended with its handle; this is for who keeps it alive some other way.
    while own.strong_count() > 0 {
        let failed = match core.target.open(&core.options).await {
            Ok((socket, welcome)) => {
                core.note(None);
                core.takes(&welcome.limits);
                let (interval, begun) = (interval(&welcome), SystemClock.uptime());
                let mut running = Running::new(&core);
                let failed = opened(&mut running, socket, interval, &mut commands).await;
                // Before callers hear that they get no answer: they look for why.
                core.state.send_replace(State::Opening);
                let is_of_use = running.is_of_use;
                drop(running);
                core.pushed.reset();
                // A welcome alone is no success: who is closed behind it each time would come again at once each time.
                if is_of_use || SystemClock.uptime().saturating_sub(begun) >= interval {
                    backoff.reset();
                }
                failed
            }
            Err(failed) => failed,
        };
        let (state, why) = match failed {
            Failed::Unreachable(why) => (State::Opening, why),
            Failed::Refused(error, why) => (State::Refused(error), why),
        };
        core.note(Some(format!("{}: {why}", core.target.url())));
        core.state.send_replace(state);
        // Who said something to a socket that is gone hears of it.
        while commands.try_recv().is_ok() {}
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// How often an end of the socket says something, within reason.
fn interval(welcome: &Welcome) -> Duration {
    Duration::from_millis(welcome.ping_interval_ms.clamp(20, 600_000))
}

enum Event {
    Socket(SocketEvent),
    Command(Option<Command>),
    Look,
    Lingered,
}

async fn opened(
    running: &mut Running<'_>,
    mut socket: Socket<Stream>,
    interval: Duration,
    commands: &mut mpsc::Receiver<Command>,
) -> Failed {
    running.core.state.send_replace(State::Open);
    for worker in running.core.pushed.waited_for() {
        running.credit(&worker);
    }
    let mut silence = Silence::new(interval, SystemClock.uptime());
    let mut look = SystemClock.sleep(Duration::ZERO);
    loop {
        running.outbox.drain(..).for_each(|message| socket.send(message));
        let event = tokio::select! {
            biased;
            event = socket.next(true) => Event::Socket(event),
            command = commands.recv() => Event::Command(command),
            () = lingered(&mut running.linger) => Event::Lingered,
            () = &mut look => Event::Look,
        };
        if let Event::Socket(SocketEvent::Message(_)) = &event {
            silence.heard(SystemClock.uptime());
        }
        match event {
            Event::Socket(SocketEvent::Message(Message::Text(text))) => running.text(&text),
            Event::Socket(SocketEvent::Message(Message::Binary(bytes))) => running.binary(&bytes),
            Event::Socket(SocketEvent::Message(Message::Close(frame))) => {
                let (code, reason) =
                    frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                // Answered by the socket when it is read on; nobody waits for that. Whether to come again, the next handshake says:
                // a worker that was removed may still report.
                return Failed::Unreachable(closed(code, &reason));
            }
            Event::Socket(SocketEvent::Message(_) | SocketEvent::Flushed) => {}
            Event::Socket(SocketEvent::Ended(Ended::Gone(why))) => return Failed::Unreachable(why),
            Event::Socket(SocketEvent::Ended(Ended::Broken(closing))) => return Failed::Unreachable(closing.reason),
            Event::Command(None) => return Failed::Unreachable("no longer needed".to_owned()),
            Event::Command(Some(command)) => {
                running.command(command);
                for _ in 0..IN_A_ROW {
                    let Ok(command) = commands.try_recv() else { break };
                    running.command(command);
                }
            }
            Event::Lingered => {
                running.linger = None;
                running.idle();
            }
            Event::Look => match silence.due(SystemClock.uptime()) {
                Due::Look(after) => look = SystemClock.sleep(after),
                Due::Ping(after) => {
                    running.outbox.push(Message::Ping(Bytes::new()));
                    look = SystemClock.sleep(after);
                }
                Due::Gone => return Failed::Unreachable("nothing was heard for two intervals".to_owned()),
            },
        }
    }
}

async fn lingered(linger: &mut Option<Pin<Box<Sleep>>>) {
    match linger {
        Some(linger) => linger.await,
        None => pending().await,
    }
}

impl<'a> Running<'a> {
    fn new(core: &'a Core) -> Self {
        Self {
            core,
            next: 1 << 52,
            calls: HashMap::new(),
            drains: HashMap::new(),
            subscriptions: HashMap::new(),
            outbox: Vec::new(),
            linger: None,
            is_of_use: false,
        }
    }

    fn say(&mut self, kind: &str, id: Option<u64>, body: &impl serde::Serialize) {
        self.outbox.push(message::text(kind, id, body));
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Call { id, message, reply } => {
                // Its caller may have gone.
                if !reply.is_closed() {
                    self.calls.insert(id, reply);
                    self.outbox.push(message);
                }
            }
            Command::Credit(worker) => self.credit(&worker),
            Command::Subscribe { id, message, sink } => {
                self.subscriptions.insert(id, sink);
                self.outbox.push(message);
            }
            Command::More { id, credits } => {
                if self.subscriptions.contains_key(&id) {
                    self.say("more", Some(id), &More { credits });
                }
            }
            Command::Unsubscribe(id) => {
                if self.subscriptions.remove(&id).is_some() {
                    self.say("unsubscribe", Some(id), &serde_json::json!({}));
                }
            }
        }
    }

    /// Gives credits for what a worker's callers want; or sees to it that they are taken back, if nobody comes.
    fn credit(&mut self, worker: &WorkerId) {
        let credits = self.core.pushed.due(worker);
        if credits > 0 {
            let ready = Ready { worker_id: Some(worker.to_string()), credits, wait_ms: None };
            self.say("ready", None, &ready);
        } else if self.linger.is_none() {
            self.linger = Some(Box::pin(tokio::time::sleep(self.core.options.linger)));
        }
    }

    /// Takes back what nobody waits for any more.
    fn idle(&mut self) {
        for worker in self.core.pushed.idle() {
            if self.core.pushed.drain(&worker) {
                self.next += 1;
                let id = self.next;
                self.drains.insert(id, worker.clone());
                self.say("drain", Some(id), &Drain { worker_id: Some(worker.to_string()) });
            } else {
                self.give_back(&worker);
            }
        }
    }

    fn give_back(&mut self, worker: &WorkerId) {
        let jobs = self.core.pushed.unwanted(worker);
        if jobs.is_empty() {
            return;
        }
        let report = |leased: &LeasedJob| FinishedAttempt::new(leased, Outcome::Returned);
        let reports: Vec<_> = jobs.iter().map(report).collect();
        let (_, bodies) = ReportAcks::spread(worker, &reports, self.core.sizes());
        for (body, _) in bodies {
            self.next += 1;
            // If this is lost, they come back because no heartbeat lists them.
            self.outbox.push(message::raw("results", self.next, &body));
        }
    }

    fn events(&mut self, id: u64, events: Vec<(message::Event, Bytes)>) {
        let sunk = self.subscriptions.get(&id).map(|sink| sink.push(events));
        if sunk == Some(Sunk::Gone) {
            self.subscriptions.remove(&id);
            self.say("unsubscribe", Some(id), &serde_json::json!({}));
        }
    }

    fn binary(&mut self, bytes: &Bytes) {
        let events =
            message::split_binary(bytes).and_then(|(id, packed)| Some((id, message::unpacked_events(&packed)?)));
        match events {
            Some((id, events)) => self.events(id, events),
            None => self.core.note(Some("a binary message does not come out even".to_owned())),
        }
    }

    fn text(&mut self, text: &Utf8Bytes) {
        let envelope = match Envelope::read(text) {
            Ok(envelope) => envelope,
            Err(why) => return self.core.note(Some(format!("a message is none: {why}"))),
        };
        match (&*envelope.kind, envelope.id) {
            ("ok" | "error", Some(id)) if self.calls.contains_key(&id) => {
                self.is_of_use |= envelope.kind == "ok";
                if let Some(reply) = self.calls.remove(&id) {
                    // Its caller may have gone.
                    let _ = reply.send(text.clone());
                }
            }
            ("ok" | "error", Some(id)) if self.drains.contains_key(&id) => {
                if let Some(worker) = self.drains.remove(&id) {
                    self.give_back(&worker);
                }
            }
            ("ok", Some(id)) => {
                if let Some(sink) = self.subscriptions.get(&id) {
                    self.is_of_use = true;
                    sink.opened();
                }
            }
            ("error", Some(id)) => {
                if let Some(sink) = self.subscriptions.remove(&id) {
                    let error = envelope.parse::<Refusal>().map_or(Error::Internal, Error::from);
                    sink.end(Some(error));
                }
            }
            ("end", Some(id)) => {
                if let Some(sink) = self.subscriptions.remove(&id) {
                    sink.end(None);
                }
            }
            ("event", Some(id)) => {
                let Ok(Events { events }) = envelope.parse() else { return };
                self.events(id, events.into_iter().map(|event| (event, Bytes::new())).collect());
            }
            ("jobs", _) => {
                let Ok(Jobs { worker_id, jobs }) = envelope.parse() else { return };
                let Ok(worker) = worker_id.parse() else { return };
                // A lease that makes no sense here is not listed, and so comes back.
                let jobs = jobs.into_iter().filter_map(wire::Lease::into_leased).collect();
                self.core.pushed.push(&worker, jobs);
                // Somebody may still want more, and if nobody does they go back.
                self.credit(&worker);
            }
            ("refused", _) => {
                let Ok(Void { worker_id, credits, error }) = envelope.parse() else { return };
                let Ok(worker) = worker_id.parse() else { return };
                self.core.pushed.fail(&worker, credits, error.into());
            }
            ("cancel", _) => {
                let Ok(Cancel { worker_id, jobs }) = envelope.parse() else { return };
                let Ok(worker) = worker_id.parse() else { return };
                let jobs: Vec<_> = jobs.into_iter().map(JobId::from_uuid).collect();
                self.core.stops.tell(&worker, &jobs);
            }
            // Of a newer server.
            _ => {}
        }
    }
}
