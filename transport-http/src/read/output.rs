//! Output that a worker sends.

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::executor::{OutputChunk, Stream};
use cmdexec_core::id::WorkerId;
use cmdexec_core::service::{OutputBatch, OutputPieces};
use cmdexec_core::store::Chunk;

use super::{Fields, Json, Malformed, Problems};
use crate::older;
use crate::wire;

/// How many attempts one request may bring output of.
const MAX_BATCHES: usize = 10_000;

/// Output and whose it is, if it says so.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) worker: Option<WorkerId>,
    pub(crate) batches: Vec<OutputBatch>,
    /// Whether it came as `batches`, and is to be answered so.
    pub(crate) many: bool,
}

/// The output of one attempt, or `batches` of several.
pub(crate) fn output(body: &[u8]) -> Result<Result<Output, Error>, Malformed> {
    let mut problems = Problems::default();
    let mut batches = Vec::new();
    let rest = Json::parse_items(body, "batches", &mut |i, item| {
        if i < MAX_BATCHES {
            batches.extend(batch(&mut Fields::of_item(item, "batches", i, &mut problems)));
        }
    })?;
    let mut fields = Fields::of_body(rest, &mut problems);
    let worker = fields.parsed::<WorkerId>("workerId");
    let many = match fields.take("batches").map(|value| value.json) {
        None => false,
        Some(Json::Items(0..=MAX_BATCHES)) => true,
        Some(Json::Items(_)) => {
            fields.wrong("batches", format!("must be at most {MAX_BATCHES}"));
            true
        }
        Some(other) => {
            fields.wrong("batches", format!("must be a list, not {}", other.kind()));
            true
        }
    };
    if !many {
        batches.extend(batch(&mut fields));
    }
    Ok(problems.check(Some(Output { worker, batches, many })))
}

fn batch(fields: &mut Fields<'_, '_>) -> Option<OutputBatch> {
    older::output(fields);
    fields.require("jobId");
    let job = fields.parsed("jobId");
    let token = fields.parsed("leaseToken");
    let pieces = match fields.list("chunks") {
        Some(items) => numbered(fields, items).map(OutputPieces::Numbered),
        None => piece(fields).map(|piece| {
            // An empty piece, like no piece, just asks.
            OutputPieces::Plain(piece.into_iter().filter(|chunk| !chunk.bytes.is_empty()).collect())
        }),
    };
    Some(OutputBatch { job: job?, token, pieces: pieces? })
}

/// Numbered pieces. Every one has its number, or none: without, they are in the order in which they stand there.
pub(super) fn numbered<'a>(fields: &mut Fields<'a, '_>, items: Vec<Json<'a>>) -> Option<Vec<Chunk>> {
    let mut chunks = Vec::with_capacity(items.len());
    let count = items.len();
    for (i, item) in items.into_iter().enumerate() {
        let mut fields = fields.item(item, "chunks", i);
        fields.require("seq");
        let seq = fields.whole("seq", 0..=i128::from(i64::MAX));
        if let (Some(seq), Some(Some(OutputChunk { stream, bytes }))) = (seq, piece(&mut fields)) {
            chunks.push(Chunk { seq, stream, bytes });
        }
    }
    (chunks.len() == count).then_some(chunks)
}

/// `stream` and `data` or `dataBase64`; `Some(None)` if there is no data, `None` if something is wrong.
fn piece(fields: &mut Fields<'_, '_>) -> Option<Option<OutputChunk>> {
    let stream = match fields.text("stream").as_deref() {
        Some("stdout") | None => Some(Stream::Stdout),
        Some("stderr") => Some(Stream::Stderr),
        Some(_) => {
            fields.wrong("stream", "must be stdout or stderr");
            None
        }
    };
    let data = data(fields, "data", "dataBase64")?;
    let stream = stream?;
    Some(data.map(|bytes| OutputChunk { stream, bytes }))
}

/// Bytes in one of two fields; `Some(None)` if neither is there, `None` if something is wrong.
pub(super) fn data(fields: &mut Fields<'_, '_>, text: &str, base64: &str) -> Option<Option<Bytes>> {
    if fields.has(text) && fields.has(base64) {
        fields.wrong(base64, format!("is one too many beside {text}"));
        return None;
    }
    if fields.has(text) {
        return fields.text(text).map(|text| Some(Bytes::from(text)));
    }
    if !fields.has(base64) {
        return Some(None);
    }
    let encoded = fields.text(base64)?;
    let bytes = wire::decode(&encoded);
    if bytes.is_none() {
        fields.wrong(base64, "must be base64");
    }
    bytes.map(Some)
}
