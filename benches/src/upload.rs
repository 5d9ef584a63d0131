//! A large file on its way in over loopback, against a copy of the same file that is synced.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cmdexec_core::Error;
use cmdexec_core::service::JobService;
use cmdexec_transport_http::Client;
use futures_util::TryStreamExt;
use tokio_util::io::ReaderStream;

use crate::table::{Report, mib, ratio};
use crate::{children, machine, serve};

const BLOCK: usize = 1 << 20;

/// How often each is done, in turn.
const ROUNDS: usize = 3;

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, mib_uploaded: u64) -> Result<()> {
    let source = dir.join("upload-source");
    make(&source, mib_uploaded)?;
    let copy = dir.join("upload-copy");
    let database = dir.join("upload.db");
    machine::remove_database(&database);
    let (server, url) = children::server(&database).await?;
    let client = Client::builder(&url).user_token(serve::user_token()?).build()?;
    let (mut copies, mut uploads) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        copies.push(copied(&source, &copy)?);
        uploads.push(uploaded(&client, &source, mib_uploaded).await?);
    }
    let used = server.used()?;
    server.kill().await?;
    machine::remove_database(&database);
    std::fs::remove_file(&source)?;

    let (copied, uploaded) = (median(copies), median(uploads));
    let rate = |took: Duration| format!("{:.0} MiB/s", mib_uploaded as f64 / took.as_secs_f64());
    let columns = ["what", "measured", "ratio", "at least", "peak memory", "less than"];
    let mut report = Report::new(&format!("Upload: {mib_uploaded} MiB over loopback, median of {ROUNDS}"), &columns);
    let none = String::new;
    report.row(["`cp` and sync".into(), rate(copied), none(), none(), none(), none()]);
    let share = copied.as_secs_f64() / uploaded.as_secs_f64();
    report.row(["upload".into(), rate(uploaded), ratio(share), "0.60".into(), mib(used.peak), "64 MiB".into()]);
    report.print();
    Ok(())
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// A file that begins as a ZIP does, of blocks that differ.
fn make(path: &Path, mib: u64) -> Result<()> {
    let mut block = vec![0; BLOCK];
    File::open("/dev/urandom")?.read_exact(&mut block)?;
    let mut file = File::create(path)?;
    for n in 0..mib {
        block.get_mut(..4).context("a block")?.copy_from_slice(b"PK\x03\x04");
        block.get_mut(4..12).context("a block")?.copy_from_slice(&n.to_le_bytes());
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(())
}

fn copied(source: &Path, copy: &Path) -> Result<Duration> {
    let start = Instant::now();
    // As a user does it: other ways would share the blocks where the file system can.
    let copied = Command::new("cp").arg("--reflink=never").args([source, copy]).status()?;
    let synced = Command::new("sync").arg(copy).status()?;
    ensure!(copied.success() && synced.success(), "cp or sync failed");
    let took = start.elapsed();
    std::fs::remove_file(copy)?;
    Ok(took)
}

async fn uploaded(client: &Client, source: &Path, mib: u64) -> Result<Duration> {
    let start = Instant::now();
    let file = tokio::fs::File::open(source).await?;
    let bytes = ReaderStream::with_capacity(file, BLOCK / 4).map_err(|_| Error::Internal);
    let stored = client.upload(None, Box::pin(bytes)).await?;
    let took = start.elapsed();
    ensure!(stored.size == mib << 20, "{} bytes arrived", stored.size);
    Ok(took)
}
