//! The whole system in one process: this is what embedding it takes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::process::{Options, ProcessExecutor};
use cmdexec_core::executor::{Executor, Limit};
use cmdexec_core::files::Files;
use cmdexec_core::id::{Owner, WorkerId};
use cmdexec_core::limiter::RequestLimits;
use cmdexec_core::service::{JobService, Role};
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_core::token::{Keys, UserClaims};
use cmdexec_core::worker::{Worker, WorkerHandle};
use cmdexec_program::secrets::{self, Secrets};
use cmdexec_program::signals::Shutdown;
use cmdexec_store_sqlite::SqliteStore;
use cmdexec_transport_http::{Server, server};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::args::Args;

/// How long ending in order may take, for each part.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that runs.
pub(crate) struct Service {
    coordinator: Arc<Coordinator>,
    jobs: Arc<dyn JobService>,
    worker: WorkerHandle,
    serving: JoinHandle<std::io::Result<usize>>,
    stop: CancellationToken,
    address: SocketAddr,
    database: PathBuf,
    token: String,
    /// Whether jobs run as users of their own.
    own_users: bool,
}

impl Service {
    pub(crate) async fn start(args: &Args, signals: &Shutdown) -> anyhow::Result<Self> {
        let listener = listen(args.port).await?;
        let address = listener.local_addr()?;

        let database = args.data.join("cmdexec.db");
        let store = SqliteStore::open(&database).await;
        let store = store.with_context(|| format!("opening the database {}", database.display()))?;
        let files = Files::local(args.data.join("files"))?;
        let coordinator = Coordinator::builder(store).files(files).build().await?;
        let coordinator = Arc::new(coordinator);

        // Jobs see nothing of the database and the secrets, where that can be had.
        let hidden = vec![args.data.canonicalize()?];
        let executor = ProcessExecutor::new(Options { hidden, ..Options::default() })?;
        let own_users = executor.capabilities().limits.contains(&Limit::User);
        let worker = Worker::builder(coordinator.as_worker(WorkerId::local()), executor).start().await?;

        let secrets =
            Secrets::load_or_create(&secrets::beside(&database)).context("the secrets beside the database")?;
        let keys = Keys::new(&secrets.user, &secrets.worker)?;
        let token = keys.mint_user(&UserClaims::new(Owner::local(), Role::Admin, SystemClock.now()));
        let server = Server::builder(Arc::clone(&coordinator) as _, keys).options(unlimited()).build()?;
        // A child, so that the job that ends with --once can stop it too.
        let stop = signals.asked.child_token();
        let serving = tokio::spawn({
            let stop = stop.clone();
            async move { server.serve(listener, stop).await }
        });
        let jobs = coordinator.jobs();
        Ok(Self { coordinator, jobs, worker, serving, stop, address, database, token, own_users })
    }

    pub(crate) fn jobs(&self) -> &dyn JobService {
        &*self.jobs
    }

    pub(crate) fn introduce(&self) {
        println!("Command Executor {}, all of it in this process:", env!("CARGO_PKG_VERSION"));
        println!("  a coordinator, which keeps jobs in {}", self.database.display());
        let users = if self.own_users {
            "each slot as a user of its own"
        } else {
            "as you: root can give them users of their own"
        };
        println!("  a worker, which runs them as isolated processes of this machine, {users}");
        println!("  the HTTP API, described at http://{}/api/docs\n", self.address);
    }

    pub(crate) fn say_what_next(&self) {
        let Self { address, token, .. } = self;
        println!(
            "
Now yours. In another terminal:

  export CMDEXEC_URL=http://{address} CMDEXEC_TOKEN={token}

with curl:

  curl -H \"Authorization: Bearer $CMDEXEC_TOKEN\" --json '{{\"command\": \"uname -a\"}}' $CMDEXEC_URL/api/jobs/create
  curl -H \"Authorization: Bearer $CMDEXEC_TOKEN\" \"$CMDEXEC_URL/api/jobs/logs?follow=true&jobId=JOB\"

or with the command line program:

  cargo run --release -p cmdexec-cli -- run 'uname -a'

Serving http://{address} until Ctrl-C."
        );
    }

    /// Ends everything in order: nothing new comes in, what runs goes back, the store is closed.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.worker.drain();
        let mut worker = self.worker;
        // Whoever ends a first try does not want to wait for its jobs; they are there at the next start.
        if worker.status().running > 0 {
            worker.force();
        }
        worker.wait().await;
        let _ = self.serving.await;
        self.coordinator.shutdown(PATIENCE).await;
    }
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("something else listens on 127.0.0.1:{port}: choose another port with --port, or --port 0")
        }
        listener => listener.with_context(|| format!("listening on 127.0.0.1:{port}")),
    }
}

/// Only this machine gets here, and trying things out is many requests.
fn unlimited() -> server::Options {
    let mut options = server::Options::default();
    options.limits = RequestLimits::none();
    options.drain = PATIENCE;
    options
}
