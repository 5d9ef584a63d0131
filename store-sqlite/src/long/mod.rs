//! Long output: its bytes are in a file for each job, beside the database, and its rows say where.
//!
//! In the database every byte would be written twice and in pages. A file's bytes are synced before the rows that point to
//! them are committed, so that a row never points to what is not there; what no row points to is nothing, whatever it
//! holds. Nothing is ever written over: what was trimmed is given back to the disk where it is, as a hole, and a place has
//! one meaning for as long as the job lives.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::JobId;
use cmdexec_core::store::{Append, Chunk};
use cmdexec_core::time::Timestamp;

mod file;
mod keeper;
mod sweep;

pub(crate) use keeper::{Keeper, start};
pub(crate) use sweep::Sweep;

/// From how many bytes on an addition is long: less is written sooner with the rows than synced by itself.
pub(crate) const LONG: usize = 128 << 10;

/// Pieces of a long addition that are shorter than this part of [`LONG`] stay in their rows: each piece in a file has pages of its own.
const PIECE_PART: usize = 8;

/// A piece of output as its row has it.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) seq: u64,
    pub(crate) stream: Stream,
    pub(crate) body: Body,
}

/// Where a piece's bytes are.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Row(Bytes),
    File(Extent),
}

/// Bytes of a job's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) place: u64,
    pub(crate) length: u64,
}

/// An [`Append`] whose bytes are where they stay.
#[derive(Debug, Clone)]
pub(crate) struct Addition {
    pub(crate) job: JobId,
    pub(crate) attempt: u32,
    pub(crate) replace: bool,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) trim: Option<(u64, u64)>,
    pub(crate) dropped: u64,
    /// `None`: now.
    pub(crate) at: Option<Timestamp>,
}

impl Addition {
    /// All of it in rows.
    pub(crate) fn in_rows(append: Append) -> Self {
        Self::new(append, Body::Row)
    }

    fn new(append: Append, mut body: impl FnMut(Bytes) -> Body) -> Self {
        let piece = |Chunk { seq, stream, bytes }| Piece { seq, stream, body: body(bytes) };
        Self {
            job: append.job,
            attempt: append.attempt,
            replace: append.replace,
            pieces: append.chunks.into_iter().map(piece).collect(),
            trim: append.trim,
            dropped: append.dropped,
            at: append.at,
        }
    }

    /// How long each piece's row is, about.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = usize> {
        self.pieces.iter().map(|piece| match &piece.body {
            Body::Row(bytes) => bytes.len(),
            Body::File(_) => 0,
        })
    }
}

/// What an addition leaves without a row.
#[derive(Debug, Default, Clone)]
pub(crate) struct Freed {
    /// Of the job's file.
    pub(crate) extents: Vec<Extent>,
    /// There is no such job: the whole file is nobody's.
    pub(crate) is_gone: bool,
}

impl Freed {
    pub(crate) fn is_nothing(&self) -> bool {
        self.extents.is_empty() && !self.is_gone
    }
}

/// Where the files are, and what goes into them.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    long: usize,
}

impl Folder {
    /// Beside this database. Only where a file can have holes punched into it, would it else grow without end.
    pub(crate) fn beside(database: &Path, long: usize) -> Self {
        let mut path = database.to_owned().into_os_string();
        path.push("-output");
        Self { path: path.into(), long: if file::CAN_PUNCH { long } else { usize::MAX } }
    }

    /// Whether an addition is long.
    pub(crate) fn takes(&self, append: &Append) -> bool {
        append.chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>() >= self.long
    }

    /// Whether a piece of a long addition goes into the file.
    fn takes_piece(&self, bytes: &Bytes) -> bool {
        bytes.len() >= (self.long / PIECE_PART).max(1)
    }

    fn file(&self, job: JobId) -> PathBuf {
        self.path.join(job.to_string())
    }

    /// Reads extents of a job's file, each into a piece of its own. `None`: the file is not there, or ends before.
    /// Blocks.
    pub(crate) fn read(&self, job: JobId, extents: &[Extent]) -> std::io::Result<Option<Vec<Bytes>>> {
        file::read(&self.file(job), extents)
    }
}
