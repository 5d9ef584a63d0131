//! The routes, in groups by whom they are for. Each handler reads, calls a service, and answers.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::middleware::map_request_with_state;
use bytes::Bytes;
use cmdexec_core::limiter::CallerAddress;
use http::{HeaderName, HeaderValue, Method};
use tower_http::cors::CorsLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::edge::Edge;
use super::guard::{self, Access};
use super::problem::Problem;
use super::{App, docs};

mod execute;
mod files;
mod health;
mod jobs;
mod logs;
mod watch;
mod work;
mod workers;

pub(super) use health::Health;

/// Every route.
pub(super) fn router(app: &Arc<App>) -> Router {
    let (router, document) = documented(app).split_for_parts();
    app.openapi.get_or_init(|| docs::finished(document));
    let addressed = map_request_with_state(Arc::clone(app), addressed);
    let mount =
        |router: Router<_>, (path, mount): &super::Mount| router.route(path, mount.clone().layer(addressed.clone()));
    let open = app.mounts.iter().fold(Router::new(), mount);
    let router = router
        .merge(docs::pages(open).route_layer(Edge::open(app)))
        .fallback((|| async { Problem::not_found() }).layer(Edge::open(app)))
        .method_not_allowed_fallback((|| async { Problem::method_not_allowed() }).layer(Edge::open(app)));
    let router = if app.options.cors_origins.is_empty() { router } else { router.layer(cors(app)) };
    router.with_state(Arc::clone(app))
}

/// Tells what is mounted whom a request counts for.
async fn addressed(State(app): State<Arc<App>>, mut request: Request) -> Request {
    if let Some(address) = guard::address(&app, request.headers(), request.extensions()) {
        request.extensions_mut().insert(CallerAddress(address));
    }
    request
}

/// The OpenAPI document.
pub(super) fn openapi(app: &Arc<App>) -> Bytes {
    app.openapi.get_or_init(|| docs::finished(documented(app).into_openapi())).clone()
}

fn documented(app: &Arc<App>) -> OpenApiRouter<Arc<App>> {
    let group = |access, routes: OpenApiRouter<Arc<App>>| routes.route_layer(Edge::guarded(app, access));
    let open = OpenApiRouter::new().routes(routes!(health::health));
    let submit = OpenApiRouter::new()
        .routes(routes!(jobs::create))
        .routes(routes!(jobs::submit))
        .routes(routes!(jobs::create_batch))
        .routes(routes!(execute::execute));
    let read = OpenApiRouter::new()
        .routes(routes!(jobs::status))
        .routes(routes!(jobs::status_batch))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::stats))
        .routes(routes!(logs::logs))
        .routes(routes!(watch::watch))
        .routes(routes!(workers::list))
        .routes(routes!(workers::get))
        .routes(routes!(files::list))
        .routes(routes!(files::file));
    let change = OpenApiRouter::new()
        .routes(routes!(jobs::cancel))
        .routes(routes!(execute::stop))
        .routes(routes!(files::upload))
        .routes(routes!(files::remove))
        .routes(routes!(files::remove_by_url));
    let download = OpenApiRouter::new()
        .routes(routes!(files::download))
        .routes(routes!(files::download_named))
        .routes(routes!(files::download_older));
    let admin = OpenApiRouter::new().routes(routes!(workers::remove));
    let worker = OpenApiRouter::new()
        .routes(routes!(work::register))
        .routes(routes!(work::heartbeat))
        .routes(routes!(work::get_job))
        .routes(routes!(work::stream_output))
        .routes(routes!(work::check_cancel))
        .routes(routes!(work::submit_result, work::submit_failure))
        .routes(routes!(files::artifacts));
    OpenApiRouter::with_openapi(docs::frame())
        .merge(group(Access::Submit, submit))
        .merge(group(Access::Read, read))
        .merge(group(Access::Change, change))
        .merge(group(Access::Admin, admin))
        .merge(group(Access::Download, download))
        .merge(group(Access::Worker, worker))
        .merge(open.route_layer(Edge::open(app)))
}

/// What pages of other origins may read of an answer's headers, beyond what browsers show by themselves.
const EXPOSED: [&str; 12] = [
    "retry-after",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "ratelimit-policy",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-request-id",
    "etag",
    "content-range",
    "content-disposition",
];

/// What browsers may do for pages of the origins that are allowed.
fn cors(app: &App) -> CorsLayer {
    let origins = app.options.cors_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let header = HeaderName::from_static;
    CorsLayer::new()
        .allow_origin(origins.collect::<Vec<_>>())
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(
            ["authorization", "content-type", "idempotency-key", "last-event-id", "x-request-id", "x-worker-token"]
                .map(header),
        )
        .expose_headers(EXPOSED.map(header))
        .max_age(std::time::Duration::from_hours(1))
}
