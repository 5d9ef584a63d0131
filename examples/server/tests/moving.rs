//! Moving house with the program: from a SQLite file to MongoDB and back, interrupted and compared, and as lines of JSON.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::job::{Job, JobSpec};
use cmdexec_core::store::{Beat, Insert, Inserted, ListQuery, RecordWrite, Store};
use cmdexec_store_mongo::MongoStore;
use cmdexec_store_sqlite::SqliteStore;
use cmdexec_testkit::store::make::{
    START, append, change, chunk, completed, id, insert, job, job_of, key, lease_timer, running, scheduled, secs,
    worker,
};

fn server(args: &[&str], input: &[u8]) -> Output {
    use std::io::Write;
    let mut child = Command::new(env!("CARGO_BIN_EXE_cmdexec-server"))
        .env_clear()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn migrate(from: &str, to: &str) -> Output {
    server(&["migrate", "--from", from, "--to", to], &[])
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn fill(store: &dyn Store) {
    let jobs = (0..500).map(|n| {
        let mut spec = JobSpec::shell(format!("echo {n}"));
        spec.priority = i8::try_from(n % 3).unwrap();
        spec.env.insert("$a.b".to_owned(), "\0ä".to_owned());
        job_of(n, spec)
    });
    store.insert(insert(jobs)).await.unwrap();
    store.insert(Insert { key: Some(key("batch")), ..insert([job(600), job(601)]) }).await.unwrap();
    let waits = Job { life: scheduled(), ..job(700) };
    store.insert(insert([waits])).await.unwrap();
    let leased = cmdexec_core::store::Change { timer: lease_timer(60, 600), ..change(1, 0, running("w")) };
    store.update(vec![leased, change(2, 0, completed("w", store.now()))]).await.unwrap();
    let long = "x".repeat(60_000);
    for seq in 0..40 {
        let at = Some(START.after(secs(seq / 3)));
        let piece = append(1, 1, [chunk(seq, &format!("{seq} {long}"))]);
        store.append_output(vec![cmdexec_core::store::Append { at, ..piece }]).await.unwrap();
    }
    let trim = cmdexec_core::store::Append { trim: Some((3, 20)), dropped: 1_000, ..append(1, 1, []) };
    store.append_output(vec![trim, append(2, 1, [chunk(0, "short")])]).await.unwrap();
    store.register_worker(&worker("w"), Bytes::from("{}")).await.unwrap();
    store.renew(vec![(worker("w"), Beat { completed: 7, ..Beat::default() })]).await.unwrap();
    let mut long_known = store.get_workers(&[worker("w")]).await.unwrap().remove(0).unwrap();
    long_known.id = worker("long-known");
    (long_known.registered, long_known.renewed) = (START, START.after(secs(9)));
    store.put_workers(vec![long_known]).await.unwrap();
    store.register_worker(&worker("removed"), Bytes::from("{}")).await.unwrap();
    store.remove_worker(&worker("removed")).await.unwrap();
    let record = RecordWrite { key: "k".to_owned(), value: Some(Bytes::from("v")), version: 0, ttl: None };
    store.put_records("blob", vec![record]).await.unwrap();
}

fn sqlite(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

#[tokio::test]
async fn a_store_moves_to_mongodb_and_back() {
    let address = std::env::var("CMDEXEC_TEST_MONGO").unwrap_or_default();
    assert!(!address.is_empty(), "CMDEXEC_TEST_MONGO is no address of a MongoDB server; scripts/test starts one");
    let name = format!("moving-{}", std::process::id());
    let (hosts, rest) = address.split_once("/?").unwrap();
    let mongo = format!("{hosts}/{name}?{rest}");
    let dir = tempfile::tempdir().unwrap();
    let (old, back) = (dir.path().join("old.db"), dir.path().join("back.db"));
    let store = SqliteStore::open(&old).await.unwrap();
    fill(&store).await;
    let (times, workers) =
        (store.output_times(id(1), 1, 0, 99).await.unwrap(), store.list_all_workers(None, 9).await.unwrap());
    assert_eq!((times.len(), times[0].1, workers.len()), (22, START, 3));
    store.close().await;

    // Interrupted: some of it is there already, and half of one job's output.
    let there = MongoStore::open(&mongo).await.unwrap();
    let mut spec = JobSpec::shell("echo 1");
    spec.priority = 1;
    spec.env.insert("$a.b".to_owned(), "\0ä".to_owned());
    there.insert(insert([Job { life: running("w"), version: 1, ..job_of(1, spec) }])).await.unwrap();
    there.append_output(vec![append(1, 1, [chunk(0, "half")])]).await.unwrap();
    there.put_workers(workers[..1].to_vec()).await.unwrap();
    let output = migrate(&sqlite(&old), &mongo);
    assert!(output.status.success(), "{}", told(&output));
    assert!(
        told(&output).contains("copied 502 jobs (1 were there already), 1 idempotency keys, 3 workers"),
        "{}",
        told(&output)
    );
    let again = migrate(&sqlite(&old), &mongo);
    assert!(told(&again).contains("copied 0 jobs (503 were there already)"), "{}", told(&again));

    assert_eq!(there.output_times(id(1), 1, 0, 99).await.unwrap(), times);
    assert_eq!(there.list_all_workers(None, 9).await.unwrap(), workers);

    let repeated = Insert { key: Some(key("batch")), ..insert([job(800), job(801)]) };
    let known = Inserted::Known { ids: vec![id(600), id(601)], fingerprint: [7; 32] };
    assert_eq!(there.insert(repeated).await.unwrap(), known);
    assert_eq!(there.leased(&[worker("w")]).await.unwrap().len(), 1);
    assert!(there.next_due().await.unwrap().is_some());
    let heads = there.ready(&job(0).class, None, 3).await.unwrap();
    assert_eq!(heads.iter().map(|job| job.spec.priority).collect::<Vec<_>>(), [2, 2, 2]);

    let output = migrate(&mongo, &sqlite(&back));
    assert!(output.status.success(), "{}", told(&output));
    let store = SqliteStore::open(&back).await.unwrap();
    assert_eq!(store.output_times(id(1), 1, 0, 99).await.unwrap(), times);
    assert_eq!(store.list_all_workers(None, 9).await.unwrap(), workers);
    store.close().await;
    // What is not a copy is said not to be one. A worker that is at work there stays as it is.
    there.renew(vec![(worker("long-known"), Beat::default())]).await.unwrap();
    let at_work = there.list_all_workers(None, 9).await.unwrap();
    let output = migrate(&sqlite(&old), &mongo);
    assert!(!output.status.success() && told(&output).contains("the workers differ"), "{}", told(&output));
    assert_eq!(there.list_all_workers(None, 9).await.unwrap(), at_work);
    there.insert(insert([job(900)])).await.unwrap();
    let output = migrate(&sqlite(&old), &mongo);
    assert!(!output.status.success() && told(&output).contains("has other jobs"), "{}", told(&output));

    let exported = server(&["export", "--from", &mongo], &[]);
    assert_eq!(String::from_utf8(exported.stdout.clone()).unwrap().lines().count(), 504);
    let fresh = dir.path().join("fresh.db");
    let imported = server(&["import", "--to", &sqlite(&fresh)], &exported.stdout);
    assert!(told(&imported).contains("504 jobs; 0 more"), "{}", told(&imported));
    let imported = server(&["import", "--to", &sqlite(&fresh)], &exported.stdout);
    assert!(told(&imported).contains("0 jobs; 504 more"), "{}", told(&imported));
    let wrong = server(&["import", "--to", &sqlite(&fresh)], b"\n{\"id\": 1}\n");
    assert!(!wrong.status.success() && told(&wrong).contains("line 2"), "{}", told(&wrong));
    let (all, copy) = (there, SqliteStore::open(&fresh).await.unwrap());
    let query = ListQuery { limit: 1_000, ..ListQuery::default() };
    let lives = |page: cmdexec_core::store::Page| {
        page.jobs.into_iter().map(|job| (job.id, job.life, job.spec)).collect::<Vec<_>>()
    };
    assert_eq!(lives(all.list(&query).await.unwrap()), lives(copy.list(&query).await.unwrap()));
    let read = async |store: &dyn Store| store.read_output(id(1), 1, 0, usize::MAX).await.unwrap();
    assert_eq!(read(&all).await, read(&copy).await);
    assert_eq!(copy.output_times(id(1), 1, 0, 99).await.unwrap(), times);
    assert_eq!(all.output_extent(id(1), 1).await.unwrap(), copy.output_extent(id(1), 1).await.unwrap());
    tokio::time::timeout(Duration::from_secs(20), all.close()).await.unwrap();
    let client = mongodb::Client::with_uri_str(&address).await.unwrap();
    client.database(&name).drop().await.unwrap();
}
