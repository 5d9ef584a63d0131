//! Full disks: a job that fills one is told so, and the next one runs.
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

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::files::Files;
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::JobSpec;
use cmdexec_core::service::JobServiceExt;
use cmdexec_core::store::MemoryStore;
use cmdexec_core::worker::Worker;
use cmdexec_executor_docker::Options;
use cmdexec_testkit::disk::Disk;
use cmdexec_testkit::executor::Subject;

use common::daemon::Daemon;
use common::{IMAGE, complaint};

/// Ready, made for the job, and talked to through the daemon.
const WAYS: [fn(&mut Options); 3] = [|_| (), |options| options.pool.most = 0, |options| options.attach = true];

/// What is said of a place.
fn full(place: &str) -> String {
    format!("disk full: no space was left in {place} when the job failed")
}

/// Runs a line that exits with this code; what its user is told beside.
async fn warnings(subject: &Subject, line: &str, code: i32) -> Vec<String> {
    let trial = subject.begin(JobSpec::shell(line));
    let said = trial.steps();
    trial.end().await.exited(code);
    said.warnings()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fills_the_daemons_disk_is_told_and_hurts_no_other() {
    let Some(disk) = Disk::mount(48) else { return };
    let Some(daemon) = Daemon::start_with(&[&format!("--data-root={}", disk.path().display())]) else { return };
    for way in WAYS {
        let writable = |options: &mut Options| {
            options.read_only_root = false;
            options.policy.image_user = true;
            way(options);
        };
        let subject = daemon.subject(writable).await;
        assert_eq!(warnings(&subject, "head -c 100000000 /dev/zero > /large", 1).await, [full("its container")]);
        assert_eq!(warnings(&subject, "head -c 1000000 /dev/zero > /small", 0).await, [""; 0]);
        assert_eq!(warnings(&subject, "exit 3", 3).await, [""; 0]);
        subject.executor.shutdown().await;
        // One that may not write to it has no container while it is full, and the next one has.
        let subject = daemon.subject(way).await;
        disk.fill();
        let refused = subject.sh("exit 3").await;
        assert!(complaint(&refused.outcome).contains("the container daemon's disk is full"), "{:?}", refused.outcome);
        disk.empty();
        // Nor is it told of a disk that is no matter of its own.
        let mut trial = subject.begin(JobSpec::shell("echo ready; while ! test -e go; do sleep 0.05; done; exit 3"));
        let said = trial.steps();
        trial.until("ready").await;
        disk.fill();
        fs::write(trial.dir.join("go"), "").unwrap();
        trial.end().await.exited(3);
        assert_eq!(said.warnings(), [""; 0]);
        disk.empty();
        subject.executor.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fills_what_else_it_may_write_to_is_told() {
    let Some(disk) = Disk::mount(8) else { return };
    for way in WAYS {
        let small = |options: &mut Options| {
            options.tmp_mb = 4;
            way(options);
        };
        let Some(subject) = common::subject(small).await else { return };
        let dir = disk.path().join("attempt");
        // Who is content with less is not told.
        for (end, code, told) in [("", 1, vec![full("its directory")]), ("; true", 0, vec![])] {
            fs::create_dir(&dir).unwrap();
            let line = format!("head -c 100000000 /dev/zero > large{end}");
            let trial = subject.begin_with(JobSpec::shell(line), |context| context.dir.clone_from(&dir));
            let said = trial.steps();
            trial.end().await.exited(code);
            assert_eq!(said.warnings(), told);
            fs::remove_dir_all(&dir).unwrap();
        }
        let both = "head -c 100000000 /dev/zero > /dev/shm/large; head -c 5000000 /dev/zero > /tmp/large";
        assert_eq!(warnings(&subject, both, 1).await, ["/tmp", "/dev/shm"].map(full));
        subject.executor.shutdown().await;
    }
}

/// A whole worker, whose own directory is where the job's is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_disk_a_job_has_filled_goes_on() {
    let Some(disk) = Disk::mount(8) else { return };
    let Some(executor) = common::executor(|options| options.dir = disk.path().join("containers")).await else { return };
    let coordinator = Coordinator::builder(MemoryStore::new()).files(Files::in_memory()).build().await.unwrap();
    let worker = Worker::builder(coordinator.as_worker(WorkerId::local()), executor).work_dir(disk.path());
    let worker = worker.slots(1).start().await.unwrap();
    let run = async |line: &str| {
        let mut spec = JobSpec::shell(line);
        spec.container_image = Some(IMAGE.to_owned());
        spec.outputs = vec!["kept".to_owned()];
        coordinator.jobs().run(spec).await.unwrap()
    };
    for _ in 0..2 {
        let job = run("echo x > kept; head -c 100000000 /dev/zero > large").await;
        assert_eq!((job.exit_code, &job.details.warnings[0]), (Some(1), &full("its directory")), "{job:?}");
        let job = run("echo x > kept").await;
        assert_eq!(
            (job.exit_code, job.artifacts.is_some(), &job.details.warnings[..]),
            (Some(0), true, &[][..]),
            "{job:?}"
        );
    }
    worker.shutdown().await;
}
