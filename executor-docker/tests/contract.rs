//! The executor under the executors' contract: with containers that are ready, made for each job, and talked to through the daemon.
#![cfg(target_os = "linux")]

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
