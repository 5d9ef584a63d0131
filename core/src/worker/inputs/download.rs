//! Fetching one file: goes on where it stopped, whoever asks for the rest.

use std::fs;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::super::attempt::Attempt;
use super::super::backoff::Backoff;
use super::super::runtime::Shared;
use super::cache::Cache;
use crate::Error;
use crate::files::{ByteStream, FileId, GetRange};
use crate::job::Outcome;

/// How long a transfer may stand still before the rest is asked for anew.
const STALL: Duration = Duration::from_secs(30);

/// How far one file's fetching has come. Shared by all who wait for that file, and forgotten with the last of them.
#[derive(Debug, Default)]
pub(super) struct Download {
    part: Option<Part>,
    whole: Weak<Downloaded>,
    /// What is wrong with the file. Its bytes are its name, so it stays wrong.
    refused: Option<String>,
}

/// The bytes so far, and their digest.
#[derive(Debug)]
struct Part {
    file: File,
    kept: Downloaded,
    digest: Sha256,
    len: u64,
}

/// A fetched file; removed when this is dropped.
#[derive(Debug)]
pub(super) struct Downloaded(PathBuf);

impl Downloaded {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Downloaded {
    fn drop(&mut self) {
        // If it can't be, the next start removes it.
        let _ = fs::remove_file(&self.0);
    }
}

enum Failed {
    /// Ask for the rest.
    Again(Option<Duration>),
    /// The attempt is over.
    Over(Outcome),
}

impl Download {
    /// Nobody needs to try again.
    pub(super) fn refuse(&mut self, message: &str) {
        self.refused = Some(message.to_owned());
    }

    /// Fetches what is missing, by this attempt's lease. Cancellation safe: what has come is kept for the next one.
    pub(super) async fn finish(
        &mut self,
        shared: &Shared,
        attempt: &Attempt,
        cache: &Cache,
        file: FileId,
    ) -> Result<Arc<Downloaded>, Outcome> {
        if let Some(message) = &self.refused {
            return Err(Outcome::InputError { message: message.clone() });
        }
        if let Some(whole) = self.whole.upgrade() {
            return Ok(whole);
        }
        let mut backoff = Backoff::for_calls();
        loop {
            match self.go_on(shared, attempt, cache, file).await {
                Ok(whole) => {
                    self.whole = Arc::downgrade(&whole);
                    return Ok(whole);
                }
                Err(Failed::Over(outcome)) => return Err(outcome),
                Err(Failed::Again(asked)) => shared.pause(&mut backoff, asked).await,
            }
        }
    }

    async fn go_on(
        &mut self,
        shared: &Shared,
        attempt: &Attempt,
        cache: &Cache,
        file: FileId,
    ) -> Result<Arc<Downloaded>, Failed> {
        let broken = |error: io::Error| {
            Failed::Over(Outcome::ExecutorError { message: format!("the job's ZIP could not be kept: {error}") })
        };
        if let Some(part) = &mut self.part
            && part.settle().await.is_err()
        {
            self.part = None;
        }
        let part = match &mut self.part {
            Some(part) => part,
            None => self.part.insert(Part::begin(cache.new_path()).await.map_err(broken)?),
        };
        let refused = |error| refused(file, error);
        let most = shared.options.input_limits.unpacked;
        let mut stream = shared.within(STALL, rest(shared, file, part.len)).await.map_err(refused)?;
        while let Some(bytes) =
            shared.within(STALL, async { stream.next().await.transpose() }).await.map_err(refused)?
        {
            if part.len + bytes.len() as u64 > most {
                let message = format!("the job's ZIP has more than {most} bytes");
                return Err(Failed::Over(Outcome::InputError { message }));
            }
            part.file.write_all(&bytes).await.map_err(broken)?;
            // Counted at once: if this future is dropped while it writes, the rest of the piece is asked for again.
            part.digest.update(&bytes);
            part.len += bytes.len() as u64;
        }
        let Some(mut part) = self.part.take() else { return Err(Failed::Again(None)) };
        part.file.flush().await.map_err(broken)?;
        if FileId::from_sha256(part.digest.finalize().into()) == file {
            return Ok(Arc::new(part.kept));
        }
        tracing::warn!(job = %attempt.job, "a job's file did not arrive whole");
        Err(Failed::Again(None))
    }
}

/// The file's bytes from some place on.
async fn rest(shared: &Shared, file: FileId, from: u64) -> Result<ByteStream, Error> {
    let range = (from > 0).then_some(GetRange::Offset(from));
    match shared.service.download(Some(shared.id()), file, range).await {
        Ok(download) if download.range.start == from => Ok(download.bytes),
        Ok(_) => Err(Error::Internal),
        // There is no more of it.
        Err(Error::Invalid(_)) if from > 0 => Ok(Box::pin(futures_util::stream::empty())),
        Err(error) => Err(error),
    }
}

fn refused(file: FileId, error: Error) -> Failed {
    match error {
        Error::FileNotFound => Failed::Over(Outcome::InputError { message: format!("the job's file {file} is gone") }),
        Error::Forbidden(why) => {
            Failed::Over(Outcome::InputError { message: format!("the job's file may not be read: {why}") })
        }
        error => {
            tracing::debug!(%error, "a job's file could not be fetched yet");
            Failed::Again(error.retry_after())
        }
    }
}

impl Part {
    async fn begin(path: PathBuf) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).open(&path).await?;
        Ok(Self { file, kept: Downloaded(path), digest: Sha256::new(), len: 0 })
    }

    /// Waits for what somebody was writing who was dropped, and forgets what of it was not counted.
    async fn settle(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.set_len(self.len).await?;
        self.file.seek(SeekFrom::Start(self.len)).await.map(drop)
    }
}
