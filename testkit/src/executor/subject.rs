//! What is tested, and one attempt under test.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cmdexec_core::executor::{Executor, Limit, RunContext, StepLog, Stream, output_pipe};
use cmdexec_core::id::JobId;
use cmdexec_core::job::{JobSpec, Outcome, Step};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// No test waits longer than this for anything: what takes longer hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// An executor under test.
#[derive(Debug)]
pub struct Subject {
    /// The executor.
    pub executor: Arc<dyn Executor>,
    grace: Duration,
    image: Option<String>,
    root: TempDir,
    attempts: AtomicUsize,
}

/// An attempt under way.
#[derive(Debug)]
pub struct Trial {
    /// The attempt's directory.
    pub dir: PathBuf,
    /// Fires the stop signal.
    pub stop: CancellationToken,
    steps: StepLog,
    running: AbortOnDropHandle<Outcome>,
    reading: AbortOnDropHandle<()>,
    output: watch::Receiver<Output>,
}

/// What came out so far.
#[derive(Debug, Clone, Default)]
struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// An attempt that is over.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// Everything it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// Everything it wrote to its standard error.
    pub stderr: Vec<u8>,
    /// How its steps ended.
    pub steps: Vec<Step>,
    /// The attempt's directory, which is still there.
    pub dir: PathBuf,
}

impl Subject {
    /// A subject whose executor was made with this grace between the polite signal and the kill. Short ones keep
    /// the suite quick; it must leave a shell time to answer a signal on a busy machine: a second will do.
    pub fn new(executor: impl Executor, grace: Duration) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        // As a worker does: others may pass through it and see nothing.
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o711)).expect("its mode");
        Self { executor: Arc::new(executor), grace, image: None, root, attempts: AtomicUsize::new(0) }
    }

    /// Names a container image for every job of the suite.
    #[must_use]
    pub fn with_image(mut self, image: impl Into<String>) -> Self {
        self.image = Some(image.into());
        self
    }

    /// The grace that the executor was made with.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Whether the executor claims to enforce a limit.
    pub fn claims(&self, limit: Limit) -> bool {
        self.executor.capabilities().limits.contains(&limit)
    }

    /// Everything that one attempt needs, in a new directory and a slot of its own, with a pipe of `chunks`.
    pub fn context(&self, mut spec: JobSpec, chunks: usize) -> (RunContext, cmdexec_core::executor::OutputSource) {
        let slot = self.attempts.fetch_add(1, Ordering::Relaxed);
        let dir = self.root.path().join(format!("attempt-{slot}"));
        std::fs::create_dir(&dir).expect("a directory for the attempt");
        spec.container_image.clone_from(&self.image);
        let (output, source) = output_pipe(chunks);
        let context = RunContext {
            job: JobId::from_uuid(uuid::Uuid::now_v7()),
            attempt: 1,
            spec: Arc::new(spec),
            scope: None,
            dir,
            slot,
            output,
            steps: StepLog::default(),
            stop: CancellationToken::new(),
        };
        (context, source)
    }

    /// Starts an attempt.
    pub fn begin(&self, spec: JobSpec) -> Trial {
        self.begin_with(spec, |_| ())
    }

    /// Starts an attempt after `prepare` has changed its context or filled its directory.
    pub fn begin_with(&self, spec: JobSpec, prepare: impl FnOnce(&mut RunContext)) -> Trial {
        let (mut context, mut source) = self.context(spec, 4);
        prepare(&mut context);
        let (dir, stop, steps) = (context.dir.clone(), context.stop.clone(), context.steps.clone());
        let executor = Arc::clone(&self.executor);
        let running = AbortOnDropHandle::new(tokio::spawn(async move { executor.run(context).await }));
        let (sender, output) = watch::channel(Output::default());
        let reading = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(chunk) = source.next().await {
                sender.send_modify(|output| match chunk.stream {
                    Stream::Stdout => output.stdout.extend_from_slice(&chunk.bytes),
                    Stream::Stderr => output.stderr.extend_from_slice(&chunk.bytes),
                });
            }
        }));
        Trial { dir, stop, steps, running, reading, output }
    }

    /// Runs an attempt to its end.
    pub async fn run(&self, spec: JobSpec) -> Ended {
        self.begin(spec).end().await
    }

    /// Runs a shell line to its end.
    pub async fn sh(&self, line: &str) -> Ended {
        self.run(JobSpec::shell(line)).await
    }
}

impl Trial {
    /// Waits until the job has written `text` to its standard output.
    pub async fn until(&mut self, text: &str) {
        let has = |output: &Output| String::from_utf8_lossy(&output.stdout).contains(text);
        let waited = tokio::time::timeout(PATIENCE, self.output.wait_for(has)).await;
        waited.expect("the text in time").expect("the text before the end");
    }

    /// What its executor says of it besides the outcome.
    pub fn steps(&self) -> StepLog {
        self.steps.clone()
    }

    /// What came out on its standard output so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.borrow().stdout).into_owned()
    }

    /// Waits for the end.
    pub async fn end(self) -> Ended {
        let outcome = tokio::time::timeout(PATIENCE, self.running).await.expect("an end in time").expect("no panic");
        tokio::time::timeout(PATIENCE, self.reading).await.expect("an end of output").expect("no panic");
        let Output { stdout, stderr } = self.output.borrow().clone();
        Ended { outcome, stdout, stderr, steps: self.steps.steps(), dir: self.dir }
    }

    /// Drops the future that runs the attempt.
    pub fn abandon(self) -> PathBuf {
        self.dir
    }
}

impl Ended {
    /// Its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The exit codes of its steps.
    pub fn codes(&self) -> Vec<Option<i32>> {
        self.steps.iter().map(|step| step.exit_code).collect()
    }

    /// How long a step ran, counted from 0.
    #[track_caller]
    pub fn ran(&self, step: usize) -> Duration {
        self.steps.get(step).expect("the step").duration
    }

    /// Says everything about an attempt that was to exit with 0 and did not; gives its output.
    #[track_caller]
    pub fn succeeded(&self) -> String {
        self.exited(0)
    }

    /// The same for another code.
    #[track_caller]
    pub fn exited(&self, code: i32) -> String {
        let said = String::from_utf8_lossy(&self.stderr);
        assert_eq!(self.outcome, Outcome::Exited { code }, "it wrote {:?} and to standard error {said:?}", self.text());
        self.text()
    }
}
