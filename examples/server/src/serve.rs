//! From the settings to a server that listens, and from a signal to its orderly end.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::id::Owner;
use cmdexec_core::limiter::{LocalLimiter, RateLimiter};
use cmdexec_core::service::{Role, Services};
use cmdexec_core::store::Store;
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_core::token::{Keys, UserClaims, WorkerClaims};
use cmdexec_program::secrets::{self, Secrets};
use cmdexec_program::signals;
use cmdexec_transport_http::Server;
use tokio::net::TcpListener;

use crate::database::Database;
use crate::measured::Measured;
use crate::metrics;
use crate::settings::Options;
use crate::storage::Storage;

pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let signals = signals::listen().context("listening for signals")?;
    let listener = listen(options.address, "PORT").await?;
    let address = listener.local_addr()?;
    let ws_listener = match options.ws_address {
        Some(address) => Some(listen(address, "WS_PORT").await?),
        None => None,
    };
    let metrics = match options.metrics {
        Some(address) => Some((metrics::install()?, listen(address, "METRICS_BIND").await?)),
        None => None,
    };

    let store = options.database.open().await?;
    let keys = keys(&options)?;
    let store: Arc<dyn Store> = if metrics.is_some() { Arc::new(Measured::new(store)) } else { store };
    let files = options.storage.open().with_context(|| format!("STORAGE_URL {}", options.storage))?;
    let coordinator = Coordinator::builder_shared(store).options(options.coordinator.clone()).files(files);
    let coordinator = coordinator.build().await?;
    let coordinator = Arc::new(coordinator);

    let mut http = options.http.clone();
    // The rest is for the store, which has little to do.
    http.drain = options.shutdown_timeout * 3 / 4;
    // One limiter, so that a request counts the same whichever way it comes.
    let limiter: Arc<dyn RateLimiter> = Arc::new(LocalLimiter::with_clock(Arc::new(SystemClock)));
    let interval = options.coordinator.heartbeat_interval();
    let sockets = sockets(&http, interval, Arc::clone(&coordinator) as _, keys.clone(), Arc::clone(&limiter))?;
    let drain = http.drain;
    let server = Server::builder(Arc::clone(&coordinator) as _, keys.clone()).options(http).limiter(limiter);
    let server = server.mount(cmdexec_transport_ws::server::PATH, sockets.clone()).build()?;

    if let Some((recorder, listener)) = metrics {
        println!("metrics on http://{}/metrics", listener.local_addr()?);
        let serving = metrics::serve(listener, recorder, coordinator.jobs(), signals.asked.clone());
        tokio::spawn(serving);
    }
    announce(&options, address, &keys);

    let ending = async {
        let own_port = async {
            match ws_listener {
                Some(listener) => server.serve(listener, signals.asked.clone()).await,
                None => Ok(0),
            }
        };
        let closing = async {
            signals.asked.cancelled().await;
            std::io::Result::Ok(sockets.close(drain).await)
        };
        let served = server.serve(listener, signals.asked.clone());
        let (left, elsewhere, cut) = tokio::try_join!(served, own_port, closing)?;
        let left = left + elsewhere + cut;
        anyhow::Ok((left, coordinator.shutdown(options.shutdown_timeout / 4).await))
    };
    let (left, is_closed) = tokio::select! {
        ended = ending => ended?,
        () = signals.forced.cancelled() => {
            tracing::warn!("ended at once");
            return Ok(ExitCode::from(130));
        }
    };
    if left > 0 || !is_closed {
        tracing::warn!(cut = left, is_closed, "did not end in order within the time for it");
        return Ok(ExitCode::FAILURE);
    }
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

/// The push channel, with the limits of HTTP. Who is gone is found within two heartbeats.
fn sockets(
    http: &cmdexec_transport_http::server::Options,
    heartbeat_interval: Duration,
    services: Arc<dyn Services>,
    keys: Keys,
    limiter: Arc<dyn RateLimiter>,
) -> anyhow::Result<cmdexec_transport_ws::Server> {
    let mut options = cmdexec_transport_ws::server::Options::default();
    options.limits = http.limits.clone();
    options.ping_interval = heartbeat_interval;
    Ok(cmdexec_transport_ws::Server::builder(services, keys).options(options).limiter(limiter).build()?)
}

async fn listen(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("something else listens on {address}; choose another with {setting}")
        }
        listener => listener.with_context(|| format!("listening on {address} ({setting})")),
    }
}

/// The secrets that were given; those that were not are made once, and kept where the database is.
fn keys(options: &Options) -> anyhow::Result<Keys> {
    let (user, worker) = match options.secrets.clone() {
        (Some(user), Some(worker)) => (user, worker),
        (user, worker) => {
            let kept = match &options.database {
                // The settings refuse to do without them over a database that is shared.
                Database::Memory | Database::Mongo(_) => Secrets::generate()?,
                Database::Sqlite(path) => kept(path)?,
            };
            (user.unwrap_or(kept.user), worker.unwrap_or(kept.worker))
        }
    };
    Ok(Keys::new(&user, &worker)?)
}

fn kept(database: &Path) -> anyhow::Result<Secrets> {
    let path = secrets::beside(database);
    Secrets::load_or_create(&path).with_context(|| format!("the secrets in {}", path.display()))
}

/// Says where the server listens, on standard output, for people and programs that wait for it.
fn announce(options: &Options, address: SocketAddr, keys: &Keys) {
    println!("listening on http://{address}");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %address, database = %options.database, files = %options.storage, "serving");
    if !address.ip().is_loopback() {
        tracing::warn!("tokens and jobs travel in clear: put a proxy with TLS in front, or listen on 127.0.0.1");
    }
    if matches!((&options.database, &options.storage), (Database::Mongo(_), Storage::Folder(_))) {
        tracing::warn!(files = %options.storage, "files are in a folder: other servers over this database must share it");
    }
    if options.dev {
        try_it(options, address, keys);
    }
}

fn try_it(options: &Options, address: SocketAddr, keys: &Keys) {
    let now = SystemClock.now();
    let expires = now.after(options.token_ttl);
    let user = UserClaims { expires, ..UserClaims::new(Owner::local(), Role::Admin, now) };
    let worker = WorkerClaims { expires, ..WorkerClaims::new(None, now) };
    let kept = match &options.database {
        Database::Memory => "nothing is kept when it ends",
        Database::Sqlite(_) | Database::Mongo(_) => "what is in the database is kept",
    };
    println!(
        "
A first try: no request is one too many, and {kept}.

Submit a job:
  export CMDEXEC_URL=http://{address} CMDEXEC_TOKEN={user}
  curl -H \"Authorization: Bearer $CMDEXEC_TOKEN\" --json '{{\"command\": \"echo hello\"}}' $CMDEXEC_URL/api/jobs/create
or
  cmdexec run 'echo hello'

It waits for a worker:
  WORKER_TOKEN={worker} cmdexec-worker --server-url ws://{address}

The API: http://{address}/api/docs",
        user = keys.mint_user(&user),
        worker = keys.mint_worker(&worker),
    );
}
