//! The process executor under the executors' contract: as good as it gets here, and with every fallback forced.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use cmdexec_core::executor::Limit;
use cmdexec_core::executor::process::{Containment, Options, ProcessExecutor, Users};
use cmdexec_core::job::{JobSpec, Outcome};
use cmdexec_testkit::executor::Subject;

/// Long enough for a shell to answer a signal on a busy machine.
const GRACE: Duration = Duration::from_millis(1500);

fn subject(options: Options) -> Subject {
    Subject::new(ProcessExecutor::new(Options { grace: GRACE, ..options }).unwrap(), GRACE)
}

#[cfg(target_os = "linux")]
fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
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

#[tokio::test]
async fn a_signal_is_reported_as_the_kernel_does() {
    let subject = subject(Options::default());
    assert_eq!(subject.sh("kill -9 $$").await.outcome, Outcome::Signaled { signal: 9 });
    assert_eq!(subject.sh("kill -6 $$").await.outcome, Outcome::Signaled { signal: 6 });
    // The same of a step, though another was to follow.
    let steps = JobSpec::steps(["kill -9 $$", "echo second"]);
    assert_eq!(subject.run(steps).await.outcome, Outcome::Signaled { signal: 9 });
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_job_inherits_nothing_but_its_streams() {
    for containment in [Containment::Auto, Containment::Supervisor] {
        let subject = subject(Options { containment, ..Options::default() });
        // Three streams, and the directory that is being listed.
        assert_eq!(subject.sh("ls /proc/self/fd | wc -l").await.succeeded().trim(), "4", "{containment:?}");
        let status = subject.sh("cat /proc/self/status").await.succeeded();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let signals = |name: &str| u64::from_str_radix(&field(name), 16).unwrap();
        assert_eq!((signals("SigBlk:"), field("Groups:"), field("NoNewPrivs:")), (0, String::new(), "1".to_owned()));
        // 32 and 33 are the C library's own, which it does not let anyone set.
        assert_eq!(signals("SigIgn:") & !(0b11 << 31), 0);
        assert_eq!(subject.sh("umask").await.succeeded(), "0022\n");
    }
}

#[tokio::test]
async fn what_a_step_leaves_running_runs_on() {
    for containment in [Containment::Auto, Containment::Supervisor] {
        let subject = subject(Options { containment, ..Options::default() });
        let steps = ["(while ! test -e go; do sleep 0.02; done; echo went) & :", ": > go; sleep 0.5"];
        assert_eq!(subject.run(JobSpec::steps(steps)).await.succeeded(), "went\n", "{containment:?}");
    }
}

#[tokio::test]
async fn a_directory_that_jobs_cannot_reach_is_named() {
    let subject = subject(Options::default());
    if !subject.claims(Limit::User) {
        return;
    }
    let closed = tempfile::tempdir().unwrap();
    std::fs::set_permissions(closed.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let attempt = closed.path().join("attempt");
    std::fs::create_dir(&attempt).unwrap();
    let ended = subject.begin_with(JobSpec::shell("true"), |context| context.dir = attempt).end().await;
    let Outcome::ExecutorError { message } = ended.outcome else { panic!("{:?}", ended.outcome) };
    assert!(message.contains(closed.path().to_str().unwrap()), "{message}");
}

/// Runs the first of the suites above again, as a user that nobody is.
#[cfg(target_os = "linux")]
#[test]
fn the_contract_holds_without_privileges() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let (program, work) = (dir.path().join("suite"), dir.path().join("work"));
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::create_dir(&work).unwrap();
    chown(&work, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = std::process::Command::new(program);
    command.args(["permitted::", "--test-threads=4"]).env("TMPDIR", &work).current_dir("/").uid(NOBODY).gid(NOBODY);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hidden_directory_is_empty_for_jobs() {
    if !is_root() {
        println!("skipped: hiding takes privileges");
        return;
    }
    let secret = tempfile::tempdir().unwrap();
    std::fs::write(secret.path().join("token"), "secret").unwrap();
    std::fs::set_permissions(secret.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let hidden = vec![secret.path().to_owned()];
    let subject = subject(Options { hidden, users: Users::Never, ..Options::default() });
    subject.sh(&format!("test ! -e {}/token", secret.path().display())).await.succeeded();
    assert!(secret.path().join("token").exists());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_job_sees_no_processes_but_its_own() {
    if !is_root() {
        println!("skipped: a private /proc takes privileges");
        return;
    }
    let own = std::process::id();
    let line = format!("test -e /proc/$$/stat && test ! -e /proc/{own}/stat && test ! -e /proc/1/stat");
    subject(Options::default()).sh(&line).await.succeeded();
}

#[tokio::test]
async fn wrong_options_are_refused() {
    let wrong = Options { hidden: vec!["relative".into()], ..Options::default() };
    assert!(ProcessExecutor::new(wrong).unwrap_err().to_string().contains("relative"));
}
