//! What was written by earlier versions can still be read.
//!
//! `golden/v1.sql` is a database as the first version left it, and the JSON files are the forms in which specs, lives
//! and beats are kept. Don't change them: when the form changes, add another beside them, and keep reading the old.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::files::FileId;
use cmdexec_core::id::LeaseToken;
use cmdexec_core::job::{
    Attempt, Backoff, Class, Command, Details, Job, JobSpec, Lease, Life, Network, Outcome, Reason, Resources, State,
    Status, Timer, Wait,
};
use cmdexec_core::store::{
    Append, Beat, Change, Chunk, Extent, Insert, Inserted, ListQuery, Listed, Record, RecordWrite, Store, WorkerRow,
};
use cmdexec_core::time::ManualClock;
use cmdexec_store_sqlite::SqliteStore;
use cmdexec_testkit::store::make::{
    self, START, append, chunk, id, insert, job, job_of, key, lease_timer, owner, secs, worker,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

/// Every field set.
fn spec() -> JobSpec {
    let mut spec = JobSpec::steps(["make", "make test"]);
    spec.name = Some("nightly ä".to_owned());
    spec.container_image = Some("debian:12".to_owned());
    spec.input = Some("0123456789abcdef".repeat(4).parse::<FileId>().unwrap());
    spec.working_directory = Some("src".to_owned());
    spec.env.insert("LANG".to_owned(), "C.UTF-8".to_owned());
    spec.timeout = Duration::from_millis(1_500);
    spec.resources = Resources { cpu_millis: Some(1_500), memory_mb: Some(256), pids: Some(64), gpus: None };
    spec.network = Some(Network::Bridge);
    spec.labels = ["gpu".to_owned(), "x86".to_owned()].into();
    spec.priority = 7;
    spec.max_attempts = 5;
    spec.retries = 2;
    spec.backoff = Backoff { initial: secs(2), factor: 1.5, max: secs(30) };
    spec.exclusive = true;
    spec.run_at = Some(START);
    spec
}

fn commands() -> Vec<Command> {
    let words = || vec!["echo".to_owned(), "a b".to_owned()];
    vec![Command::Shell("true".to_owned()), Command::Argv(words()), Command::Steps(words())]
}

fn held(attempt: u32) -> Lease {
    Lease { attempt, worker: worker("w-1"), token: LeaseToken::from_bits(0xfeed), since: START }
}

/// Every state, and among their attempts every outcome.
fn lives() -> Vec<Life> {
    let outcomes = [
        Outcome::Exited { code: 3 },
        Outcome::Signaled { signal: 11 },
        Outcome::TimedOut,
        Outcome::OutOfMemory,
        Outcome::Stopped,
        Outcome::Returned,
        Outcome::InputError { message: "no such file".to_owned() },
        Outcome::ExecutorError { message: "no space".to_owned() },
        Outcome::Lost,
    ];
    let attempts = (1..).zip(outcomes).map(|(n, outcome)| Attempt {
        lease: held(n),
        ended: START.after(secs(1)),
        outcome,
        details: Details { duration: (n == 1).then_some(Duration::from_millis(250)), ..Details::default() },
    });
    let at = START.after(secs(2));
    let reasons = [
        Reason::ExitCode,
        Reason::Timeout,
        Reason::OutOfMemory,
        Reason::WorkerLost,
        Reason::InputError,
        Reason::ExecutorError,
        Reason::DependencyFailed,
    ];
    let failed = reasons.map(|reason| State::Failed { at, reason, error: "why".to_owned() });
    let states = [
        State::Scheduled { wait: Wait::Time { at } },
        State::Scheduled { wait: Wait::Retry { since: START, delay: secs(5) } },
        State::Queued { since: START },
        State::Running { lease: held(10) },
        State::Cancelling { lease: held(10), since: at },
        State::Completed { at },
        State::Cancelled { at },
    ];
    let mut lives: Vec<Life> = states.into_iter().chain(failed).map(Life::starting).collect();
    lives.push(Life { attempts: attempts.collect(), claimed: 9, lost: 2, failed: 3, ..lives[2].clone() });
    lives
}

fn beats() -> Vec<Beat> {
    let token = LeaseToken::from_bits(1);
    let full = Beat {
        report: serde_json::json!({"load": [0.5, 1], "version": "1.0"}),
        held: Some(vec![Listed { job: id(1), token }]),
        completed: 3,
        failed: 1,
        tally: None,
    };
    vec![Beat::default(), Beat { held: Some(vec![]), ..Beat::default() }, full]
}

/// The file is read as `value`, and `value` is written as the file.
fn hold<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let written = format!("{}\n", serde_json::to_string_pretty(value).unwrap());
    if std::env::var_os("CMDEXEC_GOLDEN").is_some() && !path.exists() {
        std::fs::write(&path, &written).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(serde_json::from_str::<T>(&golden).unwrap(), *value);
    assert_eq!(written, golden);
}

#[test]
fn specs_are_kept_as_they_were() {
    hold("spec.json", &spec());
    hold("spec-plain.json", &JobSpec::shell("true"));
    hold("commands.json", &commands());
}

#[test]
fn lives_are_kept_as_they_were() {
    hold("lives.json", &lives());
}

#[test]
fn beats_are_kept_as_they_were() {
    hold("beats.json", &beats());
    let token = LeaseToken::from_bits(1);
    hold("beat-tally.json", &Beat { completed: 3, tally: Some(token), ..Beat::default() });
}

fn golden_jobs() -> Vec<(Job, Timer)> {
    let timer = |life: &Life| match life.status() {
        Status::Scheduled => Timer::DueIn(secs(30)),
        status if status.is_leased() => lease_timer(60, 600),
        _ => Timer::None,
    };
    let job =
        |(n, life): (u32, Life)| (Job { life, owner: owner("ann"), ..job_of(n, spec()) }, timer(&lives()[n as usize]));
    (0..).zip(lives()).map(job).collect()
}

/// What `v1.sql` was made from: run with `CMDEXEC_GOLDEN=DIR`, then `sqlite3 DIR/v1.db .dump`.
#[tokio::test]
async fn make_the_golden_database() {
    let Some(dir) = std::env::var_os("CMDEXEC_GOLDEN") else { return };
    let clock = ManualClock::default();
    let path = Path::new(&dir).join("v1.db");
    let store = SqliteStore::options().clock(std::sync::Arc::new(clock.clone())).open(path).await.unwrap();
    store.insert(Insert { jobs: golden_jobs(), key: Some(key("k\0ä")) }).await.unwrap();
    store.insert(insert([job(100)])).await.unwrap();
    let changed = Change { id: id(100), version: 0, life: make::queued(), timer: Timer::None };
    store.update(vec![changed]).await.unwrap();
    let stderr = Chunk { stream: Stream::Stderr, ..chunk(1, "\0err") };
    store.append_output(vec![Append { dropped: 4, ..append(3, 10, [chunk(0, "out"), stderr]) }]).await.unwrap();
    store.register_worker(&worker("w-1"), Bytes::from("\0info")).await.unwrap();
    store.renew(vec![(worker("w-1"), beats().remove(2))]).await.unwrap();
    let write = |key: &str, ttl| RecordWrite { key: key.to_owned(), value: Some(Bytes::from("v")), version: 0, ttl };
    store.put_records("user", vec![write("a\0", None), write("b", Some(secs(60)))]).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn the_first_version_s_database_still_opens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut conn = options.connect().await.unwrap();
    // A dump leaves out the mark that says whose the database is.
    let text = format!("PRAGMA application_id = {};\n{}", 0x636d_6465, include_str!("golden/v1.sql"));
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();

    let clock = ManualClock::default();
    let store = SqliteStore::options().clock(std::sync::Arc::new(clock.clone())).open(path).await.unwrap();
    let expected: Vec<Option<Job>> = golden_jobs().into_iter().map(|(job, _)| Some(job)).collect();
    let ids: Vec<_> = expected.iter().flatten().map(|job| job.id).collect();
    assert_eq!(store.get(&ids).await.unwrap(), expected);
    assert_eq!(store.get(&[id(100)]).await.unwrap(), [Some(Job { version: 1, ..job(100) })]);

    let hers = ListQuery { owner: Some(owner("ann")), limit: 1, count_to: 100, ..ListQuery::default() };
    assert_eq!(store.list(&hers).await.unwrap().total, ids.len());
    let mut counts = store.counts().await.unwrap();
    counts.sort_unstable();
    let count = |status| {
        let of_golden = lives().iter().filter(|life| life.status() == status).count() as u64;
        (status, of_golden + u64::from(status == Status::Queued))
    };
    assert_eq!(counts, Status::ALL.map(count));
    let queued = store.ready(&Class::of(&spec()), None, 9).await.unwrap();
    assert_eq!(queued.iter().map(|job| job.id).collect::<Vec<_>>(), [id(2), id(14)]);
    assert_eq!(store.next_due().await.unwrap(), Some(secs(30)));
    assert_eq!(store.leased(&[worker("w-1")]).await.unwrap().len(), 2);
    assert_eq!(store.expired(secs(60), 9).await.unwrap(), []);

    assert_eq!(store.output_extent(id(3), 10).await.unwrap(), Extent { next: 2, bytes: 7, dropped: 4, trimmed: 2 });
    // From before chunks had times.
    assert_eq!(store.output_since(id(3), 10, make::START.before(secs(9_999))).await.unwrap(), None);
    let stderr = store.output_tail(id(3), 10, Stream::Stderr, 9).await.unwrap();
    assert_eq!(stderr, Bytes::from("\0err"));
    let expected = WorkerRow {
        id: worker("w-1"),
        info: Bytes::from("\0info"),
        beat: beats().remove(2),
        registered: START,
        renewed: START,
        removed: false,
    };
    assert_eq!(store.list_workers(None, 9).await.unwrap(), [expected]);
    let record = |key: &str| Record { key: key.to_owned(), value: Bytes::from("v"), version: 1 };
    assert_eq!(store.list_records("user", None, 9).await.unwrap(), [record("a\0"), record("b")]);
    let repeated = Insert { key: Some(key("k\0ä")), ..insert([job(200)]) };
    assert_eq!(store.insert(repeated).await.unwrap(), Inserted::Known { ids, fingerprint: [7; 32] });

    // It goes on from there, and time goes on too.
    assert_eq!(store.insert(insert([job(101)])).await.unwrap(), Inserted::New);
    clock.advance(secs(60));
    assert_eq!(store.due(9).await.unwrap().len(), 2);
    assert_eq!(store.expired(secs(60), 9).await.unwrap().len(), 2);
    assert_eq!(store.list_records("user", None, 9).await.unwrap(), [record("a\0")]);
}
