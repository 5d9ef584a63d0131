//! Submitting over HTTP: single jobs over many connections, and batches.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;

use crate::rest::Connection;
use crate::stats::{Sample, ms};
use crate::table::{Report, rate, ratio};
use crate::{children, machine, serve};

const CONNECTIONS: usize = 64;

/// A spec of a plain job, as people submit it.
pub(crate) fn spec() -> String {
    r#"{"command":"make -C build test","name":"nightly","timeout":600,"env":{"CI":"1","LANG":"C.UTF-8"},"priority":0}"#
        .to_owned()
}

/// A batch of such jobs.
pub(crate) fn batch(jobs: usize) -> Bytes {
    Bytes::from(format!(r#"{{"jobs":[{}]}}"#, vec![spec(); jobs].join(",")))
}

/// Posts a body again and again over many connections, for `time`; how often in a second, and how long each took.
async fn posts(url: &str, path: &'static str, body: Bytes, time: Duration) -> Result<(f64, Sample)> {
    let token = serve::user_token()?;
    let start = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(url, &token).await?;
        let body = body.clone();
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while start.elapsed() < time {
                let one = Instant::now();
                connection.post(path, body.clone()).await?;
                times.push(one.elapsed());
            }
            anyhow::Ok(times)
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.context("a task panicked")??);
    }
    Ok((times.len() as f64 / start.elapsed().as_secs_f64(), Sample::new(times)))
}

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, seconds: u64) -> Result<()> {
    let sync = machine::fdatasync(dir)?;
    let path = dir.join("submit.db");
    machine::remove_database(&path);
    let (server, url) = children::server(&path).await?;
    let time = Duration::from_secs(seconds);
    let (singles, single_times) = posts(&url, "/api/jobs/create", Bytes::from(spec()), time).await?;
    let (batches, _) = posts(&url, "/api/jobs/create-batch", batch(100), time).await?;
    server.kill().await?;
    machine::remove_database(&path);

    let columns = ["what", "measured", "p50", "p99", "× fdatasync", "at least"];
    let mut report = Report::new("Submits over HTTP, 64 connections, durable", &columns);
    let none = String::new;
    report.row(["fdatasync".into(), rate(sync.per_second), ms(sync.p50), none(), none(), none()]);
    let (p50, p99) = (ms(single_times.quantile(0.5)), ms(single_times.quantile(0.99)));
    report.row(["single jobs".into(), rate(singles), p50, p99, ratio(singles / sync.per_second), "4".into()]);
    let jobs = batches * 100.0;
    report.row(["jobs in batches of 100".into(), rate(jobs), none(), none(), ratio(jobs / sync.per_second), none()]);
    report.print();
    Ok(())
}
