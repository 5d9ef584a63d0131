//! Whether the server can do its work.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use tokio::sync::Mutex;

use crate::server::App;
use crate::server::answer::{Answered, bare, json};

/// For how long an answer is given again: anybody may ask, as often as they like.
const FRESH: Duration = Duration::from_millis(250);

/// The last answer, and when it was had.
#[derive(Debug, Default)]
pub(in crate::server) struct Health(Mutex<Option<(Duration, bool)>>);

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Healthy {
    status: &'static str,
    /// Seconds since the server started.
    uptime: f64,
    version: &'static str,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Unhealthy {
    status: &'static str,
    checks: Checks,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Checks {
    store: &'static str,
}

/// Whether the server can do its work
#[utoipa::path(
    get, path = "/api/health", tag = "health", security(()),
    responses(
        (status = 200, description = "It can", body = Healthy),
        (status = 503, description = "It can't now", body = Unhealthy),
    )
)]
pub(super) async fn health(State(app): State<Arc<App>>) -> Answered {
    let uptime = app.clock.uptime().saturating_sub(app.started);
    if is_healthy(&app).await {
        let body = Healthy { status: "healthy", uptime: uptime.as_secs_f64(), version: env!("CARGO_PKG_VERSION") };
        json(StatusCode::OK, body)
    } else {
        let body = Unhealthy { status: "unhealthy", checks: Checks { store: "unavailable" } };
        bare(StatusCode::SERVICE_UNAVAILABLE, &body)
    }
}

async fn is_healthy(app: &App) -> bool {
    // Whoever asks meanwhile waits for the one answer.
    let mut last = app.health.0.lock().await;
    let now = app.clock.uptime();
    if let Some((at, healthy)) = *last
        && now.saturating_sub(at) < FRESH
    {
        return healthy;
    }
    let healthy = app.bounded(app.services.health()).await.is_ok();
    *last = Some((app.clock.uptime(), healthy));
    healthy
}
