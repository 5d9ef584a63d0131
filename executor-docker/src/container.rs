//! A container that has been started: its init waits for a job.

use std::path::Path;
use std::sync::Arc;

use cmdexec_core::job::Resources;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio_util::sync::DropGuard;

use crate::cgroup::Groups;
use crate::image::Image;
use crate::keep::Home;
use crate::mounts::{Mounter, Namespace};
use crate::trouble::Trouble;

/// A container. Dropping it ends every process in it, and has it removed.
#[derive(Debug)]
pub(crate) struct Container {
    /// What the daemon calls it.
    pub(crate) name: String,
    pub(crate) image: Arc<Image>,
    /// The way to its init. When it is closed, the init ends and everything with it.
    pub(crate) line: Line,
    /// Its init's process and user, as this machine counts them.
    pub(crate) peer: Option<Peer>,
    /// Its user, as it sees it itself.
    pub(crate) user: u32,
    pub(crate) groups: Option<Groups>,
    /// What it is held to.
    pub(crate) limits: Resources,
    /// How often the kernel had killed something in it for want of memory before its job began.
    pub(crate) oom_kills: u64,
    pub(crate) namespace: Option<Namespace>,
    pub(crate) home: Home,
    pub(crate) kept: DropGuard,
    pub(crate) gone: oneshot::Receiver<()>,
}

/// How its init is talked to.
pub(crate) enum Line {
    /// A socket, over which the job's pipes go with the job.
    Socket(UnixStream),
    /// Its standard streams, as the daemon carries them. Output comes the same way.
    Attached {
        input: std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>,
        output: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
    },
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Socket(_) => "Socket",
            Self::Attached { .. } => "Attached",
        })
    }
}

/// Who an init is, seen from here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) pid: i32,
    pub(crate) user: u32,
}

impl Container {
    /// Holds it to other limits than it was made with.
    pub(crate) fn limit(&mut self, limits: Resources) -> Result<(), Trouble> {
        if limits == self.limits {
            return Ok(());
        }
        let groups =
            self.groups.as_ref().ok_or_else(|| Trouble::Here("its control groups are out of sight".to_owned()))?;
        groups.limit(&limits).map_err(|error| Trouble::io("setting its limits", &error))?;
        self.limits = limits;
        Ok(())
    }

    /// Shows the job's directory in it.
    pub(crate) async fn show(&mut self, mounter: &Mounter, dir: &Path) -> Result<(), Trouble> {
        let namespace = self.namespace.take().ok_or_else(|| Trouble::Here("its mounts are out of reach".to_owned()))?;
        let (namespace, shown) = mounter.attach(namespace, dir).await;
        self.namespace = namespace;
        shown.map_err(|error| Trouble::io("showing the job's directory in its container", &error))
    }

    /// Empties it for a further job of the same owner: nothing of the last one runs any more. An error leaves it of no use.
    pub(crate) async fn renew(&mut self, mounter: &Mounter, tmp_mb: u64) -> Result<(), Trouble> {
        let namespace = self.namespace.take().ok_or_else(|| Trouble::Here("its mounts are out of reach".to_owned()))?;
        let (namespace, renewed) = mounter.renew(namespace, tmp_mb).await;
        self.namespace = namespace;
        renewed.map_err(|error| Trouble::io("emptying a container", &error))?;
        self.oom_kills = self.groups.as_ref().and_then(Groups::oom_kills).unwrap_or(0);
        Ok(())
    }

    /// Ends it, and waits until the daemon has removed it.
    pub(crate) async fn remove(self) {
        let Self { line, kept, gone, .. } = self;
        drop((line, kept));
        let _ = gone.await;
    }

    /// Whether its init still waits.
    pub(crate) fn is_alive(&self) -> bool {
        match &self.line {
            // Nothing is to be read from it before there is a job; an end can.
            Line::Socket(socket) => {
                matches!(socket.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
            }
            Line::Attached { .. } => true,
        }
    }
}
