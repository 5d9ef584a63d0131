//! A segment: pieces that are written together and never changed. Their bytes are one value, so that the rest can be read
//! without them.

use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::JobId;
use cmdexec_core::store::Chunk;
use cmdexec_core::time::Timestamp;
use mongodb::bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};

use crate::client::{Op, binary};
use crate::error::Error;
use crate::jobs::{date, signed, timestamp};

/// A piece, and when it was added.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) chunk: Chunk,
    pub(super) at: Timestamp,
}

/// A piece without its bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shape {
    pub(super) seq: u64,
    pub(super) stream: Stream,
    pub(super) len: u64,
    pub(super) at: Timestamp,
}

impl Piece {
    pub(super) fn shape(&self) -> Shape {
        let Chunk { seq, stream, bytes } = &self.chunk;
        Shape { seq: *seq, stream: *stream, len: bytes.len() as u64, at: self.at }
    }

    /// As the head keeps it.
    pub(super) fn document(&self) -> RawDocumentBuf {
        rawdoc! {
            "n": signed(self.chunk.seq),
            "s": stream_number(self.chunk.stream),
            "at": date(self.at),
            "b": binary(&self.chunk.bytes[..]),
        }
    }

    pub(super) fn read(document: &RawDocument) -> Result<Self, Error> {
        let wrong = |error: mongodb::bson::error::Error| Error::row("a piece of output", error);
        let chunk = Chunk {
            seq: unsigned(document.get_i64("n").map_err(wrong)?)?,
            stream: stream(document.get_i32("s").map_err(wrong)?)?,
            bytes: Bytes::copy_from_slice(document.get_binary("b").map_err(wrong)?.bytes),
        };
        Ok(Self { chunk, at: timestamp(document.get_datetime("at").map_err(wrong)?) })
    }
}

/// The document of a segment. The pieces are in order.
pub(super) fn document(id: Op, job: JobId, pieces: &[Piece]) -> RawDocumentBuf {
    let (mut n, mut s, mut len, mut at) = (array(), array(), array(), array());
    let mut bytes = Vec::with_capacity(pieces.iter().map(|piece| piece.chunk.bytes.len()).sum());
    for Piece { chunk, at: added } in pieces {
        n.push(signed(chunk.seq));
        s.push(stream_number(chunk.stream));
        len.push(signed(chunk.bytes.len() as u64));
        at.push(date(*added));
        bytes.extend_from_slice(&chunk.bytes);
    }
    rawdoc! { "_id": binary(id), "job": binary(*job.as_bytes()), "n": n, "s": s, "len": len, "at": at, "bytes": binary(bytes) }
}

fn array() -> RawArrayBuf {
    RawArrayBuf::new()
}

/// What is in a segment, but for the bytes.
pub(super) fn shapes(document: &RawDocument) -> Result<Vec<Shape>, Error> {
    let wrong = |error: mongodb::bson::error::Error| Error::row("a segment of output", error);
    let missing = || Error::row("a segment of output", "a field is not as long as another");
    let [n, s, len, at] = ["n", "s", "len", "at"].map(|field| document.get_array(field).map_err(wrong));
    let (mut s, mut len, mut at) = (s?.into_iter(), len?.into_iter(), at?.into_iter());
    let mut shapes = Vec::new();
    for n in n? {
        let (Some(s), Some(len), Some(at)) = (s.next(), len.next(), at.next()) else { return Err(missing()) };
        let number = |value: RawBsonRef<'_>| value.as_i64().ok_or_else(missing);
        shapes.push(Shape {
            seq: unsigned(number(n.map_err(wrong)?)?)?,
            stream: stream(s.map_err(wrong)?.as_i32().ok_or_else(missing)?)?,
            len: unsigned(number(len.map_err(wrong)?)?)?,
            at: timestamp(at.map_err(wrong)?.as_datetime().ok_or_else(missing)?),
        });
    }
    Ok(shapes)
}

/// What is in a segment.
pub(super) fn pieces(document: &RawDocument) -> Result<Vec<Piece>, Error> {
    let wrong = |error: mongodb::bson::error::Error| Error::row("a segment of output", error);
    let mut bytes = Bytes::copy_from_slice(document.get_binary("bytes").map_err(wrong)?.bytes);
    let piece = |Shape { seq, stream, len, at }: Shape| {
        let len = usize::try_from(len).ok().filter(|len| *len <= bytes.len());
        let len = len.ok_or_else(|| Error::row("a segment of output", "it has fewer bytes than it says"))?;
        Ok(Piece { chunk: Chunk { seq, stream, bytes: bytes.split_to(len) }, at })
    };
    shapes(document)?.into_iter().map(piece).collect()
}

pub(super) fn unsigned(n: i64) -> Result<u64, Error> {
    u64::try_from(n).map_err(|error| Error::row("number", error))
}

fn stream_number(stream: Stream) -> i32 {
    match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    }
}

fn stream(number: i32) -> Result<Stream, Error> {
    match number {
        1 => Ok(Stream::Stdout),
        2 => Ok(Stream::Stderr),
        _ => Err(Error::row("stream", format!("unknown number {number}"))),
    }
}
