//! What jobs leave, from the worker that collects it to the user who fetches it: the real worker and the real coordinator, with a
//! network that fails as told.
#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::archive::{Limits, unpack};
use cmdexec_core::coordinator::{Coordinator, Options};
use cmdexec_core::executor::{Executor, FunctionExecutor, ProcessExecutor, RunContext};
use cmdexec_core::files::{FileId, Files};
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::job::{Command, JobSpec, Outcome, Status};
use cmdexec_core::service::{JobService, JobServiceExt, JobView, LeaseRequest, Registration};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::time::{Clock, ManualClock};
use cmdexec_core::worker::{Builder, Ended, OutputLimits, Worker, WorkerHandle};
use cmdexec_testkit::service::{FaultyWorkerService, WorkerCall};
use cmdexec_testkit::store::{Fault, Gate};
use futures_util::TryStreamExt;

const DONE: Outcome = Outcome::Exited { code: 0 };

struct World {
    clock: ManualClock,
    jobs: Arc<dyn JobService>,
    coordinator: Coordinator,
    service: FaultyWorkerService,
    work_dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(options: impl FnOnce(&mut Options)) -> Self {
        let clock = ManualClock::default();
        let store = MemoryStore::with_clock(Arc::new(clock.clone()));
        let builder = Coordinator::builder(store).clock(Arc::new(clock.clone())).files(Files::in_memory());
        let coordinator = builder.seed(1).with_options(options).build().await.unwrap();
        let service = FaultyWorkerService::new(coordinator.as_worker(WorkerId::local()));
        let work_dir = tempfile::tempdir().unwrap();
        Self { clock, jobs: coordinator.jobs(), coordinator, service, work_dir }
    }

    /// A worker that runs jobs by this function.
    fn builder<F, Fut>(&self, function: F) -> Builder
    where
        F: Fn(RunContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let executor = FunctionExecutor::new(function).with_clock(Arc::clone(&clock));
        let builder = Worker::builder(Arc::new(self.service.clone()), executor).work_dir(self.work_dir.path());
        builder.slots(2).clock(clock).seed(1)
    }

    /// A worker whose jobs write `out/file` and end as their lines say.
    async fn worker(&self) -> WorkerHandle {
        self.builder(leave_and_end).start().await.unwrap()
    }

    async fn submit(&self, line: &str, outputs: &[&str]) -> JobId {
        self.jobs.submit(spec(line, outputs)).await.unwrap().id
    }

    async fn view(&self, id: JobId) -> JobView {
        self.jobs.job(id).await.unwrap()
    }

    /// Collecting is another thread's work, so time passes here by itself too.
    async fn tick(&self) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.clock.advance(Duration::from_millis(50));
    }

    async fn until(&self, id: JobId, is_so: impl Fn(&JobView) -> bool) -> JobView {
        for _ in 0..20_000 {
            let view = self.view(id).await;
            if is_so(&view) {
                return view;
            }
            self.tick().await;
        }
        panic!("{:?}", self.view(id).await)
    }

    async fn end_of(&self, id: JobId) -> JobView {
        self.until(id, |view| view.status.is_finished()).await
    }

    async fn run(&self, line: &str, outputs: &[&str]) -> JobView {
        self.end_of(self.submit(line, outputs).await).await
    }

    /// Submits a job whose upload hangs, and waits until it does.
    async fn hang_in_upload(&self, line: &str) -> (JobId, Gate) {
        let gate = Gate::closed();
        self.service.inject(WorkerCall::UploadArtifacts, Fault::HoldBefore(gate.clone()));
        let id = self.submit(line, &["out"]).await;
        let ticking = async {
            loop {
                self.tick().await;
            }
        };
        tokio::select! {
            () = gate.reached() => {}
            () = ticking => unreachable!(),
        }
        (id, gate)
    }

    fn uploads(&self) -> usize {
        self.service.calls(WorkerCall::UploadArtifacts)
    }

    /// What attempts have left on the worker's disk, besides an empty directory for the next.
    fn left_on_disk(&self) -> usize {
        let left = fs::read_dir(self.work_dir.path().join("attempts")).unwrap().map(Result::unwrap);
        left.filter(|entry| !entry.file_name().to_str().unwrap().starts_with("spare-")).count()
    }
}

fn spec(line: &str, outputs: &[&str]) -> JobSpec {
    let mut spec = JobSpec::shell(line);
    spec.outputs = outputs.iter().map(|glob| (*glob).to_owned()).collect();
    spec
}

async fn leave_and_end(context: RunContext) -> Outcome {
    fs::create_dir(context.dir.join("out")).unwrap();
    fs::write(context.dir.join("out/file"), "kept").unwrap();
    let Command::Shell(line) = &context.spec.command else { panic!() };
    match &**line {
        "succeed" => DONE,
        "fail" => Outcome::Exited { code: 3 },
        "time out" => Outcome::TimedOut,
        "use much" => Outcome::OutOfMemory,
        "be killed" => Outcome::Signaled { signal: 9 },
        "break" => Outcome::ExecutorError { message: "on purpose".to_owned() },
        "wait" => {
            context.stop.cancelled().await;
            Outcome::Stopped
        }
        other => panic!("{other}"),
    }
}

/// The files of an archive, and where its links lead.
async fn fetch(jobs: &dyn JobService, id: FileId) -> BTreeMap<String, String> {
    let stream = jobs.download(id, None).await.unwrap().bytes;
    let bytes: Vec<u8> = stream
        .try_fold(Vec::new(), async |mut all, next: Bytes| {
            all.extend_from_slice(&next);
            Ok(all)
        })
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    unpack(std::io::Cursor::new(bytes), dir.path(), &Limits::default(), &AtomicBool::new(false)).unwrap();
    let mut files = BTreeMap::new();
    read(dir.path(), "", &mut files);
    files
}

fn read(dir: &Path, below: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{below}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read(&entry.path(), &format!("{path}/"), files);
        } else if entry.file_type().unwrap().is_symlink() {
            files.insert(path, format!("-> {}", fs::read_link(entry.path()).unwrap().display()));
        } else {
            files.insert(path, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

#[tokio::test]
async fn what_a_job_leaves_is_kept_however_it_ended() {
    let world = World::new().await;
    let worker = world.worker().await;
    let ends = [
        ("succeed", Status::Completed),
        ("fail", Status::Failed),
        ("time out", Status::Failed),
        ("use much", Status::Failed),
        ("be killed", Status::Failed),
    ];
    for (line, status) in ends {
        let done = world.run(line, &["out/**"]).await;
        assert_eq!((done.status, done.details.warnings.len()), (status, 0), "{line}: {:?}", done.details);
        let files = fetch(&*world.jobs, done.artifacts.unwrap()).await;
        assert_eq!(files.into_iter().collect::<Vec<_>>(), [("out/file".to_owned(), "kept".to_owned())]);
    }
    assert_eq!(world.uploads(), 5);
    while world.left_on_disk() > 0 {
        world.tick().await;
    }
    assert_eq!(worker.shutdown().await, Ended::default());
}

#[tokio::test]
async fn a_job_without_outputs_uploads_nothing_and_one_that_never_ran_neither() {
    let world = World::new().await;
    let _worker = world.worker().await;
    assert_eq!(world.run("succeed", &[]).await.artifacts, None);
    let mut broken = spec("break", &["**"]);
    broken.max_attempts = 1;
    let id = world.jobs.submit(broken).await.unwrap().id;
    assert_eq!(world.end_of(id).await.artifacts, None);
    assert_eq!(world.uploads(), 0);
}

#[tokio::test]
async fn what_is_not_there_is_a_warning_and_no_failure() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let done = world.run("succeed", &["dist/**", "out/*"]).await;
    assert_eq!((done.status, done.artifacts.is_some()), (Status::Completed, true));
    assert_eq!(done.details.warnings, ["outputs: nothing matched `dist/**`"]);
    let done = world.run("succeed", &["nothing", "*.log"]).await;
    assert_eq!((done.status, done.artifacts), (Status::Completed, None));
    assert_eq!(done.details.warnings, ["outputs: nothing matched `nothing`", "outputs: nothing matched `*.log`"]);
    assert_eq!(world.uploads(), 1, "an empty archive is of no use to anybody");
}

#[tokio::test]
async fn an_upload_is_repeated_until_it_is_through() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for fault in [Fault::Refuse, Fault::LoseReply, Fault::Refuse] {
        world.service.inject(WorkerCall::UploadArtifacts, fault);
    }
    let done = world.run("succeed", &["out"]).await;
    assert_eq!((done.details.warnings.len(), world.uploads()), (0, 4));
    assert_eq!(fetch(&*world.jobs, done.artifacts.unwrap()).await["out/file"], "kept");
}

#[tokio::test]
async fn an_upload_that_stands_still_is_begun_anew() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let (id, _gate) = world.hang_in_upload("succeed").await;
    let done = world.end_of(id).await;
    assert_eq!((done.artifacts.is_some(), world.uploads()), (true, 2));
}

#[tokio::test]
async fn what_the_coordinator_does_not_take_is_a_warning() {
    let world = World::with(|options| options.max_file_size = 100).await;
    let _worker = world.worker().await;
    let done = world.run("succeed", &["out"]).await;
    assert_eq!((done.status, done.artifacts, world.uploads()), (Status::Completed, None, 1));
    let expected = "outputs: they could not be uploaded: a file may have at most 100 bytes";
    assert_eq!(done.details.warnings, [expected]);

    let world = World::with(|options| options.file_quota = 100).await;
    let _worker = world.worker().await;
    let done = world.run("succeed", &["out"]).await;
    assert!(done.artifacts.is_none() && done.details.warnings[0].contains("owner's files"), "{:?}", done.details);
}

#[tokio::test]
async fn what_is_more_than_the_worker_keeps_is_left_out_by_name() {
    let world = World::new().await;
    let mut limits = OutputLimits::default();
    limits.unpacked = 10;
    let function = async |context: RunContext| {
        for (name, len) in [("a", 4), ("b", 40), ("c", 6)] {
            fs::write(context.dir.join(name), "x".repeat(len)).unwrap();
        }
        DONE
    };
    let _worker = world.builder(function).output_limits(limits).start().await.unwrap();
    let done = world.run("x", &["*"]).await;
    assert_eq!(fetch(&*world.jobs, done.artifacts.unwrap()).await.into_keys().collect::<Vec<_>>(), ["a", "c"]);
    let expected = "outputs: `b` was left out: with its 40 bytes there would be more than 10";
    assert_eq!(done.details.warnings, [expected]);
}

#[tokio::test]
async fn what_a_cancelled_job_leaves_is_kept() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let id = world.submit("wait", &["out"]).await;
    world.until(id, |view| view.status == Status::Running).await;
    while world.left_on_disk() == 0 {
        world.tick().await;
    }
    world.jobs.cancel(id).await.unwrap();
    let done = world.end_of(id).await;
    assert_eq!((done.status, done.artifacts.is_some()), (Status::Cancelled, true), "{:?}", done.details);
}

#[tokio::test]
async fn a_cancellation_ends_the_upload_and_the_job_ends_as_it_had() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let (id, _gate) = world.hang_in_upload("succeed").await;
    world.jobs.cancel(id).await.unwrap();
    let done = world.end_of(id).await;
    assert_eq!((done.status, done.artifacts, world.uploads()), (Status::Completed, None, 1));
    assert_eq!(done.details.warnings, ["outputs: the job was ended before they were uploaded"]);
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_at_once_gives_the_upload_up() {
    let world = World::new().await;
    let mut worker = world.worker().await;
    let (id, _gate) = world.hang_in_upload("fail").await;
    worker.drain();
    worker.drain();
    let ticking = async {
        loop {
            world.tick().await;
        }
    };
    let ended = tokio::select! {
        ended = worker.wait() => ended,
        () = ticking => unreachable!(),
    };
    assert_eq!(ended, Ended::default());
    let done = world.view(id).await;
    assert_eq!((done.status, done.exit_code, done.artifacts), (Status::Failed, Some(3), None));
    assert_eq!(done.details.warnings, ["outputs: the job was ended before they were uploaded"]);
}

#[tokio::test]
async fn a_worker_that_drains_finishes_the_upload() {
    let world = World::new().await;
    let mut worker = world.worker().await;
    let (id, gate) = world.hang_in_upload("fail").await;
    worker.drain();
    for _ in 0..70 {
        world.clock.advance(Duration::from_millis(450));
        world.tick().await;
    }
    assert_eq!(worker.status().running, 1);
    gate.open();
    let done = world.end_of(id).await;
    assert_eq!((done.status, done.artifacts.is_some()), (Status::Failed, true), "{:?}", done.details);
    assert_eq!(worker.wait().await, Ended::default());
}

#[tokio::test]
async fn what_goes_back_or_is_lost_is_not_uploaded() {
    let world = World::new().await;
    let mut worker = world.worker().await;
    let id = world.submit("wait", &["out"]).await;
    world.until(id, |view| view.status == Status::Running).await;
    worker.drain();
    worker.drain();
    worker.wait().await;
    assert_eq!((world.view(id).await.status, world.uploads()), (Status::Queued, 0));

    let world = World::new().await;
    let mut worker = world.worker().await;
    let id = world.submit("wait", &["out"]).await;
    world.until(id, |view| view.status == Status::Running).await;
    world.jobs.remove_worker(&WorkerId::local()).await.unwrap();
    let ticking = async {
        loop {
            world.tick().await;
        }
    };
    tokio::select! {
        ended = worker.wait() => assert!(ended.removed),
        () = ticking => unreachable!(),
    }
    assert_eq!((world.uploads(), world.service.calls(WorkerCall::Finish)), (0, 0));
}

#[tokio::test]
async fn time_for_it_is_bounded_and_within_the_lease() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let mut spec = spec("succeed", &["out"]);
    spec.timeout = Duration::from_secs(1);
    let id = world.jobs.submit(spec).await.unwrap().id;
    // Nothing gets through but signs of life and reports.
    for _ in 0..1_000 {
        world.service.inject(WorkerCall::UploadArtifacts, Fault::Refuse);
    }
    while world.uploads() == 0 {
        world.tick().await;
    }
    while !world.view(id).await.status.is_finished() {
        world.tick().await;
        world.clock.advance(Duration::from_millis(450));
    }
    let done = world.view(id).await;
    assert_eq!((done.status, done.artifacts, done.attempts.len()), (Status::Completed, None, 1));
    assert_eq!(done.details.warnings, ["outputs: they could not be collected and uploaded within 600 s"]);
    let took = world.clock.now().since(done.created);
    assert!(took >= Duration::from_secs(600) && took < Duration::from_secs(700), "{took:?}");
}

#[tokio::test]
async fn the_slot_and_the_directory_are_taken_until_it_is_done() {
    let world = World::new().await;
    let worker = world.builder(leave_and_end).slots(1).start().await.unwrap();
    let (id, gate) = world.hang_in_upload("succeed").await;
    let next = world.submit("succeed", &[]).await;
    world.clock.advance(Duration::from_secs(5));
    world.tick().await;
    assert_eq!((world.view(id).await.status, world.view(next).await.status), (Status::Running, Status::Queued));
    assert_eq!((worker.status().running, world.left_on_disk()), (1, 2), "the directory and the ZIP beside it");
    gate.open();
    assert!(world.end_of(id).await.artifacts.is_some());
    world.end_of(next).await;
}

#[tokio::test]
async fn a_worker_of_an_earlier_version_gets_no_job_with_outputs() {
    let world = World::new().await;
    let older = world.coordinator.as_worker(WorkerId::local());
    let registration = Registration::new("old", 1, 64);
    let worker = older.register(registration.clone()).await.unwrap().worker;
    let keeps = world.submit("x", &["out"]).await;
    let plain = world.submit("x", &[]).await;
    let request = LeaseRequest { max: 9, wait: Duration::ZERO };
    let leased: Vec<_> = older.lease(&worker, request).await.unwrap().into_iter().map(|lease| lease.job).collect();
    assert_eq!(leased, [plain]);
    let newer =
        Registration { executors: Some(vec![ProcessExecutor::default().capabilities().clone()]), ..registration };
    older.register(newer).await.unwrap();
    let leased: Vec<_> = older.lease(&worker, request).await.unwrap().into_iter().map(|lease| lease.job).collect();
    assert_eq!(leased, [keeps]);
}

/// A worker that runs processes, by the machine's clock.
async fn processes() -> (Coordinator, WorkerHandle) {
    let coordinator = Coordinator::builder(MemoryStore::new()).files(Files::in_memory()).build().await.unwrap();
    let service = coordinator.as_worker(WorkerId::local());
    let worker = Worker::builder(service, ProcessExecutor::default()).slots(2).start().await.unwrap();
    (coordinator, worker)
}

#[tokio::test]
async fn what_a_hostile_job_leaves_harms_nobody() {
    let (coordinator, _worker) = processes().await;
    let jobs = coordinator.jobs();
    let secret = tempfile::NamedTempFile::new().unwrap();
    let line = format!(
        "mkdir -p d real && echo fine > d/fine && ln -s {} d/stolen && ln -s /etc etc && ln -s real inside
         mkfifo d/pipe; truncate -s 1T d/sparse; chmod 000 d/fine; echo kept > real/file
         (while :; do rm -rf swap; ln -s /etc swap; rm swap; mkdir swap; echo x > swap/passwd; done) & sleep 0.3",
        secret.path().display()
    );
    let done = jobs.run(spec(&line, &["**"])).await.unwrap();
    assert_eq!(done.exit_code, Some(0), "{:?} {:?}", done.error, done.stderr);
    let said = done.details.warnings.join("\n");
    for expected in
        ["`d/stolen` was left out", "`etc` was left out", "`d/pipe` was left out", "`d/sparse` was left out"]
    {
        assert!(said.contains(expected), "{expected} is not in {said}");
    }
    let mut files = fetch(&*jobs, done.artifacts.unwrap()).await;
    // The loop is killed anywhere, also between making the file and writing to it.
    files.remove("swap/passwd").inspect(|text| assert!(["", "x\n"].contains(&&**text), "{text}"));
    files.remove("swap");
    if files.contains_key("d/fine") {
        assert_eq!(files.remove("d/fine").unwrap(), "fine\n");
    }
    let left: Vec<_> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
    assert_eq!(left, [("inside", "-> real"), ("real/file", "kept\n")]);
}

#[tokio::test]
async fn globs_count_from_where_the_command_started() {
    let (coordinator, _worker) = processes().await;
    let jobs = coordinator.jobs();
    let mut zip = cmdexec_core::archive::pack::Packer::new(tempfile::tempfile().unwrap());
    zip.file("project/deep/in", 0o644, 9, &b"in"[..]).unwrap();
    zip.symlink("link", "project/deep").unwrap();
    let mut zip = zip.finish().unwrap();
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut zip).unwrap();
    std::io::Read::read_to_end(&mut zip, &mut bytes).unwrap();
    let input = jobs.upload_bytes(None, bytes.into()).await.unwrap().id;
    for start in ["project/deep", "link"] {
        let mut spec = spec("cat in > out; echo up > ../up", &["out", "../up"]);
        spec.outputs.pop();
        spec.input = Some(input);
        spec.working_directory = Some(start.to_owned());
        let done = jobs.run(spec).await.unwrap();
        assert_eq!(done.exit_code, Some(0), "{:?}", done.error);
        let files = fetch(&*jobs, done.artifacts.unwrap()).await;
        assert_eq!(files.into_iter().collect::<Vec<_>>(), [("out".to_owned(), "in".to_owned())]);
    }
}

#[tokio::test]
async fn ten_thousand_small_files_come_back() {
    let (coordinator, _worker) = processes().await;
    let jobs = coordinator.jobs();
    let line = "mkdir many; i=0; while [ $i -lt 10000 ]; do echo $i > many/$i; i=$((i+1)); done";
    let done = jobs.run(spec(line, &["many"])).await.unwrap();
    assert_eq!((done.exit_code, done.details.warnings.len()), (Some(0), 0), "{:?}", done.details.warnings);
    let files = fetch(&*jobs, done.artifacts.unwrap()).await;
    assert_eq!((files.len(), &*files["many/9999"]), (10_000, "9999\n"));
}

#[tokio::test]
async fn how_each_step_ended_reaches_the_jobs_user() {
    let (coordinator, _worker) = processes().await;
    let jobs = coordinator.jobs();
    let done = jobs.run(JobSpec::steps(["true", "sleep 0.1; exit 4", "true"])).await.unwrap();
    let codes: Vec<_> = done.details.steps.iter().map(|step| step.exit_code).collect();
    assert_eq!((done.exit_code, codes), (Some(4), vec![Some(0), Some(4)]));
    assert!(done.details.steps[1].duration >= Duration::from_millis(100), "{:?}", done.details.steps);
    let mut spec = JobSpec::steps(["true", "sleep 100"]);
    spec.timeout = Duration::from_millis(300);
    let done = jobs.run(spec).await.unwrap();
    let codes: Vec<_> = done.details.steps.iter().map(|step| step.exit_code).collect();
    assert_eq!(codes, [Some(0), None]);
    assert!(done.details.duration.unwrap() >= done.details.steps[1].duration);
}
