//! One job's output on its way to the store, against the disk's own rate; and other jobs beside those that never stop writing.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::rest::Connection;
use crate::stats::{Sample, ms};
use crate::table::{Report, mib, ratio};
use crate::{children, machine, serve};

const BLOCK: usize = 1 << 20;

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, mib_written: u64, socket: bool) -> Result<()> {
    let source = std::path::absolute(dir.join("output-source"))?;
    let disk = disk(&source, mib_written)?;
    let path = dir.join("output.db");
    machine::remove_database(&path);
    let (server, url) = children::server_with_cap(&path, mib_written * 2).await?;
    let (worker_url, way) = serve::way(&url, socket);
    let worker = children::worker(&worker_url, 2).await?;
    let mut connection = Connection::open(&url, &serve::user_token()?).await?;
    let start = Instant::now();
    let job = run(&mut connection, &json!({ "args": ["cat", source] })).await?;
    let took = start.elapsed();
    let lost = job.get("droppedBytes").and_then(Value::as_u64).context("droppedBytes")?;
    ensure!(lost == 0, "{lost} bytes were lost");
    let (server_used, worker_used) = (server.used()?, worker.used()?);
    let id = job.get("jobId").and_then(Value::as_str).context("jobId")?;
    let is_same = same(&url, id, &source).await?;
    worker.kill().await?;
    server.kill().await?;
    machine::remove_database(&path);
    std::fs::remove_file(&source)?;

    let columns = ["what", "measured", "ratio", "at least", "processor", "peak memory"];
    let title = format!("Output: `cat` of {mib_written} MiB of binary {way}, kept whole");
    let mut report = Report::new(&title, &columns);
    let none = String::new;
    let per_second = |rate: f64| format!("{rate:.0} MiB/s");
    report.row(["the disk: written and synced".into(), per_second(disk), none(), none(), none(), none()]);
    let rate = mib_written as f64 / took.as_secs_f64();
    let row = [per_second(rate), ratio(rate / disk), "0.3".into(), none(), none()];
    report.row(["end to end".to_owned()].into_iter().chain(row));
    for (name, used) in [("the server", server_used), ("the worker", worker_used)] {
        let cpu = format!("{:.1} s", used.cpu.as_secs_f64());
        report.row([name.into(), none(), none(), none(), cpu, mib(used.peak)]);
    }
    report.print();
    ensure!(is_same, "the output is not what was written");
    beside(dir, socket).await
}

/// How fast the disk takes a file of its own that is synced at its end, in MiB a second: the median of three. The last one
/// stays.
fn disk(path: &Path, mib_written: u64) -> Result<f64> {
    let mut random = vec![0; BLOCK];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let mut rates = Vec::new();
    for _ in 0..3 {
        // A new file each time, as a database that grows is.
        let _ = std::fs::remove_file(path);
        let mut file = File::create(path)?;
        let start = Instant::now();
        for n in 0..mib_written {
            random.get_mut(..8).context("a block")?.copy_from_slice(&n.to_le_bytes());
            file.write_all(&random)?;
        }
        file.sync_data()?;
        rates.push(mib_written as f64 / start.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    rates.get(1).copied().context("three rates")
}

/// Whether the raw log is the file.
async fn same(url: &str, id: &str, path: &Path) -> Result<bool> {
    let mut connection = Connection::open(url, &serve::user_token()?).await?;
    let mut file = File::open(path)?;
    let mut expected = Vec::new();
    let mut is_same = true;
    connection
        .stream(&format!("/api/jobs/logs?jobId={id}"), |bytes| {
            expected.resize(bytes.len(), 0);
            is_same = is_same && file.read_exact(&mut expected).is_ok() && expected == bytes;
        })
        .await?;
    Ok(is_same && file.read(&mut [0])? == 0)
}

/// Runs a job and waits for its end.
async fn run(connection: &mut Connection, spec: &Value) -> Result<Value> {
    let mut spec = spec.clone();
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("mode".to_owned(), json!("direct"));
        spec.insert("waitMs".to_owned(), json!(20_000));
    }
    let mut job: Value =
        serde_json::from_slice(&connection.post("/api/execute", Bytes::from(spec.to_string())).await?)?;
    let id = job.get("jobId").and_then(Value::as_str).context("jobId")?.to_owned();
    let start = Instant::now();
    while job.get("status").and_then(Value::as_str) != Some("completed") {
        ensure!(start.elapsed() < Duration::from_secs(300), "not done within 5 minutes: {job}");
        tokio::time::sleep(Duration::from_millis(10)).await;
        job = serde_json::from_slice(&connection.get(&format!("/api/jobs/status?jobId={id}")).await?)?;
    }
    Ok(job)
}

/// From submission to the result of a short job that writes a line, alone and beside four that never stop writing.
async fn beside(dir: &Path, socket: bool) -> Result<()> {
    const JOBS: usize = 100;
    let path = dir.join("beside.db");
    machine::remove_database(&path);
    let (server, url) = children::server(&path).await?;
    let worker = children::worker(&serve::way(&url, socket).0, 8).await?;
    let mut connection = Connection::open(&url, &serve::user_token()?).await?;
    let mut measured = Vec::new();
    for beside in [0, 4] {
        for _ in 0..beside {
            connection.post("/api/jobs/create", Bytes::from_static(br#"{"args":["yes"]}"#)).await?;
        }
        // Until they are far beyond their cap.
        tokio::time::sleep(Duration::from_secs(beside)).await;
        let mut times = Vec::new();
        for _ in 0..JOBS {
            let start = Instant::now();
            run(&mut connection, &json!({ "args": ["echo", "a line"] })).await?;
            times.push(start.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        measured.push((beside, Sample::new(times)));
    }
    let (server_used, worker_used) = (server.used()?, worker.used()?);
    worker.kill().await?;
    server.kill().await?;
    machine::remove_database(&path);
    let mut report = Report::new(
        "A short job's submission to its result, beside jobs that never stop writing",
        &["what", "measured"],
    );
    for (beside, sample) in measured {
        let quantiles = [0.5, 0.9, 1.0].map(|q| ms(sample.quantile(q))).join(", ");
        report.row([format!("beside {beside}: p50, p90, longest"), quantiles]);
    }
    report.row(["the server: peak memory".into(), mib(server_used.peak)]);
    report.row(["the worker: peak memory".into(), mib(worker_used.peak)]);
    report.print();
    Ok(())
}
