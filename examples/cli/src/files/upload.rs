//! Uploads, with a progress bar, of what the server does not have yet.

use std::fs::File;
use std::io::{self, Seek};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use cmdexec_core::Error;
use cmdexec_core::files::{ByteStream, StoredFile};
use cmdexec_core::service::JobService;
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_program::pack::{Packed, pack, take};
use futures_util::StreamExt;
use tokio_util::io::ReaderStream;

use crate::terminal::Transfer;

/// How much is read of a file at once.
const PIECE: usize = 256 * 1024;

/// A file that expires sooner is uploaded again: the job may have to wait.
const LONG_ENOUGH: Duration = Duration::from_secs(3_600);

/// How often an upload is begun anew that the server could not take in.
const TRIES: u32 = 4;

/// Uploads a ZIP, or a directory as one.
pub(crate) async fn upload(jobs: &dyn JobService, path: &Path, quiet: bool) -> anyhow::Result<StoredFile> {
    let name = name_of(path)?;
    let packed = {
        let path = path.to_owned();
        let packing = move || if path.is_dir() { pack(&path) } else { take(&path) };
        tokio::task::spawn_blocking(packing).await?.context("packing")?
    };
    if !quiet && !packed.left_out.is_empty() {
        let names: Vec<_> = packed.left_out.iter().map(|path| path.display().to_string()).collect();
        eprintln!("cmdexec: left out, because they are no files: {}", names.join(", "));
    }
    if let Some(known) = known(jobs, &packed).await? {
        return Ok(known);
    }
    let mut tries = 1;
    loop {
        let transfer = Transfer::start("uploading", packed.size, quiet);
        let error = match jobs.upload(Some(&name), stream(&packed, &transfer)?).await {
            Ok(stored) => return Ok(stored),
            Err(error) => error,
        };
        match error.retry_after() {
            Some(pause) if tries < TRIES => tokio::time::sleep(pause).await,
            _ => return Err(anyhow::Error::new(error).context("uploading")),
        }
        tries += 1;
    }
}

/// What the server has of it already.
async fn known(jobs: &dyn JobService, packed: &Packed) -> anyhow::Result<Option<StoredFile>> {
    match jobs.file(packed.id).await {
        Ok(file) => {
            let soon = SystemClock.now().after(LONG_ENOUGH);
            Ok(Some(file).filter(|file| file.expires.is_none_or(|expires| expires > soon)))
        }
        Err(Error::FileNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn stream(packed: &Packed, transfer: &Transfer) -> io::Result<ByteStream> {
    let mut file: File = packed.file.try_clone()?;
    // The clone shares its place with the one that an earlier try has read.
    file.rewind()?;
    let transfer = transfer.clone();
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE);
    Ok(Box::pin(stream.map(move |piece| match piece {
        Ok(piece) => {
            transfer.advance(piece.len());
            Ok(piece)
        }
        Err(error) => Err(Error::invalid("file", format!("could not be read: {error}"))),
    })))
}

/// What people are to see as the file's name.
fn name_of(path: &Path) -> anyhow::Result<String> {
    let path = path.canonicalize().with_context(|| path.display().to_string())?;
    let name = path.file_name().map_or_else(|| "files".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(if path.is_dir() { format!("{name}.zip") } else { name })
}
