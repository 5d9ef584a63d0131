//! What a job leaves: collected into a ZIP once the command is over, and uploaded before the report that names it.
//!
//! Whatever goes wrong here is a warning on the job: the command has ended as it has.

mod limits;
#[cfg(unix)]
mod tree;
#[cfg(not(unix))]
#[path = "unsupported.rs"]
mod tree;
mod upload;
mod warnings;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use limits::OutputLimits;

use self::warnings::Warnings;
use super::attempt::{Attempt, Why};
use super::directory::Directory;
use super::runtime::Shared;
use crate::job::{COLLECT_BOUND, Details, Outcome, Outputs};

/// Where the command of a job with outputs starts, below the attempt's directory and without a link on the way: after the run
/// the job may have put links there.
#[derive(Debug)]
pub(super) struct Start(PathBuf);

impl Start {
    /// To be called before the command runs. `None`: there is nothing to collect, or the command will not start.
    pub(super) fn of(attempt: &Attempt, directory: &Directory) -> Option<Self> {
        // A job without outputs costs nothing here.
        if attempt.spec.outputs.is_empty() || attempt.stop.is_cancelled() {
            return None;
        }
        let Some(below) = &attempt.spec.working_directory else { return Some(Self(PathBuf::new())) };
        let top = directory.path().canonicalize().ok()?;
        let start = top.join(below).canonicalize().ok()?;
        start.strip_prefix(&top).ok().map(|start| Self(start.to_owned()))
    }
}

/// Whether what an attempt leaves is collected that will be reported to have ended so: its command ran, and the job does not go back.
pub(super) fn are_wanted(attempt: &Attempt, verdict: Option<&Outcome>) -> bool {
    if verdict == Some(&Outcome::Stopped) {
        return attempt.why() == Some(Why::Cancelled);
    }
    matches!(
        verdict,
        Some(Outcome::Exited { .. } | Outcome::Signaled { .. } | Outcome::TimedOut | Outcome::OutOfMemory)
    )
}

/// Collects and uploads what the attempt has left, and says so in its details.
pub(super) async fn collect(
    shared: &Shared,
    attempt: &Arc<Attempt>,
    directory: &Directory,
    start: Start,
    details: &mut Details,
) {
    let mut warnings = Warnings::default();
    let why = attempt.why();
    tokio::select! {
        biased;
        () = stopped(attempt, why) => warnings.note("the job was ended before they were uploaded"),
        kept = keep(shared, attempt, directory, start, &mut warnings) => details.artifacts = kept,
        () = shared.clock.sleep(COLLECT_BOUND) => {
            warnings.note(&format!("they could not be collected and uploaded within {} s", COLLECT_BOUND.as_secs()));
        }
    }
    details.warnings.extend(warnings.into_texts());
}

/// Waits until collecting must end. A worker that drains lets it go on until it kills; and what had ended the command does
/// not end this too.
async fn stopped(attempt: &Attempt, before: Option<Why>) {
    loop {
        match attempt.why() {
            Some(Why::Lost) => return,
            Some(Why::Cancelled) if before != Some(Why::Cancelled) => return,
            _ => {}
        }
        tokio::select! {
            () = attempt.interrupted.notified() => {}
            () = attempt.kill.cancelled() => return,
        }
    }
}

async fn keep(
    shared: &Shared,
    attempt: &Arc<Attempt>,
    directory: &Directory,
    start: Start,
    warnings: &mut Warnings,
) -> Option<crate::files::FileId> {
    let archive = Archive::beside(directory.path());
    let given_up = GivenUp::default();
    let task = Task {
        top: directory.path().to_owned(),
        start: start.0,
        archive: archive.0.clone(),
        attempt: Arc::clone(attempt),
        limits: shared.options.output_limits,
        given_up: Arc::clone(&given_up.0),
    };
    // The thread can't be dropped; it sees that it was given up at its next step.
    let packed = match tokio::task::spawn_blocking(move || task.run()).await {
        Ok(Ok((entries, found))) => {
            *warnings = found;
            entries > 0
        }
        Ok(Err(message)) => {
            warnings.note(&format!("they could not be collected: {message}"));
            false
        }
        Err(panic) => {
            tracing::error!(job = %attempt.job, %panic, "collecting outputs failed");
            warnings.note("they could not be collected");
            false
        }
    };
    if !packed {
        return None;
    }
    match upload::upload(shared, attempt, &archive.0).await {
        Ok(id) => Some(id),
        Err(error) => {
            warnings.note(&format!("they could not be uploaded: {error}"));
            None
        }
    }
}

/// What the collecting thread works on.
struct Task {
    top: PathBuf,
    start: PathBuf,
    archive: PathBuf,
    /// Whose outputs they are.
    attempt: Arc<Attempt>,
    limits: OutputLimits,
    given_up: Arc<AtomicBool>,
}

impl Task {
    /// How much was packed, and what its user should know.
    fn run(self) -> Result<(u64, Warnings), String> {
        let outputs = Outputs::new(&self.attempt.spec.outputs)?;
        let archive = create(&self.archive).map_err(|error| error.to_string())?;
        let found = tree::pack(&self.top, &self.start, &outputs, self.limits, archive, &self.given_up)?;
        let mut warnings = Warnings::default();
        for (glob, named) in self.attempt.spec.outputs.iter().zip(found.named) {
            if !named {
                warnings.note(&format!("nothing matched {}", warnings::shown(glob)));
            }
        }
        warnings.append(found.warnings);
        Ok((found.entries, warnings))
    }
}

/// A file that nobody made before.
fn create(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The ZIP beside the attempt's directory; removed when this is dropped.
struct Archive(PathBuf);

impl Archive {
    fn beside(directory: &Path) -> Self {
        let mut path = directory.as_os_str().to_owned();
        path.push(".outputs.zip");
        Self(path.into())
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // If it can't be, the next start removes it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Tells the collecting thread that nobody waits for it any more.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What came of looking through a job's directory.
#[derive(Debug, Default)]
struct Found {
    /// How many entries are in the archive.
    entries: u64,
    /// For each glob, whether it named anything.
    named: Vec<bool>,
    warnings: Warnings,
}
