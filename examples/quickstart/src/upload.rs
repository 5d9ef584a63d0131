//! A directory, packed and uploaded for a job.

use std::fmt;
use std::path::Path;

use anyhow::Context;
use cmdexec_core::Error;
use cmdexec_core::files::FileId;
use cmdexec_core::service::JobService;
use cmdexec_program::pack::pack;
use futures_util::TryStreamExt;
use tokio_util::io::ReaderStream;

/// What was uploaded.
#[derive(Debug)]
pub(crate) struct Uploaded {
    pub(crate) id: FileId,
    files: usize,
    bytes: u64,
}

impl fmt::Display for Uploaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files, {} KiB as a ZIP", self.files, self.bytes.div_ceil(1024))
    }
}

/// Packs a directory and uploads it.
pub(crate) async fn upload(dir: &Path, jobs: &dyn JobService) -> anyhow::Result<Uploaded> {
    let root = dir.to_owned();
    let packed = tokio::task::spawn_blocking(move || pack(&root)).await?;
    let packed = packed.context("packing the directory of --dir")?;
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(packed.file), 256 * 1024);
    let stream = stream.map_err(|error| Error::invalid("file", format!("could not be read: {error}")));
    let name = dir.file_name().map(|name| format!("{}.zip", name.to_string_lossy()));
    let stored = jobs.upload(name.as_deref(), Box::pin(stream)).await.context("uploading the ZIP")?;
    Ok(Uploaded { id: stored.id, files: packed.files, bytes: packed.size })
}
