//! Who may call a route: credentials, limits and roles, judged before anything of the request's body is read.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use cmdexec_core::Error;
use cmdexec_core::id::WorkerId;
use cmdexec_core::limiter::{Caller, Counted, RequestKind};
use cmdexec_core::service::{Role, UserPrincipal, WorkerPrincipal};
use cmdexec_core::token::{self, UserClaims, WorkerClaims};
use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::{Extensions, HeaderMap};
use tower::Service;

use super::App;
use super::edge::answer;
use super::limits;
use super::peer::{self, Peer};
use super::problem::Problem;

/// Whom a group of routes is for, and which limit they count against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Users of every role.
    Read,
    /// Users that may change something.
    Change,
    /// The same, counted as submissions.
    Submit,
    /// Admins.
    Admin,
    /// Users of every role, and workers, who are not counted.
    Download,
    /// Workers. Those of their routes that have limits count for themselves, once they know for whom.
    Worker,
}

/// Lets a request through to a route, or refuses it.
pub(super) async fn guard<S>(app: &App, access: Access, mut request: Request, inner: S) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let claimed = match access {
        Access::Worker => Some(worker(app, request.headers())),
        Access::Download => claimed_worker(app, request.headers()),
        _ => None,
    };
    if let Some(claimed) = claimed {
        return match claimed {
            Ok(claims) => {
                request.extensions_mut().insert(claims);
                answer(inner, request).await
            }
            Err(problem) => problem.into_response(),
        };
    }
    let caller = user(app, request.headers());
    let counts_for = match &caller {
        Ok(claims) => Caller::User(&claims.owner),
        Err(_) => Caller::Address(address(app, request.headers(), request.extensions())),
    };
    let kind = if access == Access::Submit { RequestKind::Submission } else { RequestKind::Other };
    let Counted { left, passed } = app.limiter.count(kind, counts_for).await;
    let mut response =
        match passed.map_err(Problem::from).and(caller).and_then(|claims| may(access, claims.role).map(|()| claims)) {
            Ok(claims) => {
                request.extensions_mut().insert(claims);
                answer(inner, request).await
            }
            Err(problem) => problem.into_response(),
        };
    limits::stamp(response.headers_mut(), left.as_ref(), app.clock.now());
    response
}

fn may(access: Access, role: Role) -> Result<(), Problem> {
    match (access, role) {
        (Access::Change | Access::Submit, Role::Viewer) => Err(Error::Forbidden("viewers may only look").into()),
        (Access::Admin, Role::User | Role::Viewer) => Err(Error::Forbidden("only admins may do this").into()),
        _ => Ok(()),
    }
}

/// The user that a request is from.
fn user(app: &App, headers: &HeaderMap) -> Result<Arc<UserClaims>, Problem> {
    let token = match bearer(headers) {
        Some(token) => token,
        None => {
            let token = cookie(headers).ok_or_else(|| {
                Problem::unauthenticated("a user's token is needed: Authorization: Bearer …, or the cookie of a login")
            })?;
            own_origin(app, headers)?;
            token
        }
    };
    app.tokens.user(token).map_err(|error| refused(&error))
}

/// The worker that a request is from.
fn worker(app: &App, headers: &HeaderMap) -> Result<Arc<WorkerClaims>, Problem> {
    let header = headers.get("x-worker-token").and_then(|token| token.to_str().ok()).map(str::trim);
    let token = header.or_else(|| bearer(headers)).ok_or_else(|| {
        Problem::unauthenticated("a worker's token is needed: x-worker-token, or Authorization: Bearer …")
    })?;
    app.tokens.worker(token).map_err(|error| refused(&error))
}

/// The worker that a request is from that may be a user's too; `None` if it does not look like a worker's.
fn claimed_worker(app: &App, headers: &HeaderMap) -> Option<Result<Arc<WorkerClaims>, Problem>> {
    if headers.contains_key("x-worker-token") {
        return Some(worker(app, headers));
    }
    let token = bearer(headers)?;
    if app.tokens.user(token).is_ok() {
        return None;
    }
    app.tokens.worker(token).ok().map(Ok)
}

fn refused(error: &token::Error) -> Problem {
    match error {
        token::Error::Expired => Problem::unauthenticated("the token has expired"),
        _ => Problem::unauthenticated("the token is not valid"),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix("auth_token="))
}

/// A browser sends the cookie for whatever page asks it to: only pages of this server, or of origins that may, count.
fn own_origin(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()) else { return Ok(()) };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_own = origin.split_once("://").is_some_and(|(_, authority)| authority == host);
    if is_own || app.options.cors_origins.iter().any(|allowed| allowed == origin) {
        return Ok(());
    }
    Err(Error::Forbidden("the cookie does not count for pages of another origin").into())
}

/// Whether a request came by a proxy that is believed.
pub(super) fn is_proxied(app: &App, extensions: &Extensions) -> bool {
    let peer = extensions.get::<Peer>().map(|Peer(address)| address.ip());
    peer.is_some_and(|peer| app.options.trusted_proxies.iter().any(|proxy| proxy.contains(peer)))
}

/// The address that a request counts for.
pub(super) fn address(app: &App, headers: &HeaderMap, extensions: &Extensions) -> Option<IpAddr> {
    let peer = extensions.get::<Peer>().map(|Peer(address)| *address);
    let peer = peer.or_else(|| extensions.get::<ConnectInfo<std::net::SocketAddr>>().map(|info| info.0))?;
    Some(peer::client(peer.ip(), headers, &app.options.trusted_proxies))
}

/// The user that the guard let through.
#[derive(Debug, Clone)]
pub(super) struct User(pub(super) Arc<UserClaims>);

impl User {
    pub(super) fn principal(&self) -> UserPrincipal {
        UserPrincipal { owner: self.0.owner.clone(), role: self.0.role }
    }
}

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let claims = parts.extensions.get::<Arc<UserClaims>>().cloned();
        claims.map(Self).ok_or_else(|| Error::Internal.into())
    }
}

/// The worker that the guard let through.
#[derive(Debug, Clone)]
pub(super) struct Worker(Arc<WorkerClaims>);

impl Worker {
    pub(super) fn principal(&self) -> WorkerPrincipal {
        self.0.worker.clone().map_or(WorkerPrincipal::Any, WorkerPrincipal::Bound)
    }

    /// Whose the request is: as it says itself, if the token may speak for that one; else as the token says.
    pub(super) fn named(&self, said: Option<WorkerId>) -> Result<WorkerId, Error> {
        match (said, &self.0.worker) {
            (Some(said), Some(bound)) if said != *bound => {
                Err(Error::Forbidden("this token speaks for another worker"))
            }
            (Some(said), _) => Ok(said),
            (None, Some(bound)) => Ok(bound.clone()),
            (None, None) => Err(Error::invalid("workerId", "is required: the token speaks for any worker")),
        }
    }

    /// The worker that the token is bound to.
    pub(super) fn bound(&self) -> Option<&WorkerId> {
        self.0.worker.as_ref()
    }
}

impl<S: Sync> FromRequestParts<S> for Worker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let claims = parts.extensions.get::<Arc<WorkerClaims>>().cloned();
        claims.map(Self).ok_or_else(|| Error::Internal.into())
    }
}

/// Whoever the guard let through to a download.
#[derive(Debug, Clone)]
pub(super) enum Visitor {
    User(User),
    Worker(Worker),
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Worker::from_request_parts(parts, state).await {
            Ok(worker) => Ok(Self::Worker(worker)),
            Err(_) => User::from_request_parts(parts, state).await.map(Self::User),
        }
    }
}
