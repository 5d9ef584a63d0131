//! From the settings to a worker that takes jobs, and from a signal to its orderly end.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use cmdexec_core::executor::ProcessExecutor;
use cmdexec_core::service::WorkerService;
use cmdexec_core::worker::{Builder, Ended, StartError, Worker, WorkerHandle};
use cmdexec_program::signals::{self, Shutdown};

use crate::credentials::Connection;
use crate::no_network::NoNetwork;
use crate::settings::{Options, PATIENCE};
use crate::{docker, identity};

pub(crate) async fn run(mut options: Options) -> anyhow::Result<ExitCode> {
    let signals = signals::listen().context("listening for signals")?;
    let is_named = options.worker.id.is_some();
    if !is_named {
        options.worker.id = identity::load(&options.work_dir)?;
    }
    let (server, credentials) = (options.server.clone(), options.credentials.clone());
    let connection = Connection::new(server, options.transport, credentials, options.worker.id.clone())?;
    let connection = Arc::new(connection);
    let Some(started) = start(&options, Arc::clone(&connection), &signals).await else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut worker = started?;
    if !is_named && options.worker.id.is_none() {
        identity::keep(&options.work_dir, worker.id())?;
    }
    println!("worker {} takes jobs from {}", worker.id(), options.server);

    let ended = tokio::select! {
        ended = worker.wait() => ended,
        () = signals.asked.cancelled() => {
            tracing::info!(running = worker.status().running, "ending: no more jobs; a second signal ends at once");
            worker.drain();
            finish(&mut worker, &signals).await
        }
    };
    Ok(conclude(&ended, signals.forced.is_cancelled()))
}

/// Starts the worker; `None` if it was told to end before it could.
async fn start(
    options: &Options,
    connection: Arc<Connection>,
    signals: &Shutdown,
) -> Option<Result<WorkerHandle, anyhow::Error>> {
    let builder = match builder(options, Arc::clone(&connection) as _).await {
        Ok(builder) => builder,
        Err(error) => return Some(Err(error)),
    };
    let explain = async {
        loop {
            tokio::time::sleep(PATIENCE).await;
            if let Some(trouble) = connection.trouble() {
                tracing::warn!("the server can't be reached yet: {trouble}");
            }
        }
    };
    tokio::select! {
        started = builder.start() => Some(started.map_err(|error| explained(error, &options.server))),
        () = explain => None,
        () = signals.asked.cancelled() => None,
    }
}

async fn builder(options: &Options, service: Arc<dyn WorkerService>) -> anyhow::Result<Builder> {
    let name = options.worker.id.as_ref().map_or_else(|| "worker".to_owned(), ToString::to_string);
    let containers = docker::open(&options.docker, &name).await?;
    let builder = match (options.allow_process, options.allow_network) {
        (false, _) => {
            let containers = containers.context("ALLOW_PROCESS is false, and no container daemon answers")?;
            return Ok(Worker::builder(service, containers).options(options.worker.clone()));
        }
        (true, true) => Worker::builder(service, ProcessExecutor::default()),
        (true, false) => Worker::builder(service, NoNetwork::new(ProcessExecutor::default())?),
    };
    let builder = match containers {
        Some(containers) => builder.executor(containers),
        None => builder,
    };
    Ok(builder.options(options.worker.clone()))
}

fn explained(error: StartError, server: &str) -> anyhow::Error {
    let what = match &error {
        StartError::Refused(_) => format!("registering at {server}; is the token one for workers of this server?"),
        StartError::InUse { .. } => "give each worker of a machine a WORK_DIR of its own".to_owned(),
        _ => "starting".to_owned(),
    };
    anyhow::Error::new(error).context(what)
}

async fn finish(worker: &mut WorkerHandle, signals: &Shutdown) -> Ended {
    tokio::select! {
        ended = worker.wait() => return ended,
        () = signals.forced.cancelled() => {}
    }
    tracing::warn!("ending at once: what is running is killed and goes back");
    worker.force();
    worker.wait().await
}

fn conclude(ended: &Ended, forced: bool) -> ExitCode {
    if let Some(failure) = &ended.failed {
        tracing::error!(failure, "the worker has failed");
        return ExitCode::FAILURE;
    }
    if ended.removed {
        tracing::error!("the server refuses this worker: somebody removed it; start it with another WORKER_ID");
        return ExitCode::FAILURE;
    }
    if !ended.unreported.is_empty() {
        let jobs = ended.unreported.len();
        tracing::warn!(
            jobs,
            "the server could not be told how jobs ended: they are tried again once their leases are over"
        );
    }
    tracing::info!("ended");
    if forced { ExitCode::from(130) } else { ExitCode::SUCCESS }
}
