//! Values that nobody would choose, and somebody will.

use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::job::{Job, JobSpec, Reason, State, Timer};
use cmdexec_core::store::{Append, Beat, Change, Chunk, Insert, Inserted, Key, RecordWrite, Written};
use cmdexec_core::time::Timestamp;

use crate::store::Bench;
use crate::store::make::{
    append, change, chunk, id, insert, job, job_of, key, queued, running, scheduled, secs, worker,
};

const ODD: [&str; 7] = [
    "",
    "\0",
    "a\0b\0",
    "\u{1}\u{7f}\u{feff}",
    "'; DROP TABLE jobs; --",
    "{\"$set\": \"\\u0000\"}",
    "日本語🦀\u{10ffff}\r\n",
];

pub async fn texts_are_kept_to_the_byte(b: Bench) {
    let jobs: Vec<Job> = (0..)
        .zip(ODD)
        .map(|(n, odd)| {
            let mut spec = JobSpec::argv([odd, "x"]);
            spec.name = Some(odd.to_owned());
            spec.env.insert(odd.to_owned(), odd.to_owned());
            let failed =
                State::Failed { at: Timestamp::from_millis(0), reason: Reason::ExitCode, error: odd.to_owned() };
            Job { life: cmdexec_core::job::Life::starting(failed), ..job_of(n, spec) }
        })
        .collect();
    b.store.insert(insert(jobs.clone())).await.unwrap();
    let found = b.store.get(&jobs.iter().map(|job| job.id).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(found.into_iter().flatten().collect::<Vec<_>>(), jobs);

    b.store.register_worker(&worker("!\"#$%&'()*+,-./\\[]^_`{|}~"), Bytes::from("\0")).await.unwrap();
    for odd in ODD {
        let beat = Beat { report: serde_json::json!({ odd: odd }), ..Beat::default() };
        b.store.renew(vec![(worker("!\"#$%&'()*+,-./\\[]^_`{|}~"), beat.clone())]).await.unwrap();
        assert_eq!(b.store.list_workers(None, 9).await.unwrap()[0].beat, beat);
    }
}

pub async fn large_values_are_kept(b: Bench) {
    let large = "ä\"\\\n".repeat(150_000);
    let whole = job_of(1, JobSpec::shell(large.clone()));
    b.store.insert(insert([whole.clone(), job(2)])).await.unwrap();
    assert_eq!(b.store.get(&[id(1)]).await.unwrap(), [Some(whole)]);
    let bytes = Bytes::from(vec![0xff; 3_000_000]);
    let one = Chunk { bytes: bytes.clone(), ..chunk(0, "") };
    b.store.append_output(vec![append(1, 1, [one.clone(), chunk(1, ""), chunk(2, "end")])]).await.unwrap();
    let read = b.store.read_output(id(1), 1, 0, usize::MAX).await.unwrap();
    assert_eq!(read, [one, chunk(1, ""), chunk(2, "end")]);
    assert_eq!(b.store.output_extent(id(1), 1).await.unwrap().bytes, 3_000_003);
    let write = RecordWrite { key: large.clone(), value: Some(bytes.clone()), version: 0, ttl: None };
    b.store.put_records(&large, vec![write]).await.unwrap();
    let found = b.store.get_records(&large, std::slice::from_ref(&large)).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().value, bytes);
}

pub async fn extreme_numbers_are_kept(b: Bench) {
    let mut spec = JobSpec::shell("true");
    spec.timeout = Duration::from_millis(u64::MAX);
    spec.max_attempts = u32::MAX;
    spec.resources.memory_mb = Some(u64::MAX);
    spec.priority = i8::MIN;
    let low = Job { created: Timestamp::from_millis(i64::MIN), ..job_of(1, spec.clone()) };
    spec.priority = i8::MAX;
    let high = Job { created: Timestamp::from_millis(i64::MAX), ..job_of(2, spec) };
    b.store.insert(insert([low.clone(), high.clone()])).await.unwrap();
    assert_eq!(b.store.ready(&low.class, None, 9).await.unwrap(), [high.clone(), low.clone()]);
    assert_eq!(b.store.ready(&low.class, Some(high.place()), 9).await.unwrap(), [low]);

    let endless = [
        (Job { life: scheduled(), ..job(3) }, Timer::DueIn(Duration::MAX)),
        (Job { life: scheduled(), ..job(4) }, Timer::DueAt(Timestamp::from_millis(i64::MAX))),
        (Job { life: running("w"), ..job(5) }, Timer::Lease { floor: secs(0), hard_end: Duration::MAX }),
    ];
    b.store.insert(Insert { jobs: endless.into(), key: None }).await.unwrap();
    assert_eq!(b.store.due(usize::MAX).await.unwrap(), []);
    assert_eq!(b.store.purge(Duration::MAX, usize::MAX).await.unwrap(), 0);
    b.store.register_worker(&worker("w"), Bytes::new()).await.unwrap();
    assert_eq!(b.store.expired(Duration::MAX, usize::MAX).await.unwrap(), []);
    assert_eq!(b.store.expired(Duration::ZERO, usize::MAX).await.unwrap().len(), 1);
    b.store
        .update(vec![Change { timer: Timer::DueAt(Timestamp::from_millis(i64::MIN)), ..change(3, 0, scheduled()) }])
        .await
        .unwrap();
    assert_eq!(b.store.due(usize::MAX).await.unwrap().len(), 1);
    let late = append(1, u32::MAX, [chunk(0, "x")]);
    b.store.append_output(vec![late]).await.unwrap();
    assert_eq!(b.store.output_extent(id(1), u32::MAX).await.unwrap().bytes, 1);
}

pub async fn keys_that_look_like_syntax_are_only_keys(b: Bench) {
    for (n, odd) in (0..).zip(ODD) {
        let with_key = |n| Insert { key: Some(Key { ttl: secs(9), ..key(odd) }), ..insert([job(n)]) };
        assert_eq!(b.store.insert(with_key(n)).await.unwrap(), Inserted::New, "{odd:?}");
        let known = Inserted::Known { ids: vec![id(n)], fingerprint: [7; 32] };
        assert_eq!(b.store.insert(with_key(100 + n)).await.unwrap(), known, "{odd:?}");
        for (kind, key) in [(odd, "plain"), ("plain", odd)] {
            let write = RecordWrite { key: key.to_owned(), value: Some(Bytes::from(odd)), version: 0, ttl: None };
            assert_eq!(b.store.put_records(kind, vec![write]).await.unwrap(), [Written::Yes], "{odd:?}");
            let found = b.store.get_records(kind, &[key.to_owned()]).await.unwrap();
            assert_eq!(found[0].as_ref().unwrap().value, Bytes::from(odd));
        }
    }
    let keys: Vec<String> =
        b.store.list_records("plain", None, 99).await.unwrap().into_iter().map(|record| record.key).collect();
    let mut expected = ODD.map(str::to_owned);
    expected.sort();
    assert_eq!(keys, expected);
    // Nothing else has suffered.
    assert_eq!(b.store.update(vec![change(0, 0, queued())]).await.unwrap(), [Written::Yes]);
    let nothing = Append { replace: true, ..append(0, 1, []) };
    b.store.append_output(vec![nothing]).await.unwrap();
}
