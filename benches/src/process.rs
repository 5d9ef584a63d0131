//! `true` as a process, end to end: output captured, result durable, one server and one worker process over HTTP or a socket.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;

use crate::rest::Connection;
use crate::table::{Report, mib, rate, ratio};
use crate::{children, machine, serve};

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, jobs: usize, slots: usize, socket: bool) -> Result<()> {
    let plain = machine::spawn_plain(slots).await?;
    let before = machine::spawn_isolated(dir, slots).await?;
    let path = dir.join("process.db");
    machine::remove_database(&path);
    let (server, url) = children::server(&path).await?;
    let mut connection = Connection::open(&url, &serve::user_token()?).await?;
    let spec = r#"{"args":["/bin/true"]}"#;
    let batch = Bytes::from(format!(r#"{{"jobs":[{}]}}"#, vec![spec; 1_000].join(",")));
    let (worker_url, way) = serve::way(&url, socket);
    let worker = children::worker(&worker_url, slots).await?;
    let start = Instant::now();
    for _ in 0..jobs / 1_000 {
        connection.post("/api/jobs/create-batch", batch.clone()).await?;
    }
    let mut completed = 0;
    while completed < jobs as u64 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let stats: serde_json::Value = serde_json::from_slice(&connection.get("/api/stats").await?)?;
        completed = stats.pointer("/jobs/completed").and_then(serde_json::Value::as_u64).context("stats")?;
        ensure!(stats.pointer("/jobs/failed").and_then(serde_json::Value::as_u64) == Some(0), "jobs failed: {stats}");
        ensure!(start.elapsed() < Duration::from_secs(120), "only {completed} of {jobs} within 2 minutes");
    }
    let per_second = jobs as f64 / start.elapsed().as_secs_f64();
    let (server_used, worker_used) = (server.used()?, worker.used()?);
    worker.kill().await?;
    server.kill().await?;
    machine::remove_database(&path);
    // Before and after: a shared machine's speed wanders.
    let isolated = f64::midpoint(before, machine::spawn_isolated(dir, slots).await?);

    let columns = ["what", "measured", "ratio", "at least", "processor", "peak memory"];
    let title = format!("`true` as a process, end to end, {slots} slots, {way}");
    let mut report = Report::new(&title, &columns);
    let none = String::new;
    report.row(["bare spawn".into(), rate(plain), none(), none(), none(), none()]);
    report.row(["bare spawn, same isolation".into(), rate(isolated), none(), none(), none(), none()]);
    let each = |used: children::Used| format!("{:.0} µs a job", used.cpu.as_secs_f64() * 1e6 / jobs as f64);
    let row = [rate(per_second), ratio(per_second / isolated), "0.6".into(), none(), none()];
    report.row(["end to end, to bare with isolation".to_owned()].into_iter().chain(row));
    let row = [none(), ratio(per_second / plain), none(), none(), none()];
    report.row(["end to end, to bare".to_owned()].into_iter().chain(row));
    for (name, used) in [("the server", server_used), ("the worker", worker_used)] {
        report.row([name.into(), none(), none(), none(), each(used), mib(used.peak)]);
    }
    report.print();
    Ok(())
}
