//! Random sequences of calls, made to a backend and to [`MemoryStore`] side by side, which must answer alike.
//!
//! The sequences come from a seed; one that fails is shrunk to a short one that still does. `CMDEXEC_MODEL_CASES` and
//! `CMDEXEC_MODEL_SEED` in the environment run others than the usual.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Debug;
use std::sync::Arc;

use cmdexec_core::store::{Error, MemoryStore};
use cmdexec_core::time::ManualClock;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use super::Backend;

mod op;
mod run;

const CASES: u32 = 48;

/// Runs the model test.
///
/// # Panics
/// The backend answered otherwise than memory did.
pub fn check<B: Backend>(backend: impl Fn() -> B) {
    let from_env = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let config = Config {
        cases: from_env("CMDEXEC_MODEL_CASES").unwrap_or(CASES),
        rng_seed: RngSeed::Fixed(u64::from(from_env("CMDEXEC_MODEL_SEED").unwrap_or(1))),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let sequence = proptest::collection::vec(op::call(), 1..60);
    let result = TestRunner::new(config).run(&sequence, |ops| {
        let backend = backend();
        runtime.block_on(async {
            let clock = ManualClock::default();
            let model = MemoryStore::with_clock(Arc::new(clock.clone()));
            let store = backend.open(clock.clone()).await;
            for (step, op) in ops.into_iter().enumerate() {
                let shown = format!("step {step}: {op:?}");
                run::both(op, &model, &*store, &clock)
                    .await
                    .map_err(|difference| TestCaseError::fail(format!("{shown}\n{difference}")))?;
            }
            store.close().await;
            Ok(())
        })
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

/// Two answers are alike if they are equal, or errors of one kind.
fn alike<T: PartialEq + Debug>(model: Result<T, Error>, store: Result<T, Error>) -> Result<(), String> {
    match (model, store) {
        (Ok(model), Ok(store)) if model == store => Ok(()),
        (Err(model), Err(store)) if model.kind() == store.kind() => Ok(()),
        (model, store) => Err(format!("memory answers {model:#?}\nthe store answers {store:#?}")),
    }
}
