//! What follows a place in a job's output, out of the store.

use crate::Error;
use crate::coordinator::Shared;
use crate::coordinator::output::REPLACED;
use crate::id::JobId;
use crate::job::Job;
use crate::service::{Cursor, OutputEvent};

/// How much is read at once.
const READ: usize = 64 << 10;

/// How much of an output's index is read at once.
const INDEX: usize = 4_096;

/// A place in a job's output that moves on as it is read.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) cursor: Cursor,
}

impl Reader {
    /// What follows in the job's current or last attempt, of both streams: [`READ`] bytes, or one piece; nothing if there
    /// is nothing yet. Cancellation safe: what was not given is given by the next call.
    pub(super) async fn read(&mut self, shared: &Shared, job: &Job) -> Result<Vec<OutputEvent>, Error> {
        loop {
            let mut events = Vec::new();
            let mut at = self.cursor;
            let attempt = job.life.last_lease().map_or(0, |lease| lease.attempt);
            if attempt != at.attempt {
                let had_begun = at.attempt != 0;
                at = Cursor { attempt, ..Cursor::default() };
                if had_begun {
                    events.push(OutputEvent::Reset { cursor: at });
                }
            }
            let is_current = self.fill(shared, job, &mut at, &mut events).await?;
            // What was found trimmed in between is read anew, unless something can be given first.
            if is_current || !events.is_empty() {
                self.cursor = at;
                return Ok(events);
            }
        }
    }

    /// Reads a page; false if it was overtaken by a trim.
    async fn fill(
        &self,
        shared: &Shared,
        job: &Job,
        at: &mut Cursor,
        events: &mut Vec<OutputEvent>,
    ) -> Result<bool, Error> {
        // Asked before and after: a gap may open or close while the store is read. For a job that has ended nothing is waited
        // for: what this coordinator misses, another has taken.
        let (attempt, is_over) = (at.attempt, job.status().is_finished());
        if shared.outputs.gap(job.id, attempt).is_some_and(|gap| gap < at.next) {
            shared.outputs.fill_gap(job.id, attempt, at.next).await;
        }
        let gap = || if is_over { None } else { shared.outputs.gap(job.id, attempt) };
        let before = gap();
        let chunks = shared.store.read_output(job.id, attempt, at.next, READ).await?;
        let gap = before.into_iter().chain(gap()).min();
        if chunks.is_empty() && is_over {
            let extent = shared.store.output_extent(job.id, at.attempt).await?;
            let written = extent.bytes + extent.dropped;
            // The very last piece was too much.
            if at.next < extent.trimmed && at.bytes < written {
                let bytes = written - at.bytes;
                *at = Cursor { next: extent.trimmed, bytes: written, ..*at };
                events.push(OutputEvent::Gap { cursor: *at, bytes });
            }
        }
        for chunk in chunks {
            // What has not come yet is waited for, so that the order is the one in which it was written.
            if gap.is_some_and(|gap| chunk.seq > gap) {
                break;
            }
            if chunk.seq >= REPLACED && at.next < REPLACED {
                let was_given = at.next > 0;
                *at = Cursor { next: REPLACED, bytes: 0, ..*at };
                if was_given {
                    events.push(OutputEvent::Reset { cursor: *at });
                }
            }
            if chunk.seq > at.next {
                let Some(written) = written_before(shared, job.id, at.attempt, chunk.seq).await? else {
                    return Ok(false);
                };
                let bytes = written.saturating_sub(at.bytes);
                at.next = chunk.seq;
                // What never came without having been counted is nothing that can be told.
                if bytes > 0 {
                    at.bytes = written;
                    events.push(OutputEvent::Gap { cursor: *at, bytes });
                }
            }
            at.next = chunk.seq + 1;
            at.bytes += chunk.bytes.len() as u64;
            events.push(OutputEvent::Chunk { cursor: *at, stream: chunk.stream, bytes: chunk.bytes });
        }
        Ok(true)
    }
}

/// How many bytes an attempt wrote before a piece that is kept; `None` if it is not kept any more.
pub(super) async fn written_before(shared: &Shared, job: JobId, attempt: u32, seq: u64) -> Result<Option<u64>, Error> {
    let mut extent = shared.store.output_extent(job, attempt).await?;
    loop {
        let (mut from, mut behind) = (seq, 0);
        loop {
            let page = shared.store.output_index(job, attempt, from, INDEX).await?;
            if from == seq && page.first().is_none_or(|(first, _)| *first != seq) {
                return Ok(None);
            }
            behind += page.iter().map(|(_, len)| len).sum::<u64>();
            match page.last() {
                Some((last, _)) if page.len() == INDEX => from = last + 1,
                _ => break,
            }
        }
        // The parts were read one after the other: they hold together if nothing has changed in between. A job that
        // writes all the time does not change it all the time.
        let now = shared.store.output_extent(job, attempt).await?;
        if now == extent {
            let dropped = if seq >= extent.trimmed { extent.dropped } else { 0 };
            return Ok(Some((extent.bytes + dropped).saturating_sub(behind)));
        }
        extent = now;
    }
}
