//! What the tests of this crate have in common: a daemon, and executors of it.
#![allow(dead_code, clippy::allow_attributes, reason = "each test uses some of it")]

pub(crate) mod daemon;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use cmdexec_core::job::Outcome;
use cmdexec_executor_docker::{DockerExecutor, Options};
use cmdexec_testkit::executor::Subject;
use cmdexec_testkit::skip;

/// Long enough for a shell to answer a signal on a busy machine.
pub(crate) const GRACE: Duration = Duration::from_millis(1500);

/// An image of busybox alone, which `scripts/test` makes.
pub(crate) const IMAGE: &str = "cmdexec-test:latest";

/// Where the daemon listens; `scripts/test` starts one. Without it, the test that asks is noted as skipped.
pub(crate) fn host() -> Option<String> {
    let host = std::env::var("CMDEXEC_TEST_DOCKER").ok();
    if host.is_none() {
        skip("there is no Docker daemon (CMDEXEC_TEST_DOCKER)");
    }
    host
}

/// A new directory for an executor. It is left behind, nearly empty.
pub(crate) fn dir() -> PathBuf {
    tempfile::Builder::new().prefix("cmdexec-docker-").tempdir().unwrap().keep()
}

/// Options for the tests' daemon.
pub(crate) fn options(change: impl FnOnce(&mut Options)) -> Option<Options> {
    let mut options = Options::new(dir());
    options.host = host()?;
    options.grace = GRACE;
    change(&mut options);
    Some(options)
}

/// An executor of the tests' daemon.
pub(crate) async fn executor(change: impl FnOnce(&mut Options)) -> Option<DockerExecutor> {
    Some(DockerExecutor::open(options(change)?).await.unwrap())
}

/// The same for the suite, with the image.
pub(crate) async fn subject(change: impl FnOnce(&mut Options)) -> Option<Subject> {
    Some(Subject::new(executor(change).await?, GRACE).with_image(IMAGE))
}

/// Runs the daemon's own program against it.
pub(crate) fn docker(host: &str, arguments: &[&str]) -> Output {
    Command::new("docker").args(["-H", host]).args(arguments).output().unwrap()
}

/// The same; what it prints, if it succeeds.
pub(crate) fn docker_says(host: &str, arguments: &[&str]) -> String {
    let output = docker(host, arguments);
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What an executor's error says.
#[track_caller]
pub(crate) fn complaint(outcome: &Outcome) -> &str {
    let Outcome::ExecutorError { message } = outcome else { panic!("{outcome:?}") };
    message
}
