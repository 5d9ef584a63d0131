//! What a group's calls are about, as the database has it now: read with one query a kind, whatever the group's size.

use std::collections::{BTreeMap, HashMap, HashSet};

use cmdexec_core::id::{JobId, Owner, WorkerId};
use cmdexec_core::job::Status;
use cmdexec_core::store::Beat;
use serde::Deserialize;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::plan::Classes;
use super::script::{Heap, push_row};
use super::work::Work;
use crate::error::Error;
use crate::read::column;

/// The state of whatever a group names. The plan changes it as it goes, so that calls of one group see one another.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) jobs: HashMap<JobId, JobFact>,
    /// By the jobs' `seq`.
    pub(super) outputs: HashMap<i64, OutputFact>,
    pub(super) keys: HashMap<(Owner, String), KeyFact>,
    pub(super) workers: HashMap<WorkerId, WorkerFact>,
    pub(super) records: HashMap<(String, String), RecordFact>,
}

#[derive(Debug, Clone)]
pub(super) struct JobFact {
    pub(super) seq: i64,
    pub(super) version: u64,
    pub(super) status: Status,
    pub(super) class: i64,
    pub(super) deadlines: Deadlines,
    pub(super) worker: Option<String>,
}

/// When the clock is to be watched for a job.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Deadlines {
    pub(super) due: Option<i64>,
    pub(super) floor: Option<i64>,
    pub(super) hard_end: Option<i64>,
}

#[derive(Debug, Default)]
pub(super) struct OutputFact {
    pub(super) attempt: i64,
    pub(super) bytes: i64,
    pub(super) dropped: i64,
    /// One more than the highest number that ever was.
    pub(super) seen: i64,
    /// One more than the highest number that was ever trimmed.
    pub(super) trimmed: i64,
    /// How long the chunks are that are there, of the numbers that the group asks about.
    pub(super) there: BTreeMap<i64, i64>,
}

#[derive(Debug)]
pub(super) struct KeyFact {
    pub(super) fingerprint: [u8; 32],
    pub(super) ids: Vec<JobId>,
    pub(super) expires: i64,
}

#[derive(Debug)]
pub(super) struct WorkerFact {
    pub(super) removed: bool,
    pub(super) renewed: i64,
    pub(super) beat: Beat,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct RecordFact {
    pub(super) version: u64,
    pub(super) expires: Option<i64>,
}

/// A job's columns, and its output's, as they come in one array.
#[derive(Deserialize)]
struct JobRow(
    usize,
    i64,
    u64,
    i64,
    i64,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);

impl Facts {
    /// Reads what the group needs. `check_ids`: also whether ids that are to be inserted exist, which hardly ever
    /// happens, so that the insertion is tried first.
    pub(super) async fn read(
        conn: &mut SqliteConnection,
        group: &[Work],
        classes: &mut Classes,
        check_ids: bool,
    ) -> Result<Self, Error> {
        let mut facts = Self::default();
        let mut ids = HashSet::new();
        let mut keys = HashSet::new();
        let mut workers = HashSet::new();
        let mut records = HashSet::new();
        let mut has_output = false;
        for work in group {
            match work {
                Work::Insert { jobs, key, .. } => {
                    keys.extend(key.as_ref().map(|key| (key.owner.clone(), key.key.clone())));
                    classes.learn(conn, jobs.iter().map(|job| &job.class)).await?;
                    if check_ids {
                        ids.extend(jobs.iter().map(|job| job.id));
                    }
                }
                Work::Update { changes, .. } => ids.extend(changes.iter().map(|change| change.id)),
                Work::Append { appends, .. } => {
                    has_output = true;
                    ids.extend(appends.iter().map(|append| append.job));
                }
                Work::Register { worker, .. } | Work::RemoveWorker { worker, .. } => {
                    workers.insert(worker.clone());
                }
                Work::Renew { beats, .. } => workers.extend(beats.iter().map(|(worker, _)| worker.clone())),
                Work::PutRecords { kind, writes, .. } => {
                    records.extend(writes.iter().map(|write| (kind.clone(), write.key.clone())));
                }
                Work::Purge { .. } | Work::Close => {}
            }
        }
        if !ids.is_empty() {
            facts.read_jobs(conn, &ids).await?;
        }
        if has_output {
            facts.read_chunks(conn, group).await?;
        }
        if !keys.is_empty() {
            facts.read_keys(conn, keys).await?;
        }
        if !workers.is_empty() {
            facts.read_workers(conn, &workers).await?;
        }
        if !records.is_empty() {
            facts.read_records(conn, records).await?;
        }
        Ok(facts)
    }

    /// One row with everything in it: a row of its own for each job would cost several times as much on its way
    /// through the driver's threads.
    async fn read_jobs(&mut self, conn: &mut SqliteConnection, ids: &HashSet<JobId>) -> Result<(), Error> {
        const QUERY: &str = "SELECT json_group_array(json_array(asked.key, j.seq, j.version, j.status, j.class, j.due,
                j.floor, j.hard_end, j.worker, o.attempt, o.bytes, o.dropped, o.seen,
                o.trimmed))
            FROM json_each(?1) asked CROSS JOIN jobs j ON j.id = unhex(asked.value)
            LEFT JOIN outputs o ON o.job = j.seq";
        let ids: Vec<JobId> = ids.iter().copied().collect();
        let row = sqlx::query(QUERY).bind(column::hex_ids(&ids)).fetch_one(conn).await?;
        let found: Vec<JobRow> = column::json("jobs", row.try_get(0)?)?;
        self.jobs.reserve(found.len());
        for row in found {
            let JobRow(place, seq, version, status, class, due, floor, hard_end, worker, ..) = row;
            let JobRow(.., attempt, bytes, dropped, seen, trimmed) = row;
            let Some(id) = ids.get(place) else { continue };
            if let (Some(attempt), Some(bytes), Some(dropped), Some(seen), Some(trimmed)) =
                (attempt, bytes, dropped, seen, trimmed)
            {
                self.outputs.insert(seq, OutputFact { attempt, bytes, dropped, seen, trimmed, there: BTreeMap::new() });
            }
            let status = column::status(status)?;
            let deadlines = Deadlines { due, floor, hard_end };
            self.jobs.insert(*id, JobFact { seq, version, status, class, deadlines, worker });
        }
        Ok(())
    }

    /// Which chunks are there: those that are to be trimmed, and those that may be repeated. A chunk with the next
    /// number, the ordinary case, is neither.
    async fn read_chunks(&mut self, conn: &mut SqliteConnection, group: &[Work]) -> Result<(), Error> {
        const QUERY: &str = "SELECT c.job, c.n, length(c.bytes)
            FROM json_each(?1) asked
            CROSS JOIN chunks c ON c.job = asked.value->>0 AND c.n BETWEEN asked.value->>1 AND asked.value->>2";
        let mut ranges: HashMap<i64, (i64, i64)> = HashMap::new();
        let appends = group.iter().filter_map(|work| match work {
            Work::Append { appends, .. } => Some(appends),
            _ => None,
        });
        for append in appends.flatten() {
            let Some(output) =
                self.jobs.get(&append.job).and_then(|job| self.outputs.get(&job.seq).map(|o| (job.seq, o)))
            else {
                continue;
            };
            let (seq, output) = output;
            let repeated = append.chunks.iter().map(|chunk| column::signed(chunk.seq)).filter(|n| *n < output.seen);
            let bounds = append.trim.map(|(first, last)| [column::signed(first), column::signed(last)]);
            for n in repeated.chain(bounds.into_iter().flatten()) {
                let range = ranges.entry(seq).or_insert((n, n));
                *range = (range.0.min(n), range.1.max(n));
            }
        }
        if ranges.is_empty() {
            return Ok(());
        }
        let mut asked = String::new();
        for (seq, (first, last)) in ranges {
            push_row(&mut asked, &[Some(seq), Some(first), Some(last)]);
        }
        asked.push(']');
        for row in sqlx::query(QUERY).bind(asked).fetch_all(conn).await? {
            if let Some(output) = self.outputs.get_mut(&row.try_get(0)?) {
                output.there.insert(row.try_get(1)?, row.try_get(2)?);
            }
        }
        Ok(())
    }

    async fn read_keys(&mut self, conn: &mut SqliteConnection, asked: HashSet<(Owner, String)>) -> Result<(), Error> {
        const QUERY: &str = "SELECT asked.value->>4, k.fingerprint, k.ids, k.expires
            FROM json_each(?2) asked
            CROSS JOIN keys k ON k.owner = CAST(substr(?1, asked.value->>0, asked.value->>1) AS TEXT)
                AND k.key = substr(?1, asked.value->>2, asked.value->>3)";
        let mut asked: Vec<Option<(Owner, String)>> = asked.into_iter().map(Some).collect();
        let pairs = asked.iter().flatten().map(|(owner, key)| (owner.as_str(), key.as_str()));
        let (heap, rows) = pairs_param(pairs);
        for row in sqlx::query(QUERY).bind(heap).bind(rows).fetch_all(conn).await? {
            let Some(pair) = asked.get_mut(column::index(row.try_get(0)?)?).and_then(Option::take) else { continue };
            let ids: &[u8] = row.try_get(2)?;
            let fact = KeyFact {
                fingerprint: column::exactly(row.try_get(1)?)?,
                ids: ids.chunks(16).map(column::job_id).collect::<Result<_, _>>()?,
                expires: row.try_get(3)?,
            };
            self.keys.insert(pair, fact);
        }
        Ok(())
    }

    async fn read_workers(&mut self, conn: &mut SqliteConnection, asked: &HashSet<WorkerId>) -> Result<(), Error> {
        const QUERY: &str = "SELECT w.id, w.removed, s.renewed, s.beat
            FROM json_each(?1) asked CROSS JOIN workers w ON w.id = asked.value
            JOIN sessions s ON s.id = w.id";
        for row in sqlx::query(QUERY).bind(column::worker_ids(asked)).fetch_all(conn).await? {
            let (removed, renewed) = (row.try_get(1)?, row.try_get(2)?);
            let fact = WorkerFact { removed, renewed, beat: column::json("beat", row.try_get(3)?)? };
            self.workers.insert(column::worker_id(row.try_get(0)?)?, fact);
        }
        Ok(())
    }

    async fn read_records(
        &mut self,
        conn: &mut SqliteConnection,
        asked: HashSet<(String, String)>,
    ) -> Result<(), Error> {
        const QUERY: &str = "SELECT asked.value->>4, r.version, r.expires
            FROM json_each(?2) asked
            CROSS JOIN records r ON r.kind = substr(?1, asked.value->>0, asked.value->>1)
                AND r.key = substr(?1, asked.value->>2, asked.value->>3)";
        let mut asked: Vec<Option<(String, String)>> = asked.into_iter().map(Some).collect();
        let pairs = asked.iter().flatten().map(|(kind, key)| (kind.as_str(), key.as_str()));
        let (heap, rows) = pairs_param(pairs);
        for row in sqlx::query(QUERY).bind(heap).bind(rows).fetch_all(conn).await? {
            let Some(pair) = asked.get_mut(column::index(row.try_get(0)?)?).and_then(Option::take) else { continue };
            let fact = RecordFact { version: column::unsigned(row.try_get(1)?)?, expires: row.try_get(2)? };
            self.records.insert(pair, fact);
        }
        Ok(())
    }
}

/// Pairs of texts as a heap and rows of `[at, length, at, length, place]`.
fn pairs_param<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> (Vec<u8>, String) {
    let mut heap = Heap::new();
    let mut rows = String::new();
    for (place, (one, two)) in pairs.enumerate() {
        let (one, two) = (heap.put(one.as_bytes()), heap.put(two.as_bytes()));
        push_row(&mut rows, &[one.at, one.len, two.at, two.len, i64::try_from(place).ok()]);
    }
    rows.push(']');
    (heap.into_bytes(), rows)
}
