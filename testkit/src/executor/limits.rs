//! What a job may use, where the executor claims to enforce it.

use std::time::Duration;

use cmdexec_core::executor::Limit;
use cmdexec_core::job::{JobSpec, Network, Outcome};

use super::Subject;

/// Uses more and more memory, in the shell itself.
const HOG: &str = "x=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; while :; do x=$x$x; done";

/// A job without a network sees no interface but a loopback, and not the worker's; an executor that cannot take the
/// network away refuses the job.
pub async fn without_network_there_is_none(subject: &Subject) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let mut spec = JobSpec::shell("cat /proc/net/dev; cat /proc/net/tcp");
    spec.network = Some(Network::None);
    let ended = subject.run(spec).await;
    if !subject.claims(Limit::NoNetwork) {
        assert!(matches!(ended.outcome, Outcome::ExecutorError { .. }), "{:?}", ended.outcome);
        return;
    }
    let text = ended.succeeded();
    let interfaces = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let others: Vec<_> = interfaces.filter(|name| name.parse::<u32>().is_err() && *name != "lo").collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(!text.contains(&format!("0100007F:{port:04X}")), "the worker's loopback is there: {text}");
}

/// A job that uses more memory than it may is ended by the kernel, and the outcome says so.
pub async fn memory_is_limited_and_the_kernel_says_so(subject: &Subject) {
    let mut spec = JobSpec::shell(HOG);
    spec.resources.memory_mb = Some(32);
    if subject.claims(Limit::Memory) {
        assert_eq!(subject.run(spec).await.outcome, Outcome::OutOfMemory);
    } else if subject.claims(Limit::MemoryPerProcess) {
        // The process is refused memory; what it makes of that is its own ending.
        let outcome = subject.run(spec).await.outcome;
        assert!(!outcome.is_success() && outcome.exit_code().is_some(), "{outcome:?}");
    }
}

/// The same, when it was a child that the kernel ended and the command failed with it; but a command that then
/// succeeds has succeeded.
pub async fn a_child_that_runs_out_of_memory_is_told(subject: &Subject) {
    if !subject.claims(Limit::Memory) {
        return;
    }
    let mut fails = JobSpec::shell(format!("sh -c '{HOG}'; echo child $?; exit 1"));
    fails.resources.memory_mb = Some(32);
    assert_eq!(subject.run(fails).await.outcome, Outcome::OutOfMemory);
    let mut goes_on = JobSpec::shell(format!("sh -c '{HOG}'; echo on"));
    goes_on.resources.memory_mb = Some(32);
    assert_eq!(subject.run(goes_on).await.succeeded(), "on\n");
}

/// A job cannot have more processes than it may.
pub async fn the_number_of_processes_is_limited(subject: &Subject) {
    if !subject.claims(Limit::Pids) {
        return;
    }
    let start = |count| {
        let mut spec =
            JobSpec::shell(format!("i=0; while [ $i -lt {count} ]; do sleep 100 & i=$((i+1)); done; echo all"));
        spec.resources.pids = Some(8);
        spec
    };
    assert_eq!(subject.run(start(5)).await.succeeded(), "all\n");
    let ended = subject.run(start(20)).await;
    assert!(!ended.outcome.is_success() && !ended.text().contains("all"), "{:?}", ended.outcome);
}

/// A job gets no more processor time than it may. Says nothing about a machine so busy that it gets less.
pub async fn processor_time_is_limited(subject: &Subject) {
    if !subject.claims(Limit::Cpu) {
        return;
    }
    let mut spec = JobSpec::shell("trap 'times; exit 0' TERM; while :; do :; done");
    spec.resources.cpu_millis = Some(200);
    spec.timeout = Duration::from_secs(2);
    let ended = subject.run(spec).await;
    assert_eq!(ended.outcome, Outcome::TimedOut);
    // "0m0.41s 0m0.00s", the shell's own time, and then its children's.
    let text = ended.text();
    let own = text.lines().next().unwrap_or_default();
    let seconds = |field: &str| field.trim_end_matches('s').split_once('m').and_then(|(_, s)| s.parse::<f64>().ok());
    let used: f64 = own.split_whitespace().filter_map(seconds).sum();
    assert!(used > 0.0 && used < 1.2, "{used} s of processor time in 2 s at a fifth: {text}");
}
