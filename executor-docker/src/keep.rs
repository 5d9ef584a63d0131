//! The life of one container as the daemon sees it: made, started, and removed when it is let go, whatever happens in between.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use cmdexec_core::id::JobId;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::daemon::Daemon;
use crate::profile::{INIT, SOCKET};
use crate::trouble::Trouble;

/// How often what could not be removed is tried again, at first and in the long run.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How often a container that is not there is looked for again, of which nobody knows whether it was made.
const LOOKS: u32 = 5;

/// What the file is called beside a container's directory that names its job.
const JOB: &str = "job";

/// A directory with the init and a socket that the init of one container connects to.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) path: PathBuf,
}

impl Home {
    /// Makes it below `base`, with the init from there.
    pub(crate) fn make(base: &Path, name: &str) -> std::io::Result<Self> {
        let path = base.join(name);
        // Whoever is in the container may enter it; on this machine `base` lets nobody through.
        fs::DirBuilder::new().mode(0o755).create(&path)?;
        let home = Self { path };
        fs::set_permissions(&home.path, fs::Permissions::from_mode(0o755))?;
        fs::hard_link(base.join(INIT), home.path.join(INIT))?;
        Ok(home)
    }

    /// Listens for the init.
    pub(crate) fn listen(&self) -> std::io::Result<UnixListener> {
        // A socket's address holds 108 bytes, and this path may be longer.
        let directory = fs::File::open(&self.path)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))?;
        fs::set_permissions(self.path.join(SOCKET), fs::Permissions::from_mode(0o666))?;
        Ok(listener)
    }

    /// Says, for people and for the next start, which job's container it is.
    pub(crate) fn note(&self, job: JobId, attempt: u32) {
        let _ = fs::write(self.path.with_extension(JOB), format!("{job} {attempt}\n"));
    }

    /// The init has connected; nobody else is to.
    pub(crate) fn close(&self) {
        let _ = fs::remove_file(self.path.join(SOCKET));
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // It holds two names. What is left of it after a crash is swept with the rest.
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_file(self.path.with_extension(JOB));
    }
}

/// What keeping a container takes.
pub(crate) struct Keep {
    pub(crate) daemon: Daemon,
    pub(crate) name: String,
    pub(crate) body: ContainerCreateBody,
    /// Fires when the container is wanted no more.
    pub(crate) released: CancellationToken,
    /// Fires when what can't be removed is to be left to the next start.
    pub(crate) given_up: CancellationToken,
    /// Told when it is started, or what came in between.
    pub(crate) started: oneshot::Sender<Result<(), Trouble>>,
    /// Dropped when it is removed, or that was given up.
    pub(crate) gone: oneshot::Sender<()>,
    /// Told once it is made and nothing runs yet, if somebody wants to know; it is started once they have answered.
    pub(crate) made: Option<oneshot::Sender<oneshot::Sender<()>>>,
}

/// Sees a container through. What the daemon does not do at once is asked for again until it does.
pub(crate) async fn keep(work: Keep) {
    let Keep { daemon, name, body, released, given_up, started, gone: _gone, made } = work;
    let result = make_and_start(&daemon, &name, body, &released, made).await;
    let is_uncertain = result.as_ref().is_err_and(Trouble::is_uncertain);
    let is_started = result.is_ok();
    // Whoever has heard from the init does not wait for the daemon's word.
    let _ = started.send(result);
    if is_started {
        released.cancelled().await;
    }
    let mut wait = AGAIN.0;
    let mut looks = if is_uncertain { LOOKS } else { 0 };
    loop {
        match daemon.remove(&name).await {
            Ok(()) if looks == 0 => return,
            // It may yet be made, soon after the daemon answers again.
            Ok(()) => {
                if looks == LOOKS {
                    wait = AGAIN.0;
                }
                looks -= 1;
            }
            // The daemon is at it.
            Err(Trouble::Conflict(_)) => {}
            Err(error) => tracing::warn!(container = name, %error, "a container can't be removed yet"),
        }
        tokio::select! {
            () = sleep(wait) => wait = (wait * 2).min(AGAIN.1),
            () = given_up.cancelled() => return,
        }
    }
}

async fn make_and_start(
    daemon: &Daemon,
    name: &str,
    body: ContainerCreateBody,
    released: &CancellationToken,
    made: Option<oneshot::Sender<oneshot::Sender<()>>>,
) -> Result<(), Trouble> {
    daemon.create(name, body).await?;
    if let Some(made) = made {
        let (go, told) = oneshot::channel();
        // Whoever attaches and fails does not answer: then it is not started.
        if made.send(go).is_err() || told.await.is_err() {
            return Err(Trouble::Here("it was not attached to".to_owned()));
        }
    }
    if released.is_cancelled() {
        return Err(Trouble::Here("it is wanted no more".to_owned()));
    }
    daemon.start(name).await
}
