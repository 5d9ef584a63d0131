//! The worker's session with its coordinator: registering, beating, coming back, and what becomes of exclusive jobs
//! while it is out of touch.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::RngExt;

use super::attempt::Why;
use super::backoff::Backoff;
use super::handle::Phase;
use super::runtime::{Shared, optional};
use super::usage::Machine;
use crate::Error;
use crate::executor::GRACE;
use crate::service::{Heartbeat, HeartbeatReply, Registered, Registration, WorkerStatus};
use crate::store::Listed;

/// How often to look after exclusive jobs at least: a timer that was set before the machine was suspended
/// fires late, while [`crate::time::Clock::uptime`] has gone on.
const LOOK: Duration = Duration::from_secs(1);

/// Where the session stands.
#[derive(Debug)]
pub(super) struct Session {
    registration: Registration,
    machine: Machine,
    interval: Duration,
    lease: Duration,
    /// The uptime at which the last renewal that was acknowledged was **sent**: whatever the network did with it, the
    /// coordinator has it from then on at the earliest.
    renewed: Duration,
    /// What the last beat said of us.
    told: WorkerStatus,
    backoff: Backoff,
}

impl Session {
    pub(super) fn new(registration: Registration, machine: Machine, registered: &Registered, sent: Duration) -> Self {
        let mut session = Self {
            registration: Registration { worker: Some(registered.worker.clone()), ..registration },
            machine,
            interval: Duration::ZERO,
            lease: Duration::ZERO,
            renewed: sent,
            told: WorkerStatus::Idle,
            backoff: Backoff::new(Duration::ZERO, Duration::ZERO),
        };
        session.registered(registered, sent);
        session
    }

    fn registered(&mut self, told: &Registered, sent: Duration) {
        self.interval = told.heartbeat_interval.max(Duration::from_millis(1));
        self.lease = told.lease;
        self.renewed = self.renewed.max(sent);
        self.backoff = Backoff::new(self.interval / 20, self.interval);
    }
}

/// What is to become of an exclusive job whose lease was last renewed so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Touch {
    /// It may go on.
    Fine,
    /// It is to stop, with grace.
    Stop,
    /// It is to be dead.
    Kill,
}

/// The lease is over `lease` after its last renewal. Before that the job must be dead, so it is killed a little earlier, and asked
/// to stop so much earlier that it has its grace; but where leases are short, it keeps at least half of each.
fn touch(since_renewal: Duration, lease: Duration) -> Touch {
    let kill = lease.saturating_sub((lease / 10).min(Duration::from_secs(2)));
    let stop = kill.saturating_sub(GRACE).max(lease / 2);
    if since_renewal >= kill {
        Touch::Kill
    } else if since_renewal >= stop {
        Touch::Stop
    } else {
        Touch::Fine
    }
}

enum Answer {
    Registered(Result<Registered, Error>, Duration),
    Beaten(Result<HeartbeatReply, Error>, Duration, Vec<Listed>),
}

type Call = Pin<Box<dyn Future<Output = Answer> + Send>>;

enum Event {
    Answer(Answer),
    Due,
    Look,
    Nudged,
}

/// Keeps the session until it is dropped.
pub(super) async fn run(shared: Arc<Shared>, mut session: Session) {
    let mut call: Option<Call> = None;
    let mut due = shared.clock.sleep(until_next_beat(&shared, &session));
    loop {
        let look_again = look_after_exclusive(&shared, &session);
        let mut look = look_again.map(|after| shared.clock.sleep(after));
        let calling = call.is_some();
        let event = tokio::select! {
            biased;
            answer = optional(call.as_mut()) => Event::Answer(answer),
            () = &mut due, if !calling => Event::Due,
            () = optional(look.as_mut()) => Event::Look,
            () = shared.nudge.notified() => Event::Nudged,
        };
        match event {
            Event::Due => {
                call = Some(next_call(&shared, &mut session));
            }
            Event::Answer(answer) => {
                call = None;
                due = shared.clock.sleep(settle(&shared, &mut session, answer));
            }
            Event::Nudged if !calling && has_news(&shared, session.told) => due = shared.clock.sleep(Duration::ZERO),
            Event::Nudged | Event::Look => {}
        }
    }
}

/// The told interval, less a little, so that many workers that came together spread out.
fn until_next_beat(shared: &Shared, session: &Session) -> Duration {
    let mut random = shared.random.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    session.interval.mul_f64(1.0 - 0.1 * random.random::<f64>())
}

fn status_of(shared: &Shared) -> WorkerStatus {
    match *shared.phase.borrow() {
        Phase::Draining | Phase::Forced => WorkerStatus::Draining,
        Phase::Paused | Phase::Taking if shared.held.len() > 0 => WorkerStatus::Busy,
        Phase::Paused | Phase::Taking => WorkerStatus::Idle,
    }
}

/// Whether the coordinator is to be told something at once: that it does not know us, or that we drain.
fn has_news(shared: &Shared, told: WorkerStatus) -> bool {
    must_register(shared) || (told != WorkerStatus::Draining && status_of(shared) == WorkerStatus::Draining)
}

fn must_register(shared: &Shared) -> bool {
    shared.unknown.load(Ordering::SeqCst) && !shared.removed.load(Ordering::SeqCst)
}

fn next_call(shared: &Arc<Shared>, session: &mut Session) -> Call {
    let shared = Arc::clone(shared);
    // So that one that hangs leaves time for others before the lease is over.
    let time = session.lease / 3;
    let sent = shared.clock.uptime();
    if must_register(&shared) {
        let registration = session.registration.clone();
        return Box::pin(async move {
            Answer::Registered(shared.within(time, shared.service.register(registration)).await, sent)
        });
    }
    session.told = status_of(&shared);
    let usage = session.machine.sample(session.told);
    Box::pin(async move {
        let listed = shared.held.list();
        let beat = Heartbeat { usage, held: Some(listed.clone()) };
        Answer::Beaten(shared.within(time, shared.service.heartbeat(shared.id(), beat)).await, sent, listed)
    })
}

/// Takes in an answer, and says how long to wait before the next call.
fn settle(shared: &Shared, session: &mut Session, answer: Answer) -> Duration {
    let error = match answer {
        Answer::Registered(Ok(registered), sent) => {
            tracing::info!(worker = %shared.id(), "registered again");
            shared.unknown.store(false, Ordering::SeqCst);
            session.registered(&registered, sent);
            // It may have forgotten what we hold: the first beat tells.
            return Duration::ZERO;
        }
        Answer::Beaten(Ok(reply), sent, listed) => {
            session.renewed = session.renewed.max(sent);
            session.backoff.reset();
            shared.held.told(&listed, &reply.cancel, Why::Cancelled);
            shared.held.told(&listed, &reply.lost, Why::Lost);
            // Something may have come up while it was on its way.
            let wait = if has_news(shared, session.told) { Duration::ZERO } else { until_next_beat(shared, session) };
            return wait;
        }
        Answer::Registered(Err(error), _) | Answer::Beaten(Err(error), ..) => error,
    };
    if matches!(error, Error::Forbidden(_)) {
        // Neither a session nor a new one: nothing that we hold is ours any more.
        shared.held.interrupt_all(Why::Lost);
    }
    let was_known = !shared.unknown.load(Ordering::SeqCst);
    shared.failed(&error);
    if was_known && matches!(error, Error::WorkerNotFound) {
        return Duration::ZERO;
    }
    tracing::warn!(%error, "the coordinator does not answer; jobs go on");
    shared.next_wait(&mut session.backoff, error.retry_after())
}

/// Stops exclusive jobs whose lease would else be over while they run. How soon to look again; `None`: there are none.
fn look_after_exclusive(shared: &Shared, session: &Session) -> Option<Duration> {
    let exclusive = shared.held.exclusive();
    if exclusive.is_empty() {
        return None;
    }
    let since_renewal = shared.clock.uptime().saturating_sub(session.renewed);
    for attempt in exclusive {
        // A coordinator that was started anew may grant shorter ones than it told us.
        match touch(since_renewal, session.lease.min(attempt.lease)) {
            Touch::Fine => {}
            Touch::Stop => attempt.interrupt(Why::HandBack),
            Touch::Kill => {
                attempt.interrupt(Why::HandBack);
                attempt.kill.cancel();
            }
        }
    }
    Some((session.lease / 20).clamp(Duration::from_millis(10), LOOK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusive_job_is_dead_before_its_lease_is_over_and_has_its_grace_where_it_fits() {
        let lease = Duration::from_mins(1);
        for (since, expected) in
            [(0, Touch::Fine), (47, Touch::Fine), (48, Touch::Stop), (57, Touch::Stop), (58, Touch::Kill)]
        {
            assert_eq!(touch(Duration::from_secs(since), lease), expected, "{since}");
        }
        let short = Duration::from_millis(500);
        for (since, expected) in [(249, Touch::Fine), (250, Touch::Stop), (450, Touch::Kill)] {
            assert_eq!(touch(Duration::from_millis(since), short), expected, "{since}");
        }
    }
}
