//! What attempts wrote. Of each job only the newest attempt's is kept.

use std::collections::{BTreeMap, HashMap};

use bytes::{Bytes, BytesMut};

use crate::executor::Stream;
use crate::id::JobId;
use crate::store::{Append, Chunk, Extent};
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Outputs(HashMap<JobId, Output>);

#[derive(Debug, Default)]
struct Output {
    attempt: u32,
    /// Each with when it was added.
    chunks: BTreeMap<u64, (Chunk, Timestamp)>,
    bytes: u64,
    dropped: u64,
    trimmed: u64,
}

impl Outputs {
    pub(super) fn append(&mut self, append: Append, now: Timestamp) {
        let at = append.at.unwrap_or(now);
        let output = self.0.entry(append.job).or_default();
        if append.attempt < output.attempt {
            return;
        }
        if append.replace || append.attempt > output.attempt {
            *output = Output { attempt: append.attempt, ..Output::default() };
        }
        for chunk in append.chunks {
            let bytes = chunk.bytes.len() as u64;
            if let std::collections::btree_map::Entry::Vacant(free) = output.chunks.entry(chunk.seq) {
                free.insert((chunk, at));
                output.bytes += bytes;
            }
        }
        if let Some((first, last)) = append.trim
            && first <= last
        {
            let trimmed: Vec<u64> = output.chunks.range(first..=last).map(|(seq, _)| *seq).collect();
            for seq in trimmed {
                output.bytes -= output.chunks.remove(&seq).map_or(0, |(chunk, _)| chunk.bytes.len() as u64);
            }
            output.trimmed = output.trimmed.max(last.saturating_add(1).min(Chunk::MAX_SEQ));
        }
        output.dropped = output.dropped.saturating_add(append.dropped);
    }

    fn of(&self, job: JobId, attempt: u32) -> Option<&Output> {
        self.0.get(&job).filter(|output| output.attempt == attempt)
    }

    pub(super) fn read(&self, job: JobId, attempt: u32, from: u64, max_bytes: usize) -> Vec<Chunk> {
        let mut page = Vec::new();
        let mut room = max_bytes;
        for (chunk, _) in
            self.of(job, attempt).into_iter().flat_map(|output| output.chunks.range(from..)).map(|(_, c)| c)
        {
            if chunk.bytes.len() > room && !page.is_empty() {
                break;
            }
            room = room.saturating_sub(chunk.bytes.len());
            page.push(chunk.clone());
        }
        page
    }

    pub(super) fn tail(&self, job: JobId, attempt: u32, stream: Stream, max_bytes: usize) -> Bytes {
        let Some(output) = self.of(job, attempt) else { return Bytes::new() };
        let mut pieces = Vec::new();
        let mut room = max_bytes;
        for (chunk, _) in output.chunks.values().rev().filter(|(chunk, _)| chunk.stream == stream) {
            if room == 0 {
                break;
            }
            let cut = chunk.bytes.slice(chunk.bytes.len().saturating_sub(room)..);
            room -= cut.len();
            pieces.push(cut);
        }
        let mut tail = BytesMut::with_capacity(max_bytes - room);
        for piece in pieces.iter().rev() {
            tail.extend_from_slice(piece);
        }
        tail.freeze()
    }

    pub(super) fn extent(&self, job: JobId, attempt: u32) -> Extent {
        self.of(job, attempt).map_or_else(Extent::default, |output| Extent {
            next: output.chunks.last_key_value().map_or(0, |(seq, _)| seq.saturating_add(1)),
            bytes: output.bytes,
            dropped: output.dropped,
            trimmed: output.trimmed,
        })
    }

    pub(super) fn index(&self, job: JobId, attempt: u32, from: u64, limit: usize) -> Vec<(u64, u64)> {
        let chunks = self.of(job, attempt).into_iter().flat_map(|output| output.chunks.range(from..));
        chunks.map(|(seq, (chunk, _))| (*seq, chunk.bytes.len() as u64)).take(limit).collect()
    }

    pub(super) fn since(&self, job: JobId, attempt: u32, time: Timestamp) -> Option<u64> {
        let chunks = &self.of(job, attempt)?.chunks;
        chunks.iter().find(|(_, (_, added))| *added >= time).map(|(seq, _)| *seq)
    }

    pub(super) fn times(&self, job: JobId, attempt: u32, from: u64, limit: usize) -> Vec<(u64, Timestamp)> {
        let chunks = self.of(job, attempt).into_iter().flat_map(|output| output.chunks.range(from..));
        chunks.map(|(seq, (_, added))| (*seq, *added)).take(limit).collect()
    }

    pub(super) fn remove(&mut self, job: JobId) {
        self.0.remove(&job);
    }
}
