//! Opening a socket: the URL, the token, and the server's welcome.

use std::sync::Arc;

use cmdexec_core::Error;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use http::{HeaderName, HeaderValue, Request};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{Connector, MaybeTlsStream, client_async_tls_with_config};
use url::Url;

use super::{BuildError, Options};
use crate::close::Code;
use crate::message::{Envelope, VERSION, Welcome};
use crate::socket::{self, Ended, Event, Socket};

/// A client has one socket: it may be quick to read.
const READ_BUFFER: usize = 64 * 1024;

/// Whose a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum As {
    User,
    Worker,
}

/// Where to connect to, and as whom.
pub(super) struct Target {
    url: Url,
    token: Option<(HeaderName, HeaderValue)>,
    tls: Connector,
}

pub(super) type Stream = MaybeTlsStream<TcpStream>;

/// Why there is no socket.
#[derive(Debug)]
pub(super) enum Failed {
    /// Another try may help.
    Unreachable(String),
    /// The server does not want us; the error is what it says to every call.
    Refused(Error, String),
}

impl Target {
    pub(super) fn new(text: &str, token: Option<(String, As)>) -> Result<Self, BuildError> {
        let wrong = |why: String| BuildError::Url { url: text.to_owned(), why };
        let mut url: Url = text.parse().map_err(|error| wrong(format!("{error}")))?;
        let scheme = match url.scheme() {
            "ws" | "http" => "ws",
            "wss" | "https" => "wss",
            _ => return Err(wrong("expected ws://, wss://, http:// or https://".to_owned())),
        };
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(wrong("expected no user, password or query".to_owned()));
        }
        // These are all special schemes with a host, between which a URL may change.
        let changed = url.set_scheme(scheme);
        if changed.is_err() || url.host_str().is_none() {
            return Err(wrong("expected a host".to_owned()));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        if !path.ends_with("/api/ws") {
            url.set_path(&format!("{path}/api/ws"));
        }
        let token = token.map(|(token, who)| {
            let (name, prefix) = match who {
                As::User => (AUTHORIZATION, "Bearer "),
                As::Worker => (HeaderName::from_static("x-worker-token"), ""),
            };
            let mut value =
                HeaderValue::try_from(format!("{prefix}{}", token.trim())).map_err(|_| BuildError::Token)?;
            value.set_sensitive(true);
            Ok((name, value))
        });
        let tls = Connector::Rustls(Arc::new(cmdexec_wire::tls().map_err(|error| BuildError::Tls(error.to_string()))?));
        Ok(Self { url, token: token.transpose()?, tls })
    }

    pub(super) fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Opens a socket and waits for the welcome.
    pub(super) async fn open(&self, options: &Options) -> Result<(Socket<Stream>, Welcome), Failed> {
        match tokio::time::timeout(options.connect_timeout, self.opened(options)).await {
            Ok(opened) => opened,
            Err(_) => Err(Failed::Unreachable(format!("no welcome within {:?}", options.connect_timeout))),
        }
    }

    async fn opened(&self, options: &Options) -> Result<(Socket<Stream>, Welcome), Failed> {
        let unreachable = |error: &dyn std::fmt::Display| Failed::Unreachable(error.to_string());
        let host = self.url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = self.url.port_or_known_default().unwrap_or(80);
        let stream = TcpStream::connect((host, port)).await.map_err(|error| unreachable(&error))?;
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let config = socket::config(options.max_message, READ_BUFFER);
        let request = self.request().map_err(|error| unreachable(&error))?;
        let opened = client_async_tls_with_config(request, stream, Some(config), Some(self.tls.clone())).await;
        let (ws, _) = opened.map_err(|error| unreachable(&error))?;
        let mut socket = Socket::over(ws);
        loop {
            match socket.next(true).await {
                Event::Message(Message::Text(text)) => {
                    let envelope = Envelope::read(&text).map_err(|why| unreachable(&why))?;
                    if envelope.kind == "welcome" {
                        let welcome = envelope.parse().map_err(|why| unreachable(&why))?;
                        return Ok((socket, welcome));
                    }
                }
                Event::Message(Message::Close(Some(frame))) => {
                    return Err(refused(frame.code.into(), &frame.reason));
                }
                Event::Message(_) | Event::Flushed => {}
                Event::Ended(Ended::Gone(why)) => return Err(Failed::Unreachable(why)),
                Event::Ended(Ended::Broken(closing)) => return Err(Failed::Unreachable(closing.reason)),
            }
        }
    }

    fn request(&self) -> Result<Request<()>, String> {
        let mut request = self.url.as_str().into_client_request().map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(VERSION));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("cmdexec/", env!("CARGO_PKG_VERSION"))));
        if let Some((name, token)) = &self.token {
            headers.insert(name.clone(), token.clone());
        }
        Ok(request)
    }
}

/// That a socket was closed, for people.
pub(super) fn closed(code: u16, reason: &str) -> String {
    format!("the server closed the socket: {reason} ({code})")
}

/// What a close instead of a welcome says of whether to come again.
fn refused(code: u16, reason: &str) -> Failed {
    let why = closed(code, reason);
    match Code::from_number(code) {
        Some(Code::Unauthenticated | Code::Expired) => Failed::Refused(Error::Unauthenticated, why),
        Some(Code::Revoked) => Failed::Refused(Error::Forbidden("the server revoked these credentials"), why),
        Some(Code::Version) => {
            Failed::Refused(Error::Forbidden("the server speaks no version of this protocol that this end does"), why)
        }
        _ => Failed::Unreachable(why),
    }
}
