//! The files that jobs bring and leave: ZIPs by the digest of their bytes.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::str::FromStr;

use bytes::Bytes;
use futures_util::Stream;
pub use object_store::GetRange;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

mod place;

pub use place::{Error, Files};
pub(crate) use place::{Object, Received};

/// A file's identity: the SHA-256 of its bytes, so that the same bytes are kept once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId([u8; 32]);

/// A stream of a file's bytes.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, crate::Error>> + Send>>;

/// A file that somebody may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Which file.
    pub id: FileId,
    /// What its owner called it.
    pub name: Option<String>,
    /// How many bytes it has.
    pub size: u64,
    /// When it was uploaded; for the same bytes again, last.
    pub created: Timestamp,
    /// Until when it can be used by new jobs; it is kept longer if a job needs it then. `None`: for as long as the job is kept
    /// that left it.
    pub expires: Option<Timestamp>,
}

/// A file on its way to a reader.
pub struct Download {
    /// What is kept.
    pub file: StoredFile,
    /// Which of its bytes come.
    pub range: Range<u64>,
    /// The bytes.
    pub bytes: ByteStream,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("file", &self.file).field("range", &self.range).finish_non_exhaustive()
    }
}

impl FileId {
    /// The id that this digest is.
    pub const fn from_sha256(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text was not a file id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a file id: expected 64 hexadecimal digits")]
pub struct ParseFileIdError;

impl FromStr for FileId {
    type Err = ParseFileIdError;

    fn from_str(text: &str) -> Result<Self, ParseFileIdError> {
        let mut digest = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ParseFileIdError);
        }
        for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| ParseFileIdError)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ParseFileIdError)?;
        }
        Ok(Self(digest))
    }
}

impl Serialize for FileId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
