//! The embedded store keeps the contract that it is the model of.

use std::sync::Arc;

use async_trait::async_trait;
use cmdexec_core::store::{MemoryStore, Store};
use cmdexec_core::time::ManualClock;
use cmdexec_testkit::store::Backend;

struct Memory;

#[async_trait]
impl Backend for Memory {
    async fn open(&self, clock: ManualClock) -> Arc<dyn Store> {
        Arc::new(MemoryStore::with_clock(Arc::new(clock)))
    }
}

cmdexec_testkit::store_suite!(Memory);
