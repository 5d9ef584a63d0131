//! The head of a job's output, and what an addition does to it. Plain code.

use std::collections::{BTreeMap, HashMap, HashSet};

use cmdexec_core::store::{Append, Chunk};
use cmdexec_core::time::Timestamp;
use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, cstr, rawdoc};

use super::segment::{Piece, Shape, unsigned};
use crate::client::{Op, binary};
use crate::error::Error;
use crate::jobs::{date, signed, timestamp};

/// How many bytes the head itself keeps; beyond, what it keeps becomes a segment.
const KEPT: usize = 64 << 10;

/// How many bytes a segment has, unless a single piece has more.
const SEGMENT: usize = 1 << 20;

/// What a small piece costs in the head beside its bytes.
const PIECE_COST: usize = 64;

/// What is kept of a job's output.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Head {
    /// `None`: nobody has written yet.
    pub(super) version: Option<i64>,
    pub(super) attempt: u32,
    pub(super) bytes: u64,
    pub(super) dropped: u64,
    pub(super) trimmed: u64,
    pub(super) newest: BTreeMap<u64, Piece>,
    pub(super) views: Vec<View>,
}

/// What is to be seen of a segment: the pieces with numbers from `first` to `last`. The others were trimmed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct View {
    pub(super) segment: Op,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) count: u64,
    pub(super) bytes: u64,
    /// When the last of them was added.
    pub(super) at: Timestamp,
}

impl View {
    /// Whether it may have one of these numbers.
    pub(super) fn meets(&self, first: u64, last: u64) -> bool {
        self.first <= last && first <= self.last
    }

    /// Whether every number from the first to the last is there.
    fn is_dense(&self) -> bool {
        self.last - self.first == self.count - 1
    }

    pub(super) fn shows(&self, seq: u64) -> bool {
        (self.first..=self.last).contains(&seq)
    }

    /// The view of some pieces of a segment, in order; `None` if there are none.
    fn of(segment: Op, shapes: impl Iterator<Item = Shape>) -> Option<Self> {
        let mut view: Option<Self> = None;
        for Shape { seq, len, at, .. } in shapes {
            let view = view.get_or_insert(Self { segment, first: seq, last: seq, count: 0, bytes: 0, at });
            view.last = seq;
            view.count += 1;
            view.bytes += len;
            view.at = view.at.max(at);
        }
        view
    }
}

/// What segments have in them, as far as it was looked up.
pub(super) type Known = HashMap<Op, Vec<Shape>>;

/// A segment to be written.
#[derive(Debug, PartialEq)]
pub(super) struct NewSegment {
    pub(super) id: Op,
    pub(super) pieces: Vec<Piece>,
}

impl Head {
    /// The segments that must be known before an addition can be judged.
    pub(super) fn unknown(&self, append: &Append, known: &Known) -> HashSet<Op> {
        if append.replace || append.attempt != self.attempt {
            return HashSet::new();
        }
        let mut segments = HashSet::new();
        let mut look = |view: &View| {
            if !known.contains_key(&view.segment) {
                segments.insert(view.segment);
            }
        };
        for view in &self.views {
            let is_there = |chunk: &Chunk| view.shows(chunk.seq) && !view.is_dense();
            let is_cut = append
                .trim
                .is_some_and(|(first, last)| view.meets(first, last) && !(first <= view.first && view.last <= last));
            if is_cut || append.chunks.iter().any(is_there) {
                look(view);
            }
        }
        segments
    }

    /// Adds to the output. What [`Head::unknown`] named must be in `known`.
    pub(super) fn apply(&mut self, append: &Append, now: Timestamp, known: &Known) {
        if append.attempt < self.attempt {
            return;
        }
        if append.replace || append.attempt > self.attempt {
            *self = Self { version: self.version, attempt: append.attempt, ..Self::default() };
        }
        for chunk in &append.chunks {
            if !self.has(chunk.seq, known) {
                self.bytes += chunk.bytes.len() as u64;
                self.newest.insert(chunk.seq, Piece { chunk: chunk.clone(), at: append.at.unwrap_or(now) });
            }
        }
        if let Some((first, last)) = append.trim
            && first <= last
        {
            self.trim(first, last, known);
            self.trimmed = self.trimmed.max(last.saturating_add(1).min(Chunk::MAX_SEQ));
        }
        self.dropped = self.dropped.saturating_add(append.dropped);
    }

    fn has(&self, seq: u64, known: &Known) -> bool {
        let in_segment = |view: &View| {
            view.shows(seq)
                && (view.is_dense()
                    || known.get(&view.segment).is_some_and(|shapes| shapes.iter().any(|shape| shape.seq == seq)))
        };
        self.newest.contains_key(&seq) || self.views.iter().any(in_segment)
    }

    fn trim(&mut self, first: u64, last: u64, known: &Known) {
        let trimmed: Vec<u64> = self.newest.range(first..=last).map(|(seq, _)| *seq).collect();
        for seq in trimmed {
            self.bytes -= self.newest.remove(&seq).map_or(0, |piece| piece.chunk.bytes.len() as u64);
        }
        let mut left = Vec::with_capacity(self.views.len() + 1);
        for view in self.views.drain(..) {
            if !view.meets(first, last) {
                left.push(view);
                continue;
            }
            self.bytes -= view.bytes;
            // What remains on either side, of a segment that was looked up because it is cut.
            let shapes = known.get(&view.segment).map(Vec::as_slice).unwrap_or_default();
            let shown = || shapes.iter().copied().filter(|shape| view.shows(shape.seq));
            let before = View::of(view.segment, shown().filter(|shape| shape.seq < first));
            let behind = View::of(view.segment, shown().filter(|shape| shape.seq > last));
            for view in [before, behind].into_iter().flatten() {
                self.bytes += view.bytes;
                left.push(view);
            }
        }
        self.views = left;
    }

    /// One more than the highest number that is kept.
    pub(super) fn next(&self) -> u64 {
        let newest = self.newest.last_key_value().map(|(seq, _)| *seq);
        let highest = self.views.iter().map(|view| view.last).chain(newest).max();
        highest.map_or(0, |seq| seq.saturating_add(1))
    }

    /// Makes segments of what the head keeps, if that is too much for it.
    pub(super) fn roll(&mut self, name: impl FnMut() -> Op) -> Vec<NewSegment> {
        self.roll_beyond(KEPT, SEGMENT, name)
    }

    fn roll_beyond(&mut self, most: usize, segment_size: usize, mut name: impl FnMut() -> Op) -> Vec<NewSegment> {
        let kept: usize = self.newest.values().map(|piece| piece.chunk.bytes.len() + PIECE_COST).sum();
        if kept <= most {
            return Vec::new();
        }
        let mut segments: Vec<NewSegment> = Vec::new();
        let mut size = usize::MAX;
        for piece in std::mem::take(&mut self.newest).into_values() {
            let len = piece.chunk.bytes.len() + PIECE_COST;
            match segments.last_mut() {
                Some(segment) if size + len <= segment_size => segment.pieces.push(piece),
                _ => {
                    segments.push(NewSegment { id: name(), pieces: vec![piece] });
                    size = 0;
                }
            }
            size += len;
        }
        let views = segments.iter().filter_map(|new| View::of(new.id, new.pieces.iter().map(Piece::shape)));
        self.views.extend(views);
        segments
    }

    /// The fields as they are now, by this operation; from `before`, only what has changed of the long ones.
    pub(super) fn update(&self, before: &Self, op: Op) -> RawDocumentBuf {
        let mut set = self.counts(op);
        let mut update = RawDocumentBuf::new();
        let is_more = before.newest.iter().all(|(seq, piece)| {
            self.newest
                .get(seq)
                .is_some_and(|now| now.at == piece.at && now.chunk.bytes.len() == piece.chunk.bytes.len())
        });
        if is_more {
            let new = self.newest.iter().filter(|(seq, _)| !before.newest.contains_key(*seq));
            let new: RawArrayBuf = new.map(|(_, piece)| piece.document()).collect();
            if !new.is_empty() {
                update.append(cstr!("$push"), rawdoc! { "newest": { "$each": new } });
            }
        } else {
            set.append(cstr!("newest"), self.newest_array());
        }
        if self.views != before.views {
            set.append(cstr!("segments"), self.views_array());
        }
        update.append(cstr!("$set"), set);
        update
    }

    /// The fields that are always written.
    fn counts(&self, op: Op) -> RawDocumentBuf {
        rawdoc! {
            "version": self.version.map_or(0, |version| version + 1),
            "op": binary(op),
            "attempt": i64::from(self.attempt),
            "next": signed(self.next()),
            "bytes": signed(self.bytes),
            "dropped": signed(self.dropped),
            "trimmed": signed(self.trimmed),
        }
    }

    /// The document of a head that is new.
    pub(super) fn document(&self, id: &[u8; 16], op: Op) -> RawDocumentBuf {
        let mut document = self.counts(op);
        document.append(cstr!("_id"), binary(*id));
        document.append(cstr!("newest"), self.newest_array());
        document.append(cstr!("segments"), self.views_array());
        document
    }

    fn newest_array(&self) -> RawArrayBuf {
        self.newest.values().map(Piece::document).collect()
    }

    fn views_array(&self) -> RawArrayBuf {
        let view = |view: &View| {
            rawdoc! {
                "id": binary(view.segment),
                "first": signed(view.first),
                "last": signed(view.last),
                "count": signed(view.count),
                "bytes": signed(view.bytes),
                "at": date(view.at),
            }
        };
        self.views.iter().map(view).collect()
    }

    pub(super) fn read(document: &RawDocument) -> Result<Self, Error> {
        let wrong = |error: mongodb::bson::error::Error| Error::row("a job's output", error);
        let number = |field: &str| unsigned(document.get_i64(field).map_err(wrong)?);
        let attempt = u32::try_from(number("attempt")?).map_err(|error| Error::row("attempt", error))?;
        let mut head = Self {
            version: Some(document.get_i64("version").map_err(wrong)?),
            attempt,
            bytes: number("bytes")?,
            dropped: number("dropped")?,
            trimmed: number("trimmed")?,
            ..Self::default()
        };
        let part = || Error::row("a job's output", "a part of it is no document");
        for piece in document.get_array("newest").map_err(wrong)? {
            let piece = Piece::read(piece.map_err(wrong)?.as_document().ok_or_else(part)?)?;
            head.newest.insert(piece.chunk.seq, piece);
        }
        for view in document.get_array("segments").map_err(wrong)? {
            let view = view.map_err(wrong)?;
            let view = view.as_document().ok_or_else(part)?;
            let number = |field: &str| unsigned(view.get_i64(field).map_err(wrong)?);
            let segment = view.get_binary("id").map_err(wrong)?.bytes;
            head.views.push(View {
                segment: segment.try_into().map_err(|error| Error::row("a segment's id", error))?,
                first: number("first")?,
                last: number("last")?,
                count: number("count")?,
                bytes: number("bytes")?,
                at: timestamp(view.get_datetime("at").map_err(wrong)?),
            });
        }
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use cmdexec_core::executor::Stream;
    use cmdexec_core::id::JobId;
    use proptest::prelude::*;

    use super::*;

    fn append() -> impl Strategy<Value = Append> {
        let chunk = (0..40_u64, 0..9_usize).prop_map(|(seq, len)| Chunk {
            seq,
            stream: Stream::Stdout,
            bytes: vec![b'x'; len].into(),
        });
        let trim = prop::option::weighted(0.3, (0..40_u64, 0..20_u64).prop_map(|(first, more)| (first, first + more)));
        (prop::collection::vec(chunk, 0..6), trim, prop::bool::weighted(0.05), 1..3_u32).prop_map(
            |(chunks, trim, replace, attempt)| Append {
                job: JobId::from_bytes([0; 16]),
                attempt,
                replace,
                chunks,
                trim,
                dropped: 1,
                at: None,
            },
        )
    }

    /// What is to be seen of everything that was ever written.
    fn visible(head: &Head, written: &Known) -> BTreeMap<u64, u64> {
        let newest = head.newest.values().map(Piece::shape);
        let in_view = |view: &View| {
            let view = *view;
            written[&view.segment].iter().copied().filter(move |shape| view.shows(shape.seq)).collect::<Vec<_>>()
        };
        let all: Vec<Shape> = head.views.iter().flat_map(in_view).chain(newest).collect();
        let by_seq: BTreeMap<u64, u64> = all.iter().map(|shape| (shape.seq, shape.len)).collect();
        assert_eq!(by_seq.len(), all.len(), "a number is to be seen twice");
        by_seq
    }

    proptest! {
        /// However pieces come, are trimmed, and come again: what is to be seen is what a plain map would have.
        #[test]
        fn a_head_with_segments_is_a_map(appends in prop::collection::vec(append(), 1..40)) {
            let mut head = Head::default();
            let mut written = Known::new();
            let mut attempt = 0;
            let mut model: BTreeMap<u64, u64> = BTreeMap::new();
            for append in appends {
                if append.attempt >= attempt {
                    if append.replace || append.attempt > attempt {
                        model.clear();
                        attempt = append.attempt;
                    }
                    for chunk in &append.chunks {
                        model.entry(chunk.seq).or_insert(chunk.bytes.len() as u64);
                    }
                    if let Some((first, last)) = append.trim {
                        model.retain(|seq, _| !(first..=last).contains(seq));
                    }
                }
                // Only what it asks for is looked up.
                let asked = head.unknown(&append, &Known::new());
                let known: Known = written.iter().filter(|(id, _)| asked.contains(*id)).map(|(id, s)| (*id, s.clone())).collect();
                head.apply(&append, Timestamp::from_millis(0), &known);
                let count = u8::try_from(written.len()).unwrap();
                let mut ids = (count..).map(|n| [n; 16]);
                for new in head.roll_beyond(5 * PIECE_COST, 3 * PIECE_COST, || ids.next().unwrap()) {
                    written.insert(new.id, new.pieces.iter().map(Piece::shape).collect());
                }
                prop_assert_eq!(&visible(&head, &written), &model);
                prop_assert_eq!(head.bytes, model.values().sum::<u64>());
                prop_assert_eq!(head.next(), model.last_key_value().map_or(0, |(seq, _)| seq + 1));
                let counted: u64 = head.views.iter().map(|view| view.count).sum();
                prop_assert_eq!(counted + head.newest.len() as u64, model.len() as u64);
                head.version = Some(head.version.map_or(0, |version| version + 1));
                // As it is kept, it is read again.
                let document = head.document(&[0; 16], [0; 16]);
                let read = Head::read(&document).unwrap();
                prop_assert_eq!((read.views, read.newest, read.bytes), (head.views.clone(), head.newest.clone(), head.bytes));
            }
        }
    }
}
