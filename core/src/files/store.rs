//! Where the files are that jobs bring, behind one small type.

use std::fmt;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::FileId;
use crate::service::InputStream;

/// How many parts of a stream are on their way to the store at once.
const PARTS: usize = 4;

/// Where the files are that jobs bring. Clones are the same place.
///
/// A file's id is the SHA-256 of its bytes, so that the same bytes are kept once, and a file never changes. A file is there as a whole
/// or not at all, whatever happens while it is put.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cmdexec_core::files::Error> {
/// use cmdexec_core::files::Files;
///
/// let files = Files::in_memory();
/// let id = files.put("bytes".into()).await?;
/// assert!(files.exists(id).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Files(Arc<dyn ObjectStore>);

/// A file could not be put, read or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such file.
    #[error("there is no such file")]
    NotFound,
    /// What was to be put ended with an error; nothing was kept.
    #[error("the file did not arrive whole: {0}")]
    Incomplete(#[source] Box<dyn std::error::Error + Send + Sync>),
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
            error => {
                tracing::warn!(%error, "a file could not be read or written");
                Self::Unavailable { retry_after: Duration::from_secs(1) }
            }
        }
    }
}

impl Files {
    /// Keeps files in any object store.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self(store)
    }

    /// Keeps files in a folder, which is made if it is not there. A file that was put survives the loss of power.
    ///
    /// # Errors
    /// The folder can't be made.
    pub fn local(directory: impl AsRef<FsPath>) -> Result<Self, Error> {
        let directory = directory.as_ref();
        std::fs::create_dir_all(directory).map_err(|source| {
            Error::Store(object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(source) })
        })?;
        let store = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true);
        Ok(Self(Arc::new(store)))
    }

    /// Keeps files in memory, for as long as this and its clones live.
    pub fn in_memory() -> Self {
        Self(Arc::new(InMemory::new()))
    }

    /// Keeps these bytes; nothing happens if they are kept already.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn put(&self, bytes: Bytes) -> Result<FileId, Error> {
        let id = FileId::from_sha256(Sha256::digest(&bytes).into());
        if !self.exists(id).await? {
            self.0.put(&place(id), PutPayload::from_bytes(bytes)).await?;
        }
        Ok(id)
    }

    /// Keeps what a stream gives, without ever holding all of it in memory.
    ///
    /// # Errors
    /// [`Error::Incomplete`]: the stream ended with an error. [`Error::Store`].
    pub async fn put_stream<E>(&self, stream: impl Stream<Item = Result<Bytes, E>> + Send) -> Result<FileId, Error>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let incoming = Path::from(format!("incoming/{}", Uuid::new_v4()));
        let mut upload = WriteMultipart::new(self.0.put_multipart(&incoming).await?);
        let mut digest = Sha256::new();
        let mut stream = std::pin::pin!(stream);
        while let Some(bytes) = stream.next().await {
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) => {
                    // What can't be removed is in nobody's way.
                    let _ = upload.abort().await;
                    return Err(Error::Incomplete(error.into()));
                }
            };
            digest.update(&bytes);
            upload.wait_for_capacity(PARTS).await?;
            upload.put(bytes);
        }
        upload.finish().await?;
        let id = FileId::from_sha256(digest.finalize().into());
        if self.exists(id).await? {
            self.0.delete(&incoming).await?;
        } else {
            // Whole, and by its name from one moment to the next.
            self.0.rename(&incoming, &place(id)).await?;
        }
        Ok(id)
    }

    /// A file's bytes.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub async fn get(&self, id: FileId) -> Result<InputStream, Error> {
        let found = self.0.get(&place(id)).await?;
        Ok(Box::pin(found.into_stream().map_err(|error| Error::from(error).into())))
    }

    /// How many bytes a file has.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub async fn size(&self, id: FileId) -> Result<u64, Error> {
        Ok(self.0.head(&place(id)).await?.size)
    }

    /// Whether there is such a file.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn exists(&self, id: FileId) -> Result<bool, Error> {
        match self.size(id).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a file; it is no error if there is none.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn delete(&self, id: FileId) -> Result<(), Error> {
        match self.0.delete(&place(id)).await.map_err(Error::from) {
            Ok(()) | Err(Error::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Where a file lies: spread over folders by its first byte, because some file systems slow down with the size of one.
fn place(id: FileId) -> Path {
    let name = id.to_string();
    Path::from_iter(["files", name.get(..2).unwrap_or_default(), &name])
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Files").field(&format_args!("{}", self.0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    async fn bytes(files: &Files, id: FileId) -> Vec<u8> {
        let chunks: Vec<Bytes> = files.get(id).await.unwrap().try_collect().await.unwrap();
        chunks.concat()
    }

    async fn holds_its_promises(files: Files) {
        let id = files.put("hello".into()).await.unwrap();
        assert_eq!(id.to_string(), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(files.put("hello".into()).await.unwrap(), id);
        assert_eq!((bytes(&files, id).await, files.size(id).await.unwrap()), (b"hello".to_vec(), 5));

        // Larger than a part, so that it travels in several.
        let large: Vec<Bytes> = (0..12).map(|i| Bytes::from(vec![i; 1024 * 1024])).collect();
        let streamed = stream::iter(large.clone()).map(Ok::<_, Infallible>);
        let large_id = files.put_stream(streamed).await.unwrap();
        assert_eq!(bytes(&files, large_id).await, large.concat());
        let again = files.put_stream(stream::iter([Ok::<_, Infallible>("hello".into())])).await.unwrap();
        assert_eq!(again, id);

        let broken = stream::iter([Ok(Bytes::from("half")), Err(std::io::Error::other("gone"))]);
        assert!(matches!(files.put_stream(broken).await, Err(Error::Incomplete(_))));
        let incoming: Vec<_> = files.0.list(Some(&Path::from("incoming"))).collect().await;
        assert!(incoming.is_empty(), "{incoming:?}");

        files.delete(id).await.unwrap();
        files.delete(id).await.unwrap();
        assert!(!files.exists(id).await.unwrap());
        assert!(matches!(files.get(id).await.map(drop), Err(Error::NotFound)));
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
        let kept = Files::local(&path).unwrap().put("kept".into()).await.unwrap();
        assert_eq!(bytes(&Files::local(&path).unwrap(), kept).await, b"kept");
    }
}
