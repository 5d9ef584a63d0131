//! Long output: its file beside the database, what is given back of it, and what becomes of it.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cmdexec_core::executor::Stream;
use cmdexec_core::store::{Append, Chunk, ErrorKind, Store};
use cmdexec_core::time::ManualClock;
use cmdexec_store_sqlite::SqliteStore;
use cmdexec_testkit::store::make::{START, append, change, completed, id, insert, job, running, secs};
use tempfile::TempDir;

const PIECE: usize = 64 << 10;

/// A database with two jobs.
async fn store() -> (TempDir, SqliteStore, ManualClock) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(START));
    let store = open(&dir, &clock).await;
    store.insert(insert([job(1), job(2)])).await.unwrap();
    (dir, store, clock)
}

async fn open(dir: &TempDir, clock: &ManualClock) -> SqliteStore {
    SqliteStore::options().clock(Arc::new(clock.clone())).open(dir.path().join("jobs.db")).await.unwrap()
}

fn file(dir: &TempDir, n: u32) -> PathBuf {
    dir.path().join("jobs.db-output").join(id(n).to_string())
}

/// The file's metadata, once what is done behind the answers is done.
async fn settled(store: &SqliteStore, path: &Path) -> Option<Metadata> {
    store.close().await;
    path.metadata().ok()
}

/// A piece of 64 KiB that no other is like.
fn piece(seq: u64) -> Chunk {
    let bytes: Vec<u8> = (0..PIECE as u64 / 8).flat_map(|word| (word ^ (seq + 1) << 32).to_le_bytes()).collect();
    Chunk { seq, stream: Stream::Stdout, bytes: bytes.into() }
}

fn pieces(seqs: std::ops::Range<u64>) -> Append {
    append(1, 1, seqs.map(piece))
}

#[tokio::test]
async fn it_is_in_a_file_and_what_is_short_is_not() {
    let (dir, store, _) = store().await;
    store.append_output(vec![append(2, 1, [piece(0)])]).await.unwrap();
    assert!(!file(&dir, 2).exists(), "64 KiB are not long");
    let mut mixed = pieces(0..3);
    mixed.chunks.push(Chunk { seq: 3, stream: Stream::Stderr, bytes: "a line".into() });
    store.append_output(vec![mixed.clone()]).await.unwrap();
    assert_eq!(file(&dir, 1).metadata().unwrap().len(), 3 * PIECE as u64);
    assert_eq!(store.read_output(id(1), 1, 0, usize::MAX).await.unwrap(), mixed.chunks);
    assert_eq!(store.read_output(id(1), 1, 1, PIECE).await.unwrap(), [piece(1)]);
    assert_eq!(store.output_tail(id(1), 1, Stream::Stderr, 4).await.unwrap(), "line");
    let tail = store.output_tail(id(1), 1, Stream::Stdout, PIECE + 5).await.unwrap();
    assert_eq!(tail, [&piece(1).bytes[PIECE - 5..], &piece(2).bytes].concat());
    assert_eq!(store.output_extent(id(1), 1).await.unwrap().bytes, 3 * PIECE as u64 + 6);
}

#[tokio::test]
async fn only_its_owner_may_read_it() {
    let (dir, store, _) = store().await;
    store.append_output(vec![pieces(0..2)]).await.unwrap();
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
    assert_eq!((mode(&file(&dir, 1)), mode(file(&dir, 1).parent().unwrap())), (0o600, 0o700));
}

#[tokio::test]
async fn what_is_trimmed_is_given_back_to_the_disk() {
    let (dir, store, _) = store().await;
    // As a job that never stops writing, 2 MiB of which are kept.
    for first in (0..512).step_by(16) {
        let mut append = pieces(first..first + 16);
        append.trim = first.checked_sub(17).map(|last| (0, last));
        store.append_output(vec![append]).await.unwrap();
    }
    let extent = store.output_extent(id(1), 1).await.unwrap();
    let blocks = settled(&store, &file(&dir, 1)).await.unwrap().blocks() * 512;
    assert!(blocks <= extent.bytes + (1 << 20), "{blocks} bytes on the disk for {}", extent.bytes);
}

#[tokio::test]
async fn a_new_attempt_gives_back_what_the_last_one_wrote() {
    for (attempt, replace) in [(2, false), (1, true)] {
        let (dir, store, _) = store().await;
        store.append_output(vec![pieces(0..64)]).await.unwrap();
        let second = Append { attempt, replace, ..append(1, 1, [piece(0)]) };
        store.append_output(vec![second]).await.unwrap();
        assert_eq!(store.read_output(id(1), attempt, 0, usize::MAX).await.unwrap(), [piece(0)]);
        let blocks = settled(&store, &file(&dir, 1)).await.unwrap().blocks() * 512;
        assert!(blocks <= 64 << 10, "{blocks}");
    }
}

#[tokio::test]
async fn what_is_repeated_costs_nothing() {
    let (dir, store, _) = store().await;
    for _ in 0..10 {
        store.append_output(vec![pieces(0..16)]).await.unwrap();
    }
    assert_eq!(store.read_output(id(1), 1, 15, usize::MAX).await.unwrap(), [piece(15)]);
    let blocks = settled(&store, &file(&dir, 1)).await.unwrap().blocks() * 512;
    assert!(blocks <= 17 * PIECE as u64, "{blocks}");
}

#[tokio::test]
async fn it_goes_with_its_job() {
    let (dir, store, clock) = store().await;
    store
        .append_output(vec![pieces(0..2), append(2, 1, [piece(0), piece(1)]), append(3, 1, [piece(0), piece(1)])])
        .await
        .unwrap();
    store.update(vec![change(1, 0, running("w"))]).await.unwrap();
    store.update(vec![change(1, 1, completed("w", START))]).await.unwrap();
    clock.advance(secs(10));
    assert_eq!(store.purge(secs(5), 10).await.unwrap(), 1);
    store.close().await;
    assert!(!file(&dir, 1).exists(), "it is over");
    assert!(file(&dir, 2).exists());
    assert!(!file(&dir, 3).exists(), "there never was such a job");
}

#[tokio::test]
async fn what_a_dead_process_left_is_removed_at_the_next_start() {
    let (dir, store, clock) = store().await;
    store.append_output(vec![pieces(0..2)]).await.unwrap();
    store.close().await;
    std::fs::write(file(&dir, 9), "of a job that was purged").unwrap();
    std::fs::write(dir.path().join("jobs.db-output/notes"), "somebody else's").unwrap();
    let store = open(&dir, &clock).await;
    store.close().await;
    assert!(file(&dir, 1).exists() && !file(&dir, 9).exists());
    assert!(dir.path().join("jobs.db-output/notes").exists());
    let store = open(&dir, &clock).await;
    store.append_output(vec![pieces(2..4)]).await.unwrap();
    assert_eq!(store.read_output(id(1), 1, 0, usize::MAX).await.unwrap(), (0..4).map(piece).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_file_that_is_cut_or_missing_is_corrupt_and_harms_no_other_job() {
    let (dir, store, _) = store().await;
    store.append_output(vec![pieces(0..2), append(2, 1, [piece(0), piece(1)])]).await.unwrap();
    std::fs::File::options().write(true).open(file(&dir, 1)).unwrap().set_len(100_000).unwrap();
    assert_eq!(store.read_output(id(1), 1, 1, 1).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(store.read_output(id(1), 1, 0, 1).await.unwrap(), [piece(0)]);
    std::fs::remove_file(file(&dir, 1)).unwrap();
    assert_eq!(store.read_output(id(1), 1, 0, 1).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(store.read_output(id(2), 1, 0, usize::MAX).await.unwrap(), [piece(0), piece(1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_never_sees_the_hole_that_a_trim_leaves() {
    let (_dir, store, _) = store().await;
    store.append_output(vec![pieces(0..16)]).await.unwrap();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for first in (16..1024).step_by(16) {
                let append = Append { trim: Some((0, first - 9)), ..pieces(first..first + 16) };
                store.append_output(vec![append]).await.unwrap();
            }
        }
    });
    let mut reads = 0;
    while !writer.is_finished() {
        match store.read_output(id(1), 1, 0, 8 * PIECE).await {
            Ok(chunks) => {
                assert!(chunks.iter().all(|chunk| *chunk == piece(chunk.seq)), "a hole was read");
                assert!(!chunks.is_empty());
                reads += 1;
            }
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
    writer.await.unwrap();
    assert!(reads > 0);
}
