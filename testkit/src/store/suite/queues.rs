//! What is ready, and what is due.

use cmdexec_core::job::{Class, Job, JobSpec, Timer};
use cmdexec_core::store::{Change, Insert};

use super::numbers;
use crate::store::Bench;
use crate::store::make::{
    START, almost, change, completed, id, insert, job, job_of, job_with_priority, lease_timer, queued, running,
    scheduled, secs,
};

fn plain() -> Class {
    Class::of(&JobSpec::shell("true"))
}

fn wide() -> JobSpec {
    let mut spec = JobSpec::shell("true");
    spec.resources.cpu_millis = Some(4_000);
    spec
}

fn timed(jobs: impl IntoIterator<Item = (u32, Timer)>) -> Insert {
    let scheduled = |(n, timer)| (Job { life: scheduled(), ..job(n) }, timer);
    Insert { jobs: jobs.into_iter().map(scheduled).collect(), key: None }
}

pub async fn ready_jobs_come_by_priority_then_age(b: Bench) {
    let priorities = [(5, 0), (1, -100), (2, 0), (3, 100), (4, 100), (6, -1)];
    b.store.insert(insert(priorities.map(|(n, priority)| job_with_priority(n, priority)))).await.unwrap();
    assert_eq!(numbers(&b.store.ready(&plain(), None, 10).await.unwrap()), [3, 4, 2, 5, 6, 1]);
}

pub async fn ready_pages_follow_on_one_another(b: Bench) {
    b.store.insert(insert((0..25).map(|n| job_with_priority(n, (n % 3) as i8)))).await.unwrap();
    let whole = b.store.ready(&plain(), None, 100).await.unwrap();
    assert_eq!(whole.len(), 25);
    let mut pages = Vec::new();
    loop {
        let after = pages.last().map(Job::place);
        let page = b.store.ready(&plain(), after, 4).await.unwrap();
        if page.is_empty() {
            break;
        }
        pages.extend(page);
    }
    assert_eq!(pages, whole);
    assert_eq!(b.store.ready(&plain(), None, 0).await.unwrap(), []);
}

pub async fn ready_jobs_are_of_one_class(b: Bench) {
    b.store.insert(insert([job(1), job_of(2, wide()), job(3)])).await.unwrap();
    assert_eq!(numbers(&b.store.ready(&plain(), None, 10).await.unwrap()), [1, 3]);
    assert_eq!(numbers(&b.store.ready(&Class::of(&wide()), None, 10).await.unwrap()), [2]);
    let mut unknown = JobSpec::shell("true");
    unknown.labels.insert("unknown".to_owned());
    assert_eq!(b.store.ready(&Class::of(&unknown), None, 10).await.unwrap(), []);
}

pub async fn only_queued_jobs_are_ready(b: Bench) {
    b.store.insert(insert([job(1), job(2), job(3)])).await.unwrap();
    b.store.update(vec![change(1, 0, running("w")), change(2, 0, scheduled())]).await.unwrap();
    assert_eq!(numbers(&b.store.ready(&plain(), None, 10).await.unwrap()), [3]);
}

pub async fn a_retried_job_keeps_its_place(b: Bench) {
    b.store.insert(insert([job(1), job(2), job(3)])).await.unwrap();
    b.store.update(vec![change(1, 0, running("w"))]).await.unwrap();
    assert_eq!(numbers(&b.store.ready(&plain(), None, 10).await.unwrap()), [2, 3]);
    b.store.update(vec![change(1, 1, queued())]).await.unwrap();
    assert_eq!(numbers(&b.store.ready(&plain(), None, 10).await.unwrap()), [1, 2, 3]);
}

pub async fn classes_name_their_heads(b: Bench) {
    let mut urgent = wide();
    urgent.priority = 9;
    b.store.insert(insert([job(1), job_of(2, wide()), job(3), job_of(4, urgent)])).await.unwrap();
    let mut queues = b.store.classes().await.unwrap();
    queues.sort_by_key(|queue| queue.head.id);
    let seen: Vec<_> = queues.iter().map(|queue| (queue.class.clone(), queue.head.id, queue.queued)).collect();
    assert_eq!(seen, [(plain(), id(1), 2), (Class::of(&wide()), id(4), 2)]);
    // A class without queued jobs is not named.
    b.store.update(vec![change(1, 0, running("w")), change(3, 0, completed("w", START))]).await.unwrap();
    let queues = b.store.classes().await.unwrap();
    assert_eq!(queues.iter().map(|queue| queue.head.id).collect::<Vec<_>>(), [id(4)]);
}

pub async fn due_jobs_come_longest_overdue_first(b: Bench) {
    let at = |seconds| Timer::DueAt(START.after(secs(seconds)));
    b.store.insert(timed([(1, at(3)), (2, at(1)), (3, at(2)), (4, at(1)), (5, at(9))])).await.unwrap();
    b.clock.advance(secs(5));
    assert_eq!(numbers(&b.store.due(10).await.unwrap()), [2, 4, 3, 1]);
    assert_eq!(numbers(&b.store.due(2).await.unwrap()), [2, 4]);
}

pub async fn a_job_is_due_at_its_time_and_not_before(b: Bench) {
    b.store.insert(timed([(1, Timer::DueAt(START.after(secs(10))))])).await.unwrap();
    b.clock.advance(almost(10));
    assert_eq!(b.store.due(10).await.unwrap(), []);
    b.clock.advance(std::time::Duration::from_millis(1));
    assert_eq!(numbers(&b.store.due(10).await.unwrap()), [1]);
}

pub async fn a_retry_is_due_after_its_delay(b: Bench) {
    b.store.insert(insert([Job { life: running("w"), ..job(1) }])).await.unwrap();
    b.clock.advance(secs(100));
    let retry = Change { timer: Timer::DueIn(secs(5)), ..change(1, 0, scheduled()) };
    b.store.update(vec![retry]).await.unwrap();
    b.clock.advance(secs(4));
    assert_eq!(b.store.due(10).await.unwrap(), []);
    b.clock.advance(secs(1));
    assert_eq!(numbers(&b.store.due(10).await.unwrap()), [1]);
}

pub async fn only_scheduled_jobs_are_due(b: Bench) {
    b.store.insert(timed([(1, Timer::DueAt(START)), (2, Timer::DueAt(START)), (3, Timer::None)])).await.unwrap();
    b.store.update(vec![Change { timer: Timer::Keep, ..change(1, 0, queued()) }]).await.unwrap();
    assert_eq!(numbers(&b.store.due(10).await.unwrap()), [2]);
}

pub async fn next_due_counts_down_to_zero(b: Bench) {
    assert_eq!(b.store.next_due().await.unwrap(), None);
    b.store.insert(insert([Job { life: running("w"), ..job(1) }])).await.unwrap();
    b.store.update(vec![Change { timer: lease_timer(1, 2), ..change(1, 0, running("w")) }]).await.unwrap();
    assert_eq!(b.store.next_due().await.unwrap(), None);
    b.store.insert(timed([(2, Timer::DueIn(secs(7))), (3, Timer::DueIn(secs(9)))])).await.unwrap();
    assert_eq!(b.store.next_due().await.unwrap(), Some(secs(7)));
    b.clock.advance(secs(3));
    assert_eq!(b.store.next_due().await.unwrap(), Some(secs(4)));
    b.clock.advance(secs(30));
    assert_eq!(b.store.next_due().await.unwrap(), Some(secs(0)));
}
