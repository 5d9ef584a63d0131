//! The OpenAPI document and its page.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;

use http::Method;
use support::{World, send};

#[tokio::test]
async fn every_route_is_in_the_document_and_every_path_of_the_document_is_a_route() {
    let world = World::start().await;
    let answer = send(world.request(Method::GET, "/api/openapi.json")).await;
    assert_eq!((answer.status, &answer.headers["content-type"]), (200, &"application/json".parse().unwrap()));
    let document = &answer.body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut routes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            routes.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let expected = [
        "DELETE /api/execute",
        "DELETE /api/files/{fileId}",
        "DELETE /api/workers/{workerId}",
        "DELETE /uploads/{file}",
        "GET /api/files/download/{fileId}",
        "GET /api/files/list",
        "GET /api/files/{fileId}",
        "GET /api/health",
        "GET /api/jobs/check-cancel",
        "GET /api/jobs/get-job",
        "GET /api/jobs/list",
        "GET /api/jobs/logs",
        "GET /api/jobs/status",
        "GET /api/jobs/watch",
        "GET /api/stats",
        "GET /api/workers/list",
        "GET /api/workers/{workerId}",
        "GET /uploads/{fileId}/{name}",
        "GET /uploads/{file}",
        "POST /api/execute",
        "POST /api/files/upload",
        "POST /api/jobs/artifacts",
        "POST /api/jobs/cancel",
        "POST /api/jobs/create",
        "POST /api/jobs/create-batch",
        "POST /api/jobs/status-batch",
        "POST /api/jobs/stream-output",
        "POST /api/jobs/submit",
        "POST /api/jobs/submit-result",
        "POST /api/workers/heartbeat",
        "POST /api/workers/register",
        "PUT /api/jobs/submit-result",
    ];
    assert_eq!(routes.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    // Whatever the router answers with anything but 404 or 405 is in the document, and nothing else is.
    let paths: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    for path in &paths {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
            let status = send(world.request(method.clone(), &path.replace(['{', '}'], ""))).await.status;
            let documented = routes.contains(&format!("{method} {path}"));
            // A path with a parameter is found under the literal ones of its length too.
            let is_literal = path.starts_with("/api/workers/") || path.starts_with("/api/files/");
            assert!(documented == (status != 405) || is_literal, "{method} {path}: {status}");
        }
    }
    for reference in references(document) {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "{reference}");
    }
    assert_eq!(world.server.openapi(), answer.text.as_bytes());
}

/// Every reference in the document.
fn references(value: &serde_json::Value) -> Vec<&str> {
    match value {
        serde_json::Value::Object(object) => object
            .iter()
            .flat_map(|(name, value)| match value.as_str() {
                Some(reference) if name == "$ref" => vec![reference],
                _ => references(value),
            })
            .collect(),
        serde_json::Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let world = World::start().await;
    let page = send(world.request(Method::GET, "/api/docs")).await;
    assert_eq!((page.status, &page.headers["content-type"]), (200, &"text/html; charset=utf-8".parse().unwrap()));
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    for own in ["/api/docs/page.js", "/api/docs/page.css"] {
        assert!(page.text.contains(own));
        let part = send(world.request(Method::GET, own)).await;
        assert_eq!(part.status, 200);
        assert!(!part.text.contains("http://") && !part.text.contains("https://"));
    }
    assert!(!page.text.contains("http://") && !page.text.contains("https://"));
}

/// The schema behind a reference.
fn resolved<'d>(document: &'d serde_json::Value, schema: &'d serde_json::Value) -> &'d serde_json::Value {
    match schema["$ref"].as_str() {
        Some(reference) => {
            resolved(document, &document["components"]["schemas"][reference.rsplit('/').next().unwrap()])
        }
        None => schema,
    }
}

/// Every property of a schema, and of those that it is put together from.
fn properties(document: &serde_json::Value, schema: &serde_json::Value) -> BTreeSet<String> {
    let schema = resolved(document, schema);
    let mut all: BTreeSet<String> =
        schema["properties"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        all.extend(properties(document, part));
    }
    // Of alternatives, the first is the one without a list around it.
    all.extend(
        schema["oneOf"].as_array().and_then(|all| all.first()).map(|one| properties(document, one)).unwrap_or_default(),
    );
    all
}

#[tokio::test]
async fn every_field_of_the_document_is_one_that_the_server_reads() {
    let world = World::start().await;
    let document = send(world.request(Method::GET, "/api/openapi.json")).await.body;
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(body) = operation.get("requestBody") else { continue };
            let Some(schema) = body["content"].get("application/json").map(|json| &json["schema"]) else { continue };
            let fields = properties(&document, schema);
            assert!(!fields.is_empty(), "{method} {path}");
            for field in fields {
                // No field takes a list with a list of null in it.
                let wrong = serde_json::json!({ &field: [[null]] });
                let (method, wrong) = (method.to_uppercase().parse::<Method>().unwrap(), Some(wrong));
                let answer = if operation["tags"][0] == "worker protocol" {
                    world.worker(method, path, wrong).await
                } else {
                    world.user(method, path, wrong).await
                };
                let named = answer.fields();
                assert_eq!(answer.status, 422, "{path} {field}: {}", answer.text);
                let is_named = named.iter().any(|name| name.split(['.', '[']).next() == Some(field.as_str()));
                assert!(is_named, "{path} {field}: {named:?}");
                seen += 1;
            }
        }
    }
    assert!(seen > 90, "{seen}");
}
