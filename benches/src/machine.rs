//! The machine's own limits, which everything else is measured against.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cmdexec_core::executor::{Executor, ProcessExecutor, RunContext, StepLog, output_pipe};
use cmdexec_core::id::JobId;
use cmdexec_core::job::{JobSpec, Outcome};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio_util::sync::CancellationToken;

use crate::stats::{Sample, ms};
use crate::table::{Report, rate};

const TIME: Duration = Duration::from_secs(2);

/// How fast the disk takes one small write after the other.
pub(crate) struct Sync {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
}

/// Appends 200 bytes and waits until they are on the disk, again and again.
pub(crate) fn fdatasync(dir: &Path) -> Result<Sync> {
    fdatasync_after(dir, Duration::ZERO)
}

/// The same, each time after a pause in which the machine may go to sleep.
pub(crate) fn fdatasync_after(dir: &Path, pause: Duration) -> Result<Sync> {
    let path = dir.join("fdatasync");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < TIME {
        std::thread::sleep(pause);
        let one = Instant::now();
        file.write_all(&[b'x'; 200])?;
        file.sync_data()?;
        times.push(one.elapsed());
    }
    let per_second = times.len() as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(Sync { per_second, p50: Sample::new(times).quantile(0.5) })
}

/// Starts `/bin/true` with its output piped and waits for it, `at_once` at a time.
pub(crate) async fn spawn_plain(at_once: usize) -> Result<f64> {
    repeat(at_once, || async {
        let mut command = tokio::process::Command::new("/bin/true");
        let output = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output().await?;
        ensure!(output.status.success());
        Ok(())
    })
    .await
}

/// Runs `/bin/true` by the process executor, with the isolation that jobs get and nothing around it.
pub(crate) async fn spawn_isolated(dir: &Path, at_once: usize) -> Result<f64> {
    let executor = Arc::new(ProcessExecutor::default());
    executor.recover().await?;
    let spec = Arc::new(JobSpec::argv(["/bin/true"]));
    let next_slot = AtomicUsize::new(0);
    let root = std::path::absolute(dir)?.join("slots");
    let dirs: Vec<_> = (0..at_once).map(|slot| root.join(slot.to_string())).collect();
    dirs.iter().try_for_each(std::fs::create_dir_all)?;
    let rate = repeat_with(at_once, || {
        let slot = next_slot.fetch_add(1, Ordering::Relaxed);
        let executor = Arc::clone(&executor);
        let spec = Arc::clone(&spec);
        let dir = dirs.get(slot).cloned().unwrap_or_default();
        move || {
            let (executor, spec, dir) = (Arc::clone(&executor), Arc::clone(&spec), dir.clone());
            async move {
                let (output, mut source) = output_pipe(4);
                let stop = CancellationToken::new();
                let job = JobId::from_bytes([0; 16]);
                let context = RunContext {
                    job,
                    attempt: 1,
                    spec,
                    scope: None,
                    dir,
                    slot,
                    output,
                    steps: StepLog::default(),
                    stop,
                };
                let (outcome, _) = tokio::join!(executor.run(context), source.next());
                ensure!(outcome == Outcome::Exited { code: 0 }, "{outcome:?}");
                Ok(())
            }
        }
    })
    .await;
    executor.shutdown().await;
    std::fs::remove_dir_all(root)?;
    rate
}

/// A job's life as three transactions of one statement each, one job after the other: what a queue does that thinks of
/// nothing.
pub(crate) async fn steps(dir: &Path) -> Result<f64> {
    let path = dir.join("steps.db");
    remove_database(&path);
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging();
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await?;
    for sql in [
        "CREATE TABLE jobs (id INTEGER PRIMARY KEY, status TEXT, spec TEXT, worker TEXT, result INTEGER)",
        "CREATE INDEX by_status ON jobs (status, id)",
    ] {
        sqlx::query(sql).execute(&mut connection).await?;
    }
    let spec = format!("{{\"command\":\"true\",\"env\":\"{}\"}}", "x".repeat(150));
    let start = Instant::now();
    let mut jobs = 0_i64;
    while start.elapsed() < TIME {
        jobs += 1;
        let insert = sqlx::query("INSERT INTO jobs (id, status, spec) VALUES (?, 'queued', ?)");
        insert.bind(jobs).bind(&spec).execute(&mut connection).await?;
        let claim = sqlx::query("UPDATE jobs SET status = 'running', worker = 'w' WHERE id = ? AND status = 'queued'");
        claim.bind(jobs).execute(&mut connection).await?;
        let finish =
            sqlx::query("UPDATE jobs SET status = 'completed', result = 0 WHERE id = ? AND status = 'running'");
        finish.bind(jobs).execute(&mut connection).await?;
    }
    let per_second = jobs as f64 / start.elapsed().as_secs_f64();
    connection.close().await?;
    remove_database(&path);
    Ok(per_second)
}

/// Prints the machine's limits.
pub(crate) async fn bench(dir: &Path) -> Result<()> {
    let mut report = Report::new("The machine", &["what", "measured"]);
    let sync = fdatasync(dir)?;
    report.row(["fdatasync after 200 B".to_owned(), format!("{}, p50 {}", rate(sync.per_second), ms(sync.p50))]);
    report.row(["/bin/true, piped, 8 at a time".to_owned(), rate(spawn_plain(8).await?)]);
    report.row(["/bin/true as jobs run it, 8 at a time".to_owned(), rate(spawn_isolated(dir, 8).await?)]);
    report.row(["SQLite, a job's life as 3 transactions".to_owned(), rate(steps(dir).await?)]);
    report.print();
    Ok(())
}

/// Removes a SQLite database, if it is there.
pub(crate) fn remove_database(path: &Path) {
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        // What is not there need not be removed.
        let _ = std::fs::remove_file(name);
    }
    let _ = std::fs::remove_dir_all(path.with_extension("files"));
    let mut output = path.as_os_str().to_owned();
    output.push("-output");
    let _ = std::fs::remove_dir_all(output);
}

async fn repeat<F, Fut>(at_once: usize, one: F) -> Result<f64>
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    repeat_with(at_once, || one.clone()).await
}

/// Does something again and again in `at_once` tasks, and says how often it was done in a second.
async fn repeat_with<M, F, Fut>(at_once: usize, make: M) -> Result<f64>
where
    M: Fn() -> F,
    F: Fn() -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    let start = Instant::now();
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            let one = make();
            tokio::spawn(async move {
                let mut done = 0_usize;
                while start.elapsed() < TIME {
                    one().await?;
                    done += 1;
                }
                anyhow::Ok(done)
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await.context("a task panicked")??;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}
