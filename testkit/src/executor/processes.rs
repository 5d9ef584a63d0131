//! Nothing of a job outlives it.

use std::path::Path;
use std::time::Duration;

use cmdexec_core::job::{JobSpec, Outcome};
use futures_util::future::join_all;

use super::Subject;

/// Starts, twice removed and in a session of its own where there is `setsid`, a process that ignores every polite
/// signal, keeps the job's output open, and shows by a growing file that it lives.
const ESCAPE: &str = "S=; command -v setsid >/dev/null && S=setsid
(
  trap '' TERM HUP INT
  $S sh -c '(while :; do echo x >> beat; sleep 0.02; done) &' &
)
while ! test -s beat; do sleep 0.02; done
";

/// Nobody writes to the file any more.
async fn assert_silent(dir: &Path) {
    let length = || std::fs::metadata(dir.join("beat")).expect("the file").len();
    let before = length();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(length(), before, "a process of the job still runs");
}

/// What a command leaves behind when it exits is dead before the outcome is known.
pub async fn no_process_outlives_an_exit(subject: &Subject) {
    let ended = subject.sh(&format!("{ESCAPE} exit 3")).await;
    ended.exited(3);
    assert_silent(&ended.dir).await;
}

/// So is everything that was started by a job that is told to stop.
pub async fn no_process_outlives_a_stop(subject: &Subject) {
    let mut trial = subject.begin(JobSpec::shell(format!("{ESCAPE} echo ready; sleep 100")));
    trial.until("ready").await;
    trial.stop.cancel();
    let ended = trial.end().await;
    assert_eq!(ended.outcome, Outcome::Stopped);
    assert_silent(&ended.dir).await;
}

/// So is everything that was started by a job whose time is over.
pub async fn no_process_outlives_a_timeout(subject: &Subject) {
    let mut spec = JobSpec::shell(format!("trap '' TERM; {ESCAPE} while :; do sleep 0.1; done"));
    spec.timeout = Duration::from_secs(1);
    let ended = subject.run(spec).await;
    assert_eq!(ended.outcome, Outcome::TimedOut);
    assert_silent(&ended.dir).await;
}

/// Dropping the future kills everything, soon.
pub async fn dropping_the_future_kills(subject: &Subject) {
    let mut trial = subject.begin(JobSpec::shell(format!("{ESCAPE} echo ready; sleep 100")));
    trial.until("ready").await;
    let dir = trial.abandon();
    let length = || std::fs::metadata(dir.join("beat")).expect("the file").len();
    for _ in 0..100 {
        let before = length();
        tokio::time::sleep(Duration::from_millis(200)).await;
        if length() == before {
            return;
        }
    }
    panic!("a process of the job still runs");
}

/// Attempts do not get in each other's way.
pub async fn many_run_at_once(subject: &Subject) {
    let specs = (0..24).map(|i| JobSpec::shell(format!("echo {i}; sleep 0.2; echo {i} >&2; exit {i}")));
    let trials: Vec<_> = specs.map(|spec| subject.begin(spec)).collect();
    for (i, ended) in join_all(trials.into_iter().map(super::Trial::end)).await.into_iter().enumerate() {
        assert_eq!(ended.exited(i32::try_from(i).expect("a small number")), format!("{i}\n"));
        assert_eq!(ended.stderr, format!("{i}\n").into_bytes());
    }
}

/// A slot serves one attempt after another.
pub async fn a_slot_can_be_used_again_and_again(subject: &Subject) {
    for i in 0..5 {
        let trial = subject.begin_with(JobSpec::shell(format!(": > mine; echo {i}")), |context| context.slot = 0);
        assert_eq!(trial.end().await.succeeded(), format!("{i}\n"));
    }
}

/// Recovering when nothing is to be recovered changes nothing.
pub async fn recovering_harms_nothing(subject: &Subject) {
    let before = subject.executor.capabilities().clone();
    subject.executor.recover().await.expect("it recovers");
    subject.sh("true").await.succeeded();
    assert_eq!(subject.executor.capabilities(), &before);
    subject.executor.shutdown().await;
}
