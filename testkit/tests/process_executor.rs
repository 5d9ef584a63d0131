//! The process executor under the executors' contract: as good as it gets here, and with every fallback forced.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

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
/// Without the launcher: everything but the promise that nothing escapes by a session of its own.
mod process_group {
    use super::*;

    async fn make() -> Subject {
        subject(Options { containment: Containment::ProcessGroup, ..Options::default() })
    }
    cmdexec_testkit::executor_suite! { make, only:
        an_exit_code_is_the_commands_own
        a_code_that_looks_like_a_signal_is_a_code
        a_signal_is_told_from_a_code
        a_missing_program_is_no_exit_code
        a_program_that_may_not_run_is_no_exit_code
        a_timeout_ends_the_job_politely_first
        a_timeout_kills_what_ignores_it
        a_stop_ends_the_job_politely_first
        a_stop_kills_what_ignores_it
        a_stop_that_finds_the_work_done_is_no_stop
        a_stop_before_the_start_starts_nothing
        steps_run_in_order_and_stop_at_the_first_failure
        steps_share_one_timeout
        an_argument_list_meets_no_shell
        a_long_command_arrives_whole
        output_is_complete_and_in_order
        output_is_bytes
        output_keeps_its_streams_apart
        output_arrives_while_the_command_runs
        output_flows_during_the_grace
        a_slow_reader_slows_the_writer
        a_reader_that_leaves_does_not_stop_the_job
        standard_input_is_empty
        the_environment_is_clean
        the_jobs_own_variables_win
        home_and_temporary_files_are_inside_the_directory
        the_job_starts_in_its_directory_or_below
        a_working_directory_outside_is_refused
        the_jobs_files_are_its_own_to_change
        another_jobs_files_are_out_of_reach
        the_workers_environment_is_out_of_reach
        many_run_at_once
        a_slot_can_be_used_again_and_again
        without_network_there_is_none
        memory_is_limited_and_the_kernel_says_so
        a_child_that_runs_out_of_memory_is_told
        the_number_of_processes_is_limited
        processor_time_is_limited
        recovering_harms_nothing
    }
}
