//! `watch`: jobs as they change.

use std::io::Write;
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::service::{JobService, JobUpdate, WatchQuery};
use cmdexec_program::signals;
use futures_util::StreamExt;

use crate::args::WatchArgs;
use crate::exit::Exit;
use crate::json as as_json;

/// `socket` is the service over a socket, `jobs` what is used where there is none.
pub(crate) async fn run(
    socket: &dyn JobService,
    jobs: &dyn JobService,
    args: &WatchArgs,
    json: bool,
) -> anyhow::Result<Exit> {
    let signals = signals::listen()?;
    let query = args.job.map_or(WatchQuery::All, WatchQuery::Job);
    tokio::select! {
        over = watch_on(socket, jobs, query, json) => over.map(|()| Exit::OK),
        () = signals.asked.cancelled() => Ok(Exit::INTERRUPTED),
    }
}

/// Watches until there is no more to see, over as many connections as it takes.
async fn watch_on(socket: &dyn JobService, jobs: &dyn JobService, query: WatchQuery, json: bool) -> anyhow::Result<()> {
    loop {
        let Err(error) = watch(socket, jobs, query, json).await else { return Ok(()) };
        // Changes in between are missed; what comes after them says where a job stands.
        match error.downcast_ref::<Error>().and_then(Error::retry_after) {
            Some(pause) => tokio::time::sleep(pause.max(Duration::from_millis(200))).await,
            None => return Err(error),
        }
    }
}

async fn watch(socket: &dyn JobService, jobs: &dyn JobService, query: WatchQuery, json: bool) -> anyhow::Result<()> {
    let mut updates = match socket.watch(query).await {
        // An older server, or something in between that lets only HTTP through.
        Err(error) if error.retry_after().is_some() => jobs.watch(query).await?,
        updates => updates?,
    };
    while let Some(update) = updates.next().await {
        let update = update?;
        if json {
            as_json::print(&as_json::update(&update))?;
        } else {
            show(&update)?;
        }
        if matches!(query, WatchQuery::Job(_)) && update.status.is_finished() {
            return Ok(());
        }
    }
    Err(Error::Unavailable { retry_after: Duration::from_millis(200) }.into())
}

fn show(update: &JobUpdate) -> std::io::Result<()> {
    let exit = update.exit_code.map(|code| format!(" exit {code}")).unwrap_or_default();
    let worker = update.worker.as_ref().map(|worker| format!(" on {worker}")).unwrap_or_default();
    writeln!(std::io::stdout().lock(), "{} {} {}{worker}{exit}", update.at, update.id, update.status)
}
