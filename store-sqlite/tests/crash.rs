//! `kill -9` under load: whatever was acknowledged is there afterwards.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cmdexec_core::store::{Chunk, Extent, ListQuery, Store, Written};
use cmdexec_store_sqlite::SqliteStore;
use cmdexec_testkit::store::make::{START, append, change, chunk, completed, id, insert, job, running};

const FILE: &str = "CMDEXEC_CRASH_FILE";
const FIRST: &str = "CMDEXEC_CRASH_FIRST";
const TASKS: u32 = 16;

/// Every second job's output is long, and so in a file.
const LONG: usize = "long output".len();

fn output(n: u32) -> Chunk {
    chunk(0, if n.is_multiple_of(2) { "long output" } else { "output" })
}

/// Tells the parent of an acknowledged write, in one piece.
fn acknowledged(n: u32, version: u64) {
    let mut out = std::io::stdout().lock();
    // Nobody listens any more: the end is near anyway.
    let _ = out.write_all(format!("ack {n} {version}\n").as_bytes()).and_then(|()| out.flush());
}

/// What the killed process does (in the tests' own process it is nothing): each task takes its jobs through their lives, as fast as it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(path) = std::env::var(FILE) else { return };
    let first: u32 = std::env::var(FIRST).unwrap().parse().unwrap();
    let store = SqliteStore::options().long_output(LONG).open(path).await.unwrap();
    let tasks = (0..TASKS).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in (first + task..).step_by(TASKS as usize) {
                store.insert(insert([job(n)])).await.unwrap();
                acknowledged(n, 0);
                assert_eq!(store.update(vec![change(n, 0, running("w"))]).await.unwrap(), [Written::Yes]);
                acknowledged(n, 1);
                store.append_output(vec![append(n, 1, [output(n)])]).await.unwrap();
                // Only now: version 2 says that the output is there too.
                assert_eq!(store.update(vec![change(n, 1, completed("w", START))]).await.unwrap(), [Written::Yes]);
                acknowledged(n, 2);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

fn start(path: &Path, first: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(FILE, path)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let mut acknowledged: BTreeMap<u32, u64> = BTreeMap::new();
    for round in 0..5 {
        let mut child = start(&path, round * 1_000_000);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed somewhere else each time; what is in the pipe by then was acknowledged too.
        let enough = 200 + 377 * round as usize;
        let mut seen = 0;
        while let Some(Ok(line)) = lines.next() {
            let mut words = line.split(' ');
            if words.next() != Some("ack") {
                continue;
            }
            let Some(Ok(n)) = words.next().map(str::parse) else { continue };
            let Some(Ok(version)) = words.next().map(str::parse) else { continue };
            acknowledged.insert(n, version);
            seen += 1;
            if seen == enough {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= enough, "the child ended by itself after {seen} writes");

        // The lock died with its holder, and nothing that was told is missing.
        let store = SqliteStore::open(&path).await.unwrap();
        for (n, version) in &acknowledged {
            let found = store.get(&[id(*n)]).await.unwrap().remove(0);
            let found = found.unwrap_or_else(|| panic!("job {n} is lost, in round {round}"));
            assert!(found.version >= *version, "job {n} is at {} and was at {version}", found.version);
            if *version == 2 {
                let written = output(*n);
                let expected = Extent { next: 1, bytes: written.bytes.len() as u64, ..Extent::default() };
                assert_eq!(store.output_extent(id(*n), 1).await.unwrap(), expected);
                assert_eq!(store.read_output(id(*n), 1, 0, 9).await.unwrap(), [written]);
            }
        }
        // The counters agree with what they count.
        let all = ListQuery { limit: 1_000_000, ..ListQuery::default() };
        let jobs = store.list(&all).await.unwrap().jobs;
        for (status, count) in store.counts().await.unwrap() {
            let found = jobs.iter().filter(|job| job.status() == status).count();
            assert_eq!(u64::try_from(found).unwrap(), count, "{status}");
        }
        store.close().await;
    }
}
