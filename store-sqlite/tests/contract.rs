//! The contract of every store, held by this one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use async_trait::async_trait;
use cmdexec_core::store::Store;
use cmdexec_core::time::ManualClock;
use cmdexec_store_sqlite::SqliteStore;
use cmdexec_testkit::store::Backend;
use tempfile::TempDir;

struct Sqlite(TempDir);

impl Sqlite {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

#[async_trait]
impl Backend for Sqlite {
    async fn open(&self, clock: ManualClock) -> Arc<dyn Store> {
        let path = self.0.path().join("jobs.db");
        Arc::new(SqliteStore::options().clock(Arc::new(clock)).open(path).await.unwrap())
    }

    fn is_durable(&self) -> bool {
        true
    }
}

cmdexec_testkit::store_suite!(Sqlite::new());
