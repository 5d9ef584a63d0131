//! The contract of every store, held by this one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use async_trait::async_trait;
use cmdexec_core::store::Store;
use cmdexec_core::time::ManualClock;
use cmdexec_store_sqlite::{Options, SqliteStore};
use cmdexec_testkit::store::Backend;
use tempfile::TempDir;

struct Sqlite {
    dir: TempDir,
    options: Options,
}

impl Sqlite {
    fn new(options: Options) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), options }
    }
}

#[async_trait]
impl Backend for Sqlite {
    async fn open(&self, clock: ManualClock) -> Arc<dyn Store> {
        let path = self.dir.path().join("jobs.db");
        Arc::new(self.options.clone().clock(Arc::new(clock)).open(path).await.unwrap())
    }

    fn is_durable(&self) -> bool {
        true
    }
}

cmdexec_testkit::store_suite!(Sqlite::new(SqliteStore::options()));

/// With all output in files beside the database.
mod long_output {
    use super::*;
    cmdexec_testkit::store_suite!(Sqlite::new(SqliteStore::options().long_output(1)));
}
