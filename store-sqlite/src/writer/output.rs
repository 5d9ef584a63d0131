//! Additions to output.

use std::collections::BTreeMap;

use cmdexec_core::store::{Append, Chunk};

use super::facts::OutputFact;
use super::plan::Plan;
use super::script::{Part, Span};
use crate::read::column;

/// What a group does to one job's output. Written in this order: clear, trim, add.
#[derive(Debug, Default)]
pub(super) struct Pending {
    clear: bool,
    trim: Vec<i64>,
    add: BTreeMap<i64, (i64, Span)>,
}

impl Plan<'_> {
    pub(super) fn append(&mut self, append: &Append) {
        let Some(job) = self.facts.jobs.get(&append.job) else { return };
        let attempt = i64::from(append.attempt);
        let pending = self.outputs.entry(job.seq).or_default();
        let output = self.facts.outputs.entry(job.seq).or_default();
        if attempt < output.attempt {
            return;
        }
        if append.replace || attempt > output.attempt {
            *output = OutputFact { attempt, ..OutputFact::default() };
            *pending = Pending { clear: true, ..Pending::default() };
        }
        for chunk in &append.chunks {
            let (n, len) = (column::signed(chunk.seq), column::length(chunk.bytes.len()));
            if output.there.contains_key(&n) {
                continue;
            }
            output.there.insert(n, len);
            output.bytes += len;
            output.seen = output.seen.max(n + 1);
            pending.add.insert(n, (column::stream_number(chunk.stream), self.script.put(&chunk.bytes)));
        }
        if let Some((first, last)) = append.trim
            && first <= last
        {
            let range = column::signed(first)..=column::signed(last);
            output.trimmed = output.trimmed.max(column::signed(last.saturating_add(1).min(Chunk::MAX_SEQ)));
            let trimmed: Vec<(i64, i64)> = output.there.range(range).map(|(n, len)| (*n, *len)).collect();
            for (n, len) in trimmed {
                output.there.remove(&n);
                output.bytes -= len;
                // What was to be added is not, and what is in the table goes. A number may be both: trimmed once, and
                // then added again.
                if pending.add.remove(&n).is_none() {
                    pending.trim.push(n);
                }
            }
        }
        output.dropped = output.dropped.saturating_add(column::signed(append.dropped));
    }

    pub(super) fn write_outputs(&mut self) {
        let now = Some(self.now.as_millis());
        for (job, pending) in std::mem::take(&mut self.outputs) {
            let Some(output) = self.facts.outputs.get(&job) else { continue };
            if pending.clear {
                self.script.row(Part::ClearOutput, &[Some(job)]);
            }
            for n in pending.trim {
                self.script.row(Part::Trim, &[Some(job), Some(n)]);
            }
            for (n, (stream, bytes)) in pending.add {
                self.script.row(Part::Chunks, &[Some(job), Some(n), Some(stream), bytes.at, bytes.len, now]);
            }
            let OutputFact { attempt, bytes, dropped, seen, trimmed, .. } = *output;
            let cells = [Some(job), Some(attempt), Some(bytes), Some(dropped), Some(seen), Some(trimmed)];
            self.script.row(Part::Outputs, &cells);
        }
    }
}
