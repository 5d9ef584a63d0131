//! Copying everything, and holding what came of it against what it came from.

use anyhow::ensure;
use cmdexec_core::coordinator::RECORD_KINDS;
use cmdexec_core::id::{JobId, Owner};
use cmdexec_core::job::Job;
use cmdexec_core::store::{Insert, ListQuery, RecordWrite, Store, StoredKey, WorkerRow, Written};

use super::PAGE;
use super::line::{Line, PIECES};

/// How much was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) jobs: usize,
    pub(super) known: usize,
    pub(super) keys: usize,
    pub(super) workers: usize,
    pub(super) records: usize,
}

/// Every job of a store, newest first.
pub(super) struct Pages<'a> {
    store: &'a dyn Store,
    before: Option<JobId>,
    is_over: bool,
}

impl<'a> Pages<'a> {
    pub(super) fn new(store: &'a dyn Store) -> Self {
        Self { store, before: None, is_over: false }
    }

    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Vec<Job>>> {
        if self.is_over {
            return Ok(None);
        }
        let query = ListQuery { before: self.before, limit: PAGE, ..ListQuery::default() };
        let page = self.store.list(&query).await?;
        self.before = page.jobs.last().map(|job| job.id);
        self.is_over = !page.more;
        Ok(Some(page.jobs))
    }
}

/// Copies what is not there yet.
pub(super) async fn all(from: &dyn Store, to: &dyn Store) -> anyhow::Result<Copied> {
    let mut copied = Copied::default();
    let mut pages = Pages::new(from);
    while let Some(page) = pages.next().await? {
        let ids: Vec<JobId> = page.iter().map(|job| job.id).collect();
        let there = to.get(&ids).await?;
        let mut lines = Vec::with_capacity(page.len());
        let mut new = Vec::new();
        for (job, there) in page.into_iter().zip(there) {
            let line = Line::read(from, job).await?;
            if there.is_none() {
                new.push(line.job());
            } else {
                copied.known += 1;
            }
            lines.push(line);
        }
        copied.jobs += new.len();
        to.insert(Insert { jobs: new, key: None }).await?;
        for line in lines {
            line.write_output(to).await?;
        }
    }
    let mut after: Option<StoredKey> = None;
    loop {
        let page = from.list_keys(after.as_ref().map(place), PAGE).await?;
        let Some(last) = page.last().cloned() else { break };
        copied.keys += page.len();
        to.put_keys(page).await?;
        after = Some(last);
    }
    copied.workers = workers(from, to).await?;
    for kind in RECORD_KINDS {
        copied.records += records(from, to, kind).await?;
    }
    Ok(copied)
}

fn place(stored: &StoredKey) -> (&Owner, &str) {
    (&stored.key.owner, &stored.key.key)
}

async fn workers(from: &dyn Store, to: &dyn Store) -> anyhow::Result<usize> {
    let (mut count, mut after) = (0, None);
    loop {
        let page = from.list_all_workers(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(count) };
        after = Some(last.id.clone());
        count += page.len();
        let ids: Vec<_> = page.iter().map(|row| row.id.clone()).collect();
        let there = to.get_workers(&ids).await?;
        // One whose session is newer there is at work there, and must not be put back; comparing names the difference.
        let is_older = |there: &Option<WorkerRow>, row: &WorkerRow| {
            there.as_ref().is_none_or(|there| there.renewed <= row.renewed && there != row)
        };
        let rows = page.into_iter().zip(&there).filter(|(row, there)| is_older(there, row)).map(|(row, _)| row);
        to.put_workers(rows.collect()).await?;
    }
}

async fn records(from: &dyn Store, to: &dyn Store, kind: &str) -> anyhow::Result<usize> {
    let (mut count, mut after) = (0, None::<String>);
    loop {
        let page = from.list_records(kind, after.as_deref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(count) };
        after = Some(last.key.clone());
        count += page.len();
        let keys: Vec<String> = page.iter().map(|record| record.key.clone()).collect();
        let there = to.get_records(kind, &keys).await?;
        let writes = page.into_iter().zip(there).filter_map(|(record, there)| {
            let version = there.as_ref().map_or(0, |there| there.version);
            let is_same = there.is_some_and(|there| there.value == record.value);
            (!is_same).then(|| RecordWrite { key: record.key, value: Some(record.value), version, ttl: None })
        });
        let written = to.put_records(kind, writes.collect()).await?;
        ensure!(written.iter().all(|written| *written == Written::Yes), "somebody else writes to the new database");
    }
}

/// Holds the two against each other: everything that was there is there, and nothing else.
///
/// # Errors
/// They differ; the first difference is named.
pub(super) async fn compare(from: &dyn Store, to: &dyn Store) -> anyhow::Result<()> {
    let (mut old, mut new) = (Pages::new(from), Pages::new(to));
    loop {
        let (page, copy) = (old.next().await?, new.next().await?);
        let (Some(page), Some(copy)) = (&page, &copy) else {
            ensure!(page.is_none() && copy.is_none(), "the new database has other jobs, or more");
            break;
        };
        ensure!(page.len() == copy.len(), "the new database has other jobs, or more");
        for (job, copy) in page.iter().zip(copy) {
            ensure!(job.id == copy.id, "the new database has other jobs, or more");
            ensure!(*job == *copy, "job {} differs", job.id);
            output(from, to, job).await?;
        }
    }
    let mut after: Option<StoredKey> = None;
    loop {
        let page = from.list_keys(after.as_ref().map(place), PAGE).await?;
        let copy = to.list_keys(after.as_ref().map(place), PAGE).await?;
        let plain = |page: &[StoredKey]| -> Vec<_> {
            page.iter().map(|s| (s.key.owner.clone(), s.key.key.clone(), s.key.fingerprint, s.ids.clone())).collect()
        };
        ensure!(plain(&page) == plain(&copy), "the idempotency keys differ");
        match page.into_iter().last() {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    let mut after = None;
    loop {
        let page = from.list_all_workers(after.as_ref(), PAGE).await?;
        ensure!(page == to.list_all_workers(after.as_ref(), PAGE).await?, "the workers differ");
        match page.last() {
            Some(last) => after = Some(last.id.clone()),
            None => break,
        }
    }
    for kind in RECORD_KINDS {
        let mut after: Option<String> = None;
        loop {
            let page = from.list_records(kind, after.as_deref(), PAGE).await?;
            let copy = to.list_records(kind, after.as_deref(), PAGE).await?;
            let is_same = page.len() == copy.len()
                && page
                    .iter()
                    .zip(&copy)
                    .all(|(record, copy)| (&record.key, &record.value) == (&copy.key, &copy.value));
            ensure!(is_same, "the records of kind {kind} differ");
            match page.last() {
                Some(last) => after = Some(last.key.clone()),
                None => break,
            }
        }
    }
    Ok(())
}

async fn output(from: &dyn Store, to: &dyn Store, job: &Job) -> anyhow::Result<()> {
    let attempt = job.life.claimed;
    let extent = from.output_extent(job.id, attempt).await?;
    let differ = || format!("the output of job {} differs", job.id);
    ensure!(extent == to.output_extent(job.id, attempt).await?, differ());
    let mut next = 0;
    while next < extent.next {
        let page = from.read_output(job.id, attempt, next, PIECES).await?;
        ensure!(page == to.read_output(job.id, attempt, next, PIECES).await?, differ());
        let times = from.output_times(job.id, attempt, next, page.len()).await?;
        ensure!(times == to.output_times(job.id, attempt, next, page.len()).await?, differ());
        next = page.last().map_or(extent.next, |chunk| chunk.seq + 1);
    }
    Ok(())
}
