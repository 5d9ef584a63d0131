//! What is kept of an attempt's output: which pieces have come, and which of them go so that the cap holds. Plain code.

use std::collections::{BTreeSet, VecDeque};

use crate::Error;
use crate::store::{Chunk, Extent};

/// How far ahead of a missing piece another may be. A worker that sends further ahead is refused, so that what has to be
/// remembered of missing pieces is bounded.
const AHEAD: u64 = 4_096;

/// What a stored piece costs beyond its bytes, so that many tiny ones cannot get past the cap.
const PIECE_COST: u64 = 64;

/// Into how many runs the tail is divided at most, about: what is remembered of it does not grow with the cap.
const RUNS: u64 = 1_024;

/// What is kept of an attempt's output.
#[derive(Debug, Default)]
pub(super) struct Kept {
    cap: u64,
    /// One more than the highest piece.
    next: u64,
    /// Pieces below `next` that have not come.
    missing: BTreeSet<u64>,
    /// Cost of the pieces that are kept from the beginning.
    head: u64,
    /// One more than the highest piece of the head.
    head_end: u64,
    /// A piece was too much for the head: what follows it is the tail's.
    head_is_full: bool,
    /// The pieces behind the head, in order.
    tail: VecDeque<Run>,
    tail_cost: u64,
    /// One more than the highest piece that was trimmed.
    trimmed: u64,
}

/// Neighbouring pieces of the tail, which go together.
#[derive(Debug)]
struct Run {
    first: u64,
    last: u64,
    cost: u64,
    bytes: u64,
}

/// What to write.
#[derive(Debug, Default)]
pub(super) struct Fit {
    pub(super) chunks: Vec<Chunk>,
    pub(super) trim: Option<(u64, u64)>,
    pub(super) dropped: u64,
}

impl Kept {
    /// Nothing yet; pieces are numbered from `next` on.
    pub(super) fn new(cap: u64, next: u64) -> Self {
        Self { cap, next, ..Self::default() }
    }

    /// What a store has. `index` comes in its order, `extent` is of the same moment.
    pub(super) fn load(cap: u64, first: u64, extent: Extent, index: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut kept = Self { trimmed: extent.trimmed, ..Self::new(cap, first) };
        for (seq, len) in index {
            // Below what was trimmed nothing is waited for: what is not there may have been trimmed too.
            let hole = kept.next.max(kept.trimmed)..seq;
            if hole.end.saturating_sub(hole.start) < AHEAD {
                kept.missing.extend(hole);
            }
            kept.head_is_full |= kept.trimmed > 0 && seq >= kept.trimmed;
            kept.next = seq + 1;
            kept.count(seq, len);
        }
        kept.next = kept.next.max(extent.trimmed);
        kept
    }

    /// Whether a store has what is known here, and nothing that came another way.
    pub(super) fn agrees(&self, extent: Extent) -> bool {
        extent.next.max(extent.trimmed) == self.next
    }

    /// The number that a piece gets that comes without one.
    pub(super) fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// One more than the highest number so far.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The first piece that has not come though later ones have.
    pub(super) fn gap(&self) -> Option<u64> {
        self.missing.first().copied()
    }

    /// Leaves out pieces that were seen before; notes those that are missing in between.
    ///
    /// # Errors
    /// [`Error::Invalid`]: a piece is too far ahead; nothing is noted.
    pub(super) fn admit(&mut self, chunks: Vec<Chunk>) -> Result<Vec<Chunk>, Error> {
        let next = self.next;
        let mut filled = Vec::new();
        let mut admitted = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            if chunk.seq >= self.next {
                let first_missing = self.gap().unwrap_or(self.next);
                if chunk.seq - first_missing >= AHEAD {
                    let _ = self.missing.split_off(&next);
                    self.missing.extend(filled.into_iter().filter(|seq| *seq < next));
                    self.next = next;
                    let message = format!("{} is too far ahead of {first_missing}, which has not come", chunk.seq);
                    return Err(Error::invalid("seq", message));
                }
                self.missing.extend(self.next..chunk.seq);
                self.next = chunk.seq + 1;
            } else if self.missing.remove(&chunk.seq) {
                filled.push(chunk.seq);
            } else {
                continue;
            }
            admitted.push(chunk);
        }
        Ok(admitted)
    }

    /// Counts pieces, and says what of them to write and what to remove so that the cap holds.
    pub(super) fn fit(&mut self, chunks: Vec<Chunk>) -> Fit {
        let mut fit = Fit { chunks: Vec::with_capacity(chunks.len()), ..Fit::default() };
        for chunk in chunks {
            let len = chunk.bytes.len() as u64;
            if self.count(chunk.seq, len) {
                fit.chunks.push(chunk);
            } else {
                fit.dropped += len;
            }
        }
        while self.tail_cost > self.cap / 2 {
            let Some(run) = self.tail.pop_front() else { break };
            self.tail_cost -= run.cost;
            fit.dropped += run.bytes;
            self.trimmed = run.last + 1;
            fit.trim = Some((fit.trim.map_or(run.first, |(first, _)| first), run.last));
        }
        if let Some((first, last)) = fit.trim {
            // What would be removed at once need not be written.
            fit.chunks.retain(|chunk| !(first..=last).contains(&chunk.seq));
        }
        fit
    }

    /// Counts a piece; false if it came too late for a place that the cap has room for.
    fn count(&mut self, seq: u64, len: u64) -> bool {
        let cost = len + PIECE_COST;
        if seq < self.head_end {
            // Somewhat more than its half: what is on its way at the same time may overtake.
            let fits = self.head + cost <= self.cap / 2 + self.cap / 8;
            self.head += if fits { cost } else { 0 };
            return fits;
        }
        if !self.head_is_full && self.head + cost <= self.cap / 2 {
            self.head += cost;
            self.head_end = seq + 1;
            return true;
        }
        self.head_is_full = true;
        if seq < self.trimmed {
            return false;
        }
        self.tail_cost += cost;
        let granule = self.cap / RUNS;
        let place = self.tail.partition_point(|run| run.last < seq);
        match self.tail.get_mut(place) {
            Some(run) => {
                run.first = run.first.min(seq);
                run.cost += cost;
                run.bytes += len;
            }
            None => match self.tail.back_mut().filter(|run| run.cost + cost <= granule) {
                Some(run) => {
                    run.last = seq;
                    run.cost += cost;
                    run.bytes += len;
                }
                None => self.tail.push_back(Run { first: seq, last: seq, cost, bytes: len }),
            },
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::executor::Stream;

    fn chunk(seq: u64, len: usize) -> Chunk {
        Chunk { seq, stream: Stream::Stdout, bytes: vec![b'x'; len].into() }
    }

    fn seqs(chunks: &[Chunk]) -> Vec<u64> {
        chunks.iter().map(|chunk| chunk.seq).collect()
    }

    /// What a store does with what it is told.
    #[derive(Debug, Default)]
    struct Stored {
        chunks: BTreeMap<u64, u64>,
        dropped: u64,
        trimmed: u64,
    }

    impl Stored {
        fn apply(&mut self, fit: &Fit) {
            self.chunks.extend(fit.chunks.iter().map(|chunk| (chunk.seq, chunk.bytes.len() as u64)));
            if let Some((first, last)) = fit.trim {
                self.chunks.retain(|seq, _| !(first..=last).contains(seq));
                self.trimmed = self.trimmed.max(last + 1);
            }
            self.dropped += fit.dropped;
        }

        fn extent(&self) -> Extent {
            Extent {
                next: self.chunks.last_key_value().map_or(0, |(seq, _)| seq + 1),
                bytes: self.chunks.values().sum(),
                dropped: self.dropped,
                trimmed: self.trimmed,
            }
        }

        fn load(&self, cap: u64) -> Kept {
            Kept::load(cap, 0, self.extent(), self.chunks.iter().map(|(seq, len)| (*seq, *len)))
        }
    }

    #[test]
    fn what_was_seen_is_ignored_and_what_is_missing_is_remembered() {
        let mut kept = Kept::new(1 << 20, 0);
        let admitted = kept.admit(vec![chunk(0, 1), chunk(3, 1), chunk(0, 1)]).unwrap();
        assert_eq!(seqs(&admitted), [0, 3]);
        assert_eq!(kept.missing, [1, 2].into());
        let admitted = kept.admit(vec![chunk(3, 1), chunk(2, 1), chunk(1, 1), chunk(1, 1)]).unwrap();
        assert_eq!(seqs(&admitted), [2, 1]);
        assert_eq!((kept.gap(), kept.next), (None, 4));
    }

    #[test]
    fn a_piece_too_far_ahead_is_refused_and_changes_nothing() {
        let mut kept = Kept::new(1 << 20, 0);
        kept.admit(vec![chunk(2, 1)]).unwrap();
        for far in [AHEAD + 1, u64::MAX] {
            assert!(kept.admit(vec![chunk(0, 1), chunk(7, 1), chunk(far, 1)]).is_err());
            assert_eq!((&kept.missing, kept.next), (&[0, 1].into(), 3));
        }
        assert!(kept.admit(vec![chunk(AHEAD - 1, 1)]).is_ok());
    }

    #[test]
    fn head_and_tail_are_kept_within_the_cap() {
        let (cap, cost) = (1_000, 36 + PIECE_COST);
        let mut kept = Kept::new(cap, 0);
        let mut stored = Stored::default();
        for seq in 0..100 {
            let chunks = kept.admit(vec![chunk(seq, 36)]).unwrap();
            stored.apply(&kept.fit(chunks));
            assert!(stored.chunks.len() as u64 * cost <= cap);
        }
        assert_eq!(stored.chunks.into_keys().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 95, 96, 97, 98, 99]);
        assert_eq!((stored.dropped, stored.trimmed), (90 * 36, 95));
    }

    #[test]
    fn what_is_remembered_of_a_large_tail_is_little() {
        let mut kept = Kept::new(64 << 20, 0);
        for seq in 0..400_000 {
            let _ = kept.fit(vec![chunk(seq, 36)]);
        }
        assert!(kept.tail.len() as u64 <= RUNS / 2 + 2, "{} runs", kept.tail.len());
    }

    proptest! {
        /// Whatever the order in which pieces come, and whoever takes over in between: every byte is there or counted.
        #[test]
        fn every_byte_is_kept_or_counted(
            lens in prop::collection::vec(0_usize..120, 1..200),
            swaps in prop::collection::vec((0_usize..200, 1_usize..9), 0..60),
            size in 1_usize..9,
            reload in 1_usize..20,
        ) {
            let cap = 4_000;
            let mut order: Vec<usize> = (0..lens.len()).collect();
            for (at, by) in swaps {
                let (at, to) = (at % lens.len(), (at + by) % lens.len());
                if at.abs_diff(to) < 9 {
                    order.swap(at, to);
                }
            }
            let mut kept = Kept::new(cap, 0);
            let mut stored = Stored::default();
            for (n, seqs) in order.chunks(size).enumerate() {
                if n % reload == 0 {
                    prop_assert!(stored.chunks.is_empty() || kept.agrees(stored.extent()));
                    kept = stored.load(cap);
                }
                let chunks = kept.admit(seqs.iter().map(|seq| chunk(*seq as u64, lens[*seq])).collect()).unwrap();
                stored.apply(&kept.fit(chunks));
            }
            let written: usize = lens.iter().sum();
            let cost: u64 = stored.chunks.values().map(|len| len + PIECE_COST).sum();
            prop_assert!(cost <= cap + cap / 8, "{cost}");
            let total = stored.extent().bytes + stored.dropped;
            if reload > order.len().div_ceil(size) {
                prop_assert_eq!(total, written as u64);
            } else {
                // What overtakes a trim and a restart together is not told from what was trimmed.
                prop_assert!(total <= written as u64);
            }
        }
    }
}
