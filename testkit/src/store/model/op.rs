//! The calls, over few names, so that they meet.

use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::files::FileId;
use cmdexec_core::id::{LeaseToken, Owner, WorkerId};
use cmdexec_core::job::{Attempt, Details, Job, JobSpec, Life, Outcome, Status, Timer};
use cmdexec_core::store::{Append, Beat, Chunk, Key, ListQuery, Listed, RecordWrite, WorkerRow};
use cmdexec_core::time::Timestamp;
use proptest::prelude::*;

use crate::store::make;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Insert(Vec<(Job, Timer)>, Option<Key>),
    Get(Vec<u32>),
    List(ListQuery),
    Classes,
    Ready {
        of: u32,
        after: bool,
        limit: usize,
    },
    Due(usize),
    NextDue,
    Expired(Duration, usize),
    Leased(Vec<WorkerId>),
    Counts,
    /// Each with what is added to the version that the job has.
    Update(Vec<(u32, u64, Life, Timer)>),
    Append(Vec<Append>),
    ReadOutput {
        job: u32,
        attempt: u32,
        from: u64,
        max_bytes: usize,
    },
    OutputTail {
        job: u32,
        attempt: u32,
        stream: Stream,
        max_bytes: usize,
    },
    Register(WorkerId, Bytes),
    Renew(Vec<(WorkerId, Beat)>),
    ListWorkers(Option<WorkerId>, usize),
    RemoveWorker(WorkerId),
    PutWorkers(Vec<WorkerRow>),
    /// Each with what is added to the version that the record has.
    PutRecords(&'static str, Vec<(RecordWrite, u64)>),
    ListRecords(&'static str, Option<String>, usize),
    Purge(Duration, usize),
    Advance(Duration),
}

const JOBS: u32 = 12;

pub(super) fn call() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (prop::collection::vec((job(), timer()), 0..4), prop::option::of(key())).prop_map(|(jobs, key)| Op::Insert(jobs, key)),
        1 => prop::collection::vec(0..JOBS, 0..5).prop_map(Op::Get),
        3 => query().prop_map(Op::List),
        1 => Just(Op::Classes),
        2 => (0..JOBS, any::<bool>(), 0..6_usize).prop_map(|(of, after, limit)| Op::Ready { of, after, limit }),
        2 => (0..6_usize).prop_map(Op::Due),
        1 => Just(Op::NextDue),
        2 => (seconds(90), 0..6_usize).prop_map(|(lease, limit)| Op::Expired(lease, limit)),
        1 => prop::collection::vec(worker(), 0..3).prop_map(Op::Leased),
        1 => Just(Op::Counts),
        8 => updates().prop_map(Op::Update),
        5 => prop::collection::vec(append(), 0..4).prop_map(Op::Append),
        2 => (0..JOBS, 0..4_u32, 0..8_u64, 0..30_usize)
            .prop_map(|(job, attempt, from, max_bytes)| Op::ReadOutput { job, attempt, from, max_bytes }),
        1 => (0..JOBS, 0..4_u32, stream(), 0..30_usize)
            .prop_map(|(job, attempt, stream, max_bytes)| Op::OutputTail { job, attempt, stream, max_bytes }),
        2 => (worker(), "[a-z]{0,3}").prop_map(|(worker, info)| Op::Register(worker, info.into())),
        2 => beats().prop_map(Op::Renew),
        1 => (prop::option::of(worker()), 0..4_usize).prop_map(|(after, limit)| Op::ListWorkers(after, limit)),
        1 => worker().prop_map(Op::RemoveWorker),
        1 => rows().prop_map(Op::PutWorkers),
        3 => (kind(), prop::collection::vec(record(), 0..3)).prop_map(|(kind, writes)| Op::PutRecords(kind, writes)),
        1 => (kind(), prop::option::of(record_key()), 0..4_usize)
            .prop_map(|(kind, after, limit)| Op::ListRecords(kind, after, limit)),
        1 => (seconds(60), 0..4_usize).prop_map(|(keep, limit)| Op::Purge(keep, limit)),
        2 => seconds(90).prop_map(Op::Advance),
    ]
}

fn seconds(most: u64) -> impl Strategy<Value = Duration> {
    (0..=most).prop_map(Duration::from_secs)
}

/// Around the start of the test's clock.
fn instant() -> impl Strategy<Value = Timestamp> {
    seconds(120).prop_map(|after| make::START.after(after))
}

fn owner() -> impl Strategy<Value = Owner> {
    prop::sample::select(vec!["ann", "bob"]).prop_map(make::owner)
}

fn worker() -> impl Strategy<Value = WorkerId> {
    prop::sample::select(vec!["w-1", "w-2", "w-3"]).prop_map(make::worker)
}

fn stream() -> impl Strategy<Value = Stream> {
    prop::sample::select(vec![Stream::Stdout, Stream::Stderr])
}

fn kind() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["user", "us", "\0"])
}

fn record_key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "a\0", "ä", "b"]).prop_map(str::to_owned)
}

fn key() -> impl Strategy<Value = Key> {
    (owner(), record_key(), 0..2_u8, seconds(90)).prop_map(|(owner, key, print, ttl)| Key {
        owner,
        key,
        fingerprint: [print; 32],
        ttl,
    })
}

pub(super) fn spec(class: u8, priority: i8, label: Option<&'static str>, input: Option<FileId>) -> JobSpec {
    let mut spec = JobSpec::shell("echo \"ä\0\"");
    spec.priority = priority;
    spec.resources.cpu_millis = (class > 0).then_some(500);
    spec.labels = label.map(str::to_owned).into_iter().collect();
    spec.input = input;
    spec
}

fn label() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, Some("gpu"), Some("x")])
}

fn input() -> impl Strategy<Value = Option<FileId>> {
    prop::option::of((0..2_u8).prop_map(|n| FileId::from_sha256([n; 32])))
}

fn job() -> impl Strategy<Value = Job> {
    (0..JOBS, 0..2_u8, -1..=1_i8, (label(), input()), owner(), instant(), life()).prop_map(
        |(n, class, priority, (label, input), owner, created, life)| Job {
            owner,
            created,
            life,
            ..make::job_of(n, spec(class, priority, label, input))
        },
    )
}

fn life() -> impl Strategy<Value = Life> {
    let state = (prop::sample::select(Status::ALL.to_vec()), worker(), instant());
    let attempts = prop::collection::vec(worker(), 0..3);
    (state, attempts, 0..9_u32).prop_map(|((status, worker, at), ended, lost)| {
        let life = match status {
            Status::Scheduled => make::scheduled(),
            // As likely again, since most of the contract is about what is queued or leased.
            Status::Queued | Status::Cancelled => make::queued(),
            Status::Running => make::running(worker.as_str()),
            Status::Cancelling => make::cancelling(worker.as_str()),
            Status::Completed => make::completed(worker.as_str(), at),
            Status::Failed => make::failed(at),
        };
        let attempts = (1..).zip(ended).map(|(n, worker)| Attempt {
            lease: make::lease(n, worker.as_str()),
            ended: at,
            outcome: Outcome::Lost,
            details: Details::default(),
        });
        Life { attempts: life.attempts.iter().cloned().chain(attempts).collect(), lost, ..life }
    })
}

fn timer() -> impl Strategy<Value = Timer> {
    prop_oneof![
        Just(Timer::None),
        Just(Timer::Keep),
        instant().prop_map(Timer::DueAt),
        seconds(60).prop_map(Timer::DueIn),
        (seconds(60), seconds(120)).prop_map(|(floor, hard_end)| Timer::Lease { floor, hard_end }),
    ]
}

fn updates() -> impl Strategy<Value = Vec<(u32, u64, Life, Timer)>> {
    prop::collection::vec((0..JOBS, prop::sample::select(vec![0, 0, 0, 0, 1]), life(), timer()), 0..5)
}

fn append() -> impl Strategy<Value = Append> {
    let chunk = (0..8_u64, stream(), "[a-zä]{0,9}").prop_map(|(seq, stream, text)| Chunk {
        seq,
        stream,
        bytes: text.into_bytes().into(),
    });
    let chunks = prop::collection::vec(chunk, 0..4);
    let trim = prop::option::weighted(0.2, (0..8_u64, prop_oneof![0..8_u64, Just(u64::MAX)]));
    let dropped = (0..3_u64, prop::option::weighted(0.2, instant()));
    (0..JOBS, 0..4_u32, prop::bool::weighted(0.15), chunks, trim, dropped).prop_map(
        |(n, attempt, replace, chunks, trim, (dropped, at))| Append {
            job: make::id(n),
            attempt,
            replace,
            chunks,
            trim,
            dropped,
            at,
        },
    )
}

fn beats() -> impl Strategy<Value = Vec<(WorkerId, Beat)>> {
    prop::collection::vec((worker(), beat()), 0..3)
}

fn rows() -> impl Strategy<Value = Vec<WorkerRow>> {
    let row = (worker(), "[a-z]{0,3}", beat(), instant(), instant(), any::<bool>()).prop_map(
        |(id, info, beat, registered, renewed, removed)| WorkerRow {
            id,
            info: info.into(),
            beat,
            registered,
            renewed,
            removed,
        },
    );
    prop::collection::vec(row, 0..3)
}

fn beat() -> impl Strategy<Value = Beat> {
    let held = prop::option::of(prop::collection::vec(
        (0..JOBS).prop_map(|n| Listed { job: make::id(n), token: LeaseToken::from_bits(u128::from(n)) }),
        0..3,
    ));
    let tally = prop::option::of((0..2_u128).prop_map(LeaseToken::from_bits));
    (held, 0..3_u64, 0..3_u64, tally, ".{0,4}").prop_map(|(held, completed, failed, tally, report)| Beat {
        report: report.into(),
        held,
        completed,
        failed,
        tally,
    })
}

fn record() -> impl Strategy<Value = (RecordWrite, u64)> {
    let value = prop::option::weighted(0.8, "[a-z\0]{0,4}".prop_map(Bytes::from));
    let ttl = prop::option::of(seconds(90));
    (record_key(), value, ttl, prop::sample::select(vec![0, 0, 0, 1]))
        .prop_map(|(key, value, ttl, off)| (RecordWrite { key, value, version: 0, ttl }, off))
}

fn query() -> impl Strategy<Value = ListQuery> {
    (
        prop::option::of(owner()),
        prop::option::of(prop::sample::select(Status::ALL.to_vec())),
        prop::option::of(worker()),
        (label(), input()),
        prop::option::of(instant()),
        prop::option::of((0..JOBS).prop_map(make::id)),
        prop_oneof![8 => 0..3_usize, 1 => Just(ListQuery::MAX_OFFSET + 1)],
        (0..6_usize, 0..9_usize),
    )
        .prop_map(|(owner, status, worker, (label, input), created_after, before, offset, (limit, count_to))| {
            ListQuery {
                owner,
                status,
                worker,
                label: label.map(str::to_owned),
                input,
                created_after,
                before,
                offset,
                limit,
                count_to,
            }
        })
}
