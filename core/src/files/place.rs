//! Where files' bytes are, behind one small type: objects that are put whole, under names of their own, and never change.
//!
//! Whose they are and for how long they are needed is the coordinator's business (`coordinator::files`).

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::try_unfold;
use futures_util::{StreamExt, TryFutureExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt, WriteMultipart};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{ByteStream, FileId};

/// What the names of all objects begin with.
const FOLDER: &str = "files";

/// How many parts of an upload are on their way to the store at once, beside the one that is gathered.
const PARTS: usize = 2;

/// How many bytes a part has where any size will do: enough that its cost does not count.
const PART: usize = 1 << 20;

/// The least that a part may have in S3 and its like.
const REMOTE_PART: usize = 5 << 20;

/// How many bytes are read of a file at once.
const PIECE: usize = 256 << 10;

/// Where the files' bytes are that jobs bring and leave. Clones are the same place.
///
/// ```
/// use cmdexec_core::files::Files;
///
/// let files = Files::in_memory();
/// ```
#[derive(Clone)]
pub struct Files {
    store: Arc<dyn ObjectStore>,
    /// How many bytes a part has.
    part: usize,
}

/// The name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Object(Uuid);

/// A stream that was taken in whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) digest: FileId,
    pub(crate) size: u64,
}

/// Bytes could not be put, read or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such object.
    #[error("there is no such object")]
    NotFound,
    /// There is no such part of it.
    #[error("there is no such part of it")]
    Range,
    /// The place where files are kept does not do what it should.
    #[error("the file store failed: {0}")]
    Store(#[source] object_store::Error),
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound,
            error => Self::Store(error),
        }
    }
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound => Self::FileNotFound,
            Error::Range => Self::invalid("range", "the file has no such part"),
            error @ Error::Store(_) => {
                tracing::warn!(%error, "a file could not be read or written");
                Self::Unavailable { retry_after: Duration::from_secs(1) }
            }
        }
    }
}

impl Files {
    /// Keeps files in any object store. A file on its way in takes 15 MiB of memory.
    ///
    /// Parts of an upload that is broken off are taken back; those that a process was sending when it was killed are not: let the
    /// store itself remove incomplete uploads after a day.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, part: REMOTE_PART }
    }

    /// Keeps files in a folder, which is made if it is not there. A file that was put survives the loss of power. A file on its
    /// way in takes 3 MiB of memory. The folder is one coordinator's: what its last process left unfinished is removed.
    ///
    /// # Errors
    /// The folder can't be made, or not be read.
    pub fn local(directory: impl AsRef<FsPath>) -> Result<Self, Error> {
        let directory = directory.as_ref();
        let broken = |source: io::Error| {
            Error::Store(object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(source) })
        };
        std::fs::create_dir_all(directory).map_err(broken)?;
        remove_unfinished(&directory.join(FOLDER)).map_err(broken)?;
        let store = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true);
        Ok(Self { store: Arc::new(store), part: PART })
    }

    /// Keeps files in memory, for as long as this and its clones live.
    pub fn in_memory() -> Self {
        Self { store: Arc::new(InMemory::new()), part: PART }
    }

    /// Puts what a stream gives, at most `most` bytes, without ever holding all of it in memory. After an error there is nothing.
    ///
    /// # Errors
    /// What the stream ended with; [`crate::Error::FileTooLarge`]; [`crate::Error::Unavailable`].
    pub(crate) async fn put(&self, object: Object, most: u64, mut bytes: ByteStream) -> Result<Received, crate::Error> {
        let upload = self.store.put_multipart(&object.path()).await.map_err(Error::from)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, self.part);
        match take_in(&mut upload, most, &mut bytes).await {
            Ok(received) => {
                upload.finish().await.map_err(Error::from)?;
                Ok(received)
            }
            Err(error) => {
                if let Err(broken) = upload.abort().await {
                    tracing::warn!(error = %broken, "an upload could not be taken back");
                }
                Err(error)
            }
        }
    }

    /// An object's bytes, or a part of them, which part, and how many there are in all.
    pub(crate) async fn open(
        &self,
        object: Object,
        range: Option<GetRange>,
    ) -> Result<(ByteStream, Range<u64>, u64), Error> {
        let is_nothing = match &range {
            Some(GetRange::Suffix(0)) => true,
            Some(GetRange::Bounded(range)) => range.is_empty(),
            _ => false,
        };
        if is_nothing {
            self.size(object).await?;
            return Err(Error::Range);
        }
        let options = GetOptions { range, ..GetOptions::default() };
        let found = match self.store.get_opts(&object.path(), options).await {
            Ok(found) => found,
            Err(error) => {
                let error = Error::from(error);
                // Stores name a part that is not there in ways of their own.
                return Err(match error {
                    Error::Store(_) if self.size(object).await.is_ok() => Error::Range,
                    error => error,
                });
            }
        };
        let (range, size) = (found.range.clone(), found.meta.size);
        let bytes = match found.payload {
            GetResultPayload::File(file, _) => pieces(file, range.clone()),
            GetResultPayload::Stream(stream) => {
                Box::pin(stream.map_err(|error| Error::from(error).into())) as ByteStream
            }
        };
        Ok((bytes, range, size))
    }

    /// How many bytes an object has.
    pub(crate) async fn size(&self, object: Object) -> Result<u64, Error> {
        Ok(self.store.head(&object.path()).await?.size)
    }

    /// Removes an object; it is no error if there is none.
    pub(crate) async fn remove(&self, object: Object) -> Result<(), Error> {
        match self.store.delete(&object.path()).await.map_err(Error::from) {
            Ok(()) | Err(Error::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The bytes of a local file, read in pieces that are worth the change of threads.
fn pieces(mut file: File, range: Range<u64>) -> ByteStream {
    let begin = async move {
        let read =
            move || file.seek(SeekFrom::Start(range.start)).map(|_| (file, range.end.saturating_sub(range.start)));
        blocking(read).await
    };
    let rest = |(mut file, left): (File, u64)| async move {
        if left == 0 {
            return Ok(None);
        }
        let read = move || {
            let mut piece = Vec::with_capacity(usize::try_from(left).unwrap_or(PIECE).min(PIECE));
            (&mut file).take(left.min(PIECE as u64)).read_to_end(&mut piece)?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok((piece, file))
        };
        let (piece, file) = blocking(read).await?;
        let left = left - piece.len() as u64;
        Ok(Some((Bytes::from(piece), (file, left))))
    };
    Box::pin(begin.map_ok(move |begun| try_unfold(begun, rest)).try_flatten_stream())
}

async fn blocking<T: Send + 'static>(read: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, crate::Error> {
    let read = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    read.map_err(|error| {
        tracing::warn!(%error, "a file could not be read");
        crate::Error::Unavailable { retry_after: Duration::from_secs(1) }
    })
}

/// Removes what a killed process was writing: the store gives such a file its name with `#` and a number behind it.
fn remove_unfinished(directory: &FsPath) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_unfinished(&entry.path())?;
        } else if entry.file_name().to_string_lossy().contains('#') {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

async fn take_in(upload: &mut WriteMultipart, most: u64, bytes: &mut ByteStream) -> Result<Received, crate::Error> {
    let mut digest = Sha256::new();
    let mut size = 0_u64;
    let mut begins: Vec<u8> = Vec::with_capacity(4);
    while let Some(piece) = bytes.next().await {
        let piece: Bytes = piece?;
        size += piece.len() as u64;
        if size > most {
            return Err(crate::Error::FileTooLarge { most });
        }
        if begins.len() < 4 {
            begins.extend(piece.iter().take(4 - begins.len()));
            // A ZIP begins with an entry or, without any, with its end.
            if begins.len() == 4 && begins != b"PK\x03\x04" && begins != b"PK\x05\x06" {
                return Err(no_zip());
            }
        }
        digest.update(&piece);
        upload.wait_for_capacity(PARTS).await.map_err(Error::from)?;
        upload.put(piece);
    }
    if begins.len() < 4 {
        return Err(no_zip());
    }
    Ok(Received { digest: FileId::from_sha256(digest.finalize().into()), size })
}

fn no_zip() -> crate::Error {
    crate::Error::invalid("file", "is no ZIP: it does not begin as one does")
}

impl Object {
    /// A name that no object has.
    pub(crate) fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Spread over folders by its last byte, because some file systems slow down with the size of one.
    fn path(self) -> Path {
        let name = self.0.simple().to_string();
        Path::from_iter([FOLDER, name.get(30..).unwrap_or_default(), &name])
    }

    pub(crate) fn name(self) -> String {
        self.0.simple().to_string()
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Uuid::try_parse(name).ok().map(Self)
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Files").field(&format_args!("{}", self.store)).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn pieces(pieces: Vec<Result<Bytes, crate::Error>>) -> ByteStream {
        Box::pin(stream::iter(pieces))
    }

    async fn read(files: &Files, object: Object, range: Option<GetRange>) -> (Vec<u8>, Range<u64>) {
        let (bytes, range, _) = files.open(object, range).await.unwrap();
        (bytes.try_collect::<Vec<_>>().await.unwrap().concat(), range)
    }

    async fn holds_its_promises(files: Files) {
        let object = Object::new();
        // Larger than a part, so that it travels in several.
        let mut large: Vec<Bytes> = (0..12).map(|i| Bytes::from(vec![i; 1024 * 1024])).collect();
        large.insert(0, Bytes::from_static(b"P"));
        large.insert(1, Bytes::from_static(b"K\x03\x04"));
        let whole = large.concat();
        let received = files.put(object, u64::MAX, pieces(large.into_iter().map(Ok).collect())).await.unwrap();
        assert_eq!(received.size, whole.len() as u64);
        assert_eq!(received.digest, FileId::from_sha256(Sha256::digest(&whole).into()));
        assert_eq!(read(&files, object, None).await, (whole.clone(), 0..whole.len() as u64));
        assert_eq!(read(&files, object, Some(GetRange::Bounded(1..4))).await, (whole[1..4].to_vec(), 1..4));
        assert_eq!(read(&files, object, Some(GetRange::Suffix(2))).await.0, whole[whole.len() - 2..]);
        for nothing in [GetRange::Offset(whole.len() as u64), GetRange::Suffix(0), GetRange::Bounded(3..3)] {
            assert!(matches!(files.open(object, Some(nothing)).await.map(|_| ()), Err(Error::Range)));
        }

        for (stream, error) in [
            (vec![Ok("PK\x03\x04half".into()), Err(crate::Error::Internal)], crate::Error::Internal),
            (vec![Ok("PK\x03\x04 and too much".into())], crate::Error::FileTooLarge { most: 16 }),
            (vec![Ok("PK".into()), Ok("no ZIP".into())], no_zip()),
            (vec![Ok("PK\x03".into())], no_zip()),
            (vec![], no_zip()),
        ] {
            let broken = Object::new();
            assert_eq!(files.put(broken, 16, pieces(stream)).await, Err(error));
            assert!(matches!(files.size(broken).await, Err(Error::NotFound)));
        }

        files.remove(object).await.unwrap();
        files.remove(object).await.unwrap();
        assert!(matches!(files.open(object, None).await.map(|_| ()), Err(Error::NotFound)));
    }

    #[tokio::test]
    async fn memory() {
        holds_its_promises(Files::in_memory()).await;
    }

    #[tokio::test]
    async fn folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folder");
        holds_its_promises(Files::local(&path).unwrap()).await;
        let leftovers: Vec<_> = walk(&path);
        assert!(leftovers.is_empty(), "{leftovers:?}");
    }

    #[tokio::test]
    async fn what_a_killed_process_was_writing_is_removed_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::local(dir.path()).unwrap();
        let object = Object::new();
        files.put(object, u64::MAX, pieces(vec![Ok("PK\x05\x06".into())])).await.unwrap();
        let kept = walk(dir.path());
        let unfinished = kept[0].with_file_name("0197f2b000007000800000000000000f#1");
        std::fs::write(&unfinished, "half").unwrap();
        drop(files);
        let files = Files::local(dir.path()).unwrap();
        assert_eq!(walk(dir.path()), kept);
        assert_eq!(files.size(object).await.unwrap(), 4);
    }

    fn walk(path: &FsPath) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
    }
}
