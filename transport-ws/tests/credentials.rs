//! Whose a socket is: the ways to show a token, the versions, and the end of what a token is good for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use cmdexec_core::service::Role;
use cmdexec_core::time::{Clock, ManualClock, SystemClock};
use cmdexec_core::token::{Keys, LEEWAY, UserClaims, WorkerClaims};
use cmdexec_transport_ws::server::Subject;
use serde_json::{Value, json};
use support::{Bare, World, now, unlimited, until};

/// How a token is shown.
#[derive(Debug, Clone, Copy)]
enum By {
    WorkerToken,
    Authorization,
    Subprotocol,
    FirstMessage,
}

impl By {
    /// Opens a socket with a token; what the server says first.
    async fn open(self, world: &World, token: &str) -> (Bare, Value) {
        let mut bare = match self {
            Self::WorkerToken => world.bare("x-worker-token", token).await,
            Self::Authorization => world.bare("authorization", &format!("Bearer {token}")).await,
            Self::Subprotocol => {
                world.bare("sec-websocket-protocol", &format!("cmdexec.v1, cmdexec.token.{token}")).await
            }
            Self::FirstMessage => {
                let mut bare = Bare::open(world.request(&[("sec-websocket-protocol", "cmdexec.v1")])).await;
                bare.say(&json!({ "type": "auth", "body": { "token": token } })).await;
                bare
            }
        };
        let first = bare.next().await;
        assert_eq!(first["type"], "welcome", "{self:?}");
        (bare, first)
    }
}

/// Who shows a token, how, and the token; good for so long by a clock.
fn shown(world: &World, clock: &dyn Clock, lasting: Duration) -> Vec<(Subject, By, String)> {
    let (now, expires) = (clock.now(), clock.now().after(lasting));
    let user = |name: &str| {
        let claims = UserClaims { expires, ..UserClaims::new(name.parse().unwrap(), Role::User, now) };
        (Subject::User(claims.owner.clone()), world.tokens.keys.mint_user(&claims))
    };
    let worker = |id: Option<&str>| {
        let claims = WorkerClaims { expires, ..WorkerClaims::new(id.map(|id| id.parse().unwrap()), now) };
        let subject = claims.worker.clone().map_or(Subject::AnyWorker, Subject::Worker);
        (subject, world.tokens.keys.mint_worker(&claims))
    };
    [
        (user("ada"), By::Authorization),
        (user("ada"), By::FirstMessage),
        (user("eve"), By::Subprotocol),
        (worker(Some("w1")), By::WorkerToken),
        (worker(Some("w1")), By::FirstMessage),
        (worker(Some("w2")), By::Authorization),
        (worker(None), By::WorkerToken),
        (worker(None), By::FirstMessage),
    ]
    .map(|((subject, token), by)| (subject, by, token))
    .into()
}

/// Asks something that this subject may.
async fn ask(bare: &mut Bare, subject: &Subject) -> Value {
    match subject {
        Subject::User(_) => bare.ask("stats", 1, json!({})).await,
        Subject::Worker(id) => bare.ask("drain", 1, json!({ "workerId": id.to_string() })).await,
        Subject::AnyWorker => bare.ask("drain", 1, json!({ "workerId": "any" })).await,
    }
}

#[tokio::test]
async fn a_token_may_come_in_either_header_as_a_subprotocol_or_first() {
    let world = World::start().await;
    for (subject, by, token) in shown(&world, &SystemClock, Duration::from_secs(600)) {
        let (mut bare, welcome) = by.open(&world, &token).await;
        let (who, name) = match &subject {
            Subject::User(owner) => ("user", json!(owner.to_string())),
            Subject::Worker(id) => ("worker", json!(id.to_string())),
            Subject::AnyWorker => ("worker", Value::Null),
        };
        assert_eq!((&welcome["body"]["as"], &welcome["body"]["name"]), (&json!(who), &name), "{by:?}");
        assert_eq!(ask(&mut bare, &subject).await["type"], "ok", "{subject:?}, {by:?}");
    }
    // The scheme's name may be written in any way.
    let token = format!("bearer {}", world.user_token("ada", Role::User));
    assert_eq!(world.bare("authorization", &token).await.next().await["type"], "welcome");
}

#[tokio::test]
async fn whoever_shows_no_good_token_is_closed_with_a_code() {
    let mut options = unlimited();
    options.auth_timeout = Duration::from_millis(300);
    let world = World::with(options).await;
    let other = Keys::new("x".repeat(40).as_str(), "y".repeat(40).as_str()).unwrap();
    let forged = other.mint_worker(&WorkerClaims::new(None, now()));
    let old = WorkerClaims { expires: now().before(Duration::from_secs(60)), ..WorkerClaims::new(None, now()) };
    let old = world.tokens.keys.mint_worker(&old);
    let user = world.user_token("ada", Role::User);
    for (token, code) in [("", 4401), ("x", 4401), (forged.as_str(), 4401), (user.as_str(), 4401), (old.as_str(), 4410)]
    {
        assert_eq!(world.bare("x-worker-token", token).await.closed().await.0, code, "{token:.20}");
    }
    // Silent, talkative, and in a hurry.
    assert_eq!(Bare::open(world.request(&[])).await.closed().await.0, 4401);
    for first in [json!({ "type": "heartbeat", "id": 1 }), json!({ "type": "auth" }), json!([]), json!("x")] {
        let mut bare = Bare::open(world.request(&[])).await;
        bare.say(&first).await;
        assert_eq!(bare.closed().await.0, 4401, "{first}");
    }
    assert_eq!(world.server.sockets(), 0);
}

#[tokio::test]
async fn versions_are_agreed_on_or_the_socket_is_closed() {
    let world = World::start().await;
    let bearer = format!("Bearer {}", world.user_token("ada", Role::User));
    let headers = |protocols| [("authorization", bearer.as_str()), ("sec-websocket-protocol", protocols)];
    let request = world.request(&headers("cmdexec.v9, cmdexec.v1, other"));
    let (socket, response) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "cmdexec.v1");
    assert_eq!(Bare(socket).next().await["body"]["version"], 1);
    let bytes = world.raw(&headers("cmdexec.v9"), &[]).await;
    assert!(bytes.windows(2).any(|pair| pair == 4406_u16.to_be_bytes()), "{:?}", String::from_utf8_lossy(&bytes));
}

#[tokio::test]
async fn a_token_that_expires_closes_its_socket_then() {
    let clock = ManualClock::default();
    let world = World::timed(unlimited(), &clock).await;
    let lasting = Duration::from_secs(100);
    let mut open = Vec::new();
    for (subject, by, token) in shown(&world, &clock, lasting) {
        open.push((by.open(&world, &token).await.0, subject, by));
    }
    for step in [lasting, LEEWAY.checked_sub(Duration::from_secs(1)).unwrap()] {
        clock.advance(step);
        for (bare, subject, by) in &mut open {
            assert_eq!(ask(bare, subject).await["type"], "ok", "within the leeway: {subject:?}, {by:?}");
        }
    }
    clock.advance(Duration::from_secs(1));
    for (bare, subject, by) in &mut open {
        assert_eq!(bare.closed().await.0, 4410, "{subject:?}, {by:?}");
    }
}

#[tokio::test]
async fn revoked_credentials_close_their_sockets_and_no_others() {
    let world = World::start().await;
    let mut open = Vec::new();
    for (subject, by, token) in shown(&world, &SystemClock, Duration::from_secs(600)) {
        open.push((by.open(&world, &token).await.0, subject, by));
    }
    let subjects: Vec<_> = open.iter().map(|(_, subject, _)| subject.clone()).collect();
    for gone in subjects {
        let count = open.iter().filter(|(_, subject, _)| *subject == gone).count();
        assert_eq!(world.server.revoke(&gone), count, "{gone:?}");
        let mut left = Vec::new();
        for (mut bare, subject, by) in open {
            if subject == gone {
                assert_eq!(bare.closed().await.0, 4403, "{subject:?}, {by:?}");
            } else {
                assert_eq!(ask(&mut bare, &subject).await["type"], "ok", "{gone:?} was revoked: {subject:?}, {by:?}");
                left.push((bare, subject, by));
            }
        }
        open = left;
        until(|| world.server.sockets() == open.len()).await;
    }
}
