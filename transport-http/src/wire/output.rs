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
#[cfg(feature = "server")]
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct OutputBody {
    /// Who sends this; needed where the token speaks for any worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) worker_id: Option<String>,
    /// The attempts and their pieces. The fields of a single one may stand here in its stead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batches: Option<Vec<Batch>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) job_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lease_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chunks: Option<Vec<Chunk>>,
}

/// Pieces of output of one attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Batch {
    pub(crate) job_id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lease_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) chunks: Option<Vec<Chunk>>,
    /// A piece without a number may stand here in their stead.
    #[serde(flatten)]
    pub(crate) piece: Option<Chunk>,
}

/// A piece of output: either `data` or `dataBase64`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Chunk {
    /// Its number among the attempt's pieces, across both streams, from 0. One that was seen before is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seq: Option<u64>,
    #[cfg_attr(feature = "server", schema(value_type = StreamName))]
    pub(crate) stream: Stream,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<String>,
    /// In its stead, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data_base64: Option<String>,
}

/// The type of a body with output whose bytes are not JSON: the length of a [`Packed`] document in 4 bytes, the highest
/// first; that document; and the bytes of its pieces, end to end in their order.
pub(crate) const PACKED: &str = "application/vnd.cmdexec.output";

/// What stands before the bytes in a body of the type [`PACKED`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Packed {
    /// Who sends this; needed where the token speaks for any worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) worker_id: Option<String>,
    pub(crate) batches: Vec<PackedBatch>,
}

/// Pieces of output of one attempt, without their bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct PackedBatch {
    pub(crate) job_id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lease_token: Option<String>,
    pub(crate) chunks: Vec<PackedChunk>,
}

/// A piece of output, without its bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub(crate) struct PackedChunk {
    /// Its number among the attempt's pieces, across both streams, from 0. One that was seen before is ignored.
    pub(crate) seq: u64,
    #[cfg_attr(feature = "server", schema(value_type = StreamName))]
    pub(crate) stream: Stream,
    /// How many bytes it has.
    pub(crate) length: usize,
}

/// The answer to output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub(crate) struct OutputAck {
    pub(crate) ok: bool,
    /// The job (with `batches`: some job) is cancelled: stop it and report.
    pub(crate) cancel: bool,
    /// What became of each of `batches`, in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batches: Option<Vec<BatchAck>>,
}

/// What became of one of several.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub(crate) struct BatchAck {
    /// False: the attempt is over or was never this worker's, or what was sent is wrong.
    pub(crate) ok: bool,
    #[serde(default)]
    pub(crate) cancel: bool,
    /// Why not, for programs: `lease_lost`, `invalid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    /// What is wrong, if it is `invalid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<FieldProblem>,
}

/// The data of the events of a job's output, all in one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Event {
    /// `output`: which stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(value_type = Option<StreamName>))]
    pub(crate) stream: Option<Stream>,
    /// `output`: what was written, where it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<String>,
    /// `output`: what was written, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data_base64: Option<String>,
    /// `gap`: how many bytes are missing here, of both streams together, because they were too much to be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    /// `end`: where the job stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(value_type = Option<super::job::StatusName>))]
    pub(crate) status: Option<Status>,
}

/// One of a command's two streams.
#[cfg(feature = "server")]
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes `Stream` in the OpenAPI document")]
pub(crate) enum StreamName {
    Stdout,
    Stderr,
}

#[cfg(feature = "client")]
impl Chunk {
    /// A piece with its number.
    pub(crate) fn numbered(chunk: &cmdexec_core::store::Chunk) -> Self {
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
    pub(crate) fn parts(batch: &OutputBatch, most: usize) -> Vec<Self> {
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
