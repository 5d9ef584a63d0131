//! The attempts that the worker holds: each from the moment it has the lease until its report is acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::ahead::Ahead;
use super::attempt::{Attempt, Why};
use super::output::Unsent;
use super::room::{Place, Room};
use crate::id::{JobId, LeaseToken};
use crate::service::LeasedJob;
use crate::store::Listed;

/// The table that all of the worker's rooms share.
#[derive(Debug)]
pub(super) struct Held {
    table: Mutex<Table>,
    /// Fires whenever something in the table has changed that somebody may wait for.
    changed: watch::Sender<()>,
    /// How much of the attempts' output is not acknowledged.
    unsent: Unsent,
}

#[derive(Debug)]
struct Table {
    attempts: BTreeMap<LeaseToken, Arc<Attempt>>,
    room: Room,
    slots: usize,
    ahead: Ahead,
    /// How many jobs the last question was for beyond what was free then.
    asked_ahead: usize,
    /// Attempts that wait for room; the lease room keeps their order.
    waiting: usize,
    /// Beyond this many attempts nothing more is asked for: their reports do not get through.
    most: usize,
    /// Nothing more is taken in.
    closed: bool,
}

/// What became of a lease that came in.
#[derive(Debug)]
pub(super) enum Admission {
    /// There is room for it.
    Run(Arc<Attempt>, Reservation),
    /// There will be room for it soon, by how long attempts take of late.
    Wait(Arc<Attempt>),
    /// It goes straight back.
    Refused(Arc<Attempt>),
    /// It is here already.
    Known,
}

/// An attempt's place in the worker; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    held: Arc<Held>,
    place: Option<Place>,
    pub(super) slot: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.held.lock().room.release(place);
            self.held.changed.send_replace(());
        }
    }
}

impl Held {
    pub(super) fn new(room: Room) -> Self {
        // Slots free up before their reports are acknowledged, so there may be more attempts than slots.
        let slots = room.free_slots();
        let most = slots * 4 + 64;
        let ahead = Ahead::default();
        let table =
            Table { attempts: BTreeMap::new(), room, slots, ahead, asked_ahead: 0, waiting: 0, most, closed: false };
        Self { table: Mutex::new(table), changed: watch::Sender::new(()), unsent: Unsent::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change is done by one statement, so that a panic elsewhere leaves a table that holds together.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fires after every change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How many jobs to ask for. Where that is only for later, nothing is asked for until it is worth a call.
    pub(super) fn wanted(&self) -> usize {
        let mut table = self.lock();
        let most = table.most.saturating_sub(table.attempts.len());
        let (free, ahead) = (table.room.free_slots(), table.ahead.jobs(table.slots));
        let wanted = (free + ahead).saturating_sub(table.waiting).min(most);
        if free <= table.waiting && wanted * 2 <= ahead {
            return 0;
        }
        table.asked_ahead = ahead;
        wanted
    }

    /// A question was answered: with all the jobs that were asked for, or with fewer.
    pub(super) fn answered(&self, in_full: bool) {
        self.lock().ahead.answered(in_full);
    }

    /// An attempt has taken its slot for this long.
    pub(super) fn took(&self, time: Duration) {
        self.lock().ahead.note(time);
    }

    /// A place for an attempt that waits for one, if there is room now.
    pub(super) fn place(self: &Arc<Self>, attempt: &Attempt) -> Option<Reservation> {
        let mut table = self.lock();
        let place = table.room.take(&attempt.spec.resources)?;
        table.waiting = table.waiting.saturating_sub(1);
        let slot = place.slot;
        Some(Reservation { held: Arc::clone(self), place: Some(place), slot })
    }

    /// An attempt no longer waits for a place.
    pub(super) fn gave_up(&self) {
        let mut table = self.lock();
        table.waiting = table.waiting.saturating_sub(1);
    }

    /// Enters a lease; from now on it is listed.
    pub(super) fn admit(self: &Arc<Self>, lease: LeasedJob) -> Admission {
        let mut table = self.lock();
        if table.attempts.contains_key(&lease.token) {
            return Admission::Known;
        }
        // The job comes anew while its last attempt is still here: that one is lost. The new one must not run
        // beside what may still be dying, so it goes back and comes again.
        let mut is_here = false;
        for old in table.attempts.values().filter(|old| old.job == lease.job) {
            old.interrupt(Why::Lost);
            is_here = true;
        }
        let is_welcome = !is_here && !table.closed;
        let place = if is_welcome && table.waiting == 0 { table.room.take(&lease.spec.resources) } else { None };
        let waits = is_welcome && place.is_none() && table.waiting < table.asked_ahead;
        table.waiting += usize::from(waits);
        let attempt = Arc::new(Attempt::new(lease, self.unsent.clone()));
        table.attempts.insert(attempt.token, Arc::clone(&attempt));
        match place {
            Some(place) => {
                let slot = place.slot;
                Admission::Run(attempt, Reservation { held: Arc::clone(self), place: Some(place), slot })
            }
            None if waits => Admission::Wait(attempt),
            None => Admission::Refused(attempt),
        }
    }

    /// From now on every lease is refused.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// The attempt's report is acknowledged, or nobody wants it.
    pub(super) fn forget(&self, token: LeaseToken) {
        if self.lock().attempts.remove(&token).is_some() {
            self.changed.send_replace(());
        }
    }

    /// What a heartbeat lists.
    pub(super) fn list(&self) -> Vec<Listed> {
        let table = self.lock();
        table.attempts.values().map(|attempt| Listed { job: attempt.job, token: attempt.token }).collect()
    }

    /// What the coordinator said of attempts that `listed` named. An attempt of the same job that came later is
    /// another matter.
    pub(super) fn told(&self, listed: &[Listed], jobs: &[JobId], why: Why) {
        if jobs.is_empty() {
            return;
        }
        let table = self.lock();
        let mut told = BTreeMap::<JobId, Vec<&Arc<Attempt>>>::new();
        for listed in listed.iter().filter(|listed| jobs.contains(&listed.job)) {
            if let Some(attempt) = table.attempts.get(&listed.token) {
                told.entry(listed.job).or_default().push(attempt);
            }
        }
        for mut attempts in told.into_values() {
            // Of several attempts of a job, what is said of the job is certainly true of the older ones; if it is of the
            // newest too, the next beat says so again.
            attempts.sort_unstable_by_key(|attempt| attempt.number);
            let sure = attempts.len().saturating_sub(1).max(1);
            attempts.into_iter().take(sure).for_each(|attempt| attempt.interrupt(why));
        }
    }

    /// Interrupts every attempt that is running.
    pub(super) fn interrupt_all(&self, why: Why) {
        for attempt in self.lock().attempts.values() {
            attempt.interrupt(why);
        }
    }

    /// Kills every attempt that is running, without grace.
    pub(super) fn kill_all(&self) {
        for attempt in self.lock().attempts.values() {
            attempt.kill.cancel();
        }
    }

    /// Exclusive attempts that are running, if there are any.
    pub(super) fn exclusive(&self) -> Vec<Arc<Attempt>> {
        let table = self.lock();
        table.attempts.values().filter(|attempt| attempt.spec.exclusive && attempt.is_running()).cloned().collect()
    }

    /// How many attempts there are.
    pub(super) fn len(&self) -> usize {
        self.lock().attempts.len()
    }

    /// How many are running or on their way to.
    pub(super) fn running(&self) -> usize {
        let table = self.lock();
        table.attempts.values().filter(|attempt| attempt.is_running()).count()
    }

    /// The jobs of the attempts that are there.
    pub(super) fn jobs(&self) -> Vec<JobId> {
        self.lock().attempts.values().map(|attempt| attempt.job).collect()
    }

    /// An attempt has stopped running.
    pub(super) fn stopped(&self, attempt: &Attempt) {
        attempt.set_over();
        self.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobSpec;
    use crate::time::Timestamp;

    fn held() -> Arc<Held> {
        Arc::new(Held::new(Room::new(2, 1_000, 64, 0)))
    }

    fn lease(job: u8, token: u128) -> LeasedJob {
        LeasedJob {
            job: JobId::from_bytes([job; 16]),
            token: LeaseToken::from_bits(token),
            attempt: 1,
            lease: Duration::from_secs(60),
            expires: Timestamp::from_millis(0),
            scope: None,
            spec: Arc::new(JobSpec::shell("true")),
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_refused_and_listed_until_that_is_known() {
        let held = held();
        let Admission::Run(first, place) = held.admit(lease(1, 1)) else { panic!("refused") };
        let Admission::Run(_, _second) = held.admit(lease(2, 2)) else { panic!("refused") };
        let Admission::Refused(third) = held.admit(lease(3, 3)) else { panic!("taken in") };
        assert_eq!((held.wanted(), held.list().len()), (0, 3));
        held.forget(third.token);
        drop(place);
        assert_eq!((held.wanted(), held.list().len()), (1, 2));
        held.forget(first.token);
        assert_eq!(held.list().len(), 1);
    }

    #[test]
    fn a_lease_that_is_here_is_known_and_a_newer_one_of_its_job_ends_it() {
        let held = held();
        let Admission::Run(first, _place) = held.admit(lease(1, 1)) else { panic!("refused") };
        assert!(matches!(held.admit(lease(1, 1)), Admission::Known));
        assert!(!first.stop.is_cancelled());
        assert!(matches!(held.admit(lease(1, 2)), Admission::Refused(_)));
        assert!(first.is_lost() && first.stop.is_cancelled());
    }

    #[test]
    fn what_is_said_of_an_attempt_is_not_said_of_a_later_one_of_its_job() {
        let held = held();
        let listed = [Listed { job: JobId::from_bytes([1; 16]), token: LeaseToken::from_bits(1) }];
        let Admission::Run(later, _place) = held.admit(lease(1, 2)) else { panic!("refused") };
        held.told(&listed, &[later.job], Why::Lost);
        assert!(!later.is_lost());
        held.told(&[Listed { job: later.job, token: later.token }], &[later.job], Why::Lost);
        assert!(later.is_lost());
    }

    #[test]
    fn a_closed_table_takes_nothing_in() {
        let held = held();
        held.close();
        assert!(matches!(held.admit(lease(1, 1)), Admission::Refused(_)));
    }
}
