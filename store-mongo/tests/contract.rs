//! The contract of every store, held by this one against a real server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use cmdexec_core::store::Store;
use cmdexec_core::time::ManualClock;
use cmdexec_store_mongo::MongoStore;
use cmdexec_testkit::store::Backend;
use support::Place;

struct Mongo(Place);

#[async_trait]
impl Backend for Mongo {
    async fn open(&self, clock: ManualClock) -> Arc<dyn Store> {
        Arc::new(
            MongoStore::options().database(self.0.name()).clock(Arc::new(clock)).open(self.0.address()).await.unwrap(),
        )
    }

    fn is_durable(&self) -> bool {
        true
    }
}

cmdexec_testkit::store_suite!(Mongo(Place::new()));
