//! How a job ends, and what is said about it.

use std::time::Duration;

use cmdexec_core::job::{JobSpec, Outcome};

use super::Subject;

/// Ends with a word when it is asked to. The shell waits for its child in a way that a signal interrupts.
const POLITE: &str = "trap 'echo bye; exit 7' TERM; echo ready; sleep 100 & wait";
/// Does not care to be asked, and has children that do not either.
const STUBBORN: &str = "trap '' TERM; echo ready; while :; do echo tick; sleep 0.05; done";

/// The outcome has the command's exit code.
pub async fn an_exit_code_is_the_commands_own(subject: &Subject) {
    for code in [0, 1, 42, 255] {
        subject.sh(&format!("exit {code}")).await.exited(code);
    }
}

/// 137 and 126 and 127 are codes like others, when the command itself exits with them.
pub async fn a_code_that_looks_like_a_signal_is_a_code(subject: &Subject) {
    for code in [126, 127, 137, 143] {
        subject.sh(&format!("exit {code}")).await.exited(code);
    }
}

/// A command that a signal ended has the exit code that a shell would give it, and is not a success.
pub async fn a_signal_is_told_from_a_code(subject: &Subject) {
    let ended = subject.sh("kill -TERM $$; sleep 10").await;
    assert_eq!(ended.outcome.exit_code(), Some(143), "{:?}", ended.outcome);
}

/// A program that is not there is the executor's error, which names it.
pub async fn a_missing_program_is_no_exit_code(subject: &Subject) {
    for program in ["no-such-program", "/no/such/program"] {
        let ended = subject.run(JobSpec::argv([program])).await;
        let Outcome::ExecutorError { message } = &ended.outcome else { panic!("{:?}", ended.outcome) };
        assert!(message.contains("program"), "{message}");
    }
}

/// Nor is a program that may not be executed.
pub async fn a_program_that_may_not_run_is_no_exit_code(subject: &Subject) {
    let ended = subject.run(JobSpec::argv(["/etc/passwd"])).await;
    assert!(matches!(ended.outcome, Outcome::ExecutorError { .. }), "{:?}", ended.outcome);
}

/// A job whose time is over may say goodbye, and has timed out whatever it exits with.
pub async fn a_timeout_ends_the_job_politely_first(subject: &Subject) {
    let mut spec = JobSpec::shell(POLITE);
    spec.timeout = Duration::from_millis(500);
    let ended = subject.run(spec).await;
    assert_eq!(ended.outcome, Outcome::TimedOut);
    assert_eq!(ended.text(), "ready\nbye\n");
}

/// A job that ignores the polite signal is killed.
pub async fn a_timeout_kills_what_ignores_it(subject: &Subject) {
    let mut spec = JobSpec::shell(STUBBORN);
    spec.timeout = Duration::from_millis(300);
    assert_eq!(subject.run(spec).await.outcome, Outcome::TimedOut);
}

/// A job that is told to stop may say goodbye; with another code than 0 it was stopped.
pub async fn a_stop_ends_the_job_politely_first(subject: &Subject) {
    let mut trial = subject.begin(JobSpec::shell(POLITE));
    trial.until("ready").await;
    trial.stop.cancel();
    let ended = trial.end().await;
    assert_eq!(ended.outcome, Outcome::Stopped);
    assert_eq!(ended.text(), "ready\nbye\n");
}

/// A job that ignores the polite signal is killed, after the grace and not before.
pub async fn a_stop_kills_what_ignores_it(subject: &Subject) {
    let mut trial = subject.begin(JobSpec::shell(STUBBORN));
    trial.until("ready").await;
    // Counted from before the stop, as the executor can't.
    let grace = tokio::time::sleep(subject.grace());
    trial.stop.cancel();
    let end = trial.end();
    tokio::pin!(grace, end);
    tokio::select! {
        biased;
        // First: on a busy machine both may be over by the time that anybody looks.
        () = &mut grace => {}
        ended = &mut end => panic!("{:?} before the grace was over", ended.outcome),
    }
    assert_eq!(end.await.outcome, Outcome::Stopped);
}

/// A job that answers the polite signal by exiting with 0 has done its work.
pub async fn a_stop_that_finds_the_work_done_is_no_stop(subject: &Subject) {
    let mut trial = subject.begin(JobSpec::shell("trap 'exit 0' TERM; echo ready; sleep 100 & wait"));
    trial.until("ready").await;
    trial.stop.cancel();
    trial.end().await.succeeded();
}

/// Nothing is started once the stop signal has fired.
pub async fn a_stop_before_the_start_starts_nothing(subject: &Subject) {
    let ended = subject.begin_with(JobSpec::shell("echo started"), |context| context.stop.cancel()).end().await;
    assert_eq!(ended.outcome, Outcome::Stopped);
    assert_eq!(ended.text(), "");
}

/// Each step has a shell of its own in the same directory; the first that fails is the end.
pub async fn steps_run_in_order_and_stop_at_the_first_failure(subject: &Subject) {
    let steps = ["echo one > file; x=1; cd /", "cat file; echo \"two$x\"", "echo three; exit 9", "echo four"];
    assert_eq!(subject.run(JobSpec::steps(steps)).await.exited(9), "one\ntwo\nthree\n");
    assert_eq!(subject.run(JobSpec::steps(["echo a", "echo b"])).await.succeeded(), "a\nb\n");
}

/// The timeout is over all steps together.
pub async fn steps_share_one_timeout(subject: &Subject) {
    let mut spec = JobSpec::steps(["echo one; sleep 0.7", "echo two; sleep 0.7", "echo three; sleep 30"]);
    spec.timeout = Duration::from_secs(1);
    let ended = subject.run(spec).await;
    assert_eq!(ended.outcome, Outcome::TimedOut);
    assert!(!ended.text().contains("three"), "{}", ended.text());
}

/// Each step that was begun is said with its own exit code and how long it ran; those after a failure were not begun.
pub async fn steps_say_how_each_ended(subject: &Subject) {
    let ended = subject.run(JobSpec::steps(["true", "sleep 0.2", "exit 9", "true"])).await;
    ended.exited(9);
    assert_eq!(ended.codes(), [Some(0), Some(0), Some(9)]);
    assert!(ended.ran(1) >= Duration::from_millis(200), "{:?}", ended.steps);
    let ended = subject.run(JobSpec::steps(["true", "kill -TERM $$; sleep 10"])).await;
    assert_eq!(ended.codes(), [Some(0), Some(143)]);
    assert_eq!(subject.run(JobSpec::steps(["exit 3"])).await.codes(), [Some(3)]);
    for plain in [JobSpec::shell("true"), JobSpec::argv(["true"])] {
        assert_eq!(subject.run(plain).await.codes(), []);
    }
}

/// A step that was under way when the time was over has no exit code, but a duration; so has one that was stopped.
pub async fn steps_say_how_each_ended_though_the_job_was_ended(subject: &Subject) {
    let mut spec = JobSpec::steps(["true", "trap 'exit 7' TERM; sleep 100 & wait", "true"]);
    spec.timeout = Duration::from_millis(300);
    let ended = subject.run(spec).await;
    assert_eq!((&ended.outcome, &*ended.codes()), (&Outcome::TimedOut, &[Some(0), None][..]));
    assert!(ended.ran(1) >= Duration::from_millis(200), "{:?}", ended.steps);

    let mut trial = subject.begin(JobSpec::steps(["true", STUBBORN]));
    trial.until("ready").await;
    trial.stop.cancel();
    let ended = trial.end().await;
    assert_eq!((&ended.outcome, &*ended.codes()), (&Outcome::Stopped, &[Some(0), None][..]));
}

/// A step that answers the polite signal by exiting with 0 has done its own work, and not that of the steps after it.
pub async fn a_stop_between_steps_is_a_stop(subject: &Subject) {
    let polite = "trap 'exit 0' TERM; echo ready; sleep 100 & wait";
    let mut trial = subject.begin(JobSpec::steps([polite, "echo after"]));
    trial.until("ready").await;
    trial.stop.cancel();
    let ended = trial.end().await;
    assert_eq!((&ended.outcome, &*ended.text()), (&Outcome::Stopped, "ready\n"));

    let mut trial = subject.begin(JobSpec::steps(["true", polite]));
    trial.until("ready").await;
    trial.stop.cancel();
    let ended = trial.end().await;
    ended.succeeded();
    assert_eq!(ended.codes(), [Some(0), Some(0)]);
}

/// As many steps as a job may have are all said.
pub async fn steps_say_how_each_ended_however_many(subject: &Subject) {
    let ended = subject.run(JobSpec::steps(vec![":"; 1_000])).await;
    ended.succeeded();
    assert_eq!(ended.codes(), vec![Some(0); 1_000]);
}

/// Arguments arrive as they are: nothing expands, splits or unquotes them.
pub async fn an_argument_list_meets_no_shell(subject: &Subject) {
    let arguments = ["$HOME", "a b", "", "'q'", "*", "é"];
    let argv = ["printf", "<%s>"].into_iter().chain(arguments);
    assert_eq!(subject.run(JobSpec::argv(argv)).await.succeeded(), "<$HOME><a b><><'q'><*><é>");
}

/// A command may be as long as the system lets an argument be.
pub async fn a_long_command_arrives_whole(subject: &Subject) {
    let text = "x".repeat(100_000);
    let ended = subject.run(JobSpec::argv(["printf", "%s", &text])).await;
    assert_eq!(ended.succeeded().len(), text.len());
}
