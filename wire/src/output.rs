//! Output on its way from a worker, and to whoever reads it.

#[cfg(feature = "client")]
use cmdexec_core::executor::OutputChunk;
use cmdexec_core::executor::Stream;
use cmdexec_core::job::Status;
#[cfg(feature = "client")]
use cmdexec_core::service::{OutputBatch, OutputPieces};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::FieldProblem;
#[cfg(feature = "client")]
use super::encode;

/// Pieces of output, of one attempt or of several. Describes the body: clients pack it item by item.
#[cfg(feature = "openapi")]
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputBody {
    /// Who sends this; needed where the token speaks for any worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    /// The attempts and their pieces. The fields of a single one may stand here in its stead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batches: Option<Vec<Batch>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks: Option<Vec<Chunk>>,
}

/// Pieces of output of one attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    pub job_id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<Vec<Chunk>>,
    /// A piece without a number may stand here in their stead.
    #[serde(flatten)]
    pub piece: Option<Chunk>,
}

/// A piece of output: either `data` or `dataBase64`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Chunk {
    /// Its number among the attempt's pieces, across both streams, from 0. One that was seen before is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[cfg_attr(feature = "openapi", schema(value_type = StreamName))]
    pub stream: Stream,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// In its stead, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}

/// The type of a body with output whose bytes are not JSON: the length of a [`Packed`] document in 4 bytes, the highest
/// first; that document; and the bytes of its pieces, end to end in their order.
pub const PACKED: &str = "application/vnd.cmdexec.output";

/// What stands before the bytes in a body of the type [`PACKED`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Packed {
    /// Who sends this; needed where the token speaks for any worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    pub batches: Vec<PackedBatch>,
}

/// Pieces of output of one attempt, without their bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PackedBatch {
    pub job_id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_token: Option<String>,
    pub chunks: Vec<PackedChunk>,
}

/// A piece of output, without its bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PackedChunk {
    /// Its number among the attempt's pieces, across both streams, from 0. One that was seen before is ignored.
    pub seq: u64,
    #[cfg_attr(feature = "openapi", schema(value_type = StreamName))]
    pub stream: Stream,
    /// How many bytes it has.
    pub length: usize,
}

/// The answer to output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutputAck {
    pub ok: bool,
    /// The job (with `batches`: some job) is cancelled: stop it and report.
    pub cancel: bool,
    /// What became of each of `batches`, in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<Vec<BatchAck>>,
}

/// What became of one of several.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchAck {
    /// False: the attempt is over or was never this worker's, or what was sent is wrong.
    pub ok: bool,
    #[serde(default)]
    pub cancel: bool,
    /// Over a socket: the highest number among the pieces, all of which are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Why not, for programs: `lease_lost`, `invalid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What is wrong, if it is `invalid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<FieldProblem>,
}

/// The data of the events of a job's output, all in one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// `output`: which stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<StreamName>))]
    pub stream: Option<Stream>,
    /// `output`: what was written, where it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// `output`: what was written, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
    /// `gap`: how many bytes are missing here, of both streams together, because they were too much to be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// `end`: where the job stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<super::job::StatusName>))]
    pub status: Option<Status>,
}

/// One of a command's two streams.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum StreamName {
    Stdout,
    Stderr,
}

#[cfg(feature = "client")]
impl Chunk {
    /// A piece with its number.
    pub fn numbered(chunk: &cmdexec_core::store::Chunk) -> Self {
        Self { seq: Some(chunk.seq), ..Self::plain(chunk.stream, &chunk.bytes) }
    }

    fn plain(stream: Stream, bytes: &[u8]) -> Self {
        let (data, data_base64) = encode(bytes);
        Self { seq: None, stream, data, data_base64 }
    }

    /// About how long it is as JSON.
    fn size(&self) -> usize {
        let escaped = |b: u8| if b < 0x20 { 6 } else { 1 + usize::from(b == b'"' || b == b'\\') };
        let text = self.data.as_ref().map_or(0, |data| data.bytes().map(escaped).sum());
        text + self.data_base64.as_ref().map_or(0, String::len) + 80
    }
}

#[cfg(feature = "client")]
impl Batch {
    /// A batch in parts of about `most` bytes each; pieces without numbers one by one, as older workers send them.
    pub fn parts(batch: &OutputBatch, most: usize) -> Vec<Self> {
        let part = |chunks, piece| Self {
            job_id: batch.job.as_uuid(),
            lease_token: batch.token.map(|token| token.reveal()),
            chunks,
            piece,
        };
        let chunks = match &batch.pieces {
            OutputPieces::Plain(pieces) if !pieces.is_empty() => {
                let piece = |piece: &OutputChunk| part(None, Some(Chunk::plain(piece.stream, &piece.bytes)));
                return pieces.iter().map(piece).collect();
            }
            OutputPieces::Plain(_) => [].iter(),
            OutputPieces::Numbered(chunks) => chunks.iter(),
        };
        let mut parts = Vec::new();
        let (mut gathered, mut size) = (Vec::new(), 0);
        for chunk in chunks.map(Chunk::numbered) {
            let more = chunk.size();
            if size + more > most && !gathered.is_empty() {
                parts.push(part(Some(std::mem::take(&mut gathered)), None));
                size = 0;
            }
            size += more;
            gathered.push(chunk);
        }
        // A batch without pieces just asks.
        parts.push(part(Some(gathered), None));
        parts
    }
}
