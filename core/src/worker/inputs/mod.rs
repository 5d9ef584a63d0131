//! Filling an attempt's directory: the job's ZIP is fetched, checked against its digest, unpacked once, and shown to each job.

mod cache;
mod download;
#[cfg(launcher)]
mod overlay;
#[cfg(launcher)]
mod sys;
mod view;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::attempt::Attempt;
use super::directory::Directory;
use super::runtime::Shared;
use crate::archive::{self, Archive};
use crate::files::FileId;
use crate::job::{Outcome, SETUP_BOUND};
use cache::{Cache, Tree};
use download::Downloaded;
use view::View;

/// What the worker has of its jobs' files.
#[derive(Debug)]
pub(super) struct Inputs {
    cache: Arc<Cache>,
    view: View,
}

impl Inputs {
    /// Opens the cache in `dir`, which holds up to `most` bytes, and finds out how attempts below `attempts` can be shown what is
    /// in it. `user` is one that jobs run as, if not the worker's own.
    pub(super) fn open(
        dir: PathBuf,
        most: u64,
        limits: &archive::Limits,
        attempts: &Path,
        user: Option<u32>,
    ) -> io::Result<Self> {
        let cache = Arc::new(Cache::open(dir, most, limits)?);
        let view = if most > 0 { View::choose(attempts, user) } else { View::Copies };
        Ok(Self { cache, view })
    }
}

/// Fills the attempt's directory with what its job brings. `user` is whom its job runs as, if not the worker's own user.
///
/// # Errors
/// How the attempt ends instead of being run.
pub(super) async fn prepare(
    shared: &Shared,
    attempt: &Arc<Attempt>,
    directory: &Directory,
    file: FileId,
    user: Option<u32>,
) -> Result<(), Outcome> {
    tokio::select! {
        biased;
        () = attempt.stop.cancelled() => Err(Outcome::Stopped),
        filled = fill(shared, attempt, directory, file, user) => filled,
        // Nothing is wrong with the files as far as anybody knows; another worker may have more luck.
        () = shared.clock.sleep(SETUP_BOUND) => Err(Outcome::ExecutorError {
            message: format!("the job's files could not be fetched and unpacked within {} s", SETUP_BOUND.as_secs()),
        }),
    }
}

async fn fill(
    shared: &Shared,
    attempt: &Arc<Attempt>,
    directory: &Directory,
    file: FileId,
    user: Option<u32>,
) -> Result<(), Outcome> {
    let inputs = &shared.inputs;
    if let Some(tree) = inputs.cache.find(file) {
        return show(inputs, tree, directory, user).await;
    }
    // Whoever else wants the same file waits here for the first, or goes on where the first was stopped.
    let flight = inputs.cache.flight(file);
    let mut download = flight.lock().await;
    if let Some(tree) = inputs.cache.find(file) {
        drop(download);
        return show(inputs, tree, directory, user).await;
    }
    let downloaded = download.finish(shared, attempt, &inputs.cache, file).await?;
    let unpacked = match unpack(shared, &downloaded, file).await {
        Ok(unpacked) => unpacked,
        Err(outcome) => {
            if let Outcome::InputError { message } = &outcome {
                download.refuse(message);
            }
            return Err(outcome);
        }
    };
    drop(download);
    match unpacked {
        Unpacked::Cached(tree) => show(inputs, tree, directory, user).await,
        Unpacked::NoRoom(archive) => {
            let into = directory.path().to_owned();
            blocking(move |given_up| archive.write(&into, given_up).map(drop)).await
        }
    }
}

async fn show(inputs: &Inputs, tree: Arc<Tree>, directory: &Directory, user: Option<u32>) -> Result<(), Outcome> {
    let shown = inputs.view.show(tree, directory, user).await;
    shown.map_err(|error| Outcome::ExecutorError { message: format!("the job's files could not be laid out: {error}") })
}

enum Unpacked {
    Cached(Arc<Tree>),
    /// Larger than the cache, or all that is in it is in use.
    NoRoom(Box<Archive<File>>),
}

async fn unpack(shared: &Shared, downloaded: &Arc<Downloaded>, file: FileId) -> Result<Unpacked, Outcome> {
    let (cache, limits) = (Arc::clone(&shared.inputs.cache), shared.options.input_limits);
    let downloaded = Arc::clone(downloaded);
    blocking(move |given_up| {
        let from = File::open(downloaded.path()).map_err(archive::Error::Read)?;
        let archive = Archive::check(from, &limits, given_up)?;
        match cache.reserve(&archive) {
            None => Ok(Unpacked::NoRoom(Box::new(archive))),
            Some(place) => {
                archive.write(place.path(), given_up)?;
                let kept = place.keep(file);
                let kept = kept.map_err(|error| archive::Error::Write { entry: ".".to_owned(), error })?;
                Ok(Unpacked::Cached(kept))
            }
        }
    })
    .await
}

/// Runs what takes an archive apart in a thread of its own, and tells it when nobody waits for it any more.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T, archive::Error> + Send + 'static,
) -> Result<T, Outcome> {
    let given_up = GivenUp::default();
    let flag = Arc::clone(&given_up.0);
    let refused = |error| Outcome::InputError { message: format!("the job's ZIP can't be unpacked: {error}") };
    match tokio::task::spawn_blocking(move || work(&flag)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) if error.is_the_archives() => Err(refused(error.to_string())),
        Ok(Err(error)) => {
            Err(Outcome::ExecutorError { message: format!("the job's ZIP could not be unpacked here: {error}") })
        }
        Err(panic) => Err(refused(panic.to_string())),
    }
}

/// Tells a thread, which can't be dropped, that nobody waits for it any more.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
