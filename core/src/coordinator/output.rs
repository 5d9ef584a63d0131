//! Output on its way to the store: duplicates ignored, kept within the job's cap.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};

use super::kept::{Fit, Kept};
use super::{Shared, lock};
use crate::Error;
use crate::executor::Stream;
use crate::id::JobId;
use crate::job::{Job, Lease};
use crate::service::{FinalOutput, OutputPieces};
use crate::store::{Append, Chunk, Extent};

/// The largest piece that is stored; larger ones are cut, smaller neighbours of one stream in one message joined.
const PIECE: usize = 64 << 10;

/// How much of an output's index is read at once.
const INDEX: usize = 4_096;

/// From here on are numbered the pieces of an older worker's result, which replaces what it streamed: a follower whose
/// cursor is lower knows by that that what it was given is void.
pub(super) const REPLACED: u64 = 1 << 40;

/// The outputs of the attempts that are running.
#[derive(Debug)]
pub(super) struct Outputs {
    cap: u64,
    /// Bounded by what workers hold: an entry is dropped with its attempt.
    attempts: Mutex<HashMap<JobId, Arc<Attempt>>>,
}

#[derive(Debug)]
struct Attempt {
    number: u32,
    /// Locked across the write, so that pieces of one attempt are counted in the order they are written.
    kept: tokio::sync::Mutex<Option<Kept>>,
    /// The first piece that is missing, for followers; `u64::MAX` if none is.
    gap: AtomicU64,
}

impl Outputs {
    pub(super) fn new(cap: u64) -> Self {
        Self { cap, attempts: Mutex::default() }
    }

    /// Forgets a job whose attempt is over.
    pub(super) fn forget(&self, job: JobId) {
        lock(&self.attempts).remove(&job);
    }

    /// The first piece of a running attempt that has not come though later ones have, if there is one.
    pub(super) fn gap(&self, job: JobId, attempt: u32) -> Option<u64> {
        let attempts = lock(&self.attempts);
        let entry = attempts.get(&job).filter(|entry| entry.number == attempt)?;
        Some(entry.gap.load(Ordering::Acquire)).filter(|gap| *gap != u64::MAX)
    }

    /// Notes that a follower was given everything before this piece: what is missing here before it has come to another
    /// coordinator, and what is known here is out of date.
    pub(super) async fn fill_gap(&self, job: JobId, attempt: u32, next: u64) {
        let entry = lock(&self.attempts).get(&job).filter(|entry| entry.number == attempt).cloned();
        let Some(entry) = entry else { return };
        // Not while a piece is on its way that may be the one: the gap that it leaves is not known yet.
        let mut kept = entry.kept.lock().await;
        if entry.gap.load(Ordering::Acquire) < next {
            entry.gap.store(u64::MAX, Ordering::Release);
            *kept = None;
        }
    }

    /// Forgets jobs that nobody knows to be leased any more.
    pub(super) fn forget_unless(&self, is_leased: impl Fn(JobId) -> bool) {
        lock(&self.attempts).retain(|job, _| is_leased(*job));
    }

    /// What is known of an attempt's output; an earlier one's than was seen here is over.
    fn attempt(&self, job: JobId, number: u32) -> Result<Arc<Attempt>, Error> {
        let mut attempts = lock(&self.attempts);
        let entry = attempts.entry(job).or_insert_with(|| Attempt::new(number));
        if entry.number > number {
            return Err(Error::LeaseLost);
        }
        if entry.number < number {
            *entry = Attempt::new(number);
        }
        Ok(Arc::clone(entry))
    }
}

impl Attempt {
    fn new(number: u32) -> Arc<Self> {
        let gap = AtomicU64::new(u64::MAX);
        Arc::new(Self { number, kept: tokio::sync::Mutex::default(), gap })
    }
}

impl Shared {
    /// Adds to the output of a job's current attempt. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Invalid`]: a piece is too far ahead. The store's.
    pub(super) async fn add_output(&self, job: &Job, pieces: OutputPieces) -> Result<(), Error> {
        let Some(lease) = job.life.lease() else { return Err(Error::LeaseLost) };
        let attempt = self.outputs.attempt(job.id, lease.attempt)?;
        let mut slot = attempt.kept.lock().await;
        // Taken out, and put back only once what was counted is written: after an error it is read anew.
        let mut kept = self.kept(job, lease, slot.take()).await?;
        let chunks = match pieces {
            OutputPieces::Numbered(chunks) => match kept.admit(chunks) {
                Ok(chunks) => chunks,
                Err(error) => {
                    *slot = Some(kept);
                    return Err(error);
                }
            },
            // They were under way when the worker's result came, which has replaced them.
            OutputPieces::Plain(_) if kept.next() >= REPLACED => Vec::new(),
            OutputPieces::Plain(pieces) => join(pieces.into_iter().map(|piece| (piece.stream, piece.bytes)))
                .into_iter()
                .map(|(stream, bytes)| Chunk { seq: kept.take_number(), stream, bytes })
                .collect(),
        };
        if chunks.is_empty() {
            *slot = Some(kept);
            return Ok(());
        }
        let Fit { chunks, trim, dropped } = kept.fit(chunks);
        let append = Append { job: job.id, attempt: lease.attempt, replace: false, chunks, trim, dropped, at: None };
        // A follower must not see a piece before it can see that one before it is missing: a gap is told before the
        // write, and its end after it.
        let gap = kept.gap().unwrap_or(u64::MAX);
        attempt.gap.fetch_min(gap, Ordering::AcqRel);
        self.store.append_output(vec![append]).await?;
        attempt.gap.store(gap, Ordering::Release);
        *slot = Some(kept);
        drop(slot);
        self.hub.output(job.id);
        Ok(())
    }

    /// What is kept of a leased job's output: as it is known here, unless another coordinator has written since. Then the
    /// lease may be over too, so that it is looked at again.
    async fn kept(&self, job: &Job, lease: &Lease, known: Option<Kept>) -> Result<Kept, Error> {
        let extent = self.store.output_extent(job.id, lease.attempt).await?;
        match known {
            Some(known) if known.agrees(extent) => return Ok(known),
            Some(_) => {
                let stored = self.stored(job.id).await?.map(Arc::new).ok_or(Error::LeaseLost)?;
                let is_over = stored.life.lease().is_none_or(|now| now.token != lease.token);
                self.leases.put([stored]);
                if is_over {
                    return Err(Error::LeaseLost);
                }
            }
            // Nothing is there: the ordinary beginning.
            None if extent == Extent::default() => return Ok(Kept::new(self.outputs.cap, 0)),
            None => {}
        }
        let first = if extent.next > REPLACED { REPLACED } else { 0 };
        let mut index = Vec::new();
        loop {
            let from = index.last().map_or(first, |(seq, _)| seq + 1);
            let page = self.store.output_index(job.id, lease.attempt, from, INDEX).await?;
            let is_last = page.len() < INDEX;
            index.extend(page);
            if is_last {
                return Ok(Kept::load(self.outputs.cap, first, extent, index));
            }
        }
    }

    /// Adds the output that comes with a report.
    ///
    /// # Errors
    /// As [`Shared::add_output`].
    pub(super) async fn add_final_output(&self, job: &Job, output: FinalOutput) -> Result<(), Error> {
        match output {
            FinalOutput::None => Ok(()),
            FinalOutput::Rest(chunks) if chunks.is_empty() => Ok(()),
            FinalOutput::Rest(chunks) => self.add_output(job, OutputPieces::Numbered(chunks)).await,
            FinalOutput::Whole { stdout, stderr } => {
                let Some(lease) = job.life.lease() else { return Err(Error::LeaseLost) };
                let attempt = self.outputs.attempt(job.id, lease.attempt)?;
                let mut slot = attempt.kept.lock().await;
                let parts = join([(Stream::Stdout, stdout), (Stream::Stderr, stderr)]);
                let mut kept = Kept::new(self.outputs.cap, REPLACED);
                let number = |(stream, bytes)| Chunk { seq: kept.take_number(), stream, bytes };
                let chunks = parts.into_iter().map(number).collect();
                let Fit { chunks, trim, dropped } = kept.fit(chunks);
                let append =
                    Append { job: job.id, attempt: lease.attempt, replace: true, chunks, trim, dropped, at: None };
                *slot = None;
                self.store.append_output(vec![append]).await?;
                attempt.gap.store(u64::MAX, Ordering::Release);
                *slot = Some(kept);
                drop(slot);
                self.hub.output(job.id);
                Ok(())
            }
        }
    }
}

/// Joins neighbours of one stream and cuts what is too long.
fn join(pieces: impl IntoIterator<Item = (Stream, Bytes)>) -> Vec<(Stream, Bytes)> {
    let mut joined: Vec<(Stream, Bytes)> = Vec::new();
    for (stream, mut bytes) in pieces {
        if let Some((last, before)) = joined.last_mut()
            && *last == stream
            && before.len() + bytes.len() <= PIECE
        {
            let mut both = BytesMut::with_capacity(before.len() + bytes.len());
            both.extend_from_slice(before);
            both.extend_from_slice(&bytes);
            *before = both.freeze();
            continue;
        }
        while !bytes.is_empty() {
            joined.push((stream, bytes.split_to(bytes.len().min(PIECE))));
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined_and_long_ones_cut() {
        let parts = join([
            (Stream::Stdout, Bytes::from_static(b"a")),
            (Stream::Stdout, Bytes::from_static(b"b")),
            (Stream::Stderr, Bytes::from(vec![b'c'; PIECE + 1])),
        ]);
        let lens: Vec<_> = parts.iter().map(|(stream, bytes)| (*stream, bytes.len())).collect();
        assert_eq!(lens, [(Stream::Stdout, 2), (Stream::Stderr, PIECE), (Stream::Stderr, 1)]);
    }
}
