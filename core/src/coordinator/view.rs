//! Jobs and workers as their users see them.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::Shared;
use super::tally::Sums;
use crate::Error;
use crate::executor::Stream;
use crate::id::Owner;
use crate::job::{Attempt, Command, Details, Job, JobSpec, Outcome, State};
use crate::service::{AttemptView, Ended, JobUpdate, JobView, Registration, Usage, WorkerStatus, WorkerView};
use crate::store::WorkerRow;
use crate::time::Timestamp;

/// How much of each stream a job shows.
const TAIL: usize = 64 << 10;

/// How many characters of a command a summary shows.
const SUMMARY: usize = 200;

/// A job without its output.
pub(super) fn job(job: Job) -> JobView {
    let status = job.status();
    let update = update(&job);
    let last = job.life.attempts.last();
    let (reason, error) = match &job.life.state {
        State::Failed { reason, error, .. } => (Some(*reason), Some(error.clone())),
        _ => (None, None),
    };
    JobView {
        id: job.id,
        status,
        version: job.version,
        worker: update.worker,
        created: job.created,
        started: job.life.last_lease().map(|lease| lease.since),
        completed: job.life.finished_at(),
        exit_code: update.exit_code,
        details: last.map(details).unwrap_or_default(),
        artifacts: job.life.attempts.iter().rev().find_map(|attempt| attempt.details.artifacts),
        reason,
        error,
        attempts: attempts(&job),
        stdout: bytes::Bytes::new(),
        stderr: bytes::Bytes::new(),
        dropped: 0,
        owner: job.owner,
        spec: job.spec,
    }
}

/// What is known of an attempt's end. A worker that was lost, and many an older one, does not say how long the command ran: then
/// it is the whole time that the worker had the job.
fn details(attempt: &Attempt) -> Details {
    let took = attempt.ended.since(attempt.lease.since);
    let mut details = attempt.details.clone();
    details.duration = details.duration.or_else(|| (attempt.outcome != Outcome::Returned).then_some(took));
    details
}

/// A job in a list: without output and environment, its command cut.
pub(super) fn summary(mut listed: Job) -> JobView {
    let spec = &listed.spec;
    let is_short = match &spec.command {
        Command::Shell(line) => line.len() <= SUMMARY,
        Command::Argv(items) | Command::Steps(items) => items.iter().map(String::len).sum::<usize>() <= SUMMARY,
    };
    if !is_short || !spec.env.is_empty() {
        let command = cut(&spec.command);
        listed.spec = Arc::new(JobSpec { command, env: std::collections::BTreeMap::new(), ..(**spec).clone() });
    }
    job(listed)
}

fn cut(command: &Command) -> Command {
    let mut left = SUMMARY;
    let mut cut = |text: &String| {
        let kept: String = text.chars().take(left).collect();
        left -= kept.chars().count();
        kept
    };
    let mut cut_items =
        |items: &[String]| items.iter().map(&mut cut).filter(|item| !item.is_empty()).collect::<Vec<_>>();
    match command {
        Command::Shell(line) => Command::Shell(line.chars().take(SUMMARY).collect()),
        Command::Argv(items) => Command::Argv(cut_items(items)),
        Command::Steps(lines) => Command::Steps(cut_items(lines)),
    }
}

fn attempts(job: &Job) -> Vec<AttemptView> {
    let past = job.life.attempts.iter().map(|attempt| AttemptView {
        number: attempt.lease.attempt,
        worker: attempt.lease.worker.clone(),
        started: attempt.lease.since,
        ended: Some(attempt.ended),
        outcome: Some(Ended::from(&attempt.outcome)),
        exit_code: attempt.outcome.exit_code(),
        image: attempt.details.image.clone(),
    });
    let current = job.life.lease().map(|lease| AttemptView {
        number: lease.attempt,
        worker: lease.worker.clone(),
        started: lease.since,
        ended: None,
        outcome: None,
        exit_code: None,
        image: None,
    });
    past.chain(current).collect()
}

/// What a watcher is told of a job.
pub(super) fn update(job: &Job) -> JobUpdate {
    let lease = job.life.last_lease();
    let last = job.life.attempts.last();
    let at = match &job.life.state {
        State::Scheduled { .. } => last.map_or(job.created, |attempt: &Attempt| attempt.ended),
        State::Queued { since } | State::Cancelling { since, .. } => *since,
        State::Running { lease } => lease.since,
        State::Completed { at } | State::Failed { at, .. } | State::Cancelled { at } => *at,
    };
    JobUpdate {
        id: job.id,
        status: job.status(),
        version: job.version,
        worker: lease.map(|lease| lease.worker.clone()),
        exit_code: last.and_then(|attempt| attempt.outcome.exit_code()),
        at,
    }
}

impl Shared {
    /// A job with the end of its output.
    pub(super) async fn with_output(&self, job: Job) -> Result<JobView, Error> {
        let (id, attempt) = (job.id, job.life.last_lease().map(|lease| lease.attempt));
        let mut view = self::job(job);
        if let Some(attempt) = attempt {
            let extent = self.store.output_extent(id, attempt).await?;
            view.dropped = extent.dropped;
            if extent.bytes > 0 {
                view.stdout = self.store.output_tail(id, attempt, Stream::Stdout, TAIL).await?;
                view.stderr = self.store.output_tail(id, attempt, Stream::Stderr, TAIL).await?;
            }
        }
        Ok(view)
    }

    /// Workers as users see them, with those of their jobs that this owner may know of; `None`: all of them.
    pub(super) async fn worker_views(
        &self,
        rows: Vec<WorkerRow>,
        owner: Option<&Owner>,
    ) -> Result<Vec<WorkerView>, Error> {
        let workers: Vec<_> = rows.iter().map(|row| row.id.clone()).collect();
        let mut leased = self.leased_by(&workers).await?;
        rows.into_iter()
            .map(|row| {
                let leased = leased.remove(&row.id).unwrap_or_default();
                self.worker_view(row, &leased, owner)
            })
            .collect()
    }

    fn worker_view(&self, row: WorkerRow, leased: &[Arc<Job>], owner: Option<&Owner>) -> Result<WorkerView, Error> {
        let info: Registration = serde_json::from_slice(&row.info).map_err(|error| {
            tracing::error!(worker = %row.id, %error, "a worker's stored registration can't be read");
            Error::Internal
        })?;
        // What its next beat will write down counts already.
        let Sums { completed, failed, .. } = self.tally.of(&row.id, row.beat.tally);
        let usage = said(&row);
        let idle_or_busy = if leased.is_empty() { WorkerStatus::Idle } else { WorkerStatus::Busy };
        let said_status = match usage.map(|usage| usage.status) {
            None | Some(WorkerStatus::Idle | WorkerStatus::Busy) => idle_or_busy,
            Some(said) => said,
        };
        Ok(WorkerView {
            status: status(said_status, row.renewed, self.store.now(), self.options.heartbeat_timeout),
            hostname: info.hostname,
            cpu_count: info.cpu_count,
            total_memory_mb: info.total_memory_mb,
            cpu_usage: usage.map_or(0.0, |usage| usage.cpu),
            ram_usage: usage.map_or(0.0, |usage| usage.ram),
            labels: info.labels.into_iter().collect(),
            executors: info.executors.unwrap_or_else(older_executors),
            slots: info.slots,
            running: leased
                .iter()
                .filter(|job| owner.is_none_or(|owner| *owner == job.owner))
                .map(|job| job.id)
                .collect(),
            jobs_completed: row.beat.completed.saturating_add(completed),
            jobs_failed: row.beat.failed.saturating_add(failed),
            last_heartbeat: row.renewed,
            registered: row.registered,
            version: info.version,
            metadata: info.metadata,
            id: row.id,
        })
    }
}

/// How a worker is by its last heartbeat; before the first, as it said when it registered.
pub(super) fn said(row: &WorkerRow) -> Option<Usage> {
    let registered = || serde_json::from_slice::<Registration>(&row.info).ok()?.usage;
    Usage::deserialize(&row.beat.report).ok().or_else(registered)
}

/// A worker of an earlier protocol version has both executors and promises no limit.
fn older_executors() -> Vec<crate::executor::Capabilities> {
    use crate::executor::{Capabilities, Kind};
    [Kind::Process, Kind::Docker].map(|kind| Capabilities { kind, limits: [].into(), gpus: 0 }).into()
}

/// What a worker is doing, by what it said and how long ago.
pub(super) fn status(said: WorkerStatus, renewed: Timestamp, now: Timestamp, timeout: Duration) -> WorkerStatus {
    if now.since(renewed) > timeout { WorkerStatus::Offline } else { said }
}
