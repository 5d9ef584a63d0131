//! From a request to a socket whose peer is known: the version, the token, and who that is.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use cmdexec_core::id::Owner;
use cmdexec_core::limiter::CallerAddress;
use cmdexec_core::service::{Role, WorkerPrincipal};
use cmdexec_core::time::Timestamp;
use cmdexec_core::token;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::Shared;
use super::open::{Place, Subject};
use super::session::{self, Peer};
use crate::close::{Closing, Code};
use crate::message::{Auth, Envelope, TOKEN, VERSION, VERSIONS};
use crate::socket::{self, Ended, Event, Socket};

/// Small, because most sockets are idle, and what is read goes on into a buffer of the message's size.
pub(super) const READ_BUFFER: usize = 4 * 1024;

/// What a request said besides that it wants a socket.
struct Offer {
    token: Option<Shown>,
    /// Whether the peer speaks a version that this server does.
    speaks: bool,
}

/// A token, and what it is for by the way in which it was shown.
struct Shown {
    token: String,
    is_workers: bool,
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(super) enum Who {
    User { owner: Owner, role: Role },
    Worker(WorkerPrincipal),
}

/// Begins a socket.
pub(super) fn upgrade<B>(shared: &Arc<Shared>, request: &mut Request<B>) -> Response<Full<Bytes>> {
    let mut response = match create_response_with_body(request, Full::default) {
        Ok(response) => response,
        Err(why) => return refused(StatusCode::UPGRADE_REQUIRED, "upgrade_required", &why.to_string()),
    };
    let Ok(permit) = Arc::clone(&shared.room).try_acquire_owned() else {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "there are as many sockets as may be");
    };
    if shared.closing.is_cancelled() {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the server ends");
    }
    let (protocol, offer) = offer(request.headers());
    if let Some(protocol) = protocol {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let address = request.extensions().get::<CallerAddress>().map(|CallerAddress(address)| *address);
    let upgrade = hyper::upgrade::on(request);
    let task = upgraded(Arc::clone(shared), upgrade, offer, address, permit);
    shared.tasks.spawn(task);
    response
}

fn refused(status: StatusCode, code: &str, detail: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({
        "type": format!("/api/docs#{code}"),
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
        "error": detail,
    });
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(http::header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    response
}

/// The subprotocol to answer with, and what the headers offer.
fn offer(headers: &HeaderMap) -> (Option<HeaderValue>, Offer) {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
    let offered: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    let versions = || offered.iter().copied().filter(|name| name.starts_with(VERSIONS));
    let common = versions().find(|name| *name == VERSION);
    // A peer whose protocols are all left out of the answer, as clients are told to, takes the handshake for failed. It is answered by its own,
    // so that it hears the close that says why.
    let protocol = common.or_else(|| versions().next()).and_then(|name| HeaderValue::from_str(name).ok());
    // Who names no version speaks the first.
    let speaks = common.is_some() || versions().next().is_none();
    let workers = text(headers, "x-worker-token");
    let bearer = text(headers, AUTHORIZATION.as_str())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let listed = offered.iter().find_map(|name| name.strip_prefix(TOKEN));
    let token = match (workers, bearer.or(listed)) {
        (Some(token), _) => Some(Shown { token: token.to_owned(), is_workers: true }),
        (None, Some(token)) => Some(Shown { token: token.to_owned(), is_workers: false }),
        (None, None) => None,
    };
    (protocol, Offer { token, speaks })
}

/// A header that is text.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

async fn upgraded(
    shared: Arc<Shared>,
    upgrade: OnUpgrade,
    offer: Offer,
    address: Option<IpAddr>,
    permit: OwnedSemaphorePermit,
) {
    let io = tokio::select! {
        biased;
        io = tokio::time::timeout(shared.options.auth_timeout, upgrade) => io,
        () = shared.cut.cancelled() => return,
    };
    // Otherwise the connection was gone before it was one.
    let Ok(Ok(io)) = io else { return };
    let config = socket::config(shared.options.max_message, READ_BUFFER);
    let mut socket = socket::serving(TokioIo::new(io), config).await;
    let closing = tokio::select! {
        biased;
        () = shared.cut.cancelled() => return,
        closing = served(&shared, &mut socket, offer, address) => closing,
    };
    if let Some(closing) = closing {
        tracing::debug!(code = %closing.code, reason = closing.reason, "a socket is closed");
        let close = tokio::time::timeout(shared.options.close_timeout, socket.close(&closing));
        tokio::select! {
            biased;
            () = shared.cut.cancelled() => {}
            // Whether it was heard makes no difference any more.
            _ = close => {}
        }
    }
    drop(permit);
}

/// Serves a socket to its end. What is to be said at the end, if somebody is there to hear it.
async fn served<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    socket: &mut Socket<S>,
    offer: Offer,
    address: Option<IpAddr>,
) -> Option<Closing> {
    if !offer.speaks {
        return Some(Closing::new(Code::Version, format!("this server speaks {VERSION}")));
    }
    let shown = match offer.token {
        Some(shown) => shown,
        None => tokio::select! {
            biased;
            () = shared.closing.cancelled() => return Some(Closing::new(Code::GoingAway, "the server ends")),
            first = tokio::time::timeout(shared.options.auth_timeout, first_message(socket)) => match first {
                Ok(Ok(shown)) => shown,
                Ok(Err(ended)) => return ended,
                Err(_) => return Some(Closing::new(Code::Unauthenticated, "no credentials came in time")),
            },
        },
    };
    let (who, expires) = match judge(shared, &shown) {
        Ok(known) => known,
        Err(closing) => return Some(closing),
    };
    let subject = match &who {
        Who::User { owner, .. } => Subject::User(owner.clone()),
        Who::Worker(WorkerPrincipal::Bound(worker)) => Subject::Worker(worker.clone()),
        Who::Worker(WorkerPrincipal::Any) => Subject::AnyWorker,
    };
    let place = shared.open.enter(subject, &shown.token, shared.options.max_sockets_per_token);
    drop(shown);
    let place: Place = match place {
        Some(place) => place,
        None => return Some(Closing::new(Code::TooMany, "too many sockets are open with this token")),
    };
    Box::pin(session::run(shared, socket, Peer { who, address, expires, place })).await
}

/// The credentials as the first message. The error is what to say at the end, if somebody is there.
async fn first_message<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> Result<Shown, Option<Closing>> {
    loop {
        // Who pings without end is not read while the answers wait.
        let may_read = socket.unflushed() == 0;
        match socket.next(may_read).await {
            Event::Message(Message::Text(text)) => {
                let Some(token) = auth(&text) else { return Err(Some(no_auth())) };
                return Ok(Shown { token, is_workers: false });
            }
            Event::Message(Message::Binary(_)) => return Err(Some(no_auth())),
            Event::Message(_) | Event::Flushed => {}
            Event::Ended(Ended::Broken(closing)) => return Err(Some(closing)),
            Event::Ended(Ended::Gone(_)) => return Err(None),
        }
    }
}

/// The token of `auth`, if that is what a text is.
pub(super) fn auth(text: &str) -> Option<String> {
    let envelope = Envelope::read(text).ok().filter(|envelope| envelope.kind == "auth")?;
    let Auth { token } = envelope.parse().ok()?;
    Some(token)
}

fn no_auth() -> Closing {
    Closing::new(Code::Unauthenticated, "the first message must be auth, with a token")
}

/// Who shows this token, and until when it is good.
fn judge(shared: &Shared, shown: &Shown) -> Result<(Who, Timestamp), Closing> {
    let now = shared.clock.now();
    let worker = shared.keys.verify_worker(&shown.token, now);
    let error = match worker {
        Ok(claims) => {
            return Ok((
                Who::Worker(claims.worker.map_or(WorkerPrincipal::Any, WorkerPrincipal::Bound)),
                claims.expires,
            ));
        }
        Err(error) if shown.is_workers => error,
        Err(as_workers) => match shared.keys.verify_user(&shown.token, now) {
            Ok(claims) => return Ok((Who::User { owner: claims.owner, role: claims.role }, claims.expires)),
            Err(_) if as_workers == token::Error::Expired => as_workers,
            Err(error) => error,
        },
    };
    Err(match error {
        token::Error::Expired => Closing::new(Code::Expired, "the token has expired"),
        _ => Closing::new(Code::Unauthenticated, "the token is not valid"),
    })
}
