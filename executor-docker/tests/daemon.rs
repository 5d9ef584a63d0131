//! A daemon that goes away, comes back, or hangs. It is one of the test's own.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "helpers of tests fail as tests do"
)]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cmdexec_core::job::{JobSpec, Outcome};
use cmdexec_executor_docker::{DockerExecutor, Options};
use cmdexec_testkit::executor::Subject;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use common::{GRACE, IMAGE, complaint, docker, docker_says, host};

struct Daemon {
    process: Child,
    dir: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::SIGCONT);
        self.signal(Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

impl Daemon {
    /// One with the image, where there is one at all.
    fn start() -> Option<Self> {
        let tests = host()?;
        let dir = tempfile::tempdir().unwrap();
        let daemon = Self { process: Self::spawn(&dir), dir };
        daemon.wait();
        let image = daemon.dir.path().join("image.tar");
        docker_says(&tests, &["save", "-o", image.to_str().unwrap(), IMAGE]);
        docker_says(&daemon.host(), &["load", "-i", image.to_str().unwrap()]);
        Some(daemon)
    }

    fn spawn(dir: &tempfile::TempDir) -> Child {
        let at = |name: &str| dir.path().join(name).display().to_string();
        Command::new("dockerd")
            .args([
                "--host",
                &format!("unix://{}", at("socket")),
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
            ])
            .args(["--pidfile", &at("pid"), "--bridge", "none", "--iptables=false"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("socket").display())
    }

    fn wait(&self) {
        for _ in 0..300 {
            if docker(&self.host(), &["version"]).status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the daemon does not start");
    }

    fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(i32::try_from(self.process.id()).unwrap()), signal);
    }

    fn restart(&mut self) {
        self.signal(Signal::SIGTERM);
        self.process.wait().unwrap();
        self.process = Self::spawn(&self.dir);
        self.wait();
    }

    async fn subject(&self, change: impl FnOnce(&mut Options)) -> Subject {
        let mut options = Options::new(common::dir());
        options.host = self.host();
        options.grace = GRACE;
        options.patience = Duration::from_secs(3);
        change(&mut options);
        Subject::new(DockerExecutor::open(options).await.unwrap(), GRACE).with_image(IMAGE)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_ends_what_runs_and_nothing_else() {
    let Some(mut daemon) = Daemon::start() else { return };
    let subject = daemon.subject(|_| ()).await;
    let mut trial = subject.begin(JobSpec::shell("echo ready; sleep 100"));
    trial.until("ready").await;
    tokio::task::block_in_place(|| daemon.restart());
    let ended = trial.end().await;
    assert_eq!(ended.text(), "ready\n");
    let said = complaint(&ended.outcome);
    assert!(said.contains("daemon"), "{said}");
    // Also those that were ready are gone, and made anew.
    for i in 0..3 {
        assert_eq!(subject.sh(&format!("echo {i}")).await.succeeded(), format!("{i}\n"));
    }
    subject.executor.shutdown().await;
    assert_eq!(docker_says(&daemon.host(), &["ps", "-aq"]), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_hangs_keeps_no_job() {
    let Some(daemon) = Daemon::start() else { return };
    let subject = daemon.subject(|options| options.pool.most = 0).await;
    let mut trial = subject.begin(JobSpec::shell("echo ready; while ! test -e go; do sleep 0.05; done; exit 6"));
    trial.until("ready").await;
    daemon.signal(Signal::SIGSTOP);
    // What runs does not need it; what is to begin is told in bounded time.
    std::fs::write(trial.dir.join("go"), "").unwrap();
    trial.end().await.exited(6);
    let refused = subject.sh("true").await;
    assert!(complaint(&refused.outcome).contains("did not answer within 3 s"), "{:?}", refused.outcome);
    let mut late = JobSpec::shell("true");
    late.timeout = Duration::from_secs(1);
    assert!(matches!(subject.run(late).await.outcome, Outcome::ExecutorError { .. }));
    daemon.signal(Signal::SIGCONT);
    assert_eq!(subject.sh("echo on").await.succeeded(), "on\n");
    subject.executor.shutdown().await;
    assert_eq!(docker_says(&daemon.host(), &["ps", "-aq"]), "", "what was asked of it while it hung is removed too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_attached_to_ends_with_the_daemon() {
    let Some(mut daemon) = Daemon::start() else { return };
    let subject = daemon.subject(|options| options.attach = true).await;
    let mut trial = subject.begin(JobSpec::shell("echo ready; sleep 100"));
    trial.until("ready").await;
    tokio::task::block_in_place(|| daemon.restart());
    let ended = trial.end().await;
    assert!(complaint(&ended.outcome).contains("daemon"), "{:?}", ended.outcome);
    subject.sh("true").await.succeeded();
    subject.executor.shutdown().await;
}
