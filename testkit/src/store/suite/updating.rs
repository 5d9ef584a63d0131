//! Conditional writes of lives.

use cmdexec_core::job::{Job, Status, Timer};
use cmdexec_core::store::{Change, ErrorKind, Written};

use super::{kind, numbers};
use crate::store::Bench;
use crate::store::make::{START, change, completed, id, insert, job, queued, running, scheduled, secs};

pub async fn an_update_replaces_the_life_and_counts_the_version(b: Bench) {
    b.store.insert(insert([job(1)])).await.unwrap();
    for (version, life) in [(0, running("w")), (1, queued()), (2, completed("w", START))] {
        let answer = b.store.update(vec![change(1, version, life.clone())]).await.unwrap();
        assert_eq!(answer, [Written::Yes]);
        let expected = Job { life, version: version + 1, ..job(1) };
        assert_eq!(b.store.get(&[id(1)]).await.unwrap(), [Some(expected)]);
    }
}

pub async fn a_stale_update_changes_nothing(b: Bench) {
    b.store.insert(insert([job(1)])).await.unwrap();
    b.store.update(vec![change(1, 0, running("w"))]).await.unwrap();
    for version in [0, 2, u64::MAX] {
        let answer = b.store.update(vec![change(1, version, queued())]).await.unwrap();
        assert_eq!(answer, [Written::Stale], "{version}");
    }
    let found = b.store.get(&[id(1)]).await.unwrap();
    assert_eq!(found, [Some(Job { life: running("w"), version: 1, ..job(1) })]);
}

pub async fn a_missing_job_is_missing(b: Bench) {
    assert_eq!(b.store.update(vec![change(1, 0, queued())]).await.unwrap(), [Written::Missing]);
    assert_eq!(b.store.update(vec![]).await.unwrap(), []);
}

pub async fn items_of_an_update_are_independent(b: Bench) {
    b.store.insert(insert([job(1), job(2), job(3)])).await.unwrap();
    let changes =
        vec![change(3, 0, running("w")), change(9, 0, running("w")), change(1, 5, queued()), change(2, 0, scheduled())];
    let answer = b.store.update(changes).await.unwrap();
    assert_eq!(answer, [Written::Yes, Written::Missing, Written::Stale, Written::Yes]);
    let found = b.store.get(&[id(1), id(2), id(3)]).await.unwrap();
    let statuses: Vec<_> = found.iter().flatten().map(Job::status).collect();
    assert_eq!(statuses, [Status::Queued, Status::Scheduled, Status::Running]);
}

pub async fn a_batch_may_not_name_a_job_twice(b: Bench) {
    b.store.insert(insert([job(1)])).await.unwrap();
    let answer = b.store.update(vec![change(1, 0, running("w")), change(1, 1, queued())]).await;
    assert_eq!(kind(answer), ErrorKind::Invalid);
    assert_eq!(b.store.get(&[id(1)]).await.unwrap(), [Some(job(1))]);
}

pub async fn of_concurrent_updates_of_one_version_one_wins(b: Bench) {
    b.store.insert(insert((0..5).map(job))).await.unwrap();
    let calls = (0..16).map(|claimer| {
        let store = b.store.clone();
        let name = format!("w-{claimer}");
        let changes = (0..5).map(|n| change(n, 0, running(&name))).collect();
        tokio::spawn(async move { store.update(changes).await.unwrap() })
    });
    let answers: Vec<_> = futures_util::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
    for (n, job) in b.store.get(&(0..5).map(id).collect::<Vec<_>>()).await.unwrap().into_iter().enumerate() {
        let winners: Vec<_> = (0..16).filter(|claimer| answers[*claimer][n] == Written::Yes).collect();
        assert_eq!(winners.len(), 1);
        let holder = job.unwrap().life.lease().unwrap().worker.to_string();
        assert_eq!(holder, format!("w-{}", winners[0]));
    }
}

pub async fn a_timer_is_replaced_or_kept(b: Bench) {
    b.store.insert(insert([Job { life: scheduled(), ..job(1) }])).await.unwrap();
    let with = |version, timer| vec![Change { timer, ..change(1, version, scheduled()) }];
    b.store.update(with(0, Timer::DueIn(secs(5)))).await.unwrap();
    b.clock.advance(secs(3));
    b.store.update(with(1, Timer::Keep)).await.unwrap();
    assert_eq!(b.store.next_due().await.unwrap(), Some(secs(2)));
    b.store.update(with(2, Timer::DueIn(secs(8)))).await.unwrap();
    assert_eq!(b.store.next_due().await.unwrap(), Some(secs(8)));
    b.store.update(with(3, Timer::None)).await.unwrap();
    assert_eq!(b.store.next_due().await.unwrap(), None);
}

pub async fn what_was_written_is_seen_by_the_next_call(b: Bench) {
    let tasks = (0..8).map(|task| {
        let store = b.store.clone();
        tokio::spawn(async move {
            for n in (task * 100)..(task * 100 + 20) {
                store.insert(insert([job(n)])).await.unwrap();
                assert_eq!(store.get(&[id(n)]).await.unwrap(), [Some(job(n))]);
                store.update(vec![change(n, 0, running(&format!("w-{n}")))]).await.unwrap();
                let leased = store.leased(&[crate::store::make::worker(&format!("w-{n}"))]).await.unwrap();
                assert_eq!(numbers(&leased), [n]);
            }
        })
    });
    for task in futures_util::future::join_all(tasks).await {
        task.unwrap();
    }
}
