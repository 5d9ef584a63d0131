//! A real server on loopback in front of a real coordinator, and ways to call it.
#![allow(clippy::allow_attributes, dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

pub mod running;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::files::Files;
use cmdexec_core::limiter::RequestLimits;
use cmdexec_core::service::{Role, Services};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::time::{Clock, SystemClock, Timestamp};
use cmdexec_testkit::Tokens;
use cmdexec_transport_http::server::Options;
use cmdexec_transport_http::{Client, Server};
use http::Method;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running server.
#[derive(Debug)]
pub struct World {
    pub address: SocketAddr,
    pub url: String,
    pub tokens: Tokens,
    pub server: Server,
    pub shutdown: CancellationToken,
    serving: JoinHandle<std::io::Result<usize>>,
    http: reqwest::Client,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
    pub text: String,
}

/// No limits: tests call more often than people do.
pub fn unlimited() -> Options {
    let mut options = Options::default();
    options.limits = RequestLimits::none();
    options
}

pub fn now() -> Timestamp {
    SystemClock.now()
}

impl World {
    pub async fn start() -> Self {
        Self::with(unlimited()).await
    }

    pub async fn with(options: Options) -> Self {
        let coordinator = Coordinator::builder(MemoryStore::new()).files(Files::in_memory()).build().await.unwrap();
        Self::over(Arc::new(coordinator), options).await
    }

    pub async fn over(services: Arc<dyn Services>, options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, services, options)
    }

    pub fn on(listener: TcpListener, services: Arc<dyn Services>, options: Options) -> Self {
        let tokens = Tokens::default();
        let server = Server::builder(services, tokens.keys.clone()).options(options).build().unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn({
            let (server, shutdown) = (server.clone(), shutdown.clone());
            async move { server.serve(listener, shutdown).await }
        });
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { address, url: format!("http://{address}"), tokens, server, shutdown, serving, http }
    }

    /// Tells the server to stop, and gives how many connections it had to cut.
    pub async fn stop(self) -> usize {
        self.shutdown.cancel();
        self.serving.await.unwrap().unwrap()
    }

    pub fn user_token(&self, name: &str, role: Role) -> String {
        self.tokens.of_user(name, role)
    }

    pub fn worker_token(&self, id: Option<&str>) -> String {
        self.tokens.of_worker(id)
    }

    /// A client for this user, and for any worker.
    pub fn client(&self, name: &str, role: Role) -> Client {
        Client::builder(&self.url)
            .user_token(self.user_token(name, role))
            .worker_token(self.worker_token(None))
            .build()
            .unwrap()
    }

    /// A request without a token.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// Calls as the user `ada`.
    pub async fn user(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.request(method, path).bearer_auth(self.user_token("ada", Role::User));
        send(body.into_iter().fold(request, |request, body| request.json(&body))).await
    }

    /// Calls as any worker.
    pub async fn worker(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.request(method, path).header("x-worker-token", self.worker_token(None));
        send(body.into_iter().fold(request, |request, body| request.json(&body))).await
    }
}

pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::Null), text }
}

impl Answer {
    /// The fields that a refusal names.
    pub fn fields(&self) -> Vec<String> {
        let problems = self.body["problems"].as_array().cloned().unwrap_or_default();
        problems.iter().map(|problem| problem["field"].as_str().unwrap().to_owned()).collect()
    }

    /// The answer, which must be a problem document with this status and code.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> &Self {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["error"], self.body["detail"]);
        self
    }

    /// The answer, which must be a success.
    #[track_caller]
    pub fn ok(&self, status: u16) -> &Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.headers.get("content-type").is_some_and(|kind| kind == "application/json") {
            assert_eq!(self.body["success"], true, "{}", self.text);
        }
        &self.body
    }
}
