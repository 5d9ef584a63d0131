//! A load generator's HTTP client: as little of one as possible, so that it is the server that is measured.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// One connection, kept open.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    token: String,
    /// Drives the connection; ends with it.
    _driver: tokio_util::task::AbortOnDropHandle<()>,
}

impl Connection {
    /// Connects to a server by its URL.
    pub(crate) async fn open(url: &str, token: &str) -> Result<Self> {
        let host = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let stream = TcpStream::connect(&host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            // What goes wrong with the connection is seen by the request.
            let _ = connection.await;
        });
        Ok(Self { sender, host, token: token.to_owned(), _driver: tokio_util::task::AbortOnDropHandle::new(driver) })
    }

    /// Posts JSON and gives the answer's body.
    pub(crate) async fn post(&mut self, path: &str, body: Bytes) -> Result<Bytes> {
        self.send(Method::POST, path, body).await
    }

    /// Gets a path.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Bytes> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    /// Gets a path and hands on its body as it comes.
    pub(crate) async fn stream(&mut self, path: &str, mut take: impl FnMut(&[u8])) -> Result<()> {
        let response = self.answer(Method::GET, path, Bytes::new()).await?;
        ensure!(response.status().is_success(), "{}", response.status());
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if let Some(bytes) = frame?.data_ref() {
                take(bytes);
            }
        }
        Ok(())
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let response = self.answer(method, path, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    async fn answer(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        self.sender.ready().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        self.sender.send_request(request).await.context("no answer")
    }
}
