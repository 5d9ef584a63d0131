//! The process executor under the executors' contract: as good as it gets here, and with every fallback forced.
#![cfg(unix)]

use std::time::Duration;

use cmdexec_core::executor::ProcessExecutor;
use cmdexec_core::executor::process::{Containment, Options, Users};
use cmdexec_testkit::executor::Subject;

/// Long enough for a shell to answer a signal on a busy machine.
const GRACE: Duration = Duration::from_millis(1500);

fn subject(options: Options) -> Subject {
    Subject::new(ProcessExecutor::new(Options { grace: GRACE, ..options }).unwrap(), GRACE)
}

/// With everything that is permitted here.
mod permitted {
    use super::*;

    async fn make() -> Subject {
        subject(Options::default())
    }
    cmdexec_testkit::executor_suite!(make);
}

/// Without control groups: a job is held together by its user, where that is permitted.
mod user {
    use super::*;

    async fn make() -> Subject {
        subject(Options { cgroups: false, containment: Containment::User, ..Options::default() })
    }
    cmdexec_testkit::executor_suite!(make);
}

/// With neither: what a worker without privileges has.
mod supervisor {
    use super::*;

    async fn make() -> Subject {
        let containment = Containment::Supervisor;
        subject(Options {
            cgroups: false,
            containment,
            users: Users::Never,
            protect_worker: false,
            ..Options::default()
        })
    }
    cmdexec_testkit::executor_suite!(make);
}
