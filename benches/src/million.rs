//! A million jobs in the queue: whether submitting and claiming are as fast as with an empty one, and what it costs.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::table::{Report, mib, rate, ratio};
use crate::{children, machine, noop};

const SOME: usize = 20_000;

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, queued: usize) -> Result<()> {
    let path = dir.join("million.db");
    machine::remove_database(&path);
    let (server, url) = children::server(&path).await?;
    // Once for warming up.
    let _ = submit_and_claim(&url).await?;
    let empty = submit_and_claim(&url).await?;
    let start = Instant::now();
    noop::fill(&url, queued).await?;
    let filled = queued as f64 / start.elapsed().as_secs_f64();
    let full = submit_and_claim(&url).await?;
    let used = server.used()?;
    server.kill().await?;
    machine::remove_database(&path);

    let title = format!("{queued} queued jobs, batches of 1,000 in, 64 a request out");
    let mut report = Report::new(&title, &["what", "near-empty", "full", "ratio", "at least"]);
    report.row(["submits".into(), rate(empty.0), rate(full.0), ratio(full.0 / empty.0), "0.80".into()]);
    report.row(["claims and finishes".into(), rate(empty.1), rate(full.1), ratio(full.1 / empty.1), "0.60".into()]);
    report.row(["filling it".into(), String::new(), rate(filled), String::new(), String::new()]);
    let memory = format!("{}, peak {}", mib(used.memory), mib(used.peak));
    report.row(["the server's memory".into(), String::new(), memory, String::new(), "at most 200 MiB".into()]);
    report.print();
    Ok(())
}

/// The rates of submitting and of claiming some jobs.
async fn submit_and_claim(url: &str) -> Result<(f64, f64)> {
    let start = Instant::now();
    noop::fill(url, SOME).await?;
    let submits = SOME as f64 / start.elapsed().as_secs_f64();
    Ok((submits, noop::drain(url, SOME, 64).await?))
}
