//! An executor made from an async Rust function.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;

use super::{Capabilities, Error, Executor, GRACE, Kind, RunContext};
use crate::job::Outcome;
use crate::time::{Clock, SystemClock};

type Run = dyn Fn(RunContext) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync;

/// Runs attempts by an async function in the worker's own process, without any isolation: for jobs that are code of the program
/// itself, and for tests.
///
/// The function sees the whole [`RunContext`]. When the attempt is to stop, or its timeout is over, `stop` fires;
/// if the function has not returned [`GRACE`] later, its future is dropped. What it returns after its timeout does
/// not count. A panic is [`Outcome::ExecutorError`].
///
/// A function that blocks its thread, or hands work to tasks of its own, can't be stopped by dropping its future.
///
/// ```
/// use cmdexec_core::executor::{FunctionExecutor, RunContext, Stream};
/// use cmdexec_core::job::Outcome;
///
/// let executor = FunctionExecutor::new(async |context: RunContext| {
///     context.output.write(Stream::Stdout, "hello\n".into()).await;
///     Outcome::Exited { code: 0 }
/// });
/// ```
pub struct FunctionExecutor {
    run: Box<Run>,
    clock: Arc<dyn Clock>,
    capabilities: Capabilities,
}

impl FunctionExecutor {
    /// An executor that runs `function` for every attempt.
    pub fn new<F, Fut>(function: F) -> Self
    where
        F: Fn(RunContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        Self {
            run: Box::new(move |context| Box::pin(function(context))),
            clock: Arc::new(SystemClock),
            capabilities: Capabilities { kind: Kind::Process, limits: [].into(), gpus: 0 },
        }
    }

    /// Measures timeouts and grace by this clock instead of the machine's.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Runs jobs of this kind instead of [`Kind::Process`].
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.capabilities.kind = kind;
        self
    }
}

impl fmt::Debug for FunctionExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionExecutor").finish_non_exhaustive()
    }
}

#[async_trait]
impl Executor for FunctionExecutor {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn recover(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn run(&self, mut context: RunContext) -> Outcome {
        let timeout = context.spec.timeout;
        let asked = context.stop.clone();
        // The function's own signal fires for the timeout too; the worker's must not.
        context.stop = asked.child_token();
        let stop = context.stop.clone();

        // Calling it is part of running it: it may panic before it gives a future.
        let function = AssertUnwindSafe(async { (self.run)(context).await }).catch_unwind();
        let mut function = pin!(function);
        // Looked at first, so that one that returns at once costs no timer.
        let overdue = tokio::select! {
            biased;
            outcome = &mut function => return returned(outcome),
            () = asked.cancelled() => Outcome::Stopped,
            () = async { self.clock.sleep(timeout).await } => Outcome::TimedOut,
        };
        stop.cancel();
        tokio::select! {
            biased;
            outcome = function => match overdue {
                Outcome::Stopped => returned(outcome),
                overdue => overdue,
            },
            () = self.clock.sleep(GRACE) => overdue,
        }
    }

    async fn shutdown(&self) {}
}

fn returned(outcome: Result<Outcome, Box<dyn Any + Send>>) -> Outcome {
    outcome.unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("it does not say why");
        Outcome::ExecutorError { message: format!("the function panicked: {what}") }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use tokio_util::sync::CancellationToken;

    use super::super::{OutputSource, StepLog, Stream, output_pipe};
    use super::*;
    use crate::id::JobIds;
    use crate::job::JobSpec;
    use crate::time::ManualClock;

    const EXITED: Outcome = Outcome::Exited { code: 0 };

    fn context() -> (RunContext, OutputSource) {
        let (output, source) = output_pipe(4);
        let mut spec = JobSpec::shell("true");
        spec.timeout = Duration::from_secs(5);
        let job = JobIds::after(None).next(ManualClock::default().now(), &mut StdRng::seed_from_u64(1));
        let stop = CancellationToken::new();
        (
            RunContext {
                job,
                attempt: 1,
                spec: Arc::new(spec),
                scope: None,
                dir: "/".into(),
                slot: 0,
                output,
                steps: StepLog::default(),
                stop,
            },
            source,
        )
    }

    fn executor<F, Fut>(function: F) -> (ManualClock, FunctionExecutor)
    where
        F: Fn(RunContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let clock = ManualClock::default();
        (clock.clone(), FunctionExecutor::new(function).with_clock(Arc::new(clock)))
    }

    /// Sets a flag when it is dropped.
    struct Flag(Arc<AtomicBool>);

    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn what_the_function_writes_and_returns_is_what_comes_of_it() {
        let (_, executor) = executor(async |context: RunContext| {
            context.output.write(Stream::Stderr, "hello".into()).await;
            Outcome::Exited { code: 7 }
        });
        let (context, mut source) = context();
        assert_eq!(executor.run(context).await, Outcome::Exited { code: 7 });
        assert_eq!(source.next().await.unwrap().bytes, "hello");
        assert!(source.next().await.is_none());
    }

    #[tokio::test]
    async fn a_panic_is_an_executor_error() {
        let (_, late) = executor(async |_| panic!("oh"));
        let (_, early) = executor(|_| -> std::future::Ready<Outcome> { panic!("oh") });
        for executor in [late, early] {
            let outcome = executor.run(context().0).await;
            assert_eq!(outcome, Outcome::ExecutorError { message: "the function panicked: oh".to_owned() });
        }
    }

    #[tokio::test]
    async fn a_function_that_heeds_the_stop_says_how_it_ended() {
        let (_, executor) = executor(async |context: RunContext| {
            context.stop.cancelled().await;
            EXITED
        });
        let (context, _source) = context();
        context.stop.cancel();
        assert_eq!(executor.run(context).await, EXITED);
    }

    #[tokio::test]
    async fn a_function_that_ignores_the_stop_is_dropped_after_its_grace() {
        let dropped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&dropped);
        let (clock, executor) = executor(move |context: RunContext| {
            let flag = Flag(Arc::clone(&flag));
            async move {
                let _flag = (flag, context);
                std::future::pending().await
            }
        });
        let (context, _source) = context();
        let stop = context.stop.clone();
        let mut run = executor.run(context);
        assert!(futures_util::poll!(&mut run).is_pending());
        stop.cancel();
        assert!(futures_util::poll!(&mut run).is_pending());
        clock.advance(GRACE.checked_sub(Duration::from_millis(1)).unwrap());
        assert!(futures_util::poll!(&mut run).is_pending());
        clock.advance(Duration::from_millis(1));
        assert_eq!(run.await, Outcome::Stopped);
        assert!(dropped.load(Ordering::SeqCst), "nothing of it is left when the outcome is there");
    }

    #[tokio::test]
    async fn a_timeout_stops_the_function_and_not_the_worker() {
        let (clock, executor) = executor(async |context: RunContext| {
            context.stop.cancelled().await;
            EXITED
        });
        let (context, _source) = context();
        let stop = context.stop.clone();
        let mut run = executor.run(context);
        assert!(futures_util::poll!(&mut run).is_pending());
        clock.advance(Duration::from_secs(5));
        assert_eq!(run.await, Outcome::TimedOut);
        assert!(!stop.is_cancelled());
    }
}
