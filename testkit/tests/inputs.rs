//! The files that jobs bring, through the real coordinator, worker and processes: fetched and unpacked once, everybody's own.
//!
//! As root this runs jobs as users of their own over overlay mounts; otherwise as this user with copies.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::ProcessExecutor;
use cmdexec_core::executor::process::{self, Users};
use cmdexec_core::files::{ByteStream, Download, FileId, Files, GetRange};
use cmdexec_core::id::{JobId, LeaseToken, WorkerId};
use cmdexec_core::job::{JobSpec, Reason, Status};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, HeartbeatReply, JobServiceExt, JobView, LeaseRequest, LeasedJob, OutputAck,
    OutputBatch, Registered, Registration, WorkerService,
};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::worker::{Builder, Worker, WorkerHandle};
use cmdexec_testkit::archive::{Entry, Zip};
use cmdexec_testkit::service::{FaultyWorkerService, WorkerCall};
use futures_util::StreamExt;

struct World {
    coordinator: Coordinator,
    service: FaultyWorkerService,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let builder = Coordinator::builder(MemoryStore::new()).files(Files::in_memory());
        let coordinator = builder.build().await.unwrap();
        let service = FaultyWorkerService::new(coordinator.as_worker(WorkerId::local()));
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        Self { coordinator, service, dir }
    }

    fn builder(&self) -> Builder {
        self.builder_with(process::Options::default())
    }

    fn builder_with(&self, options: process::Options) -> Builder {
        let executor = ProcessExecutor::new(options).unwrap();
        Worker::builder(Arc::new(self.service.clone()), executor).slots(1).work_dir(self.dir.path().join("work"))
    }

    async fn worker(&self) -> WorkerHandle {
        self.builder().start().await.unwrap()
    }

    async fn put(&self, zip: &Zip) -> FileId {
        self.coordinator.jobs().upload_bytes(None, zip.bytes().into()).await.unwrap().id
    }

    async fn run(&self, line: &str, input: FileId) -> JobView {
        let mut spec = JobSpec::shell(line);
        spec.input = Some(input);
        self.coordinator.jobs().run(spec).await.unwrap()
    }

    /// What a job prints that must succeed.
    async fn output(&self, line: &str, input: FileId) -> String {
        let done = self.run(line, input).await;
        let output = String::from_utf8_lossy(&done.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status, Status::Completed, "{line}: {:?} {output} {stderr}", done.error);
        output
    }

    fn fetched(&self) -> usize {
        self.service.calls(WorkerCall::Download)
    }

    /// Waits until the directories of attempts are gone, which may take a moment longer than the worker.
    async fn all_removed(&self) {
        for _ in 0..1_000 {
            if self.left("attempts").is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("left behind: {:?}", self.left("attempts"));
    }

    /// What is in the worker's directory for attempts and inputs.
    fn left(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join("work").join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn project() -> Zip {
    Zip::of([
        Entry::file("data", b"original\n"),
        Entry::file("src/deep/code", b"code\n"),
        Entry::file("run.sh", b"#!/bin/sh\necho ran\n").mode(0o100_755),
        Entry::link("link", "src/deep/code"),
        Entry::directory("empty/"),
    ])
}

/// Everything that a job can see of its files, without times.
const LOOK: &str = "find . -printf '%P %y %m %l\\n' | sort; find . ! -uid $(id -u) -o ! -gid $(id -g); cat data src/deep/code link; ./run.sh";

/// Whether overlay mounts work where tests have their directories.
fn may_mount() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let script = "mkdir l u w m && mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w,volatile m && umount m";
    let tried = std::process::Command::new("sh").args(["-c", script]).current_dir(dir.path()).output().unwrap();
    tried.status.success()
}

fn mounts_below(dir: &Path) -> usize {
    let dir = dir.canonicalize().unwrap();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point).starts_with(&dir))).count()
}

#[tokio::test]
async fn what_is_shown_again_is_what_was_unpacked_afresh() {
    let world = World::new().await;
    let input = world.put(&project()).await;
    let worker = world.builder().input_cache_mb(0).start().await.unwrap();
    let fresh = world.output(LOOK, input).await;
    assert!(
        fresh.contains("run.sh f 755") && fresh.contains("ran\n") && fresh.contains("src/deep/code f 644"),
        "{fresh}"
    );
    worker.shutdown().await;

    let worker = world.worker().await;
    assert_eq!(world.output(LOOK, input).await, fresh);
    assert_eq!(world.output(LOOK, input).await, fresh);
    worker.shutdown().await;
    assert_eq!(world.fetched(), 2);
}

async fn nobody_sees_anothers_changes(world: &World) {
    let input = world.put(&project()).await;
    let before = world.output(LOOK, input).await;
    let spoil = "echo changed >> data && chmod 777 data && rm -r src/deep && touch src/new && mv src other && chmod 600 run.sh \
                 && rm link && ln -s data link && rmdir empty && mkdir empty && touch -d @0 empty && find . -type f | xargs cat";
    let spoiled = world.output(spoil, input).await;
    assert!(spoiled.contains("changed"), "{spoiled}");
    assert_eq!(world.output(LOOK, input).await, before);
    assert_eq!(world.fetched(), 1);
}

#[tokio::test]
async fn no_job_sees_what_another_did_to_its_files() {
    let world = World::new().await;
    let worker = world.worker().await;
    nobody_sees_anothers_changes(&world).await;
    // Where it may, the worker mounts rather than copies.
    let kind = world.output("stat -f -c %T .", world.put(&project()).await).await;
    if may_mount() {
        assert_eq!(kind, "overlayfs\n");
        let look = "ls ../../inputs ../*.layer 2> /dev/null || echo refused";
        assert_eq!(world.output(look, world.put(&project()).await).await, "refused\n");
    } else {
        cmdexec_testkit::skip("overlay mounts need root and Linux 5.19");
    }
    worker.shutdown().await;
    assert_eq!(mounts_below(world.dir.path()), 0);
    world.all_removed().await;
}

#[tokio::test]
async fn nor_where_jobs_run_as_the_workers_user() {
    let world = World::new().await;
    let options = process::Options { users: Users::Never, ..process::Options::default() };
    let worker = world.builder_with(options).start().await.unwrap();
    nobody_sees_anothers_changes(&world).await;
    worker.shutdown().await;
    assert_eq!(mounts_below(world.dir.path()), 0);
}

#[tokio::test]
async fn jobs_at_one_time_see_only_their_own() {
    let world = World::new().await;
    let worker = world.builder().slots(8).start().await.unwrap();
    let input = world.put(&project()).await;
    let jobs = (0..40).map(|i| {
        let line =
            format!("echo {i} > data; rm src/deep/code; echo {i} > src/deep/{i}; sleep 0.05; cat data src/deep/*");
        let world = &world;
        async move { assert_eq!(world.output(&line, input).await, format!("{i}\n{i}\n")) }
    });
    futures_util::future::join_all(jobs).await;
    // All of them over one file, and the first eight wanted it at once.
    assert_eq!(world.fetched(), 1);
    worker.shutdown().await;
    world.all_removed().await;
}

#[tokio::test]
async fn the_working_directory_may_be_inside_of_the_files() {
    let world = World::new().await;
    let worker = world.worker().await;
    let input = world.put(&project()).await;
    for _ in 0..2 {
        let mut spec = JobSpec::shell("cat code && echo more >> code && pwd");
        (spec.input, spec.working_directory) = (Some(input), Some("src/deep".to_owned()));
        let done = world.coordinator.jobs().run(spec).await.unwrap();
        let output = String::from_utf8_lossy(&done.stdout);
        assert!(output.starts_with("code\n/") && output.ends_with("/src/deep\n"), "{output} {:?}", done.error);
    }
    worker.shutdown().await;
}

#[tokio::test]
async fn a_hostile_archive_is_an_input_error_for_everyone_and_leaves_nothing() {
    let world = World::new().await;
    let worker = world.builder().slots(4).start().await.unwrap();
    let input = world.put(&Zip::of([Entry::file("fine", b"x"), Entry::file("../evil", b"x")])).await;
    let jobs = futures_util::future::join_all((0..4).map(|_| world.run("true", input))).await;
    for job in jobs {
        assert_eq!(job.reason, Some(Reason::InputError));
        let error = job.error.unwrap();
        assert!(error.contains("../evil") && error.contains("leads out"), "{error}");
    }
    // One whose data is bad is found out half-way.
    let torn = Zip::of([Entry::file("fine", b"x"), Entry::file("bad", b"x").with(|entry| entry.crc ^= 1)]);
    let input = world.put(&torn).await;
    assert!(world.run("true", input).await.error.unwrap().contains("checksum"));
    worker.shutdown().await;
    assert!(world.left("inputs").iter().all(|name| name == "mark"), "{:?}", world.left("inputs"));
}

#[tokio::test]
async fn what_was_unpacked_outlives_the_worker() {
    let world = World::new().await;
    let input = world.put(&project()).await;
    let worker = world.worker().await;
    let before = world.output(LOOK, input).await;
    worker.shutdown().await;
    let worker = world.worker().await;
    assert_eq!(world.output(LOOK, input).await, before);
    assert_eq!(world.fetched(), 1);
    worker.shutdown().await;
    // Judged by other limits, it would have to be judged anew.
    let mut limits = cmdexec_core::archive::Limits::default();
    limits.levels = 2;
    let worker = world.builder().input_limits(limits).start().await.unwrap();
    assert_eq!(world.run(LOOK, input).await.reason, Some(Reason::InputError));
    assert_eq!(world.fetched(), 2);
    worker.shutdown().await;
}

#[tokio::test]
async fn the_cache_holds_no_more_than_it_may() {
    let world = World::new().await;
    let worker = world.builder().input_cache_mb(1).start().await.unwrap();
    let of = |name: &str, len: usize| Zip::of([Entry::stored(name, &vec![b'x'; len])]);
    let (a, b) = (world.put(&of("a", 600_000)).await, world.put(&of("b", 600_000)).await);
    let large = world.put(&of("large", 1_200_000)).await;
    for (input, fetched) in [(a, 1), (a, 1), (b, 2), (b, 2), (a, 3), (large, 4), (large, 5), (a, 5)] {
        world.output("wc -c *", input).await;
        assert_eq!(world.fetched(), fetched);
        let used: u64 = sizes(&world.dir.path().join("work/inputs"));
        assert!(used <= 1 << 20, "{used} bytes are kept");
    }
    worker.shutdown().await;
}

/// The bytes of all files below a directory, as they take room on the disk.
fn sizes(dir: &Path) -> u64 {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            metadata.blocks() * 512 + if metadata.is_dir() { sizes(&path) } else { 0 }
        })
        .sum()
}

/// Breaks off each stream of a file after so many bytes, and counts those that were sent.
#[derive(Debug)]
struct Torn(Arc<dyn WorkerService>, usize);

#[async_trait]
impl WorkerService for Torn {
    async fn register(&self, registration: Registration) -> Result<Registered, Error> {
        self.0.register(registration).await
    }

    async fn heartbeat(&self, worker: &WorkerId, beat: Heartbeat) -> Result<HeartbeatReply, Error> {
        self.0.heartbeat(worker, beat).await
    }

    async fn lease(&self, worker: &WorkerId, request: LeaseRequest) -> Result<Vec<LeasedJob>, Error> {
        self.0.lease(worker, request).await
    }

    async fn append_output(
        &self,
        worker: &WorkerId,
        batches: Vec<OutputBatch>,
    ) -> Result<Vec<Result<OutputAck, Error>>, Error> {
        self.0.append_output(worker, batches).await
    }

    async fn finish(&self, worker: &WorkerId, attempts: Vec<FinishedAttempt>) -> Result<Vec<Result<(), Error>>, Error> {
        self.0.finish(worker, attempts).await
    }

    async fn download(
        &self,
        worker: Option<&WorkerId>,
        file: FileId,
        range: Option<GetRange>,
    ) -> Result<Download, Error> {
        let whole = self.0.download(worker, file, range).await?;
        let mut left = self.1;
        // It is whole in the end only if what came is kept and the rest is asked for.
        let bytes = whole.bytes.flat_map(move |bytes| {
            let bytes = bytes.unwrap();
            let some = bytes.slice(..left.min(bytes.len()));
            let torn = some.len() < bytes.len();
            left -= some.len();
            let mut pieces = vec![Ok(some)];
            if torn {
                pieces.push(Err(Error::Unavailable { retry_after: Duration::ZERO }));
            }
            futures_util::stream::iter(pieces)
        });
        Ok(Download { bytes: Box::pin(bytes), ..whole })
    }

    async fn upload_artifacts(
        &self,
        worker: &WorkerId,
        job: JobId,
        token: Option<LeaseToken>,
        bytes: ByteStream,
    ) -> Result<FileId, Error> {
        self.0.upload_artifacts(worker, job, token, bytes).await
    }
}

#[tokio::test]
async fn a_transfer_that_breaks_off_goes_on_where_it_stopped() {
    let world = World::new().await;
    let noise: Vec<u8> = (0..100_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let zip = Zip::of([Entry::stored("noise", &noise)]);
    let len = zip.bytes().len();
    let input = world.put(&zip).await;
    world.service.replace(Arc::new(Torn(world.coordinator.as_worker(WorkerId::local()), len / 4)));
    let worker = world.worker().await;
    let job = world.coordinator.jobs();
    let mut spec = JobSpec::shell("wc -c < noise");
    spec.input = Some(input);
    let id = job.submit(spec).await.unwrap().id;
    // It breaks off again and again, until the line is good.
    while world.fetched() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.service.replace(world.coordinator.as_worker(WorkerId::local()));
    let done = job.wait(id).await.unwrap();
    assert_eq!((done.status, &*done.stdout), (Status::Completed, &b"400000\n"[..]), "{:?}", done.error);
    worker.shutdown().await;
}

// --- killed --------------------------------------------------------------------------------------------------------

/// What the killed process does; in the tests' own process it is nothing.
#[tokio::test]
async fn killed_worker() {
    let Some(dir) = std::env::var_os("CMDEXEC_TEST_DIR").map(std::path::PathBuf::from) else { return };
    let mut world = World::new().await;
    world.dir = tempfile::TempDir::new_in(&dir).unwrap();
    let executor = ProcessExecutor::default();
    let service = Arc::new(world.service.clone());
    let _worker = Worker::builder(service, executor).slots(2).work_dir(dir.join("work")).start().await.unwrap();
    let input = world.put(&project()).await;
    world.output("true", input).await;
    let line = format!("echo spoiled > data; echo > {}; sleep 100", dir.join("out/running").display());
    world.run(&line, input).await;
}

fn start_to_kill(dir: &Path) -> Child {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "killed_worker"]).env("CMDEXEC_TEST_DIR", dir);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn a_worker_that_is_killed_leaves_nothing_that_the_next_one_trips_over() {
    let world = World::new().await;
    let dir = world.dir.path();
    fs::create_dir(dir.join("out")).unwrap();
    fs::set_permissions(dir.join("out"), fs::Permissions::from_mode(0o777)).unwrap();
    let mut child = start_to_kill(dir);
    for _ in 0..2_000 {
        if dir.join("out/running").exists() {
            break;
        }
        sleep(Duration::from_millis(10));
    }
    assert!(dir.join("out/running").exists(), "the job does not run");
    child.kill().unwrap();
    child.wait().unwrap();
    // As if it had been killed while it unpacked and fetched something else.
    fs::create_dir_all(dir.join("work/inputs/new-7/tree/half")).unwrap();
    fs::write(dir.join("work/inputs/new-8"), "half").unwrap();

    let worker = world.worker().await;
    assert_eq!(world.left("attempts"), [""; 0]);
    assert_eq!(world.left("inputs").iter().filter(|name| name.starts_with("new")).count(), 0);
    let input = world.put(&project()).await;
    let seen = world.output("cat data", input).await;
    assert_eq!(seen, "original\n");
    // What the killed one had unpacked is still good.
    assert_eq!(world.fetched(), 0);
    worker.shutdown().await;
    assert_eq!(mounts_below(dir), 0);
}
