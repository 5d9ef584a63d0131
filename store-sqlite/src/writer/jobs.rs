//! Insertions and changes of jobs.

use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::job::{Class, Job, Life, Timer};
use cmdexec_core::store::{Change, ErrorKind, Inserted, Key, Written};
use cmdexec_core::time::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::group::Group;
use crate::error::Error;
use crate::read::column;

/// A job to be inserted, as its columns. Encoded by the caller, so that the writer has less to do.
pub(crate) struct NewJob {
    id: JobId,
    version: u64,
    class: Class,
    rank: i64,
    owner: String,
    created: i64,
    timer: Timer,
    life: Lived,
    spec: String,
    input: Option<String>,
}

/// A change, as columns.
pub(crate) struct Changed {
    id: JobId,
    version: u64,
    timer: Timer,
    life: Lived,
}

/// A life, and what of it is kept in columns of its own.
struct Lived {
    status: i64,
    ended: Option<i64>,
    worker: Option<WorkerId>,
    json: String,
}

/// When the clock is to be watched for a job.
#[derive(Debug, Clone, Copy, Default)]
struct Deadlines {
    due: Option<i64>,
    floor: Option<i64>,
    hard_end: Option<i64>,
}

impl NewJob {
    pub(crate) fn new(job: &Job, timer: Timer) -> Result<Self, Error> {
        Ok(Self {
            id: job.id,
            version: job.version,
            class: job.class.clone(),
            rank: rank(job.spec.priority),
            owner: job.owner.as_str().to_owned(),
            created: job.created.as_millis(),
            timer,
            life: Lived::of(&job.life)?,
            spec: serde_json::to_string(&*job.spec).map_err(|e| Error::row("spec", e))?,
            input: job.spec.input.map(|file| file.to_string()),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.spec.len() + self.life.json.len()
    }
}

impl Changed {
    pub(crate) fn new(change: &Change) -> Result<Self, Error> {
        Ok(Self { id: change.id, version: change.version, timer: change.timer, life: Lived::of(&change.life)? })
    }

    pub(crate) fn len(&self) -> usize {
        self.life.json.len()
    }
}

impl Lived {
    fn of(life: &Life) -> Result<Self, Error> {
        Ok(Self {
            status: column::status_number(life.status()),
            ended: life.finished_at().map(Timestamp::as_millis),
            worker: life.last_lease().map(|lease| lease.worker.clone()),
            json: serde_json::to_string(life).map_err(|e| Error::row("life", e))?,
        })
    }

    fn worker(&self) -> Option<&str> {
        self.worker.as_ref().map(WorkerId::as_str)
    }
}

impl Deadlines {
    fn set(self, timer: Timer, now: Timestamp) -> Self {
        match timer {
            Timer::None => Self::default(),
            Timer::Keep => self,
            Timer::DueAt(at) => Self { due: Some(at.as_millis()), ..Self::default() },
            Timer::DueIn(delay) => Self { due: Some(now.after(delay).as_millis()), ..Self::default() },
            Timer::Lease { floor, hard_end } => Self {
                due: None,
                floor: Some(now.after(floor).as_millis()),
                hard_end: Some(now.after(hard_end).as_millis()),
            },
        }
    }
}

/// What of a job's row a change depends on.
struct Found {
    seq: i64,
    version: i64,
    status: i64,
    class: i64,
    deadlines: Deadlines,
    same_worker: bool,
}

impl Found {
    fn read(row: &Row<'_>, worker: Option<&str>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get(0)?,
            version: row.get(1)?,
            status: row.get(2)?,
            class: row.get(3)?,
            deadlines: Deadlines { due: row.get(4)?, floor: row.get(5)?, hard_end: row.get(6)? },
            same_worker: row.get_ref(7)?.as_str_or_null()? == worker,
        })
    }
}

/// The column that a queue is ordered by: the least is served first.
pub(crate) fn rank(priority: i8) -> i64 {
    -i64::from(priority)
}

impl Group<'_> {
    /// Adds jobs.
    ///
    /// # Errors
    /// A refusal with `Conflict`: a job with one of the ids exists. Some of the batch may be in the transaction by then.
    pub(crate) fn insert(&mut self, jobs: &[NewJob], key: Option<&Key>) -> Result<Inserted, Error> {
        if let Some(key) = key
            && let Some(known) = self.known(key)?
        {
            return Ok(known);
        }
        self.insert_jobs(jobs)?;
        if let Some(key) = key {
            self.use_key(key, &jobs.iter().map(|job| job.id).collect::<Vec<_>>())?;
        }
        Ok(Inserted::New)
    }

    fn known(&self, key: &Key) -> Result<Option<Inserted>, Error> {
        const FIND: &str = "SELECT fingerprint, ids FROM keys WHERE owner = ? AND key = ? AND expires > ?";
        let mut find = self.statement(FIND)?;
        let mut rows = find.query(params![key.owner.as_str(), key.key.as_bytes(), self.now.as_millis()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let fingerprint = column::exactly(&row.get::<_, Vec<u8>>(0)?)?;
        let ids = row.get::<_, Vec<u8>>(1)?.chunks(16).map(column::job_id).collect::<Result<_, _>>()?;
        Ok(Some(Inserted::Known { ids, fingerprint }))
    }

    /// Notes for which jobs a key was used.
    pub(crate) fn use_key(&mut self, key: &Key, ids: &[JobId]) -> Result<(), Error> {
        const USE: &str = "INSERT OR REPLACE INTO keys (owner, key, fingerprint, ids, expires) VALUES (?, ?, ?, ?, ?)";
        let ids: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
        let expires = self.now.after(key.ttl).as_millis();
        self.statement(USE)?.execute(params![
            key.owner.as_str(),
            key.key.as_bytes(),
            key.fingerprint.as_slice(),
            ids,
            expires
        ])?;
        Ok(())
    }

    fn insert_jobs(&mut self, jobs: &[NewJob]) -> Result<(), Error> {
        const INSERT: &str = "INSERT INTO jobs
                (id, version, status, class, rank, owner, created, due, floor, hard_end, ended, worker, life)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let mut insert = self.statement(INSERT)?;
        let mut insert_spec = self.statement("INSERT INTO specs (seq, spec, input) VALUES (?, ?, ?)")?;
        for NewJob { id, version, class, rank, owner, created, timer, life, spec, input } in jobs {
            let class = self.class(class)?;
            let Deadlines { due, floor, hard_end } = Deadlines::default().set(*timer, self.now);
            let Lived { status, ended, json, .. } = life;
            let worker = life.worker();
            let version = column::signed(*version);
            let row = params![
                id.as_bytes(),
                version,
                status,
                class,
                rank,
                owner,
                created,
                due,
                floor,
                hard_end,
                ended,
                worker,
                json
            ];
            let inserted = insert.execute(row).map_err(Error::from);
            if inserted.as_ref().is_err_and(Error::is_unique_violation) {
                return Err(Error::Refused(ErrorKind::Conflict, format!("job {id} exists")));
            }
            inserted?;
            insert_spec.execute(params![self.last_row(), spec, input])?;
            self.count(class, *status, 1);
        }
        Ok(())
    }

    /// Writes lives, each if the version is still the one named.
    pub(crate) fn update(&mut self, changes: &[Changed]) -> Result<Vec<Written>, Error> {
        const FIND: &str = "SELECT seq, version, status, class, due, floor, hard_end, worker FROM jobs WHERE id = ?";
        // A worker that stays is not written, so that the index by worker is left alone.
        const UPDATE: &str = "UPDATE jobs SET version = version + 1, status = ?2, due = ?3, floor = ?4, hard_end = ?5,
            ended = ?6, life = ?7 WHERE seq = ?1";
        const ASSIGN: &str = "UPDATE jobs SET version = version + 1, status = ?2, due = ?3, floor = ?4, hard_end = ?5,
            ended = ?6, life = ?7, worker = ?8 WHERE seq = ?1";
        let mut find = self.statement(FIND)?;
        let mut update = self.statement(UPDATE)?;
        let mut assign = self.statement(ASSIGN)?;
        let mut answers = Vec::with_capacity(changes.len());
        for Changed { id, version, timer, life } in changes {
            let Some(row) = find.query_row([id.as_bytes()], |row| Found::read(row, life.worker())).optional()? else {
                answers.push(Written::Missing);
                continue;
            };
            if row.version != column::signed(*version) {
                answers.push(Written::Stale);
                continue;
            }
            let Deadlines { due, floor, hard_end } = row.deadlines.set(*timer, self.now);
            let Lived { status, ended, json, .. } = life;
            if row.same_worker {
                update.execute(params![row.seq, status, due, floor, hard_end, ended, json])?;
            } else {
                assign.execute(params![row.seq, status, due, floor, hard_end, ended, json, life.worker()])?;
            }
            self.count(row.class, row.status, -1);
            self.count(row.class, *status, 1);
            answers.push(Written::Yes);
        }
        Ok(answers)
    }

    /// The short key of a job.
    pub(super) fn seq(&self, job: JobId) -> Result<Option<i64>, Error> {
        let mut find = self.statement("SELECT seq FROM jobs WHERE id = ?")?;
        Ok(find.query_row([job.as_bytes()], |row| row.get(0)).optional()?)
    }
}
