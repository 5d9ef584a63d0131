//! Where to begin to read: at a time, or so many lines before the end.

use std::collections::VecDeque;

use super::reader::written_before;
use crate::Error;
use crate::coordinator::Shared;
use crate::coordinator::output::REPLACED;
use crate::id::JobId;
use crate::service::{Cursor, OutputQuery};

/// How much is read at once.
const READ: usize = 256 << 10;

/// How many pieces from the end the lines are looked for at first; then more and more.
const FIRST_SPAN: u64 = 16;

/// A place within a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) cursor: Cursor,
    /// How many bytes of the piece at the cursor to leave out.
    pub(super) skip: usize,
}

/// Where a reader begins that brings no cursor.
pub(super) async fn start(shared: &Shared, job: JobId, attempt: u32, query: &OutputQuery) -> Result<Start, Error> {
    let beginning = Start { cursor: Cursor { attempt, ..Cursor::default() }, skip: 0 };
    if query.since.is_none() && query.tail.is_none() {
        return Ok(beginning);
    }
    loop {
        let extent = shared.store.output_extent(job, attempt).await?;
        let end = extent.next.max(extent.trimmed);
        let mut first = if extent.next > REPLACED { REPLACED } else { 0 };
        let mut skip = 0;
        if let Some(time) = query.since {
            first = shared.store.output_since(job, attempt, time).await?.unwrap_or(end);
        }
        if let Some(lines) = query.tail {
            (first, skip) = last_lines(shared, job, attempt, query, first..end, lines).await?;
        }
        // The whole: with a gap that stands at its beginning, if there is one.
        if first == 0 {
            return Ok(Start { skip, ..beginning });
        }
        if first >= end {
            let bytes = extent.bytes + extent.dropped;
            return Ok(Start { cursor: Cursor { attempt, next: end, bytes }, skip: 0 });
        }
        // The piece may have been trimmed in between; then it is looked for again.
        if let Some(bytes) = written_before(shared, job, attempt, first).await? {
            return Ok(Start { cursor: Cursor { attempt, next: first, bytes }, skip });
        }
    }
}

/// The piece, and the place in it, at which the last so many lines begin.
async fn last_lines(
    shared: &Shared,
    job: JobId,
    attempt: u32,
    query: &OutputQuery,
    pieces: std::ops::Range<u64>,
    lines: usize,
) -> Result<(u64, usize), Error> {
    if lines == 0 {
        return Ok((pieces.end, 0));
    }
    let mut span = FIRST_SPAN;
    loop {
        let first = pieces.end.saturating_sub(span).max(pieces.start);
        let mut starts = Starts::new(lines);
        let mut from = first;
        loop {
            let page = shared.store.read_output(job, attempt, from, READ).await?;
            let Some(last) = page.last() else { break };
            from = last.seq + 1;
            for chunk in page.iter().filter(|chunk| query.stream.is_none_or(|stream| stream == chunk.stream)) {
                starts.read(chunk.seq, &chunk.bytes);
            }
        }
        match starts.found(first == pieces.start) {
            Some(place) => return Ok(place),
            None if first == pieces.start => return Ok((pieces.end, 0)),
            None => span = span.saturating_mul(8),
        }
    }
}

/// The beginnings of the last lines of what is read.
#[derive(Debug)]
struct Starts {
    most: usize,
    /// Oldest first. Only of lines of which something was read.
    starts: VecDeque<(u64, usize)>,
    /// Where the next line begins, if something follows.
    next: Option<(u64, usize)>,
    /// Where the very first piece is, which may begin in the middle of a line.
    first: Option<u64>,
}

impl Starts {
    fn new(most: usize) -> Self {
        Self { most, starts: VecDeque::new(), next: None, first: None }
    }

    fn read(&mut self, seq: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.first.get_or_insert(seq);
        // The end of the last piece was the end of a line: this one begins the next.
        if self.next.take().is_some() {
            self.push((seq, 0));
        }
        for at in memchr(bytes) {
            if at + 1 == bytes.len() {
                self.next = Some((seq, at + 1));
            } else {
                self.push((seq, at + 1));
            }
        }
    }

    fn push(&mut self, start: (u64, usize)) {
        // One more than is asked for tells that there are as many.
        if self.starts.len() > self.most {
            self.starts.pop_front();
        }
        self.starts.push_back(start);
    }

    /// Where the last lines begin, if it is known: what was read must be the whole, or more than they.
    fn found(mut self, is_whole: bool) -> Option<(u64, usize)> {
        if is_whole && self.starts.len() < self.most {
            self.starts.push_front((self.first?, 0));
        }
        let at = self.starts.len().checked_sub(self.most);
        match at {
            Some(at) => self.starts.get(at).copied(),
            None if is_whole => self.starts.front().copied(),
            None => None,
        }
    }
}

/// Where the line ends are.
fn memchr(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(pieces: &[&[u8]], most: usize) -> Option<(u64, usize)> {
        let mut starts = Starts::new(most);
        (0..).zip(pieces).for_each(|(seq, bytes)| starts.read(seq, bytes));
        starts.found(true)
    }

    #[test]
    fn a_partial_line_at_the_end_is_a_line() {
        assert_eq!(found(&[b"a\nb\nc"], 1), Some((0, 4)));
        assert_eq!(found(&[b"a\nb\nc\n"], 1), Some((0, 4)));
        assert_eq!(found(&[b"a\nb", b"b\nc"], 2), Some((0, 2)));
        assert_eq!(found(&[b"a\n", b"b\n"], 1), Some((1, 0)));
        assert_eq!(found(&[b"a\n", b"b\n"], 9), Some((0, 0)));
        assert_eq!(found(&[], 9), None);
    }

    proptest! {
        #[test]
        fn the_last_lines_are_those_of_the_text(text in "[a\n]{0,30}", cuts in prop::collection::vec(1_usize..5, 30), most in 1_usize..6) {
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            let expected = lines[lines.len().saturating_sub(most)..].concat();
            let given = found(&pieces, most).map_or(Vec::new(), |(seq, skip)| {
                let from = usize::try_from(seq).unwrap();
                [&pieces[from][skip..], &pieces[from + 1..].concat()].concat()
            });
            prop_assert_eq!(String::from_utf8(given).unwrap(), expected);
        }
    }
}
