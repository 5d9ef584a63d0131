//! What the tests of this crate have in common: a daemon, and executors of it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test uses some of it")]

use std::path::PathBuf;
use std::time::Duration;

use cmdexec_executor_docker::{DockerExecutor, Options};
use cmdexec_testkit::executor::Subject;

/// Long enough for a shell to answer a signal on a busy machine.
pub(crate) const GRACE: Duration = Duration::from_millis(1500);

/// An image of busybox alone, which `scripts/test` makes.
pub(crate) const IMAGE: &str = "cmdexec-test:latest";

/// Where the daemon listens; none is an error, for every test here needs it. `scripts/test` starts one.
pub(crate) fn host() -> String {
    std::env::var("CMDEXEC_TEST_DOCKER")
        .expect("CMDEXEC_TEST_DOCKER must say where a Docker daemon listens; `scripts/test tests` starts one")
}

/// A new directory for an executor, with a short name. It is left behind, nearly empty.
pub(crate) fn dir() -> PathBuf {
    let dir = tempfile::Builder::new().prefix("cx").tempdir().unwrap();
    dir.keep()
}

/// Options for the tests' daemon.
pub(crate) fn options(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::new(dir());
    options.host = host();
    options.grace = GRACE;
    change(&mut options);
    options
}

/// An executor of the tests' daemon.
pub(crate) async fn executor(change: impl FnOnce(&mut Options)) -> DockerExecutor {
    DockerExecutor::open(options(change)).await.unwrap()
}

/// The same for the suite, with the image.
pub(crate) async fn subject(change: impl FnOnce(&mut Options)) -> Subject {
    Subject::new(executor(change).await, GRACE).with_image(IMAGE)
}
