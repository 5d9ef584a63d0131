//! Taking jobs in.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::Shared;
use crate::Error;
use crate::files::FileId;
use crate::id::{JobId, Owner};
use crate::job::{Class, Effect, Job, JobSpec, Problem, Status, submitted};
use crate::service::{Submission, SubmittedJob};
use crate::store::{Insert, Inserted, Key};

/// How many jobs may be submitted together.
pub(super) const MAX_BATCH: usize = 10_000;

/// How many jobs are claimed as they are added, at the most: the dispatcher does nothing else meanwhile.
const FEW: usize = 64;

/// For how long a repetition is known.
const KEY_TTL: Duration = Duration::from_secs(24 * 60 * 60);

impl Shared {
    /// Takes jobs in, all or none.
    pub(super) async fn submit(&self, owner: &Owner, mut submission: Submission) -> Result<Vec<SubmittedJob>, Error> {
        if let [alone] = submission.specs.as_mut_slice() {
            submission.idempotency_key = submission.idempotency_key.or_else(|| alone.idempotency_key.clone());
        }
        self.check(owner, &submission).await?;
        let key = submission.idempotency_key;
        // The digest is of what is to be done: it was the same before specs kept their key.
        submission.specs.iter_mut().for_each(|spec| spec.idempotency_key = None);
        let fingerprint = key.as_ref().map(|_| fingerprint(&submission.specs));
        let repetition = key.as_ref().zip(fingerprint).map(|(key, fingerprint)| Key {
            owner: owner.clone(),
            key: key.clone(),
            fingerprint,
            ttl: KEY_TTL,
        });
        let now = self.store.now();
        let mut jobs = Vec::with_capacity(submission.specs.len());
        let mut answers = Vec::with_capacity(submission.specs.len());
        let mut is_scheduled = false;
        let shown = key.filter(|key| !key.starts_with('~'));
        for mut spec in submission.specs {
            spec.idempotency_key.clone_from(&shown);
            let (life, timer, effect) = submitted(&spec, now);
            let class = Class::of(&spec);
            let id = self.ids.next(now, &mut *self.random());
            let job = Job { id, owner: owner.clone(), created: now, spec: Arc::new(spec), class, life, version: 0 };
            answers.push(SubmittedJob { id, status: Some(job.status()), created: now, repeated: false });
            is_scheduled |= effect == Effect::None;
            jobs.push((job, timer));
        }
        match self.add(Insert { jobs, key: repetition }).await? {
            Inserted::New => {
                if is_scheduled {
                    self.wake_sweep.notify_one();
                }
                Ok(answers)
            }
            Inserted::Known { ids, fingerprint: then } if fingerprint == Some(then) => self.repeated(ids).await,
            Inserted::Known { .. } => Err(Error::IdempotencyConflict),
        }
    }

    /// Adds jobs, and sees to it that those who wait for them know.
    async fn add(&self, insert: Insert) -> Result<Inserted, Error> {
        // Of two who use one key at different coordinators, the second may add the first's job, and knows nothing of its
        // lease.
        let is_alone = !self.is_shared || insert.key.is_none();
        let added: Vec<_> = insert.jobs.iter().map(|(job, _)| Arc::new(job.clone())).collect();
        if is_alone && added.len() <= FEW && self.dispatch.claims_at_once() {
            return self.dispatch.admit(insert, added).await;
        }
        let inserted = self.store.insert(insert).await?;
        if matches!(inserted, Inserted::New) {
            added.iter().for_each(|job| self.hub.publish(job));
            self.dispatch.ready(added.into_iter().filter(|job| job.status() == Status::Queued).collect()).await;
        }
        Ok(inserted)
    }

    async fn check(&self, owner: &Owner, submission: &Submission) -> Result<(), Error> {
        let mut problems = Vec::new();
        let count = submission.specs.len();
        if !(1..=MAX_BATCH).contains(&count) {
            problems.push(Problem::new("jobs", format!("must be from 1 to {MAX_BATCH}")));
        }
        if let Some(key) = &submission.idempotency_key
            && ((key.is_empty() || key.len() > 256) || !key.bytes().all(|b| b.is_ascii_graphic()))
        {
            problems.push(Problem::new("idempotencyKey", "must be 1 to 256 bytes of visible ASCII"));
        }
        let mut known = HashMap::new();
        for (i, spec) in submission.specs.iter().enumerate() {
            let mut found = spec.validate();
            if spec.idempotency_key.is_some() && spec.idempotency_key != submission.idempotency_key {
                found.push(Problem::new("idempotencyKey", "differs from the submission's"));
            }
            if let Some(problem) = self.check_input(owner, spec, &mut known).await? {
                found.push(problem);
            }
            if count > 1 {
                found.iter_mut().for_each(|problem| problem.field = format!("jobs[{i}].{}", problem.field));
            }
            problems.extend(found);
            // A batch that is wrong all over is told so without listing all of it.
            if problems.len() >= 100 {
                break;
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems)) }
    }

    /// What is wrong with the file that a spec brings. `known` remembers which files are there: a batch brings few.
    async fn check_input(
        &self,
        owner: &Owner,
        spec: &JobSpec,
        known: &mut HashMap<FileId, bool>,
    ) -> Result<Option<Problem>, Error> {
        let Some(input) = spec.input else {
            let lacks_files = spec.working_directory.is_some();
            return Ok(lacks_files.then(|| Problem::new("workingDirectory", "needs a `fileId` that it is inside of")));
        };
        if self.files.is_none() {
            return Ok(Some(Problem::new("fileId", "this service keeps no files")));
        }
        let is_there = match known.entry(input) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(unknown) => *unknown.insert(self.renew_file(owner, input).await?),
        };
        Ok((!is_there).then(|| Problem::new("fileId", "there is no such file")))
    }

    /// What a repeat answers: where the jobs that were added then stand now.
    async fn repeated(&self, ids: Vec<JobId>) -> Result<Vec<SubmittedJob>, Error> {
        let jobs = self.store.get(&ids).await?;
        let answer = |(id, job): (JobId, Option<Job>)| SubmittedJob {
            id,
            status: job.as_ref().map(Job::status),
            created: job.map_or(id.made_at(), |job| job.created),
            repeated: true,
        };
        Ok(ids.into_iter().zip(jobs).map(answer).collect())
    }
}

/// A digest of what is submitted: of the specs as they are stored, so that spelling does not matter.
fn fingerprint(specs: &[JobSpec]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for spec in specs {
        // A spec is strings, numbers and plain enums; it always serialises.
        let bytes = serde_json::to_vec(spec).unwrap_or_default();
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    }
    digest.finalize().into()
}
