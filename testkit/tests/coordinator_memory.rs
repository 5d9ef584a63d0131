//! The services' contract, held by the coordinator itself over the embedded store.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::files::Files;
use cmdexec_core::store::MemoryStore;
use cmdexec_core::time::ManualClock;
use cmdexec_testkit::service::Rig;

async fn rig() -> Rig {
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(Arc::new(clock.clone()));
    let coordinator = Coordinator::builder(store)
        .clock(Arc::new(clock.clone()))
        .files(Files::in_memory())
        .seed(1)
        .build()
        .await
        .unwrap();
    Rig::new(Arc::new(coordinator), clock)
}

cmdexec_testkit::service_suite!(rig);
