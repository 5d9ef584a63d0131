//! Jobs over one ZIP of many files, beside jobs without files: one server and one worker process over HTTP.

use std::io::{self, Read, Seek};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cmdexec_core::archive::pack::Packer;
use cmdexec_core::files::FileId;
use cmdexec_core::job::{JobSpec, Status};
use cmdexec_core::service::{JobService, JobServiceExt, Submission};
use cmdexec_transport_http::client::Client;

use crate::stats::{Sample, ms};
use crate::table::{Report, mib, rate};
use crate::{children, machine, serve};

/// How many files are in the ZIP, and how many bytes each has: 50 MB.
const FILES: u32 = 5_000;
const BYTES: u32 = 10_000;

/// How many jobs run one after the other, of each kind.
const IN_TURN: usize = 100;

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, jobs: usize) -> Result<()> {
    let path = dir.join("inputs.db");
    machine::remove_database(&path);
    let (server, url) = children::server(&path).await?;
    let worker = children::worker(&url, 4).await?;
    let client = Client::builder(&url).user_token(serve::user_token()?).build()?;
    let zip = tokio::task::spawn_blocking(zip).await??;
    let size = zip.len() as u64;
    let input = client.upload_bytes(Some("many.zip"), zip.into()).await?.id;

    one(&client, None).await?;
    let first = one(&client, Some(input)).await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..IN_TURN {
        without.push(one(&client, None).await?);
        with.push(one(&client, Some(input)).await?);
    }
    let (without, with) = (Sample::new(without), Sample::new(with));
    let all_without = all(&client, None, jobs).await?;
    let all_with = all(&client, Some(input), jobs).await?;
    let used = worker.used()?;
    worker.kill().await?;
    server.kill().await?;
    machine::remove_database(&path);

    let title = format!("Jobs over one ZIP of {FILES} files, {}, one worker", mib(size));
    let mut report = Report::new(&title, &["what", "p50", "p95", "at most"]);
    let none = String::new;
    let quantiles = |sample: &Sample| [ms(sample.quantile(0.5)), ms(sample.quantile(0.95))];
    let [p50, p95] = quantiles(&without);
    report.row(["`true` without files".into(), p50, p95, none()]);
    report.row(["the first with files: fetched and unpacked".into(), ms(first), none(), none()]);
    let [p50, p95] = quantiles(&with);
    report.row(["`true` with files".into(), p50, p95, none()]);
    let more = with.quantile(0.5).saturating_sub(without.quantile(0.5));
    let more_p95 = with.quantile(0.95).saturating_sub(without.quantile(0.95));
    report.row(["more for the files".into(), ms(more), ms(more_p95), "20 ms".into()]);
    report.print();

    let title = format!("{jobs} of them at once, 4 slots");
    let mut report = Report::new(&title, &["what", "jobs", "the worker's peak memory"]);
    let per_second = |elapsed: Duration| rate(jobs as f64 / elapsed.as_secs_f64());
    report.row(["without files".into(), per_second(all_without), none()]);
    report.row(["with files".into(), per_second(all_with), mib(used.peak)]);
    report.print();
    Ok(())
}

fn spec(input: Option<FileId>) -> JobSpec {
    let mut spec = JobSpec::argv(["/bin/true"]);
    spec.input = input;
    spec
}

/// How long one job takes from its submission until its end is known.
async fn one(client: &Client, input: Option<FileId>) -> Result<Duration> {
    let begun = Instant::now();
    let done = client.run(spec(input)).await?;
    ensure!(done.status == Status::Completed, "{:?}", done.error);
    Ok(begun.elapsed())
}

/// How long so many jobs take that are submitted together.
async fn all(client: &Client, input: Option<FileId>, jobs: usize) -> Result<Duration> {
    let begun = Instant::now();
    let submission = Submission { specs: vec![spec(input); jobs], idempotency_key: None };
    for job in client.submit_batch(submission).await? {
        let done = client.wait(job.id).await?;
        ensure!(done.status == Status::Completed, "{:?}", done.error);
    }
    Ok(begun.elapsed())
}

/// Files that don't compress, in 50 folders.
fn zip() -> Result<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let bytes: Vec<u8> = (0..BYTES / 8).flat_map(|_| noise().to_le_bytes()).collect();
    let mut packer = Packer::new(tempfile::tempfile()?);
    for i in 0..FILES {
        let name = format!("d{}/f{i}", i % 50);
        packer.file(&name, 0o644, u64::from(BYTES), io::Cursor::new(&bytes))?;
    }
    let mut file = packer.finish()?;
    file.rewind()?;
    let mut zip = Vec::new();
    file.read_to_end(&mut zip)?;
    Ok(zip)
}
