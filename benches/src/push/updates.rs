//! Changes of jobs to somebody who watches all of them over a socket: how soon each is known.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cmdexec_core::service::{JobService, WatchQuery};
use cmdexec_core::time::{Clock, SystemClock};
use futures_util::StreamExt;

use crate::rest::Connection;
use crate::stats::{Sample, ms};
use crate::table::{Report, rate as per_second};
use crate::{children, embedded, machine, serve, submit};

/// How many workers make the changes.
const WORKERS: usize = 4;

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, rate: usize, seconds: usize) -> Result<()> {
    let path = dir.join("updates.db");
    machine::remove_database(&path);
    let (server, url) = children::server(&path).await?;
    let socket = serve::socket_url(&url);
    let client = cmdexec_transport_ws::Client::builder(&socket).user_token(serve::user_token()?).build()?;
    let mut updates = client.watch(WatchQuery::All).await?;
    // Queued, running, completed: three changes a job, in ten batches a second.
    let batch = rate / 3 / 10;
    let jobs = batch * 10 * seconds;
    let mut working = Vec::new();
    for n in 0..WORKERS {
        let (service, worker) = (Arc::new(serve::worker_socket(&socket)?), format!("updates-{n}").parse()?);
        let registration = cmdexec_core::service::Registration::new("bench", 2, 1_024);
        let registration = cmdexec_core::service::Registration { worker: Some(worker), ..registration };
        let registered = cmdexec_core::service::WorkerService::register(&*service, registration).await?;
        working.push(tokio_util::task::AbortOnDropHandle::new(tokio::spawn(embedded::work(
            service,
            registered.worker,
            64,
            usize::MAX,
        ))));
    }
    let submitting = tokio::spawn(async move {
        let mut connection = Connection::open(&url, &serve::user_token()?).await?;
        let body = submit::batch(batch);
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..10 * seconds {
            tick.tick().await;
            connection.post("/api/jobs/create-batch", body.clone()).await?;
        }
        anyhow::Ok(())
    });
    let begun = SystemClock.uptime();
    let mut times = Vec::with_capacity(jobs * 3);
    let mut seen = HashSet::with_capacity(jobs * 3);
    let mut finished = 0;
    while finished < jobs {
        let update = tokio::time::timeout(Duration::from_secs(20), updates.next()).await;
        let update = update.context("no change came")?.context("the stream ended")??;
        ensure!(seen.insert((update.id, update.version)), "a change of {} came twice", update.id);
        // Both clocks are this machine's, to the millisecond.
        times.push(SystemClock.now().since(update.at));
        finished += usize::from(update.status.is_finished());
    }
    let took = SystemClock.uptime().saturating_sub(begun);
    submitting.await.context("a task panicked")??;
    drop(working);
    server.kill().await?;
    machine::remove_database(&path);

    let count = times.len();
    // More, where a job went back to the queue.
    ensure!(count >= jobs * 3, "{count} of {} changes came", jobs * 3);
    let times = Sample::new(times);
    let mut report = Report::new("Changes of all jobs over one socket", &["what", "measured", "at most"]);
    report.row(["carried".into(), per_second(count as f64 / took.as_secs_f64()), String::new()]);
    report.row(["commit → known, p50".into(), ms(times.quantile(0.5)), String::new()]);
    report.row(["commit → known, p99".into(), ms(times.quantile(0.99)), "50 ms".into()]);
    report.print();
    Ok(())
}
