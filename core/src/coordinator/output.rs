//! Output on its way to the store: duplicates ignored, kept within the job's cap.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};

use super::{Shared, lock};
use crate::Error;
use crate::executor::Stream;
use crate::id::JobId;
use crate::job::Job;
use crate::service::{FinalOutput, OutputPieces};
use crate::store::{Append, Chunk, Store};

/// The largest piece that is stored; larger ones are cut, smaller neighbours of one stream in one message joined.
const PIECE: usize = 64 << 10;

/// How far ahead of a missing piece another may be. A worker that sends further ahead is refused, so that what has to be
/// remembered of missing pieces is bounded.
const AHEAD: u64 = 4_096;

/// What a stored piece costs beyond its bytes, so that many tiny ones cannot get past the cap.
const PIECE_COST: u64 = 64;

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
    gap: std::sync::atomic::AtomicU64,
}

/// What is kept of an attempt's output.
#[derive(Debug, Clone, Default)]
struct Kept {
    /// One more than the highest piece.
    next: u64,
    /// Pieces below `next` that have not come.
    missing: BTreeSet<u64>,
    /// Cost of the pieces that are kept from the beginning.
    head: u64,
    /// The pieces behind the head with their costs, oldest first.
    tail: VecDeque<(u64, u64)>,
    tail_cost: u64,
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
        Some(entry.gap.load(std::sync::atomic::Ordering::Acquire)).filter(|gap| *gap != u64::MAX)
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
        let gap = std::sync::atomic::AtomicU64::new(u64::MAX);
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
        let kept = match slot.take() {
            Some(kept) => kept,
            None => Kept::load(&*self.store, job.id, lease.attempt, self.outputs.cap).await?,
        };
        // What was counted is only noted once it is written: after an error it is read anew.
        let mut after = kept.clone();
        let chunks = match pieces {
            OutputPieces::Numbered(chunks) => match after.admit(chunks) {
                Ok(chunks) => chunks,
                Err(error) => {
                    *slot = Some(kept);
                    return Err(error);
                }
            },
            OutputPieces::Plain(pieces) => {
                let parts = join(pieces.into_iter().map(|piece| (piece.stream, piece.bytes)));
                let first = after.next;
                after.next += parts.len() as u64;
                number(parts, first)
            }
        };
        if chunks.is_empty() {
            *slot = Some(after);
            return Ok(());
        }
        let append = after.fit(job.id, lease.attempt, chunks, self.outputs.cap);
        // A follower must not see a piece before it can see that one before it is missing: a gap is told before the
        // write, and its end after it.
        let gap = after.missing.first().copied().unwrap_or(u64::MAX);
        attempt.gap.fetch_min(gap, std::sync::atomic::Ordering::AcqRel);
        self.store.append_output(vec![append]).await?;
        attempt.gap.store(gap, std::sync::atomic::Ordering::Release);
        *slot = Some(after);
        drop(slot);
        self.hub.output(job.id);
        Ok(())
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
                let mut kept = Kept { next: REPLACED + parts.len() as u64, ..Kept::default() };
                let mut append = kept.fit(job.id, lease.attempt, number(parts, REPLACED), self.outputs.cap);
                append.replace = true;
                *slot = None;
                self.store.append_output(vec![append]).await?;
                attempt.gap.store(u64::MAX, std::sync::atomic::Ordering::Release);
                *slot = Some(kept);
                drop(slot);
                self.hub.output(job.id);
                Ok(())
            }
        }
    }
}

impl Kept {
    /// What the store has of an attempt, after a restart or another coordinator's turn.
    async fn load(store: &dyn Store, job: JobId, attempt: u32, cap: u64) -> Result<Self, Error> {
        let extent = store.output_extent(job, attempt).await?;
        let mut kept = Self { next: extent.next, ..Self::default() };
        if extent.next == 0 {
            return Ok(kept);
        }
        // Once for each attempt with output that this process did not see from its beginning.
        let mut from = 0;
        loop {
            let chunks = store.read_output(job, attempt, from, 1 << 20).await?;
            let Some(last) = chunks.last() else { break };
            from = last.seq + 1;
            for chunk in &chunks {
                kept.count(chunk, cap);
            }
        }
        Ok(kept)
    }

    /// Leaves out pieces that were seen before; notes those that are missing in between.
    fn admit(&mut self, chunks: Vec<Chunk>) -> Result<Vec<Chunk>, Error> {
        let mut admitted = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            if chunk.seq >= self.next {
                let first_missing = self.missing.first().copied().unwrap_or(self.next);
                if chunk.seq - first_missing >= AHEAD {
                    let message = format!("{} is too far ahead of {first_missing}, which has not come", chunk.seq);
                    return Err(Error::invalid("seq", message));
                }
                self.missing.extend(self.next..chunk.seq);
                self.next = chunk.seq + 1;
            } else if !self.missing.remove(&chunk.seq) {
                continue;
            }
            admitted.push(chunk);
        }
        Ok(admitted)
    }

    /// Counts pieces and says what to write, and what to remove to keep within the cap.
    fn fit(&mut self, job: JobId, attempt: u32, chunks: Vec<Chunk>, cap: u64) -> Append {
        for chunk in &chunks {
            self.count(chunk, cap);
        }
        let mut trim: Option<(u64, u64)> = None;
        let mut dropped = 0;
        while self.tail_cost > cap / 2 {
            let Some((seq, cost)) = self.tail.pop_front() else { break };
            self.tail_cost -= cost;
            dropped += cost - PIECE_COST;
            let (first, last) = trim.unwrap_or((seq, seq));
            trim = Some((first.min(seq), last.max(seq)));
        }
        Append { job, attempt, replace: false, chunks, trim, dropped }
    }

    fn count(&mut self, chunk: &Chunk, cap: u64) {
        let cost = chunk.bytes.len() as u64 + PIECE_COST;
        if self.tail.is_empty() && self.head + cost <= cap / 2 {
            self.head += cost;
        } else {
            self.tail.push_back((chunk.seq, cost));
            self.tail_cost += cost;
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

fn number(parts: Vec<(Stream, Bytes)>, first: u64) -> Vec<Chunk> {
    parts.into_iter().zip(first..).map(|((stream, bytes), seq)| Chunk { seq, stream, bytes }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(seq: u64, len: usize) -> Chunk {
        Chunk { seq, stream: Stream::Stdout, bytes: vec![b'x'; len].into() }
    }

    fn id() -> JobId {
        JobId::from_bytes([1; 16])
    }

    #[test]
    fn what_was_seen_is_ignored_and_what_is_missing_is_remembered() {
        let mut kept = Kept::default();
        let seqs = |chunks: Vec<Chunk>| chunks.iter().map(|c| c.seq).collect::<Vec<_>>();
        assert_eq!(seqs(kept.admit(vec![chunk(0, 1), chunk(3, 1), chunk(0, 1)]).unwrap()), [0, 3]);
        assert_eq!(kept.missing, [1, 2].into());
        assert_eq!(seqs(kept.admit(vec![chunk(3, 1), chunk(2, 1), chunk(1, 1), chunk(1, 1)]).unwrap()), [2, 1]);
        assert!(kept.missing.is_empty());
        assert_eq!(kept.next, 4);
    }

    #[test]
    fn a_piece_too_far_ahead_is_refused() {
        let mut kept = Kept::default();
        assert!(kept.admit(vec![chunk(AHEAD, 1)]).is_err());
        assert!(kept.admit(vec![chunk(u64::MAX, 1)]).is_err());
        assert!(kept.admit(vec![chunk(AHEAD - 1, 1)]).is_ok());
    }

    #[test]
    fn head_and_tail_are_kept_within_the_cap() {
        let mut kept = Kept::default();
        let cap = 1_000;
        let cost = 36 + PIECE_COST;
        let mut stored: BTreeSet<u64> = BTreeSet::new();
        let mut dropped = 0;
        for seq in 0..100 {
            let chunks = kept.admit(vec![chunk(seq, 36)]).unwrap();
            let append = kept.fit(id(), 1, chunks, cap);
            stored.extend(append.chunks.iter().map(|c| c.seq));
            if let Some((first, last)) = append.trim {
                stored.retain(|seq| !(first..=last).contains(seq));
            }
            dropped += append.dropped;
            assert!(stored.len() as u64 * cost <= cap);
        }
        assert_eq!(stored.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 95, 96, 97, 98, 99]);
        assert_eq!(dropped, 90 * 36);
    }

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
