//! A server of its own for each test, and the tokens that everybody who knows the shared secrets can make.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use crate::agent::{Agent, Shown};
use crate::user::User;

const USERS: &str = "the secret of the users, long enough";
const WORKERS: &str = "the secret of the workers, long enough";

/// Waits until something is so; gives up only where a test hangs.
pub(crate) fn until<T>(what: &str, mut is_so: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(found) = is_so() {
            return found;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("waited in vain: {what}");
}

/// A running server with nothing in it.
pub(crate) struct Site {
    pub(crate) url: String,
    server: Child,
    folder: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (server, url) = start(folder.path(), "0");
        Self { url, server, folder }
    }

    /// Kills the server and starts it again at the same place.
    pub(crate) fn restart(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        let port = self.url.rsplit(':').next().unwrap();
        (self.server, self.url) = start(self.folder.path(), port);
    }

    pub(crate) fn user(&self, name: &str) -> User {
        User::new(&self.url, &token(USERS, json!({ "sub": name, "role": "user" })))
    }

    /// An agent that has registered.
    pub(crate) fn agent(&self, id: &str) -> Agent {
        self.agent_that(id, Shown::Header)
    }

    /// An agent that shows its token so, and has registered.
    pub(crate) fn agent_that(&self, id: &str, shown: Shown) -> Agent {
        let mut agent = Agent::new(&self.url, id, &token(WORKERS, json!({ "workerId": id })), shown);
        agent.register();
        agent
    }
}

fn start(folder: &Path, port: &str) -> (Child, String) {
    let database = format!("sqlite://{}", folder.join("jobs.db").display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_cmdexec-server"));
    command.env_clear().args(["--port", port, "--metrics-bind", "off", "--database-url", &database]);
    command.env("JWT_SECRET", USERS).env("WORKER_TOKEN_SECRET", WORKERS);
    for limit in ["JOBS", "HEARTBEAT", "REGISTER", "REQUESTS"] {
        command.env(format!("RATE_LIMIT_MAX_{limit}"), "0");
    }
    let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap_or_else(|| panic!("the server ended: {:?}", server.wait())).unwrap();
    (server, line.strip_prefix("listening on ").unwrap().to_owned())
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn token(secret: &str, mut claims: Value) -> String {
    claims["iat"] = jsonwebtoken::get_current_timestamp().into();
    claims["exp"] = (jsonwebtoken::get_current_timestamp() + 3_600).into();
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}
