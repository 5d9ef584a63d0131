//! A daemon that goes away, comes back, or hangs; that maps users to others, or sees other files. It is one of the test's own.
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

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::files::Files;
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{JobSpec, Outcome};
use cmdexec_core::service::JobServiceExt;
use cmdexec_core::store::MemoryStore;
use cmdexec_core::worker::Worker;
use cmdexec_executor_docker::{DockerExecutor, Options};
use nix::sys::signal::Signal;

use common::daemon::{Daemon, free_address};
use common::{IMAGE, complaint, docker, docker_says};

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
    let subject = daemon
        .subject(|options| {
            options.pool.most = 0;
            options.patience = Duration::from_secs(3);
        })
        .await;
    let mut trial = subject.begin(JobSpec::shell("echo ready; while ! test -e go; do sleep 0.05; done; exit 6"));
    trial.until("ready").await;
    daemon.signal(Signal::SIGSTOP);
    // What runs does not need it; what is to begin is told in bounded time.
    fs::write(trial.dir.join("go"), "").unwrap();
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

/// A way to have containers, and its name.
type Way<'a> = (&'a str, &'a dyn Fn(&mut Options));

/// Whoever is root in a container is nobody here, and may do with a job's files what a job may do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_can_be_mapped_to_others() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let address = free_address();
    let Some(daemon) = Daemon::start_with(&["--userns-remap=default", "--tls=false", &format!("--host={address}")])
    else {
        return;
    };
    let ways: [Way<'_>; 4] = [
        ("ready", &|_| ()),
        ("cold", &|options| options.pool.most = 0),
        ("attached", &|options| options.attach = true),
        ("elsewhere", &|options| options.host.clone_from(&address)),
    ];
    for (way, change) in ways {
        for is_root in [false, true] {
            let subject = daemon
                .subject(|options| {
                    options.policy.image_user = is_root;
                    change(options);
                })
                .await;
            let own = if is_root { 0 } else { 60_705 };
            let line = "stat -c %u . given; id -u; head -n 1 /proc/self/uid_map; echo more >> given; mkdir -p deep/er; chmod 000 deep; kill -9 $$";
            let trial = subject.begin_with(JobSpec::shell(line), |context| {
                fs::write(context.dir.join("given"), "given\n").unwrap();
            });
            let ended = trial.end().await;
            assert_eq!(ended.outcome, Outcome::Signaled { signal: 9 }, "{way}");
            let said = ended.text();
            let said: Vec<u32> = said.split_whitespace().map(|number| number.parse().unwrap()).collect();
            let [directory, file, user, 0, root, _] = said[..] else { panic!("{way}: {said:?}") };
            assert_eq!((directory, file, user), (own, own, own), "{way}");
            assert!(root > 0, "{way}: root is root here too");
            let outside = |name: &str| fs::metadata(ended.dir.join(name)).unwrap().uid();
            assert_eq!((outside("deep"), outside("given")), (root + own, root + own), "{way}");
            fs::remove_dir_all(&ended.dir).unwrap();
            subject.executor.shutdown().await;
            assert_eq!(docker_says(&daemon.host(), &["ps", "-aq"]), "", "{way}");
        }
    }
    // Unless that is not wanted.
    let subject = daemon.subject(|options| options.userns = Some("host".to_owned())).await;
    let line = "echo x > x; head -n 1 /proc/self/uid_map | tr -s ' '";
    assert_eq!(subject.sh(line).await.succeeded().trim(), format!("0 0 {}", u32::MAX));
    subject.executor.shutdown().await;
    whole_worker(&daemon).await;
}

/// What a job leaves is packed, is another's to change, and gone from the worker.
async fn whole_worker(daemon: &Daemon) {
    let coordinator = Coordinator::builder(MemoryStore::new()).files(Files::in_memory()).build().await.unwrap();
    let executor = daemon.executor(|_| ()).await;
    let work_dir = tempfile::tempdir().unwrap();
    let worker = Worker::builder(coordinator.as_worker(WorkerId::local()), executor).work_dir(work_dir.path());
    let worker = worker.start().await.unwrap();
    let jobs = coordinator.jobs();
    let spec = |line: &str, input| {
        let mut spec = JobSpec::shell(line);
        spec.container_image = Some(IMAGE.to_owned());
        spec.outputs = vec!["deep".to_owned()];
        spec.input = input;
        spec
    };
    let first =
        jobs.run(spec("mkdir -p deep/er; echo one > deep/er/file; chmod 600 deep/er/file", None)).await.unwrap();
    let line = "cat deep/er/file; echo two >> deep/er/file; mkdir sealed; : > sealed/x; chmod 000 sealed";
    let second = jobs.run(spec(line, first.artifacts)).await.unwrap();
    let third =
        jobs.run(spec("test \"$(cat deep/er/file | tr '\\n' ' ')\" = 'one two '", second.artifacts)).await.unwrap();
    for job in [first, second, third] {
        assert_eq!((job.exit_code, &job.details.warnings[..]), (Some(0), &[][..]), "{job:?}");
    }
    worker.shutdown().await;
    assert_eq!(fs::read_dir(work_dir.path().join("attempts")).unwrap().count(), 0);
}

/// Where the daemon has other files at the worker's paths, that is said, and not found out from a job that finds nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_does_not_see_the_workers_directories_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let hidden = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut program = std::process::Command::new("unshare");
    let elsewhere = "mount -t tmpfs none \"$0\" && exec dockerd \"$@\"";
    program.args(["--mount", "sh", "-c", elsewhere]).arg(hidden.path());
    let Some(daemon) = Daemon::start_as(&mut program, &["--tls=false", &format!("--host={address}")]) else { return };
    for host in [daemon.host(), address] {
        let options = daemon.options(|options| {
            options.host.clone_from(&host);
            options.dir = hidden.path().join("containers");
        });
        let said = DockerExecutor::open(options).await.unwrap_err().to_string();
        assert!(said.contains("does not see the worker's directories") && said.contains("containers/"), "{said}");
        let subject = daemon
            .subject(|options| {
                options.host.clone_from(&host);
                options.pool.most = 0;
            })
            .await;
        let dir = hidden.path().join("attempt");
        fs::create_dir_all(&dir).unwrap();
        let trial = subject.begin_with(JobSpec::shell("true"), |context| context.dir.clone_from(&dir));
        let ended = trial.end().await;
        let said = complaint(&ended.outcome);
        assert!(said.contains("does not see the worker's directories") && said.contains("/attempt"), "{said}");
        subject.sh("true").await.succeeded();
        subject.executor.shutdown().await;
    }
}

/// Runtimes by whatever name: containers are run by them, and one that is told by its program to bring a kernel of its own is
/// handed no descriptors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_are_run_by_the_runtime_that_is_named() {
    let programs = tempfile::tempdir().unwrap();
    let runsc = programs.path().join("runsc");
    fs::write(&runsc, "#!/bin/sh\nexec runc \"$@\"\n").unwrap();
    fs::set_permissions(&runsc, PermissionsExt::from_mode(0o755)).unwrap();
    let arguments = ["--add-runtime=other=runc".to_owned(), format!("--add-runtime=kernel={}", runsc.display())];
    let Some(daemon) = Daemon::start_with(&[&arguments[0], &arguments[1], "--default-runtime=kernel"]) else { return };
    for (asked, runs, is_attached) in
        [(Some("other"), "other", false), (Some("kernel"), "kernel", true), (None, "kernel", true)]
    {
        let subject = daemon.subject(|options| options.runtime = asked.map(str::to_owned)).await;
        let mut trial = subject.begin(JobSpec::shell("echo ready; kill -9 $$"));
        trial.until("ready").await;
        assert_eq!(trial.end().await.outcome, Outcome::Signaled { signal: 9 });
        let mut hog = JobSpec::shell("x=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; while :; do x=$x$x; done");
        hog.resources.memory_mb = Some(32);
        assert_eq!(subject.run(hog).await.outcome, Outcome::OutOfMemory);
        let mut trial = subject.begin(JobSpec::shell("echo ready; sleep 100"));
        trial.until("ready").await;
        let running = docker_says(&daemon.host(), &["ps", "-q"]);
        let mut inspect = vec!["inspect", "-f", "{{.HostConfig.Runtime}} {{.Config.AttachStdin}}"];
        inspect.extend(running.lines());
        // Some of them may be gone meanwhile.
        let seen = String::from_utf8(docker(&daemon.host(), &inspect).stdout).unwrap();
        assert!(!seen.is_empty() && seen.lines().all(|line| line == format!("{runs} {is_attached}")), "{seen}");
        trial.stop.cancel();
        assert_eq!(trial.end().await.outcome, Outcome::Stopped);
        subject.executor.shutdown().await;
    }
}
