//! Directories that attempts use again: whose, and what keeps them from it.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::ProcessExecutor;
use cmdexec_core::executor::process::{Options, Users};
use cmdexec_core::files::Files;
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{JobSpec, Status};
use cmdexec_core::service::{JobService, JobServiceExt, Role, UserPrincipal};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::time::{Clock, ManualClock, SystemClock};
use cmdexec_core::worker::{Worker, WorkerHandle};
use cmdexec_testkit::archive::{Entry, Zip};

/// One slot, whose directories rest by a clock that is moved by hand: by the file system's, they are as old as they are.
struct World {
    coordinator: Coordinator,
    dir: tempfile::TempDir,
    clock: ManualClock,
    worker: WorkerHandle,
}

impl World {
    async fn new(users: Users) -> Self {
        let coordinator = Coordinator::builder(MemoryStore::new()).files(Files::in_memory()).build().await.unwrap();
        let service = coordinator.as_worker(WorkerId::local());
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let executor = ProcessExecutor::new(Options { users, ..Options::default() }).unwrap();
        let clock = ManualClock::at(SystemClock.now());
        let builder = Worker::builder(service, executor).slots(1).clock(Arc::new(clock.clone()));
        let worker = builder.work_dir(dir.path().join("work")).start().await.unwrap();
        Self { coordinator, dir, clock, worker }
    }

    fn user(&self, name: &str) -> Arc<dyn JobService> {
        self.coordinator.as_user(UserPrincipal { owner: name.parse().unwrap(), role: Role::User })
    }

    /// Where a job of somebody's ran that did this besides, with what it found there.
    async fn place(&self, owner: &str, line: &str) -> String {
        let done = self.user(owner).run(JobSpec::shell(format!("pwd; ls -A; {line}"))).await.unwrap();
        assert_eq!(done.status, Status::Completed, "{line}: {done:?}");
        String::from_utf8(done.stdout.to_vec()).unwrap().trim_end().to_owned()
    }

    /// The directory that is kept has rested, by the worker's clock and by the file system's.
    async fn rest(&self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.clock.advance(Duration::from_secs(3));
    }

    fn kept(&self) -> usize {
        fs::read_dir(self.dir.path().join("work/attempts")).unwrap().count()
    }
}

async fn uses_again(users: Users) {
    let world = World::new(users).await;
    // A new one, and another that begins to rest.
    let first = world.place("ada", "true").await;
    assert_ne!(world.place("ada", "true").await, first, "none has rested");
    world.rest().await;
    let kept = world.place("ada", "true").await;
    assert_ne!(kept, first);
    for line in ["true", "cat /dev/null", "ls -la >/dev/null", "cd /; sleep 0.01"] {
        assert_eq!(world.place("ada", line).await, kept, "after what left it as it was");
    }
    assert_eq!(world.place("ada", "(exec 3<.; setsid sleep 100 <&3 &) ").await, kept);
    assert_eq!(world.place("ada", "true").await, kept, "what was left running has ended");
    // Somebody else has another.
    let others = world.place("eve", "true").await;
    assert_ne!(others, kept);
    world.rest().await;
    let mut last = world.place("eve", "true").await;
    for change in [
        "echo x > x",
        "echo x > x; rm x",
        "mkdir x; rmdir x",
        "chmod 700 .",
        "chmod 777 .; chmod 700 .",
        "touch .",
        "touch -d @0 .",
        "mkfifo x; rm x",
        "ln -s /etc/passwd x; mv x y; rm y",
    ] {
        assert_eq!(world.place("eve", change).await, last, "{change}");
        let next = world.place("eve", "true").await;
        assert_ne!(next, last, "after {change}");
        world.rest().await;
        last = world.place("eve", "true").await;
        assert_ne!(last, next, "{change}");
    }
    assert_eq!(world.kept(), 1);
    world.worker.shutdown().await;
    assert_eq!(fs::read_dir(world.dir.path().join("work/attempts")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_directory_that_was_left_as_it_was_is_used_again_by_its_owners_jobs() {
    uses_again(Users::Never).await;
}

#[tokio::test]
async fn so_is_one_of_a_user_of_its_own() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        cmdexec_testkit::skip("job users take root");
        return;
    }
    uses_again(Users::Auto).await;
}

#[tokio::test]
async fn jobs_that_bring_files_have_new_ones() {
    let world = World::new(Users::Never).await;
    world.place("ada", "true").await;
    world.rest().await;
    let kept = world.place("ada", "true").await;
    let ada = world.user("ada");
    let zip = Zip::of([Entry::file("a", b"x")]);
    let mut spec = JobSpec::shell("pwd");
    spec.input = Some(ada.upload_bytes(None, zip.bytes().into()).await.unwrap().id);
    let done = ada.run(spec).await.unwrap();
    assert_ne!(String::from_utf8_lossy(&done.stdout).trim_end(), kept);
    assert_eq!(world.place("ada", "true").await, kept, "it is still there for others");
}
