//! A server that many workers wait at: what it costs to do nothing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;

use crate::rest::Connection;
use crate::table::{Report, mib};
use crate::{children, machine, serve};

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, workers: usize, seconds: u64) -> Result<()> {
    let path = dir.join("idle.db");
    machine::remove_database(&path);
    let (server, url) = children::server(&path).await?;
    let alone = server.used()?;
    let token = serve::worker_token()?;
    let mut tasks = Vec::new();
    for n in 0..workers {
        let mut polls = Connection::open(&url, &token).await?;
        let mut beats = Connection::open(&url, &token).await?;
        let id = format!("idle-{n}");
        let registration = format!(
            r#"{{"workerId":"{id}","hostname":"idle","cpuCores":2,"totalMemoryMb":1024,"slots":2,"executors":["process"]}}"#
        );
        beats.post("/api/workers/register", Bytes::from(registration)).await?;
        tasks.push(tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
            let path = format!("/api/jobs/get-job?workerId={id}&wait=60&max=2");
            loop {
                polls.get(&path).await?;
            }
            #[expect(unreachable_code, reason = "names the type of what `?` gives")]
            anyhow::Ok(())
        })));
        let id = format!("idle-{n}");
        tasks.push(tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
            let beat = format!(r#"{{"workerId":"{id}","status":"idle","cpuUsage":1.0,"ramUsage":1.0,"running":[]}}"#);
            // Workers come at different times.
            tokio::time::sleep(Duration::from_millis(n as u64 * 10 % 10_000)).await;
            loop {
                beats.post("/api/workers/heartbeat", Bytes::from(beat.clone())).await?;
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
            #[expect(unreachable_code, reason = "names the type of what `?` gives")]
            anyhow::Ok(())
        })));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = server.used()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = server.used()?;
    for task in &tasks {
        anyhow::ensure!(!task.is_finished(), "a worker was turned away");
    }
    let cpu = after.cpu.checked_sub(before.cpu).context("time runs backwards")?;
    let share = cpu.as_secs_f64() / Duration::from_secs(seconds).as_secs_f64() * 100.0;
    drop(tasks);
    server.kill().await?;
    machine::remove_database(&path);

    let title = format!("An idle server with {workers} long-polling workers, each beating every 10 s");
    let mut report = Report::new(&title, &["what", "measured", "at most"]);
    report.row(["processor, of one core".into(), format!("{share:.1} %"), "5 %".into()]);
    report.row(["memory".into(), mib(after.memory), "60 MiB".into()]);
    report.row(["memory before they came".into(), mib(alone.memory), String::new()]);
    report.print();
    Ok(())
}
