//! Three servers, and what befalls them under load: the primary is killed, stepped down, frozen. Submissions succeed once or
//! fail in a way that can be repeated; nothing acknowledged is lost; no job is claimed twice under one version.

#![cfg(unix)]
#![expect(clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cmdexec_core::id::JobId;
use cmdexec_core::job::Status;
use cmdexec_core::store::{Insert, Inserted, Store, Written};
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_store_mongo::MongoStore;
use cmdexec_testkit::store::make::{append, change, chunk, completed, id, insert, job, key, lease_timer, running};
use support::set::Set;

/// What was acknowledged, by the number of the job.
#[derive(Default)]
struct Acknowledged {
    versions: HashMap<u32, u64>,
    refused: u32,
}

/// Takes jobs through their lives as fast as it can, each step until it is acknowledged.
async fn load(store: MongoStore, task: u32, stop: Arc<AtomicBool>, done: Arc<AtomicU32>) -> Acknowledged {
    let mut known = Acknowledged::default();
    let mut n = task * 1_000_000;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let with_key = n.is_multiple_of(3);
        let batch = || match (with_key, n % 5) {
            (true, _) => Insert { key: Some(key(&format!("k{n}"))), ..insert([job(n)]) },
            (false, 0) => insert([job(n), job(n + 500_000)]),
            (false, _) => insert([job(n)]),
        };
        loop {
            match store.insert(batch()).await {
                Ok(Inserted::New) => break,
                Ok(Inserted::Known { ids, .. }) => {
                    assert_eq!(ids, [id(n)]);
                    break;
                }
                Err(error) if error.is_retryable() => known.refused += 1,
                // Without a key the repetition of what had been done all the same is a conflict with itself.
                Err(error) if !with_key && known.refused > 0 => {
                    assert_eq!(error.kind(), cmdexec_core::store::ErrorKind::Conflict);
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        known.versions.insert(n, 0);
        let worker = format!("w{task}");
        let steps = [(0, running(&worker)), (1, completed(&worker, store.now()))];
        for (version, life) in steps {
            loop {
                let step = cmdexec_core::store::Change {
                    timer: if version == 0 { lease_timer(60, 600) } else { cmdexec_core::job::Timer::None },
                    ..change(n, version, life.clone())
                };
                match store.update(vec![step]).await {
                    Ok(answers) => {
                        // Nobody else writes this job: if it is stale, an earlier try was it, which was not heard of.
                        assert!(
                            answers == [Written::Yes] || answers == [Written::Stale] && known.refused > 0,
                            "{answers:?}"
                        );
                        break;
                    }
                    Err(error) => {
                        assert!(error.is_retryable(), "{error}");
                        known.refused += 1;
                    }
                }
            }
            known.versions.insert(n, version + 1);
            if version == 0 {
                while let Err(error) = store.append_output(vec![append(n, 1, [chunk(0, "output")])]).await {
                    assert!(error.is_retryable(), "{error}");
                    known.refused += 1;
                }
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    known
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_whatever_befalls_the_primary() {
    let mut set = Set::start().await;
    let stores = [MongoStore::open(&set.address()).await.unwrap(), MongoStore::open(&set.address()).await.unwrap()];
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..6_u32)
        .map(|task| tokio::spawn(load(stores[task as usize % 2].clone(), task, Arc::clone(&stop), Arc::clone(&done))))
        .collect();
    let goes_on = async |what: &str| {
        let (enough, begun) = (done.load(Ordering::Relaxed) + 60, SystemClock.uptime());
        while done.load(Ordering::Relaxed) < enough {
            let waited = SystemClock.uptime().saturating_sub(begun);
            assert!(waited < Duration::from_secs(60), "nothing goes on after {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    goes_on("the beginning").await;

    set.lose_primaries(&goes_on).await;

    // As if it were cut off: it says nothing, and its connections stay open.
    let third = set.primary(None).await;
    set.members[third].signal("-STOP");
    goes_on("the primary was frozen").await;
    set.members[third].signal("-CONT");
    goes_on("it came back as a secondary").await;

    stop.store(true, Ordering::Relaxed);
    let (mut jobs, mut refused) = (0, 0);
    for task in tasks {
        let known = task.await.unwrap();
        refused += known.refused;
        let ids: Vec<JobId> = known.versions.keys().map(|n| id(*n)).collect();
        let found = stores[0].get(&ids).await.unwrap();
        for ((n, version), found) in known.versions.iter().zip(found) {
            let found = found.unwrap_or_else(|| panic!("job {n} is lost"));
            assert_eq!(found.version, *version, "job {n}");
            if *version == 2 {
                assert_eq!(found.status(), Status::Completed);
                assert_eq!(stores[1].read_output(id(*n), 1, 0, 99).await.unwrap(), [chunk(0, "output")]);
            }
            jobs += 1;
        }
    }
    println!("{jobs} jobs, {refused} refusals");

    // Without a majority nothing is acknowledged; with one again, the repetition is known for what it is.
    let primary = set.primary(None).await;
    let others = || (0..3).filter(|n| *n != primary);
    others().for_each(|n| set.members[n].signal("-STOP"));
    let keyed = || Insert { key: Some(key("without a majority")), ..insert([job(99_999_999)]) };
    assert!(stores[0].insert(keyed()).await.unwrap_err().is_retryable());
    others().for_each(|n| set.members[n].signal("-CONT"));
    let answer = loop {
        match stores[1].insert(keyed()).await {
            Err(error) => assert!(error.is_retryable(), "{error}"),
            Ok(answer) => break answer,
        }
    };
    let is_the_one =
        answer == Inserted::New || matches!(&answer, Inserted::Known { ids, .. } if *ids == [id(99_999_999)]);
    assert!(is_the_one, "{answer:?}");
    assert!(stores[0].get(&[id(99_999_999)]).await.unwrap()[0].is_some());
}
