//! Output in as few requests as its size allows, its bytes as they are.

use bytes::{Bytes, BytesMut};
use cmdexec_core::id::WorkerId;
use cmdexec_core::service::{OutputBatch, OutputPieces};
use cmdexec_core::store::Chunk;

use crate as wire;
use crate::body;

/// More than a chunk or a batch takes in the document, and more than the rest of it does.
const COST: usize = 160;
const REST: usize = 1024;

/// The bodies of requests with numbered pieces of output, in their order, each with which batches are in it: a batch may be in
/// several. Each body is within `most` bytes and `most_items` batches, but for a piece that is larger alone: the server says so
/// then.
pub(crate) fn packed(
    worker: &WorkerId,
    batches: &[OutputBatch],
    most: usize,
    most_items: usize,
) -> Vec<(Bytes, Vec<usize>)> {
    let mut bodies = Vec::new();
    let mut open = Open::default();
    for (item, batch) in batches.iter().enumerate() {
        let OutputPieces::Numbered(chunks) = &batch.pieces else { continue };
        if open.items.len() == most_items {
            bodies.push(std::mem::take(&mut open).close(worker));
        }
        // A batch without pieces just asks.
        open.begin(item, batch);
        for chunk in chunks {
            if REST + open.size + COST + chunk.bytes.len() > most && !open.chunks.is_empty() {
                bodies.push(std::mem::take(&mut open).close(worker));
                open.begin(item, batch);
            }
            open.add(chunk);
        }
    }
    bodies.push(open.close(worker));
    bodies
}

/// A body that grows.
#[derive(Default)]
struct Open<'a> {
    batches: Vec<wire::PackedBatch>,
    items: Vec<usize>,
    chunks: Vec<&'a Bytes>,
    size: usize,
}

impl<'a> Open<'a> {
    fn begin(&mut self, item: usize, batch: &OutputBatch) {
        let lease_token = batch.token.map(|token| token.reveal());
        self.batches.push(wire::PackedBatch { job_id: batch.job.as_uuid(), lease_token, chunks: Vec::new() });
        self.items.push(item);
        self.size += COST;
    }

    fn add(&mut self, chunk: &'a Chunk) {
        let Some(batch) = self.batches.last_mut() else { return };
        batch.chunks.push(wire::PackedChunk { seq: chunk.seq, stream: chunk.stream, length: chunk.bytes.len() });
        self.chunks.push(&chunk.bytes);
        self.size += COST + chunk.bytes.len();
    }

    fn close(self, worker: &WorkerId) -> (Bytes, Vec<usize>) {
        let document = body(&wire::Packed { worker_id: Some(worker.to_string()), batches: self.batches });
        let bytes: usize = self.chunks.iter().map(|bytes| bytes.len()).sum();
        let mut all = BytesMut::with_capacity(4 + document.len() + bytes);
        // A document is far smaller than 4 GiB: there is a bound on the whole.
        all.extend_from_slice(&u32::try_from(document.len()).unwrap_or(u32::MAX).to_be_bytes());
        all.extend_from_slice(&document);
        self.chunks.into_iter().for_each(|bytes| all.extend_from_slice(bytes));
        (all.freeze(), self.items)
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use cmdexec_core::executor::Stream;
    use cmdexec_core::id::JobId;

    use super::*;
    use crate::read;

    fn batch(job: u8, lens: &[usize]) -> OutputBatch {
        let chunk = |(seq, len): (u64, &usize)| Chunk {
            seq,
            stream: if seq % 2 == 0 { Stream::Stdout } else { Stream::Stderr },
            bytes: vec![job; *len].into(),
        };
        let pieces = OutputPieces::Numbered((0..).zip(lens).map(chunk).collect());
        OutputBatch { job: JobId::from_bytes([job; 16]), token: None, pieces }
    }

    #[test]
    fn bodies_are_within_the_bounds_and_read_back_as_what_was_packed() {
        let batches = [batch(1, &[3_000, 0, 5_000]), batch(2, &[]), batch(3, &[1; 20]), batch(4, &[20_000])];
        let mut chunks = vec![Vec::new(); batches.len()];
        let bodies = packed(&"w".parse().unwrap(), &batches, 8_000, 3);
        assert!(bodies.len() > 3);
        for (body, items) in bodies {
            assert!(items.len() <= 3, "{items:?}");
            let output = read::packed(&body).unwrap().unwrap();
            assert_eq!(output.worker, Some("w".parse().unwrap()));
            assert_eq!(output.batches.len(), items.len());
            let mut sizes = Vec::new();
            for (read, item) in output.batches.into_iter().zip(items) {
                assert_eq!(read.job, batches[item].job);
                let OutputPieces::Numbered(read) = read.pieces else { panic!("not numbered") };
                sizes.extend(read.iter().map(|chunk| chunk.bytes.len()));
                chunks[item].extend(read);
            }
            assert!(body.len() <= 8_000 || sizes == [20_000], "{sizes:?}");
        }
        for (chunks, batch) in chunks.into_iter().zip(batches) {
            assert_eq!(OutputPieces::Numbered(chunks), batch.pieces);
        }
    }
}
