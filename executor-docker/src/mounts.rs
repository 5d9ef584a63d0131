//! Putting a job's directory into a container that runs already.
//!
//! A mount of the directory that is nowhere yet is made here and attached there, by a thread that goes into the container's mount
//! namespace for it. So nothing is mounted on this machine that would have to be taken away again, and the container
//! needs no directory that mounts are propagated through. The job does not run yet, and the thread runs nothing of the container's.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use tokio::sync::oneshot;

use crate::profile::WORK;

/// A container's mount namespace.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    /// That of a process.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/ns/mnt")).map(Self)
    }
}

/// The thread that goes into containers.
#[derive(Debug, Clone)]
pub(crate) struct Mounter(SyncSender<Request>);

struct Request {
    namespace: Namespace,
    what: What,
    done: oneshot::Sender<(Namespace, io::Result<()>)>,
}

enum What {
    Attach(OwnedFd),
    Renew { tmp_mb: u64 },
}

impl Mounter {
    /// Starts the thread; it ends with the last of these. An error says that this process may not do it.
    pub(crate) fn start() -> io::Result<Self> {
        // As many wait as there are jobs being started at once; more wait for these.
        let (sender, receiver) = sync_channel(64);
        let (tell, told) = sync_channel(1);
        std::thread::Builder::new().name("cmdexec-mounts".to_owned()).spawn(move || {
            // Its own working directory and root: what goes into another mount namespace must share them with nobody.
            let ready = unshare(CloneFlags::CLONE_FS)
                .map_err(io::Error::from)
                .and_then(|()| File::open("/proc/thread-self/ns/mnt"));
            let _ = match ready {
                Ok(home) => tell.send(Ok(())).map(|()| serve(&receiver, &home)),
                Err(error) => tell.send(Err(error)),
            };
        })?;
        told.recv().map_err(io::Error::other)??;
        Ok(Self(sender))
    }

    /// Shows `dir` at the job's place in a container, with no setuid programs and devices in it.
    pub(crate) async fn attach(&self, namespace: Namespace, dir: &Path) -> (Option<Namespace>, io::Result<()>) {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        match open_tree(CWD, dir, flags) {
            Ok(tree) => self.ask(namespace, What::Attach(tree)).await,
            Err(error) => (Some(namespace), Err(error.into())),
        }
    }

    /// Takes the job's directory away, and everything that it left in memory: `/tmp`, shared memory and queues are new and empty.
    pub(crate) async fn renew(&self, namespace: Namespace, tmp_mb: u64) -> (Option<Namespace>, io::Result<()>) {
        self.ask(namespace, What::Renew { tmp_mb }).await
    }

    async fn ask(&self, namespace: Namespace, what: What) -> (Option<Namespace>, io::Result<()>) {
        let (done, answer) = oneshot::channel();
        if let Err(error) = self.0.try_send(Request { namespace, what, done }) {
            return (None, Err(io::Error::other(error.to_string())));
        }
        match answer.await {
            Ok((namespace, result)) => (Some(namespace), result),
            Err(error) => (None, Err(io::Error::other(error))),
        }
    }
}

fn serve(requests: &Receiver<Request>, home: &File) {
    while let Ok(request) = requests.recv() {
        let result = inside(&request.namespace, &request.what);
        let back = setns(home.as_fd(), CloneFlags::CLONE_NEWNS);
        // Whoever asked may have gone.
        let _ = request.done.send((request.namespace, result));
        if back.is_err() {
            return;
        }
    }
}

/// From here until the thread is back, every path is one of the container's.
fn inside(namespace: &Namespace, what: &What) -> io::Result<()> {
    setns(namespace.0.as_fd(), CloneFlags::CLONE_NEWNS)?;
    match what {
        What::Attach(tree) => {
            move_mount(tree, "", CWD, WORK, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            restrict(WORK, MsFlags::empty())?;
            // With version 1 of control groups crun makes a directory in memory there that anybody may write to: a job could leave
            // something for the next. Where nothing is mounted, there is nothing to restrict.
            let _ = restrict("/sys/fs/cgroup", MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC);
            Ok(())
        }
        What::Renew { tmp_mb } => {
            umount2(WORK, MntFlags::MNT_DETACH)?;
            let tmp = format!("mode=1777,size={tmp_mb}m");
            renew("/tmp", "tmpfs", MsFlags::empty(), &tmp)?;
            renew("/dev/shm", "tmpfs", MsFlags::MS_NOEXEC, "mode=1777,size=65536k")?;
            // Message queues are files of one flat directory.
            std::fs::read_dir("/dev/mqueue")?.try_for_each(|queue| std::fs::remove_file(queue?.path()))
        }
    }
}

/// Leaves a mount no setuid programs and devices, and `more` besides.
fn restrict(at: &str, more: MsFlags) -> io::Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | more;
    Ok(mount(None::<&str>, at, None::<&str>, flags, None::<&str>)?)
}

fn renew(at: &str, kind: &str, flags: MsFlags, options: &str) -> io::Result<()> {
    umount2(at, MntFlags::MNT_DETACH)?;
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some(kind), at, Some(kind), flags, Some(options))?)
}
