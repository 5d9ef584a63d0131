//! What becomes of jobs when the worker or its launcher is killed.
//!
//! Each test runs itself again as a process that can be killed.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use cmdexec_core::executor::process::{Containment, Options, ProcessExecutor, Users};
use cmdexec_core::executor::{Executor, RunContext, StepLog, output_pipe};
use cmdexec_core::id::JobId;
use cmdexec_core::job::{JobSpec, Outcome};

/// A job with a process that has left it as far as a process can, and shows that it lives.
const ESCAPE: &str = "(setsid sh -c \"trap '' TERM; (while :; do echo x >> beat; sleep 0.02; done) &\" &); sleep 100";

fn options(weak: bool) -> Options {
    if !weak {
        return Options::default();
    }
    Options { cgroups: false, containment: Containment::Supervisor, users: Users::Never, ..Options::default() }
}

async fn run(executor: &ProcessExecutor, line: &str, dir: PathBuf) -> Outcome {
    let (output, mut source) = output_pipe(4);
    let context = RunContext {
        job: JobId::from_uuid(uuid::Uuid::now_v7()),
        attempt: 1,
        spec: JobSpec::shell(line).into(),
        scope: None,
        dir,
        slot: 0,
        output,
        steps: StepLog::default(),
        stop: tokio_util::sync::CancellationToken::new(),
    };
    let (outcome, ()) = tokio::join!(executor.run(context), async { while source.next().await.is_some() {} });
    outcome
}

/// What the killed process does; in the tests' own process it is nothing.
#[tokio::test]
async fn worker() {
    let Some(root) = std::env::var_os("CMDEXEC_TEST_DIR").map(PathBuf::from) else { return };
    let executor = ProcessExecutor::new(options(std::env::var("CMDEXEC_TEST_WEAK").is_ok())).unwrap();
    let first = run(&executor, ESCAPE, root.join("first")).await;
    let beats = beats(&root);
    std::fs::write(root.join("first-outcome"), format!("{first:?}")).unwrap();
    std::fs::write(root.join("beats"), beats.to_string()).unwrap();
    let second = run(&executor, "exit 4", root.join("second")).await;
    std::fs::write(root.join("second-outcome"), format!("{second:?}")).unwrap();
    std::future::pending::<()>().await;
}

struct Worker {
    root: tempfile::TempDir,
    child: Child,
    launcher: i32,
}

impl Worker {
    /// Starts a worker, and waits until its job's stray process lives.
    fn start(weak: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        for attempt in ["first", "second"] {
            std::fs::create_dir(root.path().join(attempt)).unwrap();
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "worker"]).env("CMDEXEC_TEST_DIR", root.path());
        if weak {
            command.env("CMDEXEC_TEST_WEAK", "1");
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the job lives", || beats(root.path()) > 2);
        let launcher = launcher_of(i32::try_from(child.id()).unwrap());
        Self { root, child, launcher }
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    fn signal(&self, signal: &str) {
        send(signal, i32::try_from(self.child.id()).unwrap());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(signal: &str, pid: i32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

fn launcher_of(worker: i32) -> i32 {
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let is_launcher = |pid: &i32| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let parent = read("stat").rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parent == Some(worker) && read("cmdline").starts_with("cmdexec-launcher")
    };
    pids.into_iter().find(is_launcher).unwrap()
}

/// Whether a process is gone, but for what its parent has yet to take notice of.
fn is_dead(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['Z', 'X']))
}

fn beats(root: &Path) -> u64 {
    std::fs::metadata(root.join("first/beat")).map_or(0, |file| file.len())
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("never came true: {what}");
}

fn is_silent(root: &Path) -> bool {
    let before = beats(root);
    sleep(Duration::from_millis(300));
    beats(root) == before
}

/// What a launcher left of its control groups.
fn groups_of(launcher: i32) -> Vec<PathBuf> {
    let prefix = format!("cmdexec-{launcher}-");
    let mut found = Vec::new();
    let mut next = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = next.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    found.push(entry.path());
                }
                next.push(entry.path());
            }
        }
    }
    found
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

#[test]
fn a_killed_workers_jobs_end_and_nothing_stays() {
    for weak in [false, true] {
        let worker = Worker::start(weak);
        worker.signal("-KILL");
        wait_until("the job's processes are gone", || is_silent(worker.path()));
        wait_until("its groups are gone", || groups_of(worker.launcher).is_empty());
    }
}

#[test]
fn a_killed_launchers_jobs_end_and_another_is_started() {
    if !is_root() {
        println!("skipped: without control groups or job users, what has escaped a dead launcher cannot be found");
        return;
    }
    let worker = Worker::start(false);
    send("-KILL", worker.launcher);
    let read = |file: &str| std::fs::read_to_string(worker.path().join(file)).unwrap_or_default();
    wait_until("the next job ran", || read("second-outcome") == "Exited { code: 4 }");
    assert!(read("first-outcome").starts_with("ExecutorError"), "{}", read("first-outcome"));
    assert_eq!(read("beats"), beats(worker.path()).to_string(), "a process outlived the report");
    assert!(groups_of(worker.launcher).is_empty());
}

#[tokio::test]
async fn what_a_killed_worker_and_launcher_left_is_ended_by_the_next() {
    if !is_root() {
        println!("skipped: without control groups or job users, what has escaped a dead launcher cannot be found");
        return;
    }
    let worker = Worker::start(false);
    // So that it has no time to start another launcher.
    worker.signal("-STOP");
    send("-KILL", worker.launcher);
    worker.signal("-KILL");
    // The signal was sent; the launcher's locks are held until it has died of it.
    wait_until("the launcher is dead", || is_dead(worker.launcher));
    let next = ProcessExecutor::default();
    next.recover().await.unwrap();
    assert!(is_silent(worker.path()));
    assert!(groups_of(worker.launcher).is_empty());
    next.shutdown().await;
}
