//! A job with its output, as it travels from one store to another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::{JobId, Owner};
use cmdexec_core::job::{Class, Job, JobSpec, Life, State, Timer, Wait, hard_end};
use cmdexec_core::store::{Append, Chunk, Extent, Insert, Store};
use cmdexec_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How much output is read and written at once.
pub(super) const PIECES: usize = 1 << 20;

/// For how long a lease is left alone that a job brings: its worker is to have time to find the new server.
const LEASE: Duration = Duration::from_secs(120);

/// A job as a line of JSON. Specs and lives are in the form in which stores keep them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    id: JobId,
    owner: Owner,
    created_at: Timestamp,
    spec: Arc<JobSpec>,
    life: Life,
    #[serde(default)]
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<Output>,
}

/// What is kept of the newest attempt's output.
#[derive(Debug, Serialize, Deserialize)]
struct Output {
    attempt: u32,
    #[serde(default)]
    dropped: u64,
    #[serde(default)]
    trimmed: u64,
    pieces: Vec<Piece>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Piece {
    seq: u64,
    stream: Stream,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    data_base64: String,
}

impl Line {
    /// A job and what it wrote.
    pub(super) async fn read(from: &dyn Store, job: Job) -> anyhow::Result<Self> {
        let attempt = job.life.claimed;
        let extent = from.output_extent(job.id, attempt).await?;
        let mut line = Self {
            id: job.id,
            owner: job.owner,
            created_at: job.created,
            spec: job.spec,
            life: job.life,
            version: job.version,
            output: None,
        };
        if extent == Extent::default() {
            return Ok(line);
        }
        let mut pieces: Vec<Piece> = Vec::new();
        loop {
            let next = pieces.last().map_or(0, |piece| piece.seq + 1);
            let page = from.read_output(line.id, attempt, next, PIECES).await?;
            if page.is_empty() {
                break;
            }
            let times: HashMap<u64, Timestamp> =
                from.output_times(line.id, attempt, next, page.len()).await?.into_iter().collect();
            pieces.extend(page.into_iter().map(|Chunk { seq, stream, bytes }| Piece {
                seq,
                stream,
                at: times.get(&seq).copied(),
                data_base64: STANDARD.encode(bytes),
            }));
        }
        line.output = Some(Output { attempt, dropped: extent.dropped, trimmed: extent.trimmed, pieces });
        Ok(line)
    }

    /// The job as it is to be inserted, with what to watch the clock for on its behalf.
    pub(super) fn job(&self) -> (Job, Timer) {
        let class = Class::of(&self.spec);
        let timer = match &self.life.state {
            State::Scheduled { wait: Wait::Time { at } } => Timer::DueAt(*at),
            State::Scheduled { wait: Wait::Retry { since, delay } } => Timer::DueAt(since.after(*delay)),
            State::Running { .. } | State::Cancelling { .. } => {
                Timer::Lease { floor: LEASE, hard_end: hard_end(&self.spec) }
            }
            _ => Timer::None,
        };
        let job = Job {
            id: self.id,
            owner: self.owner.clone(),
            created: self.created_at,
            spec: Arc::clone(&self.spec),
            class,
            life: self.life.clone(),
            version: self.version,
        };
        (job, timer)
    }

    /// Adds the job, unless it is there, and then its output, unless that is there too. Says whether the job was added.
    pub(super) async fn write(&self, to: &dyn Store) -> anyhow::Result<bool> {
        let is_there = to.get(&[self.id]).await?.first().is_some_and(Option::is_some);
        if !is_there {
            to.insert(Insert { jobs: vec![self.job()], key: None }).await?;
        }
        self.write_output(to).await?;
        Ok(!is_there)
    }

    /// Writes the output, from its beginning if some of it is missing.
    pub(super) async fn write_output(&self, to: &dyn Store) -> anyhow::Result<()> {
        let Some(output) = &self.output else { return Ok(()) };
        let mut chunks = Vec::with_capacity(output.pieces.len());
        for Piece { seq, stream, at, data_base64 } in &output.pieces {
            let bytes = STANDARD.decode(data_base64).with_context(|| format!("the output of job {}", self.id))?;
            chunks.push((Chunk { seq: *seq, stream: *stream, bytes: bytes.into() }, *at));
        }
        let bytes = chunks.iter().map(|(chunk, _)| chunk.bytes.len() as u64).sum();
        let next = chunks.last().map_or(0, |(chunk, _)| chunk.seq + 1);
        let whole = Extent { next, bytes, dropped: output.dropped, trimmed: output.trimmed };
        if to.output_extent(self.id, output.attempt).await? == whole {
            return Ok(());
        }
        let append = |chunks, at| Append {
            job: self.id,
            attempt: output.attempt,
            replace: false,
            chunks,
            trim: None,
            dropped: 0,
            at,
        };
        // What was trimmed is remembered by the last number that was: nothing is there yet that this removes.
        let trim = output.trimmed.checked_sub(1).map(|last| (last, last));
        let first = Append { replace: true, trim, dropped: output.dropped, ..append(Vec::new(), None) };
        to.append_output(vec![first]).await?;
        let mut page: Vec<Append> = Vec::new();
        let mut size = 0;
        for (chunk, at) in chunks {
            size += chunk.bytes.len();
            match page.last_mut() {
                Some(last) if last.at == at => last.chunks.push(chunk),
                _ => page.push(append(vec![chunk], at)),
            }
            if size >= PIECES {
                to.append_output(std::mem::take(&mut page)).await?;
                size = 0;
            }
        }
        to.append_output(page).await?;
        Ok(())
    }
}
