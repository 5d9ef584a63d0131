//! Which coordinators share the store, so that each takes its part of the sweep.
//!
//! Each writes a record that is over after some seconds, and reads the others'. Whoever is wrong about the others for a while
//! does too much or leaves something to the next look: every step of a sweep is a compare-and-set, and none is only one's.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use super::lock;
use crate::id::JobId;
use crate::store::{self, RecordWrite, Store, Written};

/// The kind of the records that say that a coordinator is there.
const KIND: &str = "coordinator";

/// How long a coordinator counts as there after its last word.
const THERE: Duration = Duration::from_secs(6);

/// How often it says so.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// How long others' part is left to them.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many are counted at the most.
const MOST: usize = 1_024;

/// How many of the others' jobs are remembered; of more, this one takes its part.
const REMEMBERED: usize = 10_000;

/// What this coordinator knows of the others.
#[derive(Debug)]
pub(super) struct Peers {
    name: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When this one said that it is there, by the uptime, and the version of its record.
    said: Option<Duration>,
    version: u64,
    part: Part,
    /// What was left to others, and since when.
    left: HashMap<JobId, Duration>,
}

/// Which of how many one is, and so which jobs are its part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    place: usize,
    count: usize,
}

impl Part {
    /// Whether a job is of it.
    pub(super) fn has(self, id: JobId) -> bool {
        if self.count == 1 {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        hasher.finish() % self.count as u64 == self.place as u64
    }
}

/// A name that no other coordinator has.
pub(super) fn name(random: &mut impl Rng) -> String {
    format!("{:016x}", random.next_u64())
}

impl Peers {
    pub(super) fn new(name: String) -> Self {
        let state = State { said: None, version: 0, part: Part { place: 0, count: 1 }, left: HashMap::new() };
        Self { name, state: Mutex::new(state) }
    }

    /// Says that this one is there, and looks who else is, if it is time for that. Only over a store that can be shared.
    pub(super) async fn look(&self, store: &dyn Store, uptime: Duration) -> Result<(), store::Error> {
        let version = {
            let state = lock(&self.state);
            if state.said.is_some_and(|said| uptime.saturating_sub(said) < SAY_EVERY) {
                return Ok(());
            }
            state.version
        };
        let word = RecordWrite { key: self.name.clone(), value: Some(Bytes::new()), version, ttl: Some(THERE) };
        let written = store.put_records(KIND, vec![word]).await?;
        let all = store.list_records(KIND, None, MOST).await?;
        let mut state = lock(&self.state);
        state.version = match written.first() {
            Some(Written::Yes) => version + 1,
            // It was over, or an answer was lost.
            _ => all.iter().find(|record| record.key == self.name).map_or(0, |record| record.version),
        };
        state.said = Some(uptime);
        let place = all.iter().position(|record| record.key == self.name).unwrap_or(0);
        state.part = Part { place, count: all.len().max(1) };
        Ok(())
    }

    /// Whether this is the one that does what one is enough for.
    pub(super) fn is_first(&self) -> bool {
        lock(&self.state).part.place == 0
    }

    /// This one's part of all jobs.
    pub(super) fn own_part(&self) -> Part {
        lock(&self.state).part
    }

    /// Whether something was left to others of late.
    pub(super) fn has_left(&self) -> bool {
        !lock(&self.state).left.is_empty()
    }

    /// Which of these jobs are this one's to look after: its part, and what others should have done by now.
    pub(super) fn part<T>(&self, jobs: Vec<T>, id: impl Fn(&T) -> JobId, uptime: Duration) -> Vec<T> {
        let mut state = lock(&self.state);
        let State { part, left, .. } = &mut *state;
        if part.count == 1 {
            left.clear();
            return jobs;
        }
        // What is there no longer was done.
        left.retain(|_, since| uptime.saturating_sub(*since) < 2 * PATIENCE);
        let is_mine = |job: &T| {
            let id = id(job);
            if part.has(id) || left.len() >= REMEMBERED {
                return true;
            }
            let since = left.entry(id).or_insert(uptime);
            uptime.saturating_sub(*since) >= PATIENCE
        };
        jobs.into_iter().filter(is_mine).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use crate::time::ManualClock;
    use std::sync::Arc;

    fn ids() -> Vec<JobId> {
        (0..100).map(|n| JobId::from_bytes([n; 16])).collect()
    }

    #[tokio::test]
    async fn each_has_a_part_and_what_another_leaves_is_everybody_s() {
        let clock = ManualClock::default();
        let store = MemoryStore::with_clock(Arc::new(clock.clone()));
        let peers = ["a", "b", "c"].map(|name| Peers::new(name.to_owned()));
        let now = Duration::ZERO;
        for _ in 0..2 {
            for peer in &peers {
                lock(&peer.state).said = None;
                peer.look(&store, now).await.unwrap();
            }
        }
        assert_eq!(peers.each_ref().map(Peers::is_first), [true, false, false]);
        let parts = peers.each_ref().map(|peer| peer.part(ids(), |id| *id, now));
        let mut all: Vec<JobId> = parts.iter().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, ids());
        assert!(parts.iter().all(|part| part.len() > 10));
        assert_eq!(peers[0].part(ids(), |id| *id, PATIENCE), ids());

        // One that is not heard of any more has no part.
        clock.advance(THERE);
        let later = SAY_EVERY * 2;
        peers[1].look(&store, later).await.unwrap();
        assert!(peers[1].is_first());
        assert_eq!(peers[1].part(ids(), |id| *id, later), ids());
    }
}
