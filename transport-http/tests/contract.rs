//! The contract of the two services, held by the client at the far end of a real connection.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use cmdexec_core::time::ManualClock;
use cmdexec_testkit::service::{FarEnd, Rig, in_memory};
use cmdexec_transport_http::Client;
use support::{World, unlimited};

async fn rig() -> Rig {
    let clock = ManualClock::default();
    let world = World::over(Arc::new(in_memory(&clock).await), unlimited()).await;
    let client = {
        let url = world.url.clone();
        move || Client::builder(&url)
    };
    let user = client.clone();
    let far = FarEnd::new(
        world.tokens.clone(),
        move |token| Arc::new(user().user_token(token).build().unwrap()),
        move |token| Arc::new(client().worker_token(token).build().unwrap()),
    );
    Rig::new(Arc::new(far), clock).keeping(world)
}

cmdexec_testkit::service_suite!(rig);
