//! Many classes in the queue, of jobs that no worker can run: what they cost those that can be run.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;

use crate::rest::Connection;
use crate::table::{Report, mib, rate, ratio};
use crate::{children, machine, noop, serve};

const SOME: usize = 10_000;

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, classes: usize) -> Result<()> {
    let path = dir.join("classes.db");
    machine::remove_database(&path);
    let (server, url) = children::server(&path).await?;
    // Once for warming up.
    let _ = claims(&url).await?;
    let (before, quiet) = (claims(&url).await?, idle(&server).await?);
    fill(&url, classes).await?;
    let (after, busy) = (claims(&url).await?, idle(&server).await?);
    let used = server.used()?;
    server.kill().await?;
    machine::remove_database(&path);

    let title = format!("{classes} classes of one job each that no worker can run");
    let mut report = Report::new(&title, &["what", "without", "with", "ratio"]);
    for ((what, without), (_, with)) in before.iter().zip(&after) {
        report.row([(*what).to_owned(), rate(*without), rate(*with), ratio(with / without)]);
    }
    let share = |share: f64| format!("{share:.1} %");
    report.row(["processor when idle, of one core".into(), share(quiet), share(busy), String::new()]);
    report.row(["the server's memory".into(), String::new(), mib(used.memory), String::new()]);
    report.print();
    Ok(())
}

/// The rates of claiming and finishing plain jobs, one and many a request.
async fn claims(url: &str) -> Result<[(&'static str, f64); 2]> {
    noop::fill(url, SOME).await?;
    let many = noop::drain(url, SOME, 64).await?;
    noop::fill(url, SOME / 10).await?;
    let single = noop::drain(url, SOME / 10, 1).await?;
    Ok([("claims and finishes, 64 a request", many), ("claims and finishes, 1 a request", single)])
}

/// How much of a core the server uses when nobody asks it for anything.
async fn idle(server: &children::Process) -> Result<f64> {
    const TIME: Duration = Duration::from_secs(10);
    let before = server.used()?;
    tokio::time::sleep(TIME).await;
    Ok((server.used()?.cpu.saturating_sub(before.cpu)).as_secs_f64() / TIME.as_secs_f64() * 100.0)
}

async fn fill(url: &str, classes: usize) -> Result<()> {
    let mut connection = Connection::open(url, &serve::user_token()?).await?;
    let all: Vec<_> = (0..classes).map(|n| format!(r#"{{"command":"true","labels":["class-{n}"]}}"#)).collect();
    for some in all.chunks(1_000) {
        let batch = format!(r#"{{"jobs":[{}]}}"#, some.join(","));
        connection.post("/api/jobs/create-batch", Bytes::from(batch)).await?;
    }
    Ok(())
}
