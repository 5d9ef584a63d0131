//! A load test: many workers, jobs of mixed length, and whether anything was lost or run twice.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cmdexec_core::executor::FunctionExecutor;
use cmdexec_core::id::JobId;
use cmdexec_core::job::Outcome;
use cmdexec_core::service::WorkerService;
use cmdexec_core::worker::Worker;

use crate::rest::Connection;
use crate::stats::{Sample, ms};
use crate::table::{Report, mib, rate};
use crate::{children, machine, serve};

/// How long a job takes: most are short, a few are long.
fn length(n: usize) -> Duration {
    Duration::from_millis(match n % 10 {
        0 => 2_000,
        1..=3 => 500,
        4..=6 => 100,
        _ => 10,
    })
}

/// Starts of each job, as the workers saw them.
type Starts = Arc<Mutex<HashMap<JobId, Vec<Instant>>>>;

fn note(starts: &Starts, job: JobId) {
    starts.lock().unwrap_or_else(PoisonError::into_inner).entry(job).or_default().push(Instant::now());
}

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, workers: usize, jobs: usize) -> Result<()> {
    let path = dir.join("load.db");
    machine::remove_database(&path);
    let (server, url) = children::server(&path).await?;
    let starts: Starts = Starts::default();
    let work_dir = tempfile::tempdir()?;
    let mut handles = Vec::new();
    for n in 0..workers {
        let starts = Arc::clone(&starts);
        let executor = FunctionExecutor::new(move |context| {
            let starts = Arc::clone(&starts);
            async move {
                note(&starts, context.job);
                let millis = context.spec.name.as_deref().and_then(|name| name.parse().ok()).unwrap_or(0);
                tokio::time::sleep(Duration::from_millis(millis)).await;
                Outcome::Exited { code: 0 }
            }
        });
        let service: Arc<dyn WorkerService> = Arc::new(serve::worker_client(&url)?);
        let worker = Worker::builder(service, executor)
            .id(format!("load-{n}").parse()?)
            .slots(2)
            .work_dir(work_dir.path().join(n.to_string()))
            .start()
            .await?;
        handles.push(worker);
    }
    let mut connection = Connection::open(&url, &serve::user_token()?).await?;
    let start = Instant::now();
    let mut submitted = HashMap::with_capacity(jobs);
    for n in 0..jobs {
        let spec = format!(r#"{{"command":"sleep","name":"{}"}}"#, length(n).as_millis());
        let at = Instant::now();
        let answer: serde_json::Value =
            serde_json::from_slice(&connection.post("/api/jobs/create", Bytes::from(spec)).await?)?;
        let id: JobId = answer.get("jobId").and_then(serde_json::Value::as_str).context("jobId")?.parse()?;
        submitted.insert(id, at);
    }
    let stats = loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let stats: serde_json::Value = serde_json::from_slice(&connection.get("/api/stats").await?)?;
        let count = |status: &str| stats.pointer(&format!("/jobs/{status}")).and_then(serde_json::Value::as_u64);
        if count("completed") == Some(jobs as u64) {
            break stats;
        }
        ensure!(count("failed") == Some(0), "jobs failed: {stats}");
        ensure!(start.elapsed() < Duration::from_secs(120), "not done within 2 minutes: {stats}");
    };
    let took = start.elapsed();
    let used = server.used()?;
    futures_util::future::join_all(handles.into_iter().map(cmdexec_core::worker::WorkerHandle::shutdown)).await;
    server.kill().await?;
    machine::remove_database(&path);

    let starts = starts.lock().unwrap_or_else(PoisonError::into_inner);
    let lost = submitted.keys().filter(|id| !starts.contains_key(id)).count();
    let twice = starts.values().filter(|starts| starts.len() > 1).count();
    let waits = submitted.iter().filter_map(|(id, at)| Some(starts.get(id)?.first()?.saturating_duration_since(*at)));
    let waits = Sample::new(waits.collect());
    let work: Duration = (0..jobs).map(length).sum();
    let ideal = work / u32::try_from(workers * 2)?;

    let title = format!("Load: {workers} workers of 2 slots, {jobs} jobs of 10 ms to 2 s");
    let mut report = Report::new(&title, &["what", "measured"]);
    report.row(["lost".into(), lost.to_string()]);
    report.row(["run twice".into(), twice.to_string()]);
    report.row([
        "completed, by the server".into(),
        stats.pointer("/jobs/completed").map(ToString::to_string).unwrap_or_default(),
    ]);
    let quantiles = [0.5, 0.9, 0.99, 1.0].map(|q| ms(waits.quantile(q))).join(", ");
    report.row(["queue time p50, p90, p99, longest".into(), quantiles]);
    report.row(["throughput".into(), rate(jobs as f64 / took.as_secs_f64())]);
    report.row(["all done after (work over slots)".into(), format!("{} ({})", ms(took), ms(ideal))]);
    report.row(["server: processor, peak memory".into(), format!("{}, {}", ms(used.cpu), mib(used.peak))]);
    report.print();
    ensure!(lost == 0 && twice == 0, "{lost} lost, {twice} run twice");
    Ok(())
}
