//! Containers that are used again: by whom, and what is left of one job for the next.
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

use cmdexec_core::job::{JobSpec, Outcome};
use cmdexec_testkit::executor::{Ended, Subject};
use cmdexec_testkit::skip;

use common::{host, subject};

/// Says which container a job is in: by the daemon's name for it, as a namespace's number is soon another's.
const WHERE: &str = r"sed -n 's|.*/containers/\([0-9a-f]*\)/hostname .*|\1|p' /proc/self/mountinfo";

/// A job of somebody's who wants its container used again.
struct Again {
    scope: String,
    spec: JobSpec,
}

fn again(scope: &str, line: &str) -> Again {
    let mut spec = JobSpec::shell(line);
    spec.reuse = true;
    Again { scope: scope.to_owned(), spec }
}

async fn run(subject: &Subject, Again { scope, spec }: Again) -> Ended {
    subject.begin_with(spec, |context| context.scope = Some(scope)).end().await
}

async fn says(subject: &Subject, job: Again) -> String {
    run(subject, job).await.succeeded()
}

/// The container that a job of this owner is put in.
async fn place(subject: &Subject, scope: &str) -> String {
    known(says(subject, again(scope, WHERE)).await)
}

fn known(container: String) -> String {
    assert_eq!(container.trim_end().len(), 64, "{container:?} names no container");
    container
}

/// What takes root is not tested without.
async fn root_subject() -> Option<Subject> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: using containers again takes root");
        return None;
    }
    if !host()?.starts_with("unix://") {
        skip("using containers again takes a daemon of this machine");
        return None;
    }
    subject(|_| ()).await
}

#[tokio::test]
async fn a_container_is_used_again_by_its_owner_who_asked_for_it() {
    let Some(subject) = root_subject().await else { return };
    let first = place(&subject, "me").await;
    assert_eq!(place(&subject, "me").await, first);
    // By nobody else, and not by a job that did not ask.
    let others = place(&subject, "you").await;
    let alone = known(says(&subject, Again { spec: JobSpec::shell(WHERE), ..again("me", WHERE) }).await);
    let nobodys = known(subject.run(again("me", WHERE).spec).await.succeeded());
    let all = std::collections::BTreeSet::from([&first, &others, &alone, &nobodys]);
    assert_eq!(all.len(), 4, "{all:?}");
    assert_eq!(place(&subject, "you").await, others);
    // Whatever way the job before ended.
    run(&subject, again("me", "exit 3")).await.exited(3);
    let mut late = again("me", "trap '' TERM; while :; do sleep 0.1; done");
    late.spec.timeout = std::time::Duration::from_millis(200);
    assert_eq!(run(&subject, late).await.outcome, Outcome::TimedOut);
    assert_eq!(place(&subject, "me").await, first);
    subject.executor.shutdown().await;
}

#[tokio::test]
async fn nothing_of_the_job_before_is_there() {
    let Some(subject) = root_subject().await else { return };
    let leave = format!(
        "
        echo x > mine; mkdir -p /tmp/a/b; echo x > /tmp/a/b/mine; chmod 000 /tmp/a
        echo x > /dev/shm/mine; chmod 000 /dev/shm/mine
        mkdir /sys/fs/cgroup/mine 2>/dev/null
        (trap '' TERM HUP; setsid sh -c 'while :; do echo x > /tmp/beat; sleep 0.02; done' &)
        sleep 100 &
        {WHERE}"
    );
    let first = known(says(&subject, again("me", &leave)).await);
    let look = format!(
        "
        {WHERE}
        ls -A . /tmp /dev/shm /dev/mqueue
        ls /sys/fs/cgroup | grep mine
        for table in shm sem msg; do tail -n +2 /proc/sysvipc/$table; done
        ls -d /proc/[0-9]* | wc -l
        sleep 0.1; ls -A /tmp"
    );
    let seen = says(&subject, again("me", &look)).await;
    let empty = format!("{first}.:\n\n/dev/mqueue:\n\n/dev/shm:\n\n/tmp:\n");
    let rest = seen.strip_prefix(&empty).unwrap_or_else(|| panic!("{seen:?} does not begin with {empty:?}"));
    // The init, the shell, and those who list and count them, as far as they are there yet.
    assert!(["3", "4", "5"].contains(&rest.trim()), "{seen:?}");
    // It is as much its own as the first was.
    let write = "echo x > /tmp/x && echo x > /dev/shm/x && echo x > x && ! grep -q suid /proc/self/mounts || true";
    run(&subject, again("me", write)).await.succeeded();
    let mounts = says(&subject, again("me", "cat /proc/self/mounts")).await;
    for at in [" /work ", " /tmp ", " /dev/shm "] {
        let lines: Vec<_> = mounts.lines().filter(|line| line.contains(at)).collect();
        assert!(lines.len() == 1 && lines[0].contains("nosuid") && lines[0].contains("nodev"), "{lines:?}");
    }
    subject.executor.shutdown().await;
}

#[tokio::test]
async fn limits_and_their_evidence_are_each_jobs_own() {
    let Some(subject) = root_subject().await else { return };
    let hog = "x=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; while :; do x=$x$x; done";
    let mut greedy = again("me", hog);
    greedy.spec.resources.memory_mb = Some(32);
    assert_eq!(run(&subject, greedy).await.outcome, Outcome::OutOfMemory);
    // The next fails for a reason of its own, with the memory that the machine has.
    run(&subject, again("me", "head -c 60000000 /dev/zero | tail -c 60000000 >/dev/null; exit 9")).await.exited(9);
    subject.executor.shutdown().await;
}

/// The break-out that matters here: what a job leaves behind to catch the next one.
#[tokio::test]
async fn a_trap_is_gone_before_the_next_job() {
    let Some(subject) = root_subject().await else { return };
    let set = "ln -s /tmp/evil link; for i in 1 2 3; do (while :; do :; done) & done; kill -STOP $!; exec 0<&-; ulimit -t 1; exit 0";
    run(&subject, again("me", set)).await.succeeded();
    assert_eq!(says(&subject, again("me", "ls; ulimit -t; ls /proc/self/fd | wc -l")).await, "unlimited\n4\n");
    subject.executor.shutdown().await;
}
