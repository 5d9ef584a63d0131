//! The handle that calls go through. It starts the task that has the socket, and ends it when it is dropped.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::service::Stops;
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_wire::Sizes;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_util::task::AbortOnDropHandle;

use super::Options;
use super::backoff::Backoff;
use super::connect::Target;
use super::pushed::Pushed;
use super::run::{self, Command};
use super::streams::Sink;
use super::stretch::Stretch;
use crate::message::{self, Envelope, Limits};
use crate::refusal::Refusal;

/// How many commands may wait for the task; more wait with their callers.
const MAILBOX: usize = 256;

/// How many batches of output or reports travel in one message.
const ITEMS: usize = 1_000;

/// More than what stands around a request's body.
const AROUND: usize = 64;

/// The handle.
pub(super) struct Link {
    pub(super) core: Arc<Core>,
    commands: mpsc::Sender<Command>,
    mailbox: Mutex<Option<mpsc::Receiver<Command>>>,
    task: OnceLock<AbortOnDropHandle<()>>,
    next: AtomicU64,
}

/// What the handle and the task share.
pub(super) struct Core {
    pub(super) target: Target,
    pub(super) options: Options,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) pushed: Arc<Pushed>,
    pub(super) state: watch::Sender<State>,
    pub(super) stops: Stops,
    /// How many bytes a message may have, by the server's last welcome.
    most_bytes: AtomicUsize,
    pub(super) stretch: Stretch,
    trouble: Mutex<Option<String>>,
}

/// Where the socket stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It is being opened.
    Opening,
    Open,
    /// The server says this to every call.
    Refused(Error),
}

/// A request's body.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// JSON.
    Text(Bytes),
    /// Packed output.
    Packed(Bytes),
}

/// How often a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Often {
    /// Again over the next socket, if it is not known whether it arrived.
    UntilAnswered,
    /// Once, unless it certainly did nothing.
    Once,
}

/// Why a call brought nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not sent, and so did nothing.
    Unsent(Error),
    /// It is not known whether it was done.
    Lost,
    /// What the server said instead.
    Refused(Error),
}

impl Failure {
    /// The same of what was begun with before, in another part or try of it.
    pub(super) fn behind(self, is_begun: bool) -> Self {
        match self {
            Self::Unsent(_) if is_begun => Self::Lost,
            failure => failure,
        }
    }

    /// Whether the call may have been done.
    pub(super) fn may_be_done(&self) -> bool {
        // A server that gave up on a call does not say what became of it.
        matches!(self, Self::Lost | Self::Refused(Error::Unavailable { .. }))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unsent(error) | Failure::Refused(error) => error,
            Failure::Lost => Self::Unavailable { retry_after: cmdexec_wire::LATER },
        }
    }
}

impl Body {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(body) | Self::Packed(body) => body.len(),
        }
    }
}

impl Core {
    /// A server has said what it takes.
    pub(super) fn takes(&self, limits: &Limits) {
        self.most_bytes.store(limits.message_bytes, Ordering::Relaxed);
    }

    /// How large the bodies of what can be spread are.
    pub(super) fn sizes(&self) -> Sizes {
        let most = self.most_bytes.load(Ordering::Relaxed).saturating_sub(AROUND);
        Sizes { bytes: self.stretch.bytes().min(most), items: ITEMS }
    }

    pub(super) fn note(&self, trouble: Option<String>) {
        if let Some(trouble) = &trouble {
            tracing::debug!(trouble, "no socket");
        }
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

impl Link {
    pub(super) fn new(target: Target, options: Options, clock: Arc<dyn Clock>) -> Self {
        let (commands, mailbox) = mpsc::channel(MAILBOX);
        let core = Core {
            target,
            options,
            pushed: Arc::new(Pushed::new(Arc::clone(&clock))),
            clock,
            state: watch::Sender::new(State::Opening),
            stops: Stops::default(),
            most_bytes: AtomicUsize::new(usize::MAX),
            stretch: Stretch::default(),
            trouble: Mutex::default(),
        };
        let mailbox = Mutex::new(Some(mailbox));
        Self { core: Arc::new(core), commands, mailbox, task: OnceLock::new(), next: AtomicU64::new(1) }
    }

    /// Begins to open the socket, the first time.
    pub(super) fn begin(&self) {
        self.task.get_or_init(|| {
            let mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner).take();
            let (core, own) = (Arc::clone(&self.core), self.commands.downgrade());
            AbortOnDropHandle::new(tokio::spawn(async move {
                if let Some(mailbox) = mailbox {
                    run::run(core, mailbox, own).await;
                }
            }))
        });
    }

    pub(super) fn url(&self) -> &str {
        self.core.target.url()
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.core.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_open(&self) -> bool {
        *self.core.state.borrow() == State::Open
    }

    pub(super) async fn opened(&self) {
        self.begin();
        // Its sender lives in `self`, so waiting can't fail.
        let _ = self.core.state.subscribe().wait_for(|state| *state == State::Open).await;
    }

    pub(super) async fn closed(&self) {
        let _ = self.core.state.subscribe().wait_for(|state| *state != State::Open).await;
    }

    /// Waits until the socket is open, or the server has said why not.
    pub(super) async fn ready(&self, patience: Duration) -> Result<(), Error> {
        self.begin();
        let mut state = self.core.state.subscribe();
        let known = state.wait_for(|state| *state != State::Opening);
        match tokio::time::timeout(patience, known).await {
            Ok(Ok(state)) => match &*state {
                State::Refused(error) => Err(error.clone()),
                State::Open | State::Opening => Ok(()),
            },
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable { retry_after: cmdexec_wire::LATER }),
        }
    }

    /// A number that no other request of this client has.
    pub(super) fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Says something that is not answered.
    pub(super) async fn tell(&self, command: Command) {
        self.begin();
        // The task lives as long as `self`.
        let _ = self.commands.send(command).await;
    }

    /// The same, if there is room for it.
    pub(super) fn try_tell(&self, command: Command) {
        let _ = self.commands.try_send(command);
    }

    /// Refuses a request that the server would close the socket for, and with it every other.
    pub(super) fn fits(&self, kind: &str, body: &Body) -> Result<(), Failure> {
        let (size, most) = (body.len() + AROUND, self.core.most_bytes.load(Ordering::Relaxed));
        if size <= most {
            return Ok(());
        }
        let why = format!("{kind} has {size} bytes, and this server takes at most {most} in a message");
        Err(Failure::Unsent(Error::invalid("body", why)))
    }

    /// Makes a request, again and again where that is safe and may help, and reads its answer.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        kind: &'static str,
        body: Body,
        often: Often,
    ) -> Result<T, Failure> {
        let options = &self.core.options;
        let mut backoff = Backoff::new(options);
        let until = uptime() + options.retry_for;
        // Whether a try before may have done it.
        let mut may_be_done = false;
        loop {
            let failure = match self.tried(kind, body.clone(), until.saturating_sub(uptime())).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure.behind(may_be_done),
            };
            let (again, wait) = match &failure {
                // The next socket is waited for at the top.
                Failure::Lost => (often == Often::UntilAnswered, Duration::ZERO),
                Failure::Refused(error @ (Error::Unavailable { .. } | Error::RateLimited { .. })) => {
                    let again = often == Often::UntilAnswered || !failure.may_be_done();
                    (again, backoff.pause().max(error.retry_after().unwrap_or_default()))
                }
                Failure::Unsent(_) | Failure::Refused(_) => (false, Duration::ZERO),
            };
            if !again || uptime() + wait >= until {
                return Err(failure);
            }
            may_be_done |= failure.may_be_done();
            tokio::time::sleep(wait).await;
        }
    }

    async fn tried<T: DeserializeOwned>(
        &self,
        kind: &'static str,
        body: Body,
        patience: Duration,
    ) -> Result<T, Failure> {
        self.known(patience).await?;
        self.fits(kind, &body)?;
        let id = self.id();
        let message = match &body {
            Body::Text(body) => message::raw(kind, id, body),
            Body::Packed(body) => message::binary(id, body),
        };
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Call { id, message, reply }).await.is_err() {
            return Err(Failure::Unsent(Error::Unavailable { retry_after: cmdexec_wire::LATER }));
        }
        match tokio::time::timeout(self.core.options.call_timeout, answer).await {
            Ok(Ok(text)) => self.read(&text).map_err(Failure::Refused),
            Ok(Err(_)) | Err(_) => Err(Failure::Lost),
        }
    }

    /// Waits as a call does that is not sent yet.
    pub(super) async fn known(&self, patience: Duration) -> Result<(), Failure> {
        self.ready(patience).await.map_err(|error| match error {
            Error::Unavailable { .. } => Failure::Unsent(error),
            error => Failure::Refused(error),
        })
    }

    fn read<T: DeserializeOwned>(&self, text: &Utf8Bytes) -> Result<T, Error> {
        let unexpected = |why: String| {
            self.core.note(Some(format!("{} answered what was not expected: {why}", self.url())));
            Error::Internal
        };
        let envelope = Envelope::read(text).map_err(unexpected)?;
        if envelope.kind == "ok" {
            return envelope.parse().map_err(unexpected);
        }
        Err(envelope.parse::<Refusal>().map_or_else(unexpected, Error::from))
    }

    /// Begins a subscription over the socket that is open now.
    pub(super) async fn subscribe(&self, body: &impl serde::Serialize, sink: Sink) -> Result<u64, Error> {
        self.ready(self.core.options.retry_for).await?;
        let id = self.id();
        let message: Message = message::text("subscribe", Some(id), body);
        self.tell(Command::Subscribe { id, message, sink }).await;
        Ok(id)
    }
}

/// Retries are in real time, whatever `lease` waits by.
fn uptime() -> Duration {
    SystemClock.uptime()
}
