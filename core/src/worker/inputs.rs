//! Filling an attempt's directory: the job's ZIP is fetched, checked against its digest, and unpacked.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::attempt::{Attempt, Why};
use super::backoff::Backoff;
use super::directory::Directory;
use super::runtime::Shared;
use crate::Error;
use crate::archive::{self, unpack};
use crate::files::FileId;
use crate::job::{Outcome, SETUP_BOUND};

/// How long a transfer may stand still before it is begun anew.
const STALL: Duration = Duration::from_secs(30);

/// Fills the attempt's directory, if its job brings files.
///
/// # Errors
/// How the attempt ends instead of being run.
pub(super) async fn prepare(shared: &Shared, attempt: &Arc<Attempt>, directory: &Directory) -> Result<(), Outcome> {
    // A job without files costs nothing here: no timer, no task.
    let Some(file) = attempt.spec.input else { return Ok(()) };
    tokio::select! {
        biased;
        () = attempt.stop.cancelled() => Err(Outcome::Stopped),
        filled = fill(shared, attempt, directory, file) => filled,
        // Nothing is wrong with the files as far as anybody knows; another worker may have more luck.
        () = shared.clock.sleep(SETUP_BOUND) => Err(Outcome::ExecutorError {
            message: format!("the job's files could not be fetched and unpacked within {} s", SETUP_BOUND.as_secs()),
        }),
    }
}

async fn fill(shared: &Shared, attempt: &Arc<Attempt>, directory: &Directory, file: FileId) -> Result<(), Outcome> {
    let mut path = directory.path().as_os_str().to_owned();
    path.push(".zip");
    let archive = Archive(path.into());
    fetch(shared, attempt, &archive, file).await?;

    let given_up = GivenUp::default();
    let job = {
        let (from, into, given_up) = (archive.0.clone(), directory.path().to_owned(), Arc::clone(&given_up.0));
        let limits = shared.options.input_limits;
        tokio::task::spawn_blocking(move || {
            let from = fs::File::open(from).map_err(archive::Error::Read)?;
            unpack(from, &into, &limits, &given_up)
        })
    };
    match job.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.is_the_archives() => {
            Err(Outcome::InputError { message: format!("the job's ZIP can't be unpacked: {error}") })
        }
        Ok(Err(error)) => {
            Err(Outcome::ExecutorError { message: format!("the job's ZIP could not be unpacked here: {error}") })
        }
        Err(panic) => Err(Outcome::InputError { message: format!("the job's ZIP can't be unpacked: {panic}") }),
    }
}

/// The fetched ZIP beside the attempt's directory; removed when this is dropped.
struct Archive(PathBuf);

impl Drop for Archive {
    fn drop(&mut self) {
        // If it can't be, the next start removes it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Tells the unpacking thread, which can't be dropped, that nobody waits for it any more.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

enum Failed {
    /// Begin anew.
    Again(Option<Duration>),
    /// The attempt is over.
    Over(Outcome),
}

async fn fetch(shared: &Shared, attempt: &Attempt, archive: &Archive, file: FileId) -> Result<(), Outcome> {
    let mut backoff = Backoff::for_calls();
    loop {
        match fetch_once(shared, attempt, archive, file).await {
            Ok(()) => return Ok(()),
            Err(Failed::Over(outcome)) => return Err(outcome),
            Err(Failed::Again(asked)) => shared.pause(&mut backoff, asked).await,
        }
    }
}

async fn fetch_once(shared: &Shared, attempt: &Attempt, archive: &Archive, file: FileId) -> Result<(), Failed> {
    let refused = |error: Error| match error {
        Error::FileNotFound => Failed::Over(Outcome::InputError { message: format!("the job's file {file} is gone") }),
        Error::LeaseLost => {
            attempt.interrupt(Why::Lost);
            Failed::Over(Outcome::Stopped)
        }
        Error::Forbidden(why) => {
            Failed::Over(Outcome::InputError { message: format!("the job's file may not be read: {why}") })
        }
        error => {
            tracing::debug!(%error, "a job's file could not be fetched yet");
            Failed::Again(error.retry_after())
        }
    };
    let broken = |error: io::Error| {
        Failed::Over(Outcome::ExecutorError { message: format!("the job's ZIP could not be kept: {error}") })
    };
    let call = shared.service.input(shared.id(), attempt.job, attempt.token);
    let mut stream = shared.within(STALL, call).await.map_err(refused)?;
    let mut digest = Sha256::new();
    let mut len = 0_u64;
    let mut kept = File::create(&archive.0).await.map_err(broken)?;
    while let Some(bytes) = shared.within(STALL, async { stream.next().await.transpose() }).await.map_err(refused)? {
        len += bytes.len() as u64;
        let most = shared.options.input_limits.unpacked;
        if len > most {
            let message = format!("the job's ZIP has more than {most} bytes");
            return Err(Failed::Over(Outcome::InputError { message }));
        }
        digest.update(&bytes);
        kept.write_all(&bytes).await.map_err(broken)?;
    }
    kept.flush().await.map_err(broken)?;
    if FileId::from_sha256(digest.finalize().into()) == file {
        Ok(())
    } else {
        tracing::warn!(job = %attempt.job, "a job's file did not arrive whole");
        Err(Failed::Again(None))
    }
}
