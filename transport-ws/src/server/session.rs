//! A socket's life: one loop that turns whatever happens into one event, and takes it in.

use std::collections::HashSet;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::id::WorkerId;
use cmdexec_core::service::{JobService, UserPrincipal, WorkerService};
use cmdexec_core::time::{Sleep, Timestamp};
use cmdexec_core::token::LEEWAY;
use cmdexec_wire as wire;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::{Bytes, Message, Utf8Bytes};

use super::credit::{Credits, Leased};
use super::handshake::Who;
use super::open::Place;
use super::pulse::{Due, Pulse};
use super::subscription::{Given, Opened, Subscriptions};
use super::work::Stopped;
use super::{Shared, user, work};
use crate::close::{Closing, Code};
use crate::message::{self, Envelope, Limits, Welcome};
use crate::refusal::Refusal;
use crate::socket::{Ended, Event as SocketEvent, Socket};

/// How many results are sent before the peer is heard again.
const IN_A_ROW: usize = 64;

/// Who is at the other end of a socket.
pub(super) struct Peer {
    pub(super) who: Who,
    /// Whom a registration counts for that names nobody.
    pub(super) address: Option<IpAddr>,
    /// When its token does.
    pub(super) expires: Timestamp,
    pub(super) place: Place,
}

/// What a session knows and does, without its socket.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) who: Served,
    pub(super) address: Option<IpAddr>,
    pub(super) doing: FuturesUnordered<BoxFuture<'static, Done>>,
    pub(super) credits: Credits,
    /// The workers that hear at once of what is cancelled.
    pub(super) stopping: HashSet<WorkerId>,
    pub(super) subscriptions: Subscriptions,
    /// Requests that are worked on, and how many bytes they had.
    calls: usize,
    call_bytes: usize,
    pace: Pace,
    /// What is said at the end, once everything that was asked for is answered; and since when.
    leaving: Option<(Closing, Duration)>,
    /// What is to be sent.
    outbox: Vec<Message>,
    /// How much waits for the peer to take it, with what is to be sent.
    unsent: usize,
}

/// On whose behalf a socket acts.
pub(super) enum Served {
    User { jobs: Arc<dyn JobService>, principal: UserPrincipal },
    Worker { work: Arc<dyn WorkerService>, bound: Option<WorkerId> },
}

/// Something that a session did beside its loop.
pub(super) enum Done {
    /// A request is answered.
    Answer { message: Message, bytes: usize, closing: Option<Closing> },
    /// A worker's credits brought something.
    Leased(Leased),
    /// A worker has cancelled jobs.
    Stops(Stopped),
    /// A worker was removed.
    Removed(WorkerId),
    /// A subscription has its stream.
    Opened(Opened),
    /// A subscription has events.
    Given(Given),
}

/// How many messages were read in this second.
struct Pace {
    most: u32,
    read: u32,
    since: Duration,
    /// When the next may be read, if there were too many.
    rest: Option<Sleep>,
}

enum Event {
    Socket(SocketEvent),
    Done(Done),
    Pulse,
    Rested,
    Closing,
    Expired,
    Revoked,
}

enum Flow {
    Go,
    End(Option<Closing>),
}

/// Runs a socket whose peer is known to its end. What is to be said at the end, if somebody is there to hear it.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    socket: &mut Socket<S>,
    peer: Peer,
) -> Option<Closing> {
    let Peer { who, address, expires, place } = peer;
    let options = &shared.options;
    socket.send(message::text("welcome", None, &welcome(shared, &who, expires)));
    let mut session = Session {
        who: Served::new(shared, who),
        address,
        doing: FuturesUnordered::new(),
        credits: Credits::default(),
        stopping: HashSet::new(),
        subscriptions: Subscriptions::default(),
        calls: 0,
        call_bytes: 0,
        pace: Pace { most: options.max_messages_per_second, read: 0, since: shared.clock.uptime(), rest: None },
        leaving: None,
        outbox: Vec::new(),
        unsent: 0,
        shared: Arc::clone(shared),
    };
    let mut expiry = shared.clock.sleep(expires.after(LEEWAY).since(shared.clock.now()));
    let mut pulse = Pulse::new(Arc::clone(&shared.clock), options.ping_interval, options.write_timeout);
    session.follow_bound();
    loop {
        let may_read = session.may_read();
        let event = tokio::select! {
            biased;
            () = place.revoked.cancelled() => Event::Revoked,
            () = &mut expiry => Event::Expired,
            () = pulse.beat() => Event::Pulse,
            () = shared.closing.cancelled(), if session.leaving.is_none() => Event::Closing,
            // It can't keep the socket from its turn: there are only so many answers, and subscriptions rest while much is unsent.
            Some(done) = session.doing.next(), if !session.doing.is_empty() => Event::Done(done),
            event = socket.next(may_read) => Event::Socket(event),
            () = rested(&mut session.pace.rest) => Event::Rested,
        };
        let flow = match event {
            Event::Socket(SocketEvent::Flushed) => {
                session.unsent = socket.unflushed();
                session.resume_all();
                Flow::Go
            }
            Event::Socket(SocketEvent::Message(message)) => {
                pulse.heard();
                session.message(message)
            }
            Event::Socket(SocketEvent::Ended(Ended::Gone(_))) => Flow::End(None),
            Event::Socket(SocketEvent::Ended(Ended::Broken(closing))) => Flow::End(Some(closing)),
            Event::Done(done) => session.done_all(done),
            Event::Pulse => match pulse.due() {
                Due::Nothing => Flow::Go,
                Due::Ping => {
                    session.push(Message::Ping(Bytes::new()));
                    Flow::Go
                }
                Due::Silent if !may_read => {
                    // Who is not read can't be heard, and wants to hear that somebody is there.
                    pulse.heard();
                    session.push(Message::Ping(Bytes::new()));
                    Flow::Go
                }
                Due::Silent => Flow::End(Some(Closing::new(Code::Silent, "nothing was heard for two intervals"))),
                Due::Stuck => Flow::End(Some(Closing::new(Code::Silent, "what was sent was not taken in time"))),
            },
            Event::Rested => {
                session.pace.rest = None;
                Flow::Go
            }
            Event::Closing => {
                session.leave(Closing::new(Code::GoingAway, "the server ends"));
                // So that workers drain their credits and say what they have to say elsewhere.
                session.say("drain", None, &serde_json::json!({}));
                Flow::Go
            }
            Event::Expired => Flow::End(Some(Closing::new(Code::Expired, "the token has expired"))),
            Event::Revoked => Flow::End(Some(Closing::new(Code::Revoked, "the credentials are revoked"))),
        };
        session.outbox.drain(..).for_each(|message| socket.send(message));
        session.unsent = socket.unflushed();
        pulse.waits(session.unsent, socket.taken());
        match flow {
            Flow::Go if session.leaving.is_some() && session.calls == 0 && session.credits.is_idle() => {
                return session.leaving.map(|(closing, _)| closing);
            }
            Flow::Go => {}
            Flow::End(closing) => return closing,
        }
    }
}

async fn rested(rest: &mut Option<Sleep>) {
    match rest {
        Some(rest) => rest.await,
        None => pending().await,
    }
}

fn welcome(shared: &Shared, who: &Who, expires: Timestamp) -> Welcome {
    let options = &shared.options;
    let (kind, name) = match who {
        Who::User { owner, .. } => ("user", Some(owner.to_string())),
        Who::Worker(cmdexec_core::service::WorkerPrincipal::Bound(worker)) => ("worker", Some(worker.to_string())),
        Who::Worker(_) => ("worker", None),
    };
    Welcome {
        version: 1,
        who: kind.to_owned(),
        name,
        expires_at: wire::Time(expires),
        ping_interval_ms: u64::try_from(options.ping_interval.as_millis()).unwrap_or(u64::MAX),
        limits: Limits {
            message_bytes: options.max_message,
            messages_per_second: options.max_messages_per_second,
            requests: options.max_calls,
            request_bytes: options.max_call_bytes,
        },
    }
}

impl Served {
    fn new(shared: &Shared, who: Who) -> Self {
        match who {
            Who::User { owner, role } => {
                let principal = UserPrincipal { owner, role };
                Self::User { jobs: shared.services.as_user(principal.clone()), principal }
            }
            Who::Worker(principal) => {
                let bound = match &principal {
                    cmdexec_core::service::WorkerPrincipal::Bound(worker) => Some(worker.clone()),
                    cmdexec_core::service::WorkerPrincipal::Any => None,
                };
                Self::Worker { work: shared.services.as_worker(principal), bound }
            }
        }
    }
}

impl Session {
    /// Whether the next message may be read: its peer takes what it is sent, and does not ask for too much at once.
    fn may_read(&self) -> bool {
        let options = &self.shared.options;
        let is_heard = match &self.leaving {
            None => true,
            // What is on its way is still worked on; it must not go on for ever.
            Some((closing, since)) => {
                closing.code != Code::Revoked
                    && self.shared.clock.uptime().saturating_sub(*since) < options.close_timeout
            }
        };
        is_heard
            && self.pace.rest.is_none()
            && self.may_say()
            && self.calls < options.max_calls
            && self.call_bytes < options.max_call_bytes
    }

    /// Whether the peer takes what it is sent, so that it may be sent what it need not have at once.
    pub(super) fn may_say(&self) -> bool {
        self.unsent < self.shared.options.max_unsent
    }

    /// Ends once everything that was asked for is answered. Who is no longer wanted is not heard meanwhile.
    pub(super) fn leave(&mut self, closing: Closing) {
        let now = self.shared.clock.uptime();
        self.leaving.get_or_insert((closing, now));
        self.credits.stop();
        self.subscriptions.clear();
    }

    fn message(&mut self, message: Message) -> Flow {
        self.pace(1);
        let taken = match message {
            Message::Text(text) => self.text(&text),
            Message::Binary(bytes) => self.binary(&bytes),
            // Pings are answered by the socket, and its end comes as one.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Ok(()),
        };
        taken.map_or_else(|closing| Flow::End(Some(closing)), |()| Flow::Go)
    }

    fn pace(&mut self, messages: u32) {
        let now = self.shared.clock.uptime();
        let second = Duration::from_secs(1);
        if now.saturating_sub(self.pace.since) >= second {
            (self.pace.since, self.pace.read) = (now, 0);
        }
        self.pace.read += messages;
        if self.pace.read >= self.pace.most {
            let rest = second.saturating_sub(now.saturating_sub(self.pace.since));
            self.pace.rest = Some(Box::pin(tokio::time::sleep(rest)));
        }
    }

    fn text(&mut self, text: &Utf8Bytes) -> Result<(), Closing> {
        let envelope =
            Envelope::read(text).map_err(|why| Closing::new(Code::Malformed, format!("not a message: {why}")))?;
        let bytes = text.len();
        match self.who {
            Served::Worker { .. } => work::take(self, &envelope, bytes),
            Served::User { .. } => user::take(self, &envelope, bytes),
        }
    }

    fn binary(&mut self, bytes: &Bytes) -> Result<(), Closing> {
        let (id, packed) =
            message::split_binary(bytes).ok_or_else(|| Closing::new(Code::Malformed, "a binary message ends early"))?;
        work::packed(self, id, &packed, bytes.len())
    }

    /// A message of a type that is not known here: of a newer peer, which hears so if it expects an answer.
    pub(super) fn unknown(&mut self, envelope: &Envelope<'_>) {
        if let Some(id) = envelope.id {
            let refusal = Refusal {
                code: "unsupported".to_owned(),
                detail: format!("{:.32} is not known here", envelope.kind),
                problems: Vec::new(),
                limit: None,
                retry_after_ms: None,
            };
            self.say("error", Some(id), &refusal);
        }
    }

    pub(super) fn say(&mut self, kind: &str, id: Option<u64>, body: &impl serde::Serialize) {
        self.push(message::text(kind, id, body));
    }

    pub(super) fn push(&mut self, message: Message) {
        self.unsent += message.len();
        self.outbox.push(message);
    }

    pub(super) fn refuse(&mut self, id: u64, error: Error) {
        self.say("error", Some(id), &Refusal::from(error));
    }

    /// Works on a request beside the loop, within the time for a call.
    pub(super) fn call<T: serde::Serialize>(
        &mut self,
        id: u64,
        bytes: usize,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) {
        let shared = Arc::clone(&self.shared);
        self.long_call(id, bytes, async move { shared.bounded(call).await });
    }

    /// Works on a request that bounds its own time.
    pub(super) fn long_call<T: serde::Serialize>(
        &mut self,
        id: u64,
        bytes: usize,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) {
        self.calls += 1;
        self.call_bytes += bytes;
        self.doing.push(
            async move {
                let (message, closing) = match call.await {
                    Ok(body) => (message::text("ok", Some(id), &body), None),
                    Err(error) => {
                        let closing = matches!(error, Error::Unauthenticated)
                            .then(|| Closing::new(Code::Revoked, "the credentials are no longer good"));
                        (message::text("error", Some(id), &Refusal::from(error)), closing)
                    }
                };
                Done::Answer { message, bytes, closing }
            }
            .boxed(),
        );
    }

    /// Takes in what was done, and what else has been done by now, so that it travels together.
    fn done_all(&mut self, first: Done) -> Flow {
        let mut next = Some(first);
        for _ in 0..IN_A_ROW {
            let Some(done) = next else { break };
            if let Flow::End(closing) = self.done(done) {
                return Flow::End(closing);
            }
            next = self.doing.next().now_or_never().flatten();
        }
        match next {
            Some(done) => self.done(done),
            None => Flow::Go,
        }
    }

    fn done(&mut self, done: Done) -> Flow {
        match done {
            Done::Answer { message, bytes, closing } => {
                self.calls -= 1;
                self.call_bytes -= bytes;
                self.push(message);
                if closing.is_some() {
                    return Flow::End(closing);
                }
            }
            Done::Leased(leased) => self.leased(leased),
            Done::Stops(stops) => self.stopped(stops),
            Done::Removed(worker) => self.removed(&worker),
            Done::Opened(opened) => self.opened(opened),
            Done::Given(given) => self.given(given),
        }
        Flow::Go
    }
}
