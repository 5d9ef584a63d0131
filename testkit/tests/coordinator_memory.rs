//! The services' contract, held by the coordinator itself over the embedded store.

use std::sync::Arc;

use cmdexec_core::time::ManualClock;
use cmdexec_testkit::service::{Rig, in_memory};

async fn rig() -> Rig {
    let clock = ManualClock::default();
    Rig::new(Arc::new(in_memory(&clock).await), clock)
}

cmdexec_testkit::service_suite!(rig);
