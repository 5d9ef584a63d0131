//! `token`: makes tokens from the server's secrets. Needs no server.

#![expect(clippy::doc_markdown, reason = "doc comments are the help, which has no backticks around variables")]

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use cmdexec_core::id::{Owner, WorkerId};
use cmdexec_core::service::Role;
use cmdexec_core::time::{Clock, SystemClock, Timestamp};
use cmdexec_core::token::{Keys, UserClaims, WorkerClaims, WorkerKey};
use cmdexec_program::secrets::{FILE_NAME, Secrets};
use serde_json::json;

use crate::args::span;
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    whose: Whose,
}

#[derive(Debug, Subcommand)]
enum Whose {
    /// A user's token, from JWT_SECRET or the file of secrets
    User {
        /// Who: the owner of the jobs
        #[arg(long, value_name = "USER")]
        id: Owner,
        /// What the user may do
        #[arg(long, value_enum, default_value = "user")]
        role: RoleName,
        /// For people to read
        #[arg(long)]
        email: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// A worker's token, from WORKER_TOKEN_SECRET or the file of secrets
    Worker {
        /// The only worker that it is good for; without it, any
        #[arg(long, value_name = "WORKER")]
        id: Option<WorkerId>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// How long it is good for, such as 12h or 30d [env: JWT_TTL] [default: 24h]
    #[arg(long, value_name = "TIME", env = "JWT_TTL", hide_env = true, value_parser = span)]
    ttl: Option<Duration>,
    /// The older name of the variable above
    #[arg(long = "older-ttl", hide = true, env = "JWT_EXPIRES_IN", hide_env = true, value_parser = span)]
    older_ttl: Option<Duration>,
    /// The file that the server keeps its secrets in [default: data/secrets.env]
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,
}

impl Common {
    fn ttl(&self) -> Duration {
        self.ttl.or(self.older_ttl).unwrap_or(Duration::from_hours(24))
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// Everything, with everybody's jobs
    Admin,
    /// Everything with its own jobs
    User,
    /// See its own jobs
    Viewer,
}

pub(crate) fn run(args: &TokenArgs, json: bool) -> anyhow::Result<Exit> {
    let now = SystemClock.now();
    let (token, expires) = match &args.whose {
        Whose::User { id, role, email, common } => {
            let role = match role {
                RoleName::Admin => Role::Admin,
                RoleName::User => Role::User,
                RoleName::Viewer => Role::Viewer,
            };
            let expires = now.after(common.ttl());
            let claims = UserClaims { email: email.clone(), expires, ..UserClaims::new(id.clone(), role, now) };
            (user_keys(common)?.mint_user(&claims), expires)
        }
        Whose::Worker { id, common } => {
            let expires = now.after(common.ttl());
            let claims = WorkerClaims { expires, ..WorkerClaims::new(id.clone(), now) };
            (worker_key(common)?.mint(&claims), expires)
        }
    };
    print(&token, expires, json)?;
    Ok(Exit::OK)
}

fn print(token: &str, expires: Timestamp, json: bool) -> std::io::Result<()> {
    if json {
        crate::json::print(&json!({"token": token, "expiresAt": expires.to_string()}))
    } else {
        writeln!(std::io::stdout().lock(), "{token}")
    }
}

fn user_keys(common: &Common) -> anyhow::Result<Keys> {
    let secrets = match secret("JWT_SECRET", common) {
        // The workers' secret has no part in a user's token.
        Some(user) => Secrets { user, ..Secrets::generate()? },
        None => kept(common, "JWT_SECRET")?,
    };
    Ok(Keys::new(&secrets.user, &secrets.worker)?)
}

fn worker_key(common: &Common) -> anyhow::Result<WorkerKey> {
    let secret = match secret("WORKER_TOKEN_SECRET", common) {
        Some(secret) => secret,
        None => kept(common, "WORKER_TOKEN_SECRET")?.worker,
    };
    Ok(WorkerKey::new(&secret)?)
}

/// The environment's, unless a file was named.
fn secret(name: &str, common: &Common) -> Option<String> {
    std::env::var(name).ok().filter(|secret| !secret.is_empty() && common.secrets.is_none())
}

fn kept(common: &Common, name: &str) -> anyhow::Result<Secrets> {
    let path = common.secrets.clone().unwrap_or_else(|| PathBuf::from("data").join(FILE_NAME));
    match Secrets::load(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("there is no {}: set {name}, or name the server's file with --secrets", path.display())
        }
        secrets => secrets.with_context(|| path.display().to_string()),
    }
}
