//! What attempts wrote.

use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::store::{Append, Chunk, ErrorKind, Extent};

use super::kind;
use crate::store::Bench;
use crate::store::make::{append, chunk, id, insert, job};

fn stderr(seq: u64, text: &str) -> Chunk {
    Chunk { stream: Stream::Stderr, ..chunk(seq, text) }
}

async fn with_job(b: &Bench) {
    b.store.insert(insert([job(1)])).await.unwrap();
}

async fn add(b: &Bench, append: Append) {
    b.store.append_output(vec![append]).await.unwrap();
}

async fn all(b: &Bench, attempt: u32) -> Vec<Chunk> {
    b.store.read_output(id(1), attempt, 0, usize::MAX).await.unwrap()
}

async fn extent(b: &Bench, attempt: u32) -> (u64, u64, u64) {
    let Extent { next, bytes, dropped, .. } = b.store.output_extent(id(1), attempt).await.unwrap();
    (next, bytes, dropped)
}

pub async fn output_is_read_in_order(b: Bench) {
    with_job(&b).await;
    assert_eq!(extent(&b, 1).await, (0, 0, 0));
    assert_eq!(all(&b, 1).await, []);
    add(&b, append(1, 1, [chunk(0, "a"), stderr(1, "bb")])).await;
    add(&b, append(1, 1, [chunk(2, "ccc")])).await;
    assert_eq!(all(&b, 1).await, [chunk(0, "a"), stderr(1, "bb"), chunk(2, "ccc")]);
    assert_eq!(b.store.read_output(id(1), 1, 1, 100).await.unwrap(), [stderr(1, "bb"), chunk(2, "ccc")]);
    assert_eq!(b.store.read_output(id(1), 1, 3, 100).await.unwrap(), []);
    assert_eq!(extent(&b, 1).await, (3, 6, 0));
    assert_eq!(all(&b, 2).await, []);
    assert_eq!(extent(&b, 2).await, (0, 0, 0));
}

pub async fn a_repeated_chunk_is_ignored(b: Bench) {
    with_job(&b).await;
    add(&b, append(1, 1, [chunk(0, "a"), chunk(1, "b")])).await;
    add(&b, append(1, 1, [chunk(1, "other"), chunk(2, "c"), chunk(2, "again")])).await;
    assert_eq!(all(&b, 1).await, [chunk(0, "a"), chunk(1, "b"), chunk(2, "c")]);
    assert_eq!(extent(&b, 1).await, (3, 3, 0));
}

pub async fn a_page_is_cut_at_its_bytes(b: Bench) {
    with_job(&b).await;
    add(&b, append(1, 1, (0..10).map(|n| chunk(n, "four")))).await;
    let page = |from, bytes| b.store.read_output(id(1), 1, from, bytes);
    assert_eq!(page(0, 12).await.unwrap().len(), 3);
    assert_eq!(page(0, 15).await.unwrap().len(), 3);
    assert_eq!(page(8, 100).await.unwrap().len(), 2);
}

pub async fn a_page_has_at_least_one_chunk(b: Bench) {
    with_job(&b).await;
    add(&b, append(1, 1, [chunk(0, "long"), chunk(1, "long")])).await;
    for most in [0, 1, 7] {
        assert_eq!(b.store.read_output(id(1), 1, 0, most).await.unwrap(), [chunk(0, "long")]);
    }
}

pub async fn the_tail_is_the_end_of_one_stream(b: Bench) {
    with_job(&b).await;
    add(&b, append(1, 1, [chunk(0, "abc"), stderr(1, "xyz"), chunk(2, "def"), stderr(3, "!")])).await;
    let tail = |stream, bytes| b.store.output_tail(id(1), 1, stream, bytes);
    assert_eq!(tail(Stream::Stdout, 4).await.unwrap(), Bytes::from("cdef"));
    assert_eq!(tail(Stream::Stdout, 100).await.unwrap(), Bytes::from("abcdef"));
    assert_eq!(tail(Stream::Stderr, 2).await.unwrap(), Bytes::from("z!"));
    assert_eq!(tail(Stream::Stderr, 0).await.unwrap(), Bytes::new());
    assert_eq!(b.store.output_tail(id(1), 2, Stream::Stdout, 9).await.unwrap(), Bytes::new());
}

pub async fn replacing_starts_anew(b: Bench) {
    with_job(&b).await;
    add(&b, Append { dropped: 5, ..append(1, 1, [chunk(0, "a"), chunk(7, "b")]) }).await;
    add(&b, Append { replace: true, dropped: 1, ..append(1, 1, [chunk(0, "new")]) }).await;
    assert_eq!(all(&b, 1).await, [chunk(0, "new")]);
    assert_eq!(extent(&b, 1).await, (1, 3, 1));
}

pub async fn a_later_attempt_removes_the_earlier(b: Bench) {
    with_job(&b).await;
    add(&b, Append { dropped: 5, ..append(1, 1, [chunk(0, "old"), chunk(1, "old")]) }).await;
    add(&b, append(1, 3, [chunk(0, "new")])).await;
    assert_eq!(all(&b, 1).await, []);
    assert_eq!(extent(&b, 1).await, (0, 0, 0));
    assert_eq!(all(&b, 3).await, [chunk(0, "new")]);
    assert_eq!(extent(&b, 3).await, (1, 3, 0));
}

pub async fn an_earlier_attempt_is_ignored(b: Bench) {
    with_job(&b).await;
    add(&b, append(1, 2, [chunk(0, "new")])).await;
    add(&b, Append { replace: true, ..append(1, 1, [chunk(0, "late"), chunk(1, "late")]) }).await;
    assert_eq!(all(&b, 1).await, []);
    assert_eq!(all(&b, 2).await, [chunk(0, "new")]);
}

pub async fn trimming_removes_a_range(b: Bench) {
    with_job(&b).await;
    add(&b, append(1, 1, (0..8).map(|n| chunk(n, "xx")))).await;
    add(&b, Append { trim: Some((2, 5)), dropped: 8, ..append(1, 1, [chunk(8, "end")]) }).await;
    let left: Vec<u64> = all(&b, 1).await.iter().map(|chunk| chunk.seq).collect();
    assert_eq!(left, [0, 1, 6, 7, 8]);
    assert_eq!(extent(&b, 1).await, (9, 11, 8));
    // Also what has just been added, and what follows to the end.
    add(&b, Append { trim: Some((7, u64::MAX)), ..append(1, 1, [chunk(9, "gone")]) }).await;
    assert_eq!(extent(&b, 1).await, (7, 6, 8));
    // A range that is none removes nothing.
    add(&b, Append { trim: Some((3, 1)), ..append(1, 1, []) }).await;
    assert_eq!(extent(&b, 1).await, (7, 6, 8));
}

pub async fn what_was_trimmed_is_remembered(b: Bench) {
    with_job(&b).await;
    let trimmed = async || b.store.output_extent(id(1), 1).await.unwrap().trimmed;
    add(&b, append(1, 1, (0..6).map(|n| chunk(n, "xx")))).await;
    assert_eq!(trimmed().await, 0);
    add(&b, Append { trim: Some((2, 3)), ..append(1, 1, []) }).await;
    assert_eq!(trimmed().await, 4);
    // Also what never came to be there; and an earlier range changes nothing.
    add(&b, Append { trim: Some((6, 8)), ..append(1, 1, [chunk(9, "x")]) }).await;
    add(&b, Append { trim: Some((1, 1)), ..append(1, 1, []) }).await;
    assert_eq!(trimmed().await, 9);
    assert_eq!(all(&b, 1).await.len(), 4);
    add(&b, Append { replace: true, ..append(1, 1, [chunk(0, "new")]) }).await;
    assert_eq!(trimmed().await, 0);
}

pub async fn the_index_has_numbers_and_lengths(b: Bench) {
    with_job(&b).await;
    let index = |attempt, from, limit| b.store.output_index(id(1), attempt, from, limit);
    assert_eq!(index(1, 0, 9).await.unwrap(), []);
    add(&b, append(1, 1, [chunk(0, "a"), stderr(1, "bb"), chunk(4, ""), chunk(7, "dddd")])).await;
    assert_eq!(index(1, 0, 9).await.unwrap(), [(0, 1), (1, 2), (4, 0), (7, 4)]);
    assert_eq!(index(1, 2, 1).await.unwrap(), [(4, 0)]);
    assert_eq!(index(2, 0, 9).await.unwrap(), []);
}

pub async fn output_is_found_by_its_time(b: Bench) {
    with_job(&b).await;
    let start = b.store.now();
    let since =
        async |seconds| b.store.output_since(id(1), 1, start.after(Duration::from_secs(seconds))).await.unwrap();
    assert_eq!(since(0).await, None);
    add(&b, append(1, 1, [chunk(0, "a"), chunk(1, "b")])).await;
    b.clock.advance(Duration::from_secs(10));
    add(&b, append(1, 1, [chunk(3, "d")])).await;
    b.clock.advance(Duration::from_secs(10));
    // What comes late has the time at which it came.
    add(&b, append(1, 1, [chunk(2, "c"), chunk(0, "again")])).await;
    assert_eq!(since(0).await, Some(0));
    assert_eq!(since(1).await, Some(2));
    assert_eq!(since(11).await, Some(2));
    assert_eq!(since(21).await, None);
    assert_eq!(b.store.output_since(id(1), 2, start).await.unwrap(), None);
}

pub async fn times_are_listed_and_put_elsewhere(b: Bench) {
    with_job(&b).await;
    let start = b.store.now();
    let times = |attempt, from, limit| b.store.output_times(id(1), attempt, from, limit);
    assert_eq!(times(1, 0, 9).await.unwrap(), []);
    add(&b, append(1, 1, [chunk(0, "a"), chunk(5, "f")])).await;
    b.clock.advance(Duration::from_secs(10));
    add(&b, append(1, 1, [chunk(3, "d")])).await;
    let (then, later) = (start, start.after(Duration::from_secs(10)));
    assert_eq!(times(1, 0, 9).await.unwrap(), [(0, then), (3, later), (5, then)]);
    assert_eq!(times(1, 1, 1).await.unwrap(), [(3, later)]);
    assert_eq!(times(2, 0, 9).await.unwrap(), []);
    // As another store had them, also those that are long.
    let hour_ago = start.before(Duration::from_secs(3_600));
    let long = chunk(6, &"x".repeat(300_000));
    add(&b, Append { at: Some(hour_ago), ..append(1, 1, [chunk(1, "b"), long, chunk(0, "again")]) }).await;
    assert_eq!(times(1, 0, 9).await.unwrap(), [(0, then), (1, hour_ago), (3, later), (5, then), (6, hour_ago)]);
    assert_eq!(b.store.output_since(id(1), 1, start).await.unwrap(), Some(0));
    assert_eq!(b.store.output_since(id(1), 1, start.after(Duration::from_secs(1))).await.unwrap(), Some(3));
}

pub async fn chunks_may_fill_gaps(b: Bench) {
    with_job(&b).await;
    add(&b, append(1, 1, [chunk(0, "a"), chunk(5, "f")])).await;
    add(&b, append(1, 1, [chunk(3, "d"), chunk(5, "other")])).await;
    assert_eq!(all(&b, 1).await, [chunk(0, "a"), chunk(3, "d"), chunk(5, "f")]);
    assert_eq!(extent(&b, 1).await, (6, 3, 0));
}

pub async fn output_of_no_job_is_dropped(b: Bench) {
    with_job(&b).await;
    b.store.append_output(vec![append(2, 1, [chunk(0, "x")]), append(1, 1, [chunk(0, "a")])]).await.unwrap();
    assert_eq!(all(&b, 1).await, [chunk(0, "a")]);
    b.store.insert(insert([job(2)])).await.unwrap();
    assert_eq!(b.store.read_output(id(2), 1, 0, 9).await.unwrap(), []);
}

pub async fn appends_of_one_call_apply_in_order(b: Bench) {
    with_job(&b).await;
    let calls = [
        append(1, 1, [chunk(0, "a"), chunk(1, "b")]),
        Append { trim: Some((0, 0)), dropped: 1, ..append(1, 1, [chunk(2, "c")]) },
        append(1, 1, [chunk(0, "again")]),
        append(1, 2, [chunk(0, "second")]),
        Append { replace: true, ..append(1, 2, [chunk(4, "anew")]) },
        append(1, 1, [chunk(9, "late")]),
    ];
    b.store.append_output(calls[..3].to_vec()).await.unwrap();
    assert_eq!(all(&b, 1).await, [chunk(0, "again"), chunk(1, "b"), chunk(2, "c")]);
    assert_eq!(extent(&b, 1).await, (3, 7, 1));
    b.store.append_output(calls[3..].to_vec()).await.unwrap();
    assert_eq!(all(&b, 1).await, []);
    assert_eq!(all(&b, 2).await, [chunk(4, "anew")]);
}

pub async fn concurrent_appends_all_arrive(b: Bench) {
    b.store.insert(insert((0..4).map(job))).await.unwrap();
    let calls = (0..80_u32).map(|n| {
        let store = b.store.clone();
        let one = append(n % 4, 1, [chunk(u64::from(n / 4), "xy")]);
        tokio::spawn(async move { store.append_output(vec![one]).await.unwrap() })
    });
    for call in futures_util::future::join_all(calls).await {
        call.unwrap();
    }
    for n in 0..4 {
        let extent = b.store.output_extent(id(n), 1).await.unwrap();
        assert_eq!(extent, Extent { next: 20, bytes: 40, ..Extent::default() });
    }
}

pub async fn numbers_out_of_bounds_are_invalid(b: Bench) {
    with_job(&b).await;
    let good = append(1, 1, [chunk(0, "a")]);
    for wrong in [
        append(1, 1, [chunk(Chunk::MAX_SEQ, "x")]),
        append(1, 1, [chunk(u64::MAX, "x")]),
        Append { dropped: u64::MAX, ..append(1, 1, []) },
    ] {
        let answer = b.store.append_output(vec![good.clone(), wrong]).await;
        assert_eq!(kind(answer), ErrorKind::Invalid);
    }
    assert_eq!(all(&b, 1).await, []);
    add(&b, append(1, 1, [chunk(Chunk::MAX_SEQ - 1, "x")])).await;
    assert_eq!(extent(&b, 1).await, (Chunk::MAX_SEQ, 1, 0));
}
