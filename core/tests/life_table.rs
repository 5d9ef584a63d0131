//! Walks the table of `docs/design/job-life.md`: every event in every state.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::id::{JobId, LeaseToken, Owner, WorkerId};
use cmdexec_core::job::{
    Applied, Attempt, Class, Details, Event, Job, JobSpec, Lease, Life, Outcome, Reason, Rejected, Report, State,
    Timer, Wait, transition,
};
use cmdexec_core::time::Timestamp;

const TABLE: &str = include_str!("../../docs/design/job-life.md");
const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const PAST: LeaseToken = LeaseToken::from_bits(1);
const CURRENT: LeaseToken = LeaseToken::from_bits(2);
const OTHER: LeaseToken = LeaseToken::from_bits(3);

fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

fn lease(attempt: u32, token: LeaseToken) -> Lease {
    // The past attempt was another worker's, so that a report without a token tells the two apart.
    let worker = worker(if token == PAST { "past" } else { "current" });
    Lease { attempt, worker, token, since: NOW }
}

/// A job in a state, with one attempt behind it that ended with exit code 7.
fn job(state: &str, spec: JobSpec) -> Job {
    let lease = lease(2, CURRENT);
    let state = match state {
        "scheduled" => State::Scheduled { wait: Wait::Retry { since: NOW, delay: Duration::from_secs(1) } },
        "queued" => State::Queued { since: NOW },
        "running" => State::Running { lease },
        "cancelling" => State::Cancelling { lease, since: NOW },
        "completed" => State::Completed { at: NOW },
        "failed" => State::Failed { at: NOW, reason: Reason::ExitCode, error: String::new() },
        "cancelled" => State::Cancelled { at: NOW },
        other => panic!("no state {other:?}"),
    };
    let claimed = if matches!(state, State::Running { .. } | State::Cancelling { .. }) { 2 } else { 1 };
    let past = Attempt {
        lease: self::lease(1, PAST),
        ended: NOW,
        outcome: Outcome::Exited { code: 7 },
        details: Details::default(),
    };
    Job {
        id: JobId::from_bytes([7; 16]),
        owner: Owner::local(),
        created: NOW,
        class: Class::of(&spec),
        spec: Arc::new(spec),
        life: Life { attempts: vec![past], claimed, lost: 0, failed: 1, ..Life::starting(state) },
        version: 3,
    }
}

/// The spec and the event that a row's name stands for.
fn row(name: &str) -> (JobSpec, Event) {
    let mut spec = JobSpec::shell("true");
    let is_left = !name.ends_with("spent");
    // One attempt was spent as a result already.
    spec.retries = if is_left { 2 } else { 1 };
    spec.max_attempts = if is_left { 2 } else { 1 };
    let report = |worker: &str, token: Option<LeaseToken>, outcome| {
        Event::Report(Report { worker: self::worker(worker), token, outcome, details: Details::default() })
    };
    let now = |outcome| report("current", Some(CURRENT), outcome);
    let message = || "it broke".to_owned();
    let event = match name.trim_end_matches(", left").trim_end_matches(", spent") {
        "due" => Event::Due,
        "claim" => Event::Claim { worker: worker("current"), token: OTHER, lease: Duration::from_secs(60) },
        "report: exit 0" => now(Outcome::Exited { code: 0 }),
        "report: exit 1" => now(Outcome::Exited { code: 1 }),
        "report: signal" => now(Outcome::Signaled { signal: 11 }),
        "report: timed out" => now(Outcome::TimedOut),
        "report: out of memory" => now(Outcome::OutOfMemory),
        "report: stopped" => now(Outcome::Stopped),
        "report: returned" => now(Outcome::Returned),
        "report: input error" => now(Outcome::InputError { message: message() }),
        "report: executor error" => now(Outcome::ExecutorError { message: message() }),
        "report: another token" => report("current", Some(OTHER), Outcome::Exited { code: 0 }),
        "report: another worker" => report("other", Some(CURRENT), Outcome::Exited { code: 0 }),
        "report: the past attempt's, again" => report("past", Some(PAST), Outcome::Exited { code: 7 }),
        "report: the past attempt's, changed" => report("past", Some(PAST), Outcome::Exited { code: 0 }),
        "report: no token, this worker's" => report("current", None, Outcome::Exited { code: 0 }),
        "report: no token, the past attempt's, again" => report("past", None, Outcome::Exited { code: 7 }),
        "lost" => Event::Lost { token: CURRENT },
        "lost: another token" => Event::Lost { token: OTHER },
        "unstarted" => Event::Unstarted { token: CURRENT },
        "cancel" => Event::Cancel,
        other => panic!("no event {other:?}"),
    };
    (spec, event)
}

fn outcome_of(before: &Job, event: Event) -> &'static str {
    match transition(before, event, NOW) {
        Ok(Applied::Changed { life, .. }) => life.status().as_str(),
        Ok(Applied::Unchanged) => "=",
        Err(Rejected::LeaseLost) => "lost",
        Err(Rejected::Finished) => "finished",
        Err(Rejected::WrongState) => "no",
    }
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn every_cell_of_the_table_holds() {
    let mut lines = TABLE.lines().filter(|line| line.starts_with('|'));
    let header = cells(lines.next().unwrap());
    assert_eq!(header.len(), 8, "an event and seven states");
    let mut checked = 0;
    for line in lines.skip(1) {
        let cells = cells(line);
        for (state, expected) in header.iter().zip(&cells).skip(1) {
            let (spec, event) = row(cells[0]);
            assert_eq!(outcome_of(&job(state, spec), event), *expected, "{} in {state}", cells[0]);
            checked += 1;
        }
    }
    assert_eq!(checked, 27 * 7);
}

#[test]
fn an_event_leaves_no_trace_but_its_own() {
    for state in ["running", "cancelling"] {
        let (spec, event) = row("report: exit 1, left");
        let before = job(state, spec);
        let Ok(Applied::Changed { life, .. }) = transition(&before, event, NOW) else { panic!() };
        assert_eq!(life.attempts.len(), 2);
        assert_eq!(life.attempts[0], before.life.attempts[0]);
        assert_eq!(life.claimed, before.life.claimed);
        assert_eq!(life.lost, 0);
        assert_eq!(life.failed, if state == "running" { 2 } else { 1 }, "a cancelled attempt is counted nowhere");
    }
}

#[test]
fn going_back_costs_nothing_and_does_not_add_up() {
    let (spec, event) = row("report: returned");
    let mut job = job("running", spec);
    for _ in 0..100 {
        let Ok(Applied::Changed { life, .. }) = transition(&job, event.clone(), NOW) else { panic!() };
        assert_eq!((life.lost, life.failed), (0, 1));
        job.life = Life { state: State::Running { lease: lease(2, CURRENT) }, ..life };
    }
    assert_eq!(job.life.attempts.len(), 1 + cmdexec_core::job::KEPT_FREE_ATTEMPTS);
    assert_eq!(job.life.attempts[0].lease.token, PAST, "what cost something is not forgotten");
}

#[test]
fn delays_grow_are_capped_and_spread() {
    let mut delays = Vec::new();
    for seed in 0..64 {
        let (mut spec, event) = row("report: exit 1, left");
        spec.retries = 100;
        let mut job = job("running", spec);
        job.id = JobId::from_bytes([seed; 16]);
        for failed in 0..10_u32 {
            job.life.failed = failed;
            let Ok(Applied::Changed { timer: Timer::DueIn(delay), .. }) = transition(&job, event.clone(), NOW) else {
                panic!()
            };
            let full = Duration::from_secs(1 << failed).min(Duration::from_secs(60));
            assert!(delay >= full / 2 && delay <= full, "{failed}: {delay:?}");
            if failed == 0 {
                delays.push(delay);
            }
        }
    }
    delays.sort();
    delays.dedup();
    assert!(delays.len() > 60, "64 jobs that fail together come back at {} different times", delays.len());
}

#[test]
fn no_renewal_takes_an_attempt_past_its_hard_end() {
    let (mut spec, event) = row("claim");
    spec.timeout = Duration::from_secs(100);
    for (outputs, collecting) in [(vec![], 0), (vec!["*".to_owned()], 600)] {
        spec.outputs = outputs;
        let Ok(Applied::Changed { timer, .. }) = transition(&job("queued", spec.clone()), event.clone(), NOW) else {
            panic!()
        };
        let hard_end = Duration::from_secs(600 + 100 + 10 + collecting + 20);
        assert_eq!(timer, Timer::Lease { floor: Duration::from_secs(60), hard_end });
    }
}
