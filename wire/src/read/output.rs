//! Output that a worker sends.

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::executor::{OutputChunk, Stream};
use cmdexec_core::id::WorkerId;
use cmdexec_core::service::{OutputBatch, OutputPieces};
use cmdexec_core::store::Chunk;

use super::{Fields, Json, Malformed, Problems};
use crate as wire;
use crate::older;

/// How many attempts one request may bring output of.
pub(super) const MAX_BATCHES: usize = 10_000;

/// Output and whose it is, if it says so.
#[derive(Debug)]
pub struct Output {
    pub worker: Option<WorkerId>,
    pub batches: Vec<OutputBatch>,
    /// Whether it came as `batches`, and is to be answered so.
    pub many: bool,
}

/// The output of one attempt, or `batches` of several.
pub fn output(body: &[u8]) -> Result<Result<Output, Error>, Malformed> {
    older::mending(body, whole_output)
}

fn whole_output(body: &[u8]) -> Result<Result<Output, Error>, Malformed> {
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
        Some(items) => OutputPieces::Numbered(numbered(fields, items)),
        // An empty piece, like no piece, just asks.
        None => OutputPieces::Plain(piece(fields).into_iter().filter(|chunk| !chunk.bytes.is_empty()).collect()),
    };
    Some(OutputBatch { job: job?, token, pieces })
}

/// Numbered pieces.
pub(super) fn numbered<'a>(fields: &mut Fields<'a, '_>, items: Vec<Json<'a>>) -> Vec<Chunk> {
    let mut chunks = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let mut fields = fields.item(item, "chunks", i);
        fields.require("seq");
        if !fields.has("dataBase64") {
            fields.require("data");
        }
        let seq = fields.whole("seq", 0..=i128::from(i64::MAX));
        let piece = piece(&mut fields);
        chunks.extend(seq.zip(piece).map(|(seq, OutputChunk { stream, bytes })| Chunk { seq, stream, bytes }));
    }
    chunks
}

/// `stream` and `data` or `dataBase64`, if there is data.
fn piece(fields: &mut Fields<'_, '_>) -> Option<OutputChunk> {
    let stream = stream(fields)?;
    data(fields, "data", "dataBase64").map(|bytes| OutputChunk { stream, bytes })
}

/// Which stream; stdout if it is not said.
pub(super) fn stream(fields: &mut Fields<'_, '_>) -> Option<Stream> {
    match fields.text("stream").as_deref() {
        Some("stdout") | None => Some(Stream::Stdout),
        Some("stderr") => Some(Stream::Stderr),
        Some(_) => {
            fields.wrong("stream", "must be stdout or stderr");
            None
        }
    }
}

/// Bytes in one of two fields, if there are any.
pub(super) fn data(fields: &mut Fields<'_, '_>, text: &str, base64: &str) -> Option<Bytes> {
    if fields.has(text) && fields.has(base64) {
        fields.wrong(base64, format!("is one too many beside {text}"));
    }
    if fields.has(text) {
        return fields.text(text).map(Bytes::from);
    }
    let bytes = wire::decode(&fields.text(base64)?);
    if bytes.is_none() {
        fields.wrong(base64, "must be base64");
    }
    bytes
}
