//! Telling other stores over the database what this one has written.
//!
//! Each store has one document, and writes into it what it has written since it did so last; the others' change streams bring them
//! that. So what they are told costs one event for many writes, and nothing for whoever is alone. It is a hint: it is written after
//! what it is about, with no majority waited for, and not at all if this process dies in between.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmdexec_core::id::JobId;
use cmdexec_core::job::{Class, Job, Place, Status};
use mongodb::Database;
use mongodb::bson::{RawArrayBuf, RawDocumentBuf, cstr, rawdoc};
use tokio_util::task::TaskTracker;

use crate::client::{binary, persist};
use crate::clock::ServerClock;
use crate::error::Error;
use crate::jobs::{date, rank};
use crate::schema::NOTICES;

/// The pause between two writes. What happens in between goes together.
const PAUSE: Duration = Duration::from_millis(10);

/// How much waits to be told at the most. Beyond, the others are told that they have missed something.
const MOST: usize = 16_384;

/// How long the document of a store stays that is not heard of any more.
const STAYS: Duration = Duration::from_hours(1);

/// What a write has made of a job.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) id: JobId,
    pub(crate) version: u64,
    pub(crate) status: Status,
    /// Where it waits, if it is queued and that is known.
    pub(crate) queued: Option<(Class, Place)>,
}

impl Told {
    /// A job that was inserted.
    pub(crate) fn new(job: &Job) -> Self {
        let status = job.status();
        let queued = (status == Status::Queued).then(|| (job.class.clone(), job.place()));
        Self { id: job.id, version: job.version, status, queued }
    }
}

/// What is still to be told.
#[derive(Debug, Default)]
struct Waiting {
    /// The last word on each.
    jobs: HashMap<JobId, Told>,
    outputs: HashSet<JobId>,
    has_missed: bool,
}

impl Waiting {
    fn add(&mut self, told: Told) {
        if self.jobs.get(&told.id).is_none_or(|known| known.version <= told.version) {
            self.jobs.insert(told.id, told);
        }
    }

    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.outputs.is_empty() && !self.has_missed
    }

    /// As the field that the others read.
    fn document(&self, number: i64) -> RawDocumentBuf {
        let mut groups: BTreeMap<_, Vec<u8>> = BTreeMap::new();
        for Told { id, version, status, queued } in self.jobs.values() {
            let queued = queued.as_ref().map(|(class, place)| (class, place.priority));
            let group = groups.entry((status.as_str(), queued)).or_default();
            group.extend(id.as_bytes());
            group.extend(version.to_le_bytes());
        }
        let mut jobs = RawArrayBuf::new();
        for ((status, queued), packed) in groups {
            let mut group = rawdoc! { "status": status, "jobs": binary(packed) };
            if let Some((class, priority)) = queued {
                group.append(cstr!("class"), class.key());
                group.append(cstr!("rank"), rank(priority));
            }
            jobs.push(group);
        }
        let outputs: Vec<u8> = self.outputs.iter().flat_map(|id| *id.as_bytes()).collect();
        // The number makes each differ from the one before: what stays as it was is no change.
        rawdoc! { "n": number, "jobs": jobs, "outputs": binary(outputs), "missed": self.has_missed }
    }
}

/// Tells the others.
#[derive(Debug)]
pub(crate) struct Bell {
    /// Whose document it is.
    instance: [u8; 8],
    database: Database,
    clock: ServerClock,
    tasks: TaskTracker,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Waiting,
    number: i64,
    is_ringing: bool,
}

impl Bell {
    pub(crate) fn new(instance: [u8; 8], database: Database, clock: ServerClock, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self { instance, database, clock, tasks, state: Mutex::default() })
    }

    /// Whose document it is.
    pub(crate) fn instance(&self) -> [u8; 8] {
        self.instance
    }

    /// Tells of jobs that were written.
    pub(crate) fn jobs(self: &Arc<Self>, jobs: impl IntoIterator<Item = Told>) {
        self.ring(|waiting| jobs.into_iter().for_each(|told| waiting.add(told)));
    }

    /// Tells of jobs that have more output.
    pub(crate) fn outputs(self: &Arc<Self>, jobs: impl IntoIterator<Item = JobId>) {
        self.ring(|waiting| waiting.outputs.extend(jobs));
    }

    fn ring(self: &Arc<Self>, add: impl FnOnce(&mut Waiting)) {
        let mut state = self.state();
        add(&mut state.waiting);
        if state.waiting.jobs.len() + state.waiting.outputs.len() > MOST {
            state.waiting = Waiting { has_missed: true, ..Waiting::default() };
        }
        if !state.is_ringing && !state.waiting.is_empty() {
            state.is_ringing = true;
            self.tasks.spawn(Arc::clone(self).run());
        }
    }

    /// Writes until there is nothing left to tell.
    async fn run(self: Arc<Self>) {
        while let Some(told) = self.next() {
            if let Err(error) = self.write(told).await {
                tracing::debug!(%error, "the other coordinators are not told now; they look for themselves");
                // With what comes next, which has to find that nobody writes any more.
                let mut state = self.state();
                state.waiting.has_missed = true;
                state.is_ringing = false;
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What is to be told now. If that is nothing, this has ended: decided under the lock, so that nothing is left behind.
    fn next(&self) -> Option<RawDocumentBuf> {
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting);
        if waiting.is_empty() {
            state.is_ringing = false;
            return None;
        }
        state.number += 1;
        Some(waiting.document(state.number))
    }

    async fn write(&self, told: RawDocumentBuf) -> Result<(), Error> {
        let expires = date(self.clock.now().after(STAYS));
        let mut updates = RawArrayBuf::new();
        updates.push(rawdoc! {
            "q": { "_id": binary(self.instance) },
            "u": { "$set": { "told": told, "expires": expires } },
            "upsert": true,
        });
        // No majority is waited for: the change streams do that. But they wait for the journal too, which would take its time unasked.
        let command = rawdoc! { "update": NOTICES, "updates": updates, "writeConcern": { "w": 1, "j": true } };
        persist(|| async { Ok(self.database.run_raw_command(command.clone()).await?) }).await?;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
