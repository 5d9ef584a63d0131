//! Hearing at once of what is cancelled, where the way to the coordinator can say so before a heartbeat asks.

use std::sync::Arc;

use futures_util::StreamExt;

use super::attempt::Why;
use super::backoff::Backoff;
use super::runtime::Shared;

/// Stops what is cancelled until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut backoff = Backoff::for_calls();
    loop {
        if let Ok(mut stops) = shared.service.stops(shared.id()).await {
            while let Some(jobs) = stops.next().await {
                backoff.reset();
                let held = shared.held.list();
                shared.held.told(&held, &jobs, Why::Cancelled);
            }
        }
        // Heartbeats tell the same meanwhile.
        shared.pause(&mut backoff, None).await;
    }
}
