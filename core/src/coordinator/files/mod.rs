//! Whose the files are, and for how long they are needed.
//!
//! | record | key | says |
//! |---|---|---|
//! | [`FILE`] | owner / digest / use | somebody may use the file: an upload of its own, or what one of its jobs left |
//! | [`REFERENCE`] | digest / owner / use | the same the other way round, so that a file that nobody uses is known |
//! | [`BLOB`] | digest | which object has the bytes |
//! | [`UPLOAD`] | object | an object is being put |
//!
//! The order of the writes is what keeps it right whenever a process dies and whoever else is at the same file.
//!
//! - Taking in: the upload's record, the object, the upload's record with the digest; the file as unfinished (or, if it is there,
//!   renewed), its reference, the blob, the file as finished; and the upload's record goes.
//! - Letting go: the file, its reference, the blob while there is no reference (with a record of the object, as of one that is
//!   being put), the object; each by the version that was read before the one before it was removed.
//!
//! Taking in writes each anew that letting go removes, in the same order, so that letting go finds another version and stops, or is
//! through with it before. What a death leaves behind (an unfinished file, a reference without a file, a blob without a
//! reference, an object without a blob) `sweep` finds; there is never a finished file without its bytes.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Shared;
use crate::Error;
use crate::files::{FileId, Files, Object, StoredFile};
use crate::id::{JobId, Owner};
use crate::store::{Record, RecordWrite, Written};
use crate::time::Timestamp;

mod give;
mod keep;
mod sweep;

pub(super) use sweep::sweep;

/// Somebody may use a file.
const FILE: &str = "file";
/// A file has somebody who may use it.
const REFERENCE: &str = "file-reference";
/// Which object has the bytes.
const BLOB: &str = "blob";
/// An object is being put.
const UPLOAD: &str = "upload";

/// Every kind of record that outlives a coordinator.
pub const RECORD_KINDS: [&str; 4] = [FILE, REFERENCE, BLOB, UPLOAD];

/// How many records are read at once.
const PAGE: usize = 500;

/// What a file is kept for. Its text is the last part of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Its owner uploaded it.
    Upload,
    /// A job left it.
    Job(JobId),
}

/// Who may use which file, and what for: the key of a [`FILE`] record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileKey {
    /// A digest of the owner's name, so that keys of one owner lie together whatever characters names have.
    owner: String,
    id: FileId,
    what_for: Use,
}

/// What a [`FILE`] record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileRow {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    size: u64,
    created: Timestamp,
    /// The bytes are not certain to be there yet: nobody may use it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unfinished: bool,
    /// An upload can't be used from then on. What a job left is looked at from then on: is the job still there?
    expires: Timestamp,
}

/// What a [`REFERENCE`] record says.
#[derive(Debug, Serialize, Deserialize)]
struct ReferenceRow {
    created: Timestamp,
}

/// What a [`BLOB`] record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BlobRow {
    object: Object,
    size: u64,
}

/// What an [`UPLOAD`] record says.
#[derive(Debug, Serialize, Deserialize)]
struct UploadRow {
    started: Timestamp,
    /// Known once all of it has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<FileId>,
}

impl FileKey {
    fn new(owner: &Owner, id: FileId, what_for: Use) -> Self {
        Self { owner: owner_key(owner), id, what_for }
    }

    /// The key of the [`FILE`] record.
    fn file(&self) -> String {
        format!("{}/{}/{}", self.owner, self.id, self.what_for.text())
    }

    /// The key of the [`REFERENCE`] record.
    fn reference(&self) -> String {
        format!("{}/{}/{}", self.id, self.owner, self.what_for.text())
    }

    fn parse_file(key: &str) -> Option<Self> {
        let mut parts = key.split('/');
        let (owner, id, what_for) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { owner: owner.to_owned(), id: id.parse().ok()?, what_for: Use::parse(what_for)? })
    }

    fn parse_reference(key: &str) -> Option<Self> {
        let mut parts = key.split('/');
        let (id, owner, what_for) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { owner: owner.to_owned(), id: id.parse().ok()?, what_for: Use::parse(what_for)? })
    }
}

impl Use {
    fn text(self) -> String {
        match self {
            Self::Upload => "upload".to_owned(),
            Self::Job(job) => job.to_string(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "upload" { Some(Self::Upload) } else { text.parse().ok().map(Self::Job) }
    }
}

impl FileRow {
    fn view(self, key: &FileKey) -> StoredFile {
        let expires = (key.what_for == Use::Upload).then_some(self.expires);
        StoredFile { id: key.id, name: self.name, size: self.size, created: self.created, expires }
    }
}

/// The digest of an owner's name, written as a file's is.
fn owner_key(owner: &Owner) -> String {
    FileId::from_sha256(Sha256::digest(owner.as_str().as_bytes()).into()).to_string()
}

/// What a record says. One that can't be read is as good as none; the log says so.
fn read<T: DeserializeOwned>(kind: &str, record: &Record) -> Option<T> {
    let row = serde_json::from_slice(&record.value);
    row.inspect_err(|error| tracing::error!(kind, key = record.key, %error, "a record can't be read")).ok()
}

/// A write of a record. Rows are strings and numbers, which always serialise.
fn write(key: String, row: &impl Serialize, version: u64) -> RecordWrite {
    let value = serde_json::to_vec(row).unwrap_or_default();
    RecordWrite { key, value: Some(value.into()), version, ttl: None }
}

impl Shared {
    /// The place of files.
    fn place(&self) -> Result<&Files, Error> {
        self.files.as_ref().ok_or_else(|| Error::invalid("file", "this service keeps no files"))
    }

    async fn record<T: DeserializeOwned>(&self, kind: &str, key: String) -> Result<Option<(T, u64)>, Error> {
        let record = self.store.get_records(kind, &[key]).await?.pop().flatten();
        Ok(record.and_then(|record| Some((read(kind, &record)?, record.version))))
    }

    /// Writes a record whatever its version is.
    async fn put_record(&self, kind: &str, key: &str, row: &impl Serialize) -> Result<(), Error> {
        loop {
            let version = self.store.get_records(kind, &[key.to_owned()]).await?.pop().flatten();
            let version = version.map_or(0, |record| record.version);
            let written = self.store.put_records(kind, vec![write(key.to_owned(), row, version)]).await?;
            if written == [Written::Yes] {
                return Ok(());
            }
        }
    }

    /// Removes a record whatever its version is; it is no error if there is none.
    async fn remove_record(&self, kind: &str, key: &str) -> Result<(), Error> {
        loop {
            let Some(record) = self.store.get_records(kind, &[key.to_owned()]).await?.pop().flatten() else {
                return Ok(());
            };
            let removal = RecordWrite { key: record.key, value: None, version: record.version, ttl: None };
            if self.store.put_records(kind, vec![removal]).await? != [Written::Stale] {
                return Ok(());
            }
        }
    }

    /// Records whose keys begin with `prefix`, those after `after`, at most a page.
    async fn records(&self, kind: &str, prefix: &str, after: Option<&str>) -> Result<Vec<Record>, Error> {
        let mut records = self.store.list_records(kind, Some(after.unwrap_or(prefix)), PAGE).await?;
        records.retain(|record| record.key.starts_with(prefix));
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let id = FileId::from_sha256([7; 32]);
        for what_for in [Use::Upload, Use::Job(JobId::from_bytes([1; 16]))] {
            let key = FileKey::new(&Owner::local(), id, what_for);
            assert_eq!(FileKey::parse_file(&key.file()), Some(key.clone()));
            assert_eq!(FileKey::parse_reference(&key.reference()), Some(key));
        }
        assert_eq!(FileKey::parse_file("a/b"), None);
    }
}
