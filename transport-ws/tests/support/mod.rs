//! A real server on loopback, with the socket at its path and HTTP beside it, and clients of both.
#![allow(clippy::allow_attributes, dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

pub mod proxy;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::files::Files;
use cmdexec_core::limiter::RequestLimits;
use cmdexec_core::service::{Role, Services};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::time::{Clock, ManualClock, SystemClock, Timestamp};
use cmdexec_testkit::Tokens;
use cmdexec_transport_http as http;
use cmdexec_transport_ws::client::Options as ClientOptions;
use cmdexec_transport_ws::server::{Options, PATH};
use cmdexec_transport_ws::{Client, Server};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

/// A running server.
#[derive(Debug)]
pub struct World {
    pub address: SocketAddr,
    pub tokens: Tokens,
    pub server: Server,
    pub shutdown: CancellationToken,
    serving: JoinHandle<std::io::Result<usize>>,
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

    /// As [`World::with`], where tokens and silence are judged by this clock.
    pub async fn timed(options: Options, clock: &ManualClock) -> Self {
        let coordinator = Coordinator::builder(MemoryStore::new()).build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::by(listener, Arc::new(coordinator), options, Arc::new(clock.clone()))
    }

    pub async fn over(services: Arc<dyn Services>, options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, services, options)
    }

    pub fn on(listener: TcpListener, services: Arc<dyn Services>, options: Options) -> Self {
        Self::by(listener, services, options, Arc::new(SystemClock))
    }

    pub fn by(listener: TcpListener, services: Arc<dyn Services>, options: Options, clock: Arc<dyn Clock>) -> Self {
        let tokens = Tokens::default();
        let server = Server::builder(Arc::clone(&services), tokens.keys.clone()).options(options).clock(clock);
        let server = server.build().unwrap();
        let mut plain = http::server::Options::default();
        plain.limits = RequestLimits::none();
        // Tests speak for whom they like.
        plain.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        plain.push = Some(http::server::Push { path: PATH.to_owned(), port: None });
        let by_http = http::Server::builder(services, tokens.keys.clone()).options(plain).mount(PATH, server.clone());
        let by_http = by_http.build().unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { by_http.serve(listener, shutdown).await }
        });
        Self { address, tokens, server, shutdown, serving }
    }

    /// Ends both halves; how many sockets had to be cut.
    pub async fn stop(self) -> usize {
        let cut = self.server.close(Duration::from_secs(5)).await;
        self.shutdown.cancel();
        self.serving.await.unwrap().unwrap();
        cut
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub fn user_token(&self, name: &str, role: Role) -> String {
        self.tokens.of_user(name, role)
    }

    pub fn worker_token(&self, id: Option<&str>) -> String {
        self.tokens.of_worker(id)
    }

    /// A user's client.
    pub fn user(&self, name: &str, role: Role) -> Client {
        let files = http::Client::builder(format!("http://{}", self.address));
        let files = files.user_token(self.user_token(name, role)).build().unwrap();
        let client = Client::builder(self.url()).user_token(self.user_token(name, role)).files(Arc::new(files));
        client.options(quick()).build().unwrap()
    }

    /// A worker's client.
    pub fn worker(&self, id: Option<&str>) -> Client {
        let client = Client::builder(self.url()).worker_token(self.worker_token(id)).options(quick());
        client.worker_files(Arc::new(self.plain_worker(id))).build().unwrap()
    }

    /// A worker's client, by HTTP.
    pub fn plain_worker(&self, id: Option<&str>) -> http::Client {
        http::Client::builder(format!("http://{}", self.address)).worker_token(self.worker_token(id)).build().unwrap()
    }

    /// A handshake with these headers.
    pub fn request(&self, headers: &[(&str, &str)]) -> ::http::Request<()> {
        let mut request = format!("ws://{}{PATH}", self.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(name.parse::<::http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        request
    }

    /// A connection that has asked for a socket with these headers, and knows nothing of what comes.
    pub async fn handshake(&self, headers: &[(&str, &str)]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut handshake = format!(
            "GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in headers {
            handshake.extend([name, ": ", value, "\r\n"]);
        }
        handshake.push_str("\r\n");
        stream.write_all(handshake.as_bytes()).await.unwrap();
        stream
    }

    /// Sends a handshake with these headers and then bytes; everything that comes until the other end closes.
    pub async fn raw(&self, headers: &[(&str, &str)], bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.handshake(headers).await;
        stream.write_all(bytes).await.unwrap();
        let mut all = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await;
        let _ = read.expect("the connection stays open");
        all
    }

    /// A bare socket whose handshake carried this token as its header says.
    pub async fn bare(&self, header: &str, token: &str) -> Bare {
        Bare::open(self.request(&[(header, token)])).await
    }

    pub async fn bare_worker(&self, id: &str) -> Bare {
        let mut bare = self.bare("x-worker-token", &self.worker_token(Some(id))).await;
        assert_eq!(bare.next().await["type"], "welcome");
        bare
    }

    /// The same of a worker that has registered.
    pub async fn bare_registered(&self, id: &str) -> Bare {
        let mut bare = self.bare_worker(id).await;
        let body = serde_json::json!({ "workerId": id, "hostname": "h", "cpuCount": 1, "totalMemoryMb": 1 });
        assert_eq!(bare.ask("register", 0, body).await["type"], "ok");
        bare
    }

    pub async fn bare_user(&self, name: &str) -> Bare {
        let token = format!("Bearer {}", self.user_token(name, Role::User));
        let mut bare = self.bare("authorization", &token).await;
        assert_eq!(bare.next().await["type"], "welcome");
        bare
    }
}

/// Waits until something is so, as other tasks make it.
pub async fn until(is_so: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain");
}

/// Tests that break things don't wait long for them to be mended.
pub fn quick() -> ClientOptions {
    let mut options = ClientOptions::default();
    options.backoff = Duration::from_millis(2);
    options.max_backoff = Duration::from_millis(50);
    options
}

/// A socket that knows nothing of the protocol.
#[derive(Debug)]
pub struct Bare(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Bare {
    pub async fn open(request: ::http::Request<()>) -> Self {
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        Self(socket)
    }

    pub async fn say(&mut self, text: &Value) {
        self.0.send(Message::text(text.to_string())).await.unwrap();
    }

    /// The next text.
    pub async fn next(&mut self) -> Value {
        loop {
            match self.message().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("expected a text, not {other:?}"),
            }
        }
    }

    /// The answer to a request.
    pub async fn ask(&mut self, kind: &str, id: u64, body: Value) -> Value {
        self.say(&serde_json::json!({ "type": kind, "id": id, "body": body })).await;
        loop {
            let answer = self.next().await;
            if answer["id"] == id {
                return answer;
            }
        }
    }

    pub async fn message(&mut self) -> Message {
        let next = tokio::time::timeout(Duration::from_secs(20), self.0.next()).await;
        next.expect("nothing came").expect("the socket ended without saying why").unwrap()
    }

    /// Waits for the close; its code and reason.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = self.message().await {
                let frame = frame.unwrap();
                return (frame.code.into(), frame.reason.to_string());
            }
        }
    }
}
