//! The OpenAPI document, and a page for people that needs nothing from elsewhere.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Content, Info, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::App;
use crate::wire;

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");

/// The document without its paths.
pub(super) fn frame() -> OpenApi {
    let mut info = Info::new("Command Executor", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "Runs commands on other machines. Bodies are JSON, times RFC 3339 in UTC, durations seconds unless the name says \
         `Ms`. What is refused is answered with `application/problem+json`, whose `code` is stable."
            .to_owned(),
    );
    OpenApiBuilder::new().info(info).build()
}

/// The document with what all routes have in common.
pub(super) fn finished(mut document: OpenApi) -> Bytes {
    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.insert("Problem".to_owned(), wire::Problem::schema());
    let mut schemas = Vec::new();
    <wire::Problem as ToSchema>::schemas(&mut schemas);
    components.schemas.extend(schemas);
    let cookie = ApiKeyValue::with_description("auth_token", "Set by login");
    let worker = ApiKeyValue::with_description("x-worker-token", "A worker's token");
    for (name, scheme) in [
        ("user", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer))),
        ("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie))),
        ("worker", SecurityScheme::ApiKey(ApiKey::Header(worker))),
    ] {
        components.add_security_scheme(name, scheme);
    }
    for item in document.paths.paths.values_mut() {
        operations(item).for_each(refusals);
    }
    // A document made of strings and maps always serialises.
    Bytes::from(serde_json::to_vec(&document).unwrap_or_default())
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, post, put, delete, .. } = item;
    [get, post, put, delete].into_iter().flatten()
}

/// Adds who may call, and what every route may answer.
fn refusals(operation: &mut Operation) {
    let open = operation.security.is_some();
    let tagged = |name: &str| operation.tags.as_ref().is_some_and(|tags| tags.iter().any(|tag| tag == name));
    let is_json = match &operation.request_body {
        Some(RefOr::T(body)) => body.content.contains_key("application/json"),
        Some(RefOr::Ref(_)) | None => false,
    };
    let (is_worker, is_download) = (tagged("worker protocol"), tagged("downloads"));
    let schemes: &[&str] = match (open, is_worker, is_download) {
        (true, ..) => &[],
        (false, true, _) => &["worker"],
        (false, false, true) => &["user", "cookie", "worker"],
        (false, false, false) => &["user", "cookie"],
    };
    let none: [&str; 0] = [];
    operation.security = Some(schemes.iter().map(|scheme| SecurityRequirement::new(*scheme, none)).collect());
    for response in operation.responses.responses.values_mut() {
        as_problem(response);
    }
    let mut common = Vec::new();
    if !open {
        common.extend([("401", "No credentials, or bad ones"), ("403", "Not allowed"), ("429", "Too many requests")]);
    }
    let has_body = operation.request_body.is_some();
    if has_body || operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
        common.push(("422", "Something is wrong with a field: `problems` names each"));
    }
    if has_body {
        common.extend([("408", "It did not come in time"), ("413", "Too large")]);
    }
    if is_json {
        common.extend([("400", "Not JSON"), ("415", "Not JSON by its content type")]);
    } else if has_body {
        common.push(("400", "The body broke off"));
    }
    common.push(("503", "Something that is needed does not answer now; see `Retry-After`"));
    for (status, description) in common {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let response = ResponseBuilder::new().description(description).content("application/problem+json", content);
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| response.build().into());
    }
}

/// Gives a problem its own content type: the routes name only its schema.
fn as_problem(response: &mut RefOr<utoipa::openapi::Response>) {
    let RefOr::T(response) = response else { return };
    let is_problem = |content: &RefOr<Content>| match content {
        RefOr::T(Content { schema: Some(RefOr::Ref(schema)), .. }) => schema.ref_location.ends_with("/Problem"),
        _ => false,
    };
    if response.content.get("application/json").is_some_and(is_problem)
        && let Some(content) = response.content.shift_remove("application/json")
    {
        response.content.insert("application/problem+json".to_owned(), content);
    }
}

/// The document and the page.
pub(super) fn pages(router: Router<Arc<App>>) -> Router<Arc<App>> {
    let document = |State(app): State<Arc<App>>| async move { fixed("application/json", super::routes::openapi(&app)) };
    router
        .route("/api/openapi.json", get(document))
        .route("/api/docs", get(|| async { page() }))
        .route("/api/docs/page.js", get(|| async { fixed("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/api/docs/page.css", get(|| async { fixed("text/css; charset=utf-8", STYLE) }))
}

fn fixed(content_type: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn page() -> Response {
    let mut response = fixed("text/html; charset=utf-8", PAGE);
    let own = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
               form-action 'none'; frame-ancestors 'none'";
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(own));
    response
}
