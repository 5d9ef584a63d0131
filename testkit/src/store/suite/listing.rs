//! Pages of jobs.

use cmdexec_core::files::FileId;
use cmdexec_core::job::{Attempt, Details, Job, JobSpec, Life, Outcome, Status};
use cmdexec_core::store::{ErrorKind, ListQuery, Page};

use super::{kind, numbers};
use crate::store::Bench;
use crate::store::make::{
    START, cancelling, change, completed, failed, id, insert, job, job_of, lease, owner, queued, running, secs, worker,
};

fn ten() -> ListQuery {
    ListQuery { limit: 10, ..ListQuery::default() }
}

async fn list(b: &Bench, query: ListQuery) -> Page {
    b.store.list(&query).await.unwrap()
}

pub async fn a_list_is_newest_first(b: Bench) {
    b.store.insert(insert([job(2), job(5), job(1)])).await.unwrap();
    let page = list(&b, ten()).await;
    assert_eq!(numbers(&page.jobs), [5, 2, 1]);
    assert_eq!((page.more, page.total), (false, 0));
    let page = list(&b, ListQuery { limit: 2, ..ten() }).await;
    assert_eq!((numbers(&page.jobs), page.more), (vec![5, 2], true));
    let page = list(&b, ListQuery { limit: 0, ..ten() }).await;
    assert_eq!((numbers(&page.jobs), page.more), (vec![], true));
    assert_eq!(page.jobs, []);
}

pub async fn filters_apply_together(b: Bench) {
    let ann = |n, life: Life| Job { owner: owner("ann"), life, ..job(n) };
    let jobs = [
        ann(1, running("w")),
        ann(2, running("v")),
        ann(3, queued()),
        Job { life: running("w"), ..job(4) },
        ann(5, cancelling("w")),
    ];
    b.store.insert(insert(jobs)).await.unwrap();
    let page = list(&b, ListQuery { owner: Some(owner("ann")), count_to: 9, ..ten() }).await;
    assert_eq!((numbers(&page.jobs), page.total), (vec![5, 3, 2, 1], 4));
    let running = ListQuery { status: Some(Status::Running), count_to: 9, ..ten() };
    assert_eq!(numbers(&list(&b, running.clone()).await.jobs), [4, 2, 1]);
    let hers = ListQuery { owner: Some(owner("ann")), ..running };
    assert_eq!(numbers(&list(&b, hers.clone()).await.jobs), [2, 1]);
    let on_w = list(&b, ListQuery { worker: Some(worker("w")), ..hers }).await;
    assert_eq!((numbers(&on_w.jobs), on_w.total), (vec![1], 1));
    let nobody = list(&b, ListQuery { owner: Some(owner("nobody")), count_to: 9, ..ten() }).await;
    assert_eq!(nobody, Page::default());
}

pub async fn a_cursor_goes_through_all(b: Bench) {
    b.store.insert(insert((0..23).map(job))).await.unwrap();
    let mut seen = Vec::new();
    let mut query = ListQuery { limit: 5, count_to: 100, ..ListQuery::default() };
    loop {
        let page = list(&b, query.clone()).await;
        // The total is of all pages, whichever this is.
        assert_eq!(page.total, 23);
        seen.extend(numbers(&page.jobs));
        if !page.more {
            break;
        }
        query.before = page.jobs.last().map(|job| job.id);
    }
    assert_eq!(seen, (0..23).rev().collect::<Vec<_>>());
}

pub async fn an_offset_leaves_out(b: Bench) {
    b.store.insert(insert((0..10).map(job))).await.unwrap();
    let page = list(&b, ListQuery { offset: 2, limit: 3, before: Some(id(8)), ..ten() }).await;
    assert_eq!((numbers(&page.jobs), page.more), (vec![5, 4, 3], true));
    let page = list(&b, ListQuery { offset: 100, ..ten() }).await;
    assert_eq!(page, Page::default());
}

pub async fn the_total_heeds_its_bound_and_the_filters(b: Bench) {
    b.store.insert(insert((0..10).map(job))).await.unwrap();
    b.store.update(vec![change(3, 0, failed(START))]).await.unwrap();
    assert_eq!(list(&b, ListQuery { count_to: 4, ..ten() }).await.total, 4);
    assert_eq!(list(&b, ListQuery { count_to: 10, limit: 1, ..ten() }).await.total, 10);
    let failed = ListQuery { status: Some(Status::Failed), count_to: 100, ..ten() };
    assert_eq!(list(&b, failed).await.total, 1);
}

pub async fn a_worker_is_found_by_the_last_lease(b: Bench) {
    b.store.insert(insert((1..6).map(job))).await.unwrap();
    let mut returned = queued();
    for (n, holder) in [(1, "w"), (2, "v")] {
        let outcome = Outcome::Lost;
        returned.attempts.push(Attempt { lease: lease(n, holder), ended: START, outcome, details: Details::default() });
    }
    let changes = vec![
        change(1, 0, running("w")),
        change(2, 0, completed("w", START)),
        change(3, 0, returned),
        change(4, 0, queued()),
    ];
    b.store.update(changes).await.unwrap();
    let of = |name: &str| ListQuery { worker: Some(worker(name)), ..ten() };
    assert_eq!(numbers(&list(&b, of("w")).await.jobs), [2, 1]);
    assert_eq!(numbers(&list(&b, of("v")).await.jobs), [3]);
    // The next lease is another's.
    b.store.update(vec![change(1, 1, running("v"))]).await.unwrap();
    assert_eq!(numbers(&list(&b, of("w")).await.jobs), [2]);
    assert_eq!(numbers(&list(&b, of("v")).await.jobs), [3, 1]);
}

pub async fn a_label_is_found(b: Bench) {
    let labelled = |n, labels: &[&str]| {
        let mut spec = JobSpec::shell("true");
        spec.labels = labels.iter().map(|label| (*label).to_owned()).collect();
        job_of(n, spec)
    };
    let jobs = [labelled(1, &["gpu"]), labelled(2, &["gpux"]), labelled(3, &["a", "gpu", "z"]), labelled(4, &[])];
    b.store.insert(insert(jobs)).await.unwrap();
    let page = list(&b, ListQuery { label: Some("gpu".to_owned()), count_to: 9, ..ten() }).await;
    assert_eq!((numbers(&page.jobs), page.total), (vec![3, 1], 2));
    assert_eq!(list(&b, ListQuery { label: Some("%".to_owned()), ..ten() }).await.jobs, []);
}

pub async fn jobs_that_bring_a_file_are_found(b: Bench) {
    let (one, other) = (FileId::from_sha256([1; 32]), FileId::from_sha256([2; 32]));
    let bringing = |n, input| {
        let mut spec = JobSpec::shell("true");
        spec.input = input;
        job_of(n, spec)
    };
    let jobs = [bringing(1, Some(one)), bringing(2, None), bringing(3, Some(other)), bringing(4, Some(one))];
    b.store.insert(insert(jobs)).await.unwrap();
    b.store.update(vec![change(4, 0, running("w"))]).await.unwrap();
    let of = |file, status| ListQuery { input: Some(file), status, count_to: 9, ..ten() };
    let page = list(&b, of(one, None)).await;
    assert_eq!((numbers(&page.jobs), page.total), (vec![4, 1], 2));
    assert_eq!(numbers(&list(&b, of(one, Some(Status::Queued))).await.jobs), [1]);
    assert_eq!(numbers(&list(&b, of(other, None)).await.jobs), [3]);
    assert_eq!(list(&b, of(FileId::from_sha256([3; 32]), None)).await.jobs, []);
}

pub async fn created_after_is_exclusive(b: Bench) {
    let at = |n| Job { created: START.after(secs(u64::from(n))), ..job(n) };
    b.store.insert(insert((0..6).map(at))).await.unwrap();
    let after = ListQuery { created_after: Some(START.after(secs(3))), count_to: 9, ..ten() };
    let page = list(&b, after).await;
    assert_eq!((numbers(&page.jobs), page.total), (vec![5, 4], 2));
}

pub async fn a_large_offset_is_invalid(b: Bench) {
    let most = ListQuery { offset: ListQuery::MAX_OFFSET, ..ten() };
    assert_eq!(list(&b, most.clone()).await, Page::default());
    let answer = b.store.list(&ListQuery { offset: ListQuery::MAX_OFFSET + 1, ..most }).await;
    assert_eq!(kind(answer), ErrorKind::Invalid);
}
