//! The executor under the executors' contract: with containers that are ready, made for each job, and talked to through the daemon.
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

use cmdexec_executor_docker::Options;
use cmdexec_testkit::executor::Subject;

use common::subject;

/// Started beforehand, where this may be.
mod ready {
    use super::*;

    async fn make() -> Option<Subject> {
        subject(|_| ()).await
    }
    cmdexec_testkit::executor_suite!(make);
}

/// Made for each job.
mod cold {
    use super::*;

    async fn make() -> Option<Subject> {
        subject(|options: &mut Options| options.pool.most = 0).await
    }
    cmdexec_testkit::executor_suite!(make);
}

/// Talked to through the daemon.
mod attached {
    use super::*;

    async fn make() -> Option<Subject> {
        subject(|options: &mut Options| options.attach = true).await
    }
    cmdexec_testkit::executor_suite!(make);
}

/// Runs the suite of containers that are made for each job again, as a user that is not root and may talk to the daemon.
#[test]
fn the_contract_holds_without_privileges() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let Some(host) = common::host() else { return };
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let Some(socket) = host.strip_prefix("unix://") else {
        return cmdexec_testkit::skip("the daemon is not on this machine");
    };
    let group = std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(socket).unwrap());
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let (program, work) = (dir.path().join("suite"), dir.path().join("work"));
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::create_dir(&work).unwrap();
    chown(&work, Some(NOBODY), Some(NOBODY)).unwrap();
    // `scripts/test` keeps it where nobody else gets through.
    let way = std::path::Path::new(socket).parent().unwrap();
    let before = std::fs::metadata(way).unwrap().permissions();
    std::fs::set_permissions(way, std::fs::Permissions::from_mode(before.mode() | 0o711)).unwrap();
    let mut command = std::process::Command::new(program);
    command.args(["ready::", "--test-threads=4"]).env("TMPDIR", &work).current_dir("/").uid(NOBODY).gid(group);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
