//! The database as a file: whose it is, what else it may be, and what happens when there is no room.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use cmdexec_core::store::{ErrorKind, Inserted, Store, Written};
use cmdexec_store_sqlite::SqliteStore;
use cmdexec_testkit::store::make::{append, change, chunk, id, insert, job, running};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

async fn refused(path: &Path) -> (ErrorKind, String) {
    let error = SqliteStore::open(path).await.unwrap_err();
    (error.kind(), error.to_string())
}

/// Does something to a database that is not open.
async fn tamper(path: &Path, sql: &str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut conn = options.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn one_store_at_a_time_has_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let first = SqliteStore::open(&path).await.unwrap();
    let (kind, what) = refused(&dir.path().join("../").join(dir.path().file_name().unwrap()).join("jobs.db")).await;
    assert!(matches!(kind, ErrorKind::Unavailable { .. }), "{what}");
    assert!(what.contains("open already"), "{what}");
    first.insert(insert([job(1)])).await.unwrap();
    first.close().await;
    let second = SqliteStore::open(&path).await.unwrap();
    assert!(second.get(&[id(1)]).await.unwrap()[0].is_some());
}

#[tokio::test]
async fn a_dropped_store_lets_go_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    drop(SqliteStore::open(&path).await.unwrap());
    for _ in 0..1_000 {
        if SqliteStore::open(&path).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it is still held");
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("new").join("data");
    let store = SqliteStore::open(inner.join("jobs.db")).await.unwrap();
    store.insert(insert([job(1)])).await.unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inner), 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(&inner).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        files += 1;
    }
    assert!(files >= 3, "the database, its log and its lock");
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let text = "not a database at all\n".repeat(1_000);
    std::fs::write(&path, &text).unwrap();
    let (kind, what) = refused(&path).await;
    assert_eq!(kind, ErrorKind::Corrupt, "{what}");
    assert!(what.contains("not a database"), "{what}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn another_programs_database_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    for (name, sql) in [("a", "CREATE TABLE t (x)"), ("b", "PRAGMA application_id = 7")] {
        let path = dir.path().join(name);
        tamper(&path, sql).await;
        let before = std::fs::read(&path).unwrap();
        let (kind, what) = refused(&path).await;
        assert_eq!(kind, ErrorKind::Invalid, "{what}");
        assert!(what.contains("another program"), "{what}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    SqliteStore::open(&path).await.unwrap().close().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'from the future', true, x'00', 0)";
    tamper(&path, newer).await;
    let (kind, what) = refused(&path).await;
    assert_eq!(kind, ErrorKind::Invalid, "{what}");
    assert!(what.contains("schema version 9999"), "{what}");
}

#[tokio::test]
async fn a_damaged_row_is_corrupt_and_harms_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.insert(insert([job(1), job(2)])).await.unwrap();
    store.close().await;
    tamper(&path, "UPDATE jobs SET life = '{' WHERE seq = 1").await;
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.get(&[id(1)]).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(store.get(&[id(2)]).await.unwrap(), [Some(job(2))]);
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let store = SqliteStore::options().max_mib(1).long_output(usize::MAX).open(&path).await.unwrap();
    store.insert(insert([job(1)])).await.unwrap();
    let large = append(1, 1, [chunk(0, &"x".repeat(2_000_000))]);
    let error = store.append_output(vec![large.clone()]).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    // Nothing is left of it, and what fits goes on.
    assert_eq!(store.output_extent(id(1), 1).await.unwrap().bytes, 0);
    assert_eq!(store.insert(insert([job(2)])).await.unwrap(), Inserted::New);
    assert_eq!(store.update(vec![change(1, 0, running("w"))]).await.unwrap(), [Written::Yes]);
    store.close().await;
    let roomier = SqliteStore::open(&path).await.unwrap();
    roomier.append_output(vec![large]).await.unwrap();
    assert_eq!(roomier.output_extent(id(1), 1).await.unwrap().bytes, 2_000_000);
}
