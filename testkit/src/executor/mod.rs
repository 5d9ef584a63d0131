//! The contract of [`Executor`](cmdexec_core::executor::Executor) as code: one named test per promise.
//!
//! An executor is held to it by one macro call with a function that makes a [`Subject`]:
//!
//! ```
//! use std::time::Duration;
//!
//! use cmdexec_core::executor::process::{Options, ProcessExecutor};
//! use cmdexec_testkit::executor::{Subject, executor_suite};
//!
//! const GRACE: Duration = Duration::from_millis(500);
//!
//! async fn make() -> Subject {
//!     let options = Options { grace: GRACE, ..Options::default() };
//!     Subject::new(ProcessExecutor::new(options).expect("these options are good"), GRACE)
//! }
//! executor_suite!(make);
//! ```
//!
//! Jobs of the suite need `/bin/sh` and the usual small tools (`busybox` has them), and see their attempt's directory,
//! at whatever path, as the same files that the test sees. Promises that depend on a
//! [`Limit`](cmdexec_core::executor::Limit) are tested when the executor claims it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a suite says what is wrong by panicking, as tests do"
)]

mod ending;
mod isolation;
mod limits;
mod output;
mod processes;
mod subject;

pub use ending::*;
pub use isolation::*;
pub use limits::*;
pub use output::*;
pub use processes::*;
pub use subject::{Ended, Subject, Trial};

pub use crate::executor_suite;

/// Makes one test per promise of an executor's contract. The argument is an async function that makes a
/// [`Subject`], or an `Option` of one where a machine may lack what the executor needs; every test has one of its own. `executor_suite!(make, only: a b)` makes some of the tests, for an
/// executor (or a way of using one) that is documented to keep some promises only.
#[macro_export]
macro_rules! executor_suite {
    ($make:path) => {
        $crate::executor_suite! { $make, only:
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
            steps_say_how_each_ended
            steps_say_how_each_ended_though_the_job_was_ended
            steps_say_how_each_ended_however_many
            a_stop_between_steps_is_a_stop
            an_argument_list_meets_no_shell
            a_long_command_arrives_whole
            output_is_complete_and_in_order
            output_is_bytes
            output_keeps_its_streams_apart
            output_arrives_while_the_command_runs
            streams_keep_their_order_where_writes_are_apart
            the_last_words_arrive
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
            no_process_outlives_an_exit
            no_process_outlives_a_stop
            no_process_outlives_a_timeout
            dropping_the_future_kills
            many_run_at_once
            a_slot_can_be_used_again_and_again
            without_network_there_is_none
            memory_is_limited_and_the_kernel_says_so
            a_child_that_runs_out_of_memory_is_told
            the_number_of_processes_is_limited
            processor_time_is_limited
            recovering_harms_nothing
        }
    };
    ($make:path, only: $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(subject) = ::core::option::Option::<$crate::executor::Subject>::from($make().await) {
                    $crate::executor::$name(&subject).await;
                }
            }
        )*
    };
}
