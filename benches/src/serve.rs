//! What is measured, as processes of their own: a server over SQLite and a worker, assembled as anybody would.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::ProcessExecutor;
use cmdexec_core::files::Files;
use cmdexec_core::id::Owner;
use cmdexec_core::limiter::RequestLimits;
use cmdexec_core::service::{Role, Services, WorkerService};
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_core::token::{Keys, UserClaims, WorkerClaims};
use cmdexec_core::worker::Worker;
use cmdexec_store_sqlite::SqliteStore;
use cmdexec_transport_http::client::Client;
use cmdexec_transport_http::server::{Options, Server};
use cmdexec_transport_ws::server::PATH;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// No bench's file is larger.
const MAX_FILE: u64 = 16 << 30;

/// Both sides of a bench share these; nobody else reaches its loopback port for as long as it lives.
fn keys() -> Result<Keys> {
    Ok(Keys::new("a bench's user secret, 32 bytes long", "a bench's worker secret, 32 bytes long")?)
}

/// A token for submitting.
pub(crate) fn user_token() -> Result<String> {
    let owner: Owner = "bench".parse()?;
    Ok(keys()?.mint_user(&UserClaims::new(owner, Role::Admin, SystemClock.now())))
}

/// A token for any worker.
pub(crate) fn worker_token() -> Result<String> {
    Ok(keys()?.mint_worker(&WorkerClaims::new(None, SystemClock.now())))
}

/// A worker's client.
pub(crate) fn worker_client(url: &str) -> Result<Client> {
    Ok(Client::builder(url).worker_token(worker_token()?).build()?)
}

/// A worker's client over a socket.
pub(crate) fn worker_socket(url: &str) -> Result<cmdexec_transport_ws::Client> {
    Ok(cmdexec_transport_ws::Client::builder(url).worker_token(worker_token()?).build()?)
}

/// Where the sockets of a server are that is known by its HTTP URL.
pub(crate) fn socket_url(url: &str) -> String {
    url.replacen("http", "ws", 1)
}

/// Where a worker finds a server that is known by its HTTP URL, and what to call the way there.
pub(crate) fn way(url: &str, socket: bool) -> (String, &'static str) {
    if socket { (socket_url(url), "over a socket") } else { (url.to_owned(), "over HTTP") }
}

/// Serves a database until it is killed; prints its URL when it listens.
pub(crate) async fn server(database: &Path, output_cap: u64) -> Result<()> {
    let store = SqliteStore::open(database).await?;
    let files = Files::local(database.with_extension("files"))?;
    let coordinator = Coordinator::builder(store).files(files);
    let coordinator = coordinator.with_options(|options| {
        options.output_cap = output_cap << 20;
        (options.max_file_size, options.file_quota) = (MAX_FILE, u64::MAX);
    });
    let coordinator = Arc::new(coordinator.build().await?);
    let mut options = Options::default();
    options.limits = RequestLimits::none();
    options.max_file_size = MAX_FILE;
    options.max_connections = 20_000;
    let mut sockets = cmdexec_transport_ws::server::Options::default();
    sockets.limits = RequestLimits::none();
    (sockets.max_sockets, sockets.max_sockets_per_token) = (100_000, 100_000);
    let services: Arc<dyn Services> = coordinator;
    let sockets = cmdexec_transport_ws::Server::builder(Arc::clone(&services), keys()?).options(sockets).build()?;
    let server = Server::builder(services, keys()?).options(options).mount(PATH, sockets).build()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    server.serve(listener, CancellationToken::new()).await?;
    Ok(())
}

/// Works for a server until it is killed; prints its id when it has registered.
pub(crate) async fn worker(url: &str, slots: usize) -> Result<()> {
    let service: Arc<dyn WorkerService> =
        if url.starts_with("ws") { Arc::new(worker_socket(url)?) } else { Arc::new(worker_client(url)?) };
    let work_dir = tempfile::tempdir()?;
    let mut worker = Worker::builder(service, ProcessExecutor::default())
        .slots(slots)
        .work_dir(work_dir.path())
        .drain_timeout(Duration::from_secs(1))
        .start()
        .await?;
    println!("{}", worker.id());
    worker.wait().await;
    Ok(())
}
