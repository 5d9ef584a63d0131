//! What may be chosen about running jobs in containers.

use std::path::PathBuf;
use std::time::Duration;

use cmdexec_core::executor::{Error, GRACE};
use cmdexec_core::job::{Network, Resources};

use crate::policy::Policy;

/// What may be chosen about running jobs in containers. The defaults isolate as much as the daemon can.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// A directory for this executor alone, where the sockets of its containers are: absolute, and on a file
    /// system that programs may be executed from. It is made if it is not there. What containers of an earlier process were made
    /// by is known by this path: [`recover`](cmdexec_core::executor::Executor::recover) removes them.
    pub dir: PathBuf,
    /// Where the daemon listens: `unix:///path` or `tcp://host:port`. By default what `DOCKER_HOST` says when the options are made,
    /// else `unix:///var/run/docker.sock`.
    pub host: String,
    /// What the worker is called in the label `cmdexec.worker`. The machine's name by default.
    pub worker: String,
    /// How long a job has between the polite signal and the kill. [`GRACE`] by default.
    pub grace: Duration,
    /// How long the daemon may take over a single call, other than a pull. 30 s by default.
    pub patience: Duration,
    /// What jobs may ask for.
    pub policy: Policy,
    /// What a job is held to that does not say: no processor or memory limit, 1,024 processes by default. A job reserves of its worker
    /// only what it says itself.
    pub limits: Resources,
    /// The network of a job that does not say. [`Network::None`] by default.
    pub network: Network,
    /// The user that jobs run as, with the group of the same number. By default 60705, which systems leave free, if the worker is root;
    /// else the worker's own user.
    pub user: Option<u32>,
    /// Whether the image's file system can't be written to. True by default. The job's directory and `/tmp` always can.
    pub read_only_root: bool,
    /// How much `/tmp` holds, in MiB; it is memory of the job's. 64 by default.
    pub tmp_mb: u64,
    /// The runtime that containers are run by, such as `runsc` or `kata`, as the daemon knows it. The daemon's default by default. Whether
    /// it brings a kernel of its own is told by its program: all but runc, crun, youki and NVIDIA's are taken to.
    pub runtime: Option<String>,
    /// The user namespace mode of containers, in the daemon's words. The daemon's default by default. Where that maps users to others, it
    /// takes a worker that is root, or `host` here.
    pub userns: Option<String>,
    /// How many graphics processors jobs may have: each has its own. By default as many of NVIDIA's as this machine has, if the daemon can
    /// give them to containers.
    pub gpus: Option<u32>,
    /// Whether containers are talked to through the daemon even where a socket of this machine would do. Jobs then start slower, and none is
    /// started beforehand. False by default; it is done in any case where the daemon listens on the network (which must see the same
    /// directories at the same paths), and with runtimes that bring a kernel of their own.
    pub attach: bool,
    /// The longest that a job may run; one that asks for more is ended then, as timed out. What it asks for by default.
    pub most_time: Option<Duration>,
    /// When images are fetched. [`Pull::IfMissing`] by default.
    pub pull: Pull,
    /// How long fetching an image may take. 10 minutes by default.
    pub pull_timeout: Duration,
    /// Who the worker is for registries. Jobs have no say in it. Nobody by default.
    pub credentials: Vec<Credentials>,
    /// How many MiB of images that this executor fetched are kept: beyond it, those that were not used for longest are removed. No limit
    /// by default. Images that were there before are nobody's to remove.
    pub images_mb: Option<u64>,
    /// Containers that are started before there is a job for them.
    pub pool: PoolOptions,
}

/// When images are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// When the daemon does not have them.
    IfMissing,
    /// Before each attempt; a registry that says nothing has changed makes it quick.
    Always,
    /// Never: an image that the daemon does not have is an error.
    Never,
}

/// Who the worker is for a registry.
#[derive(Clone)]
pub struct Credentials {
    /// The registry, such as `ghcr.io` or `localhost:5000`; `docker.io` is Docker's own.
    pub registry: String,
    /// The user's name.
    pub username: String,
    /// The password, or a token.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// Containers that are started before there is a job for them. How many there are of each image follows what was asked for of late.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PoolOptions {
    /// How many wait at most, of all images together; each takes about 7 MB. Twice as many as there are processors by default, and 0 for
    /// none. Only a worker that is root, on the daemon's own machine, can have them.
    pub most: usize,
    /// How long after the last job of an image containers of it are kept ready. A minute by default.
    pub idle: Duration,
}

impl Options {
    /// The defaults, with this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            dir: dir.into(),
            host: std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned()),
            worker: nix::unistd::gethostname()
                .map_or_else(|_| "worker".to_owned(), |name| name.to_string_lossy().into_owned()),
            grace: GRACE,
            patience: Duration::from_secs(30),
            policy: Policy::default(),
            limits: Resources { pids: Some(1_024), ..Resources::default() },
            network: Network::None,
            user: None,
            read_only_root: true,
            tmp_mb: 64,
            runtime: None,
            userns: None,
            gpus: None,
            attach: false,
            most_time: None,
            pull: Pull::IfMissing,
            pull_timeout: Duration::from_mins(10),
            credentials: Vec::new(),
            images_mb: None,
            pool: PoolOptions { most: processors * 2, idle: Duration::from_mins(1) },
        }
    }

    /// Says everything that is wrong with them.
    ///
    /// # Errors
    /// One that lists every problem.
    pub fn validate(&self) -> Result<(), Error> {
        let mut wrong = self.policy.problems();
        let dir = self.dir.display();
        if !self.dir.is_absolute() {
            wrong.push(format!("dir: {dir}: must be an absolute path"));
        }
        if !["unix://", "tcp://", "http://"].iter().any(|scheme| self.host.starts_with(scheme)) {
            wrong.push(format!("host: {}: must begin with unix:// or tcp://", self.host));
        }
        if self.user == Some(0) {
            wrong.push("user: must not be root".to_owned());
        }
        if self.tmp_mb == 0 {
            wrong.push("tmp_mb: must be at least 1".to_owned());
        }
        if self.network == Network::Bridge && !self.policy.network {
            wrong.push("network: jobs can't have one by default that the policy forbids".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::new(wrong.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_said_at_once() {
        Options::new("/var/lib/x").validate().unwrap();
        let mut wrong = Options::new("relative");
        wrong.host = "here".to_owned();
        wrong.user = Some(0);
        wrong.tmp_mb = 0;
        wrong.network = Network::Bridge;
        wrong.policy.images = vec!["[".to_owned()];
        let said = wrong.validate().unwrap_err().to_string();
        for part in ["absolute", "host: here", "user:", "tmp_mb:", "network:", "images: "] {
            assert!(said.contains(part), "{part} is missing in {said}");
        }
    }

    #[test]
    fn no_password_is_printed() {
        let credentials =
            Credentials { registry: "r".to_owned(), username: "u".to_owned(), password: "hush".to_owned() };
        assert!(!format!("{credentials:?}").contains("hush"));
    }
}
