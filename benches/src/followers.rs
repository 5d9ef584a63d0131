//! Many who follow one job: each gets every byte, and the server reads it once.

use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::rest::Connection;
use crate::stats::{Sample, ms};
use crate::table::{Report, mib};
use crate::{children, machine, serve};

/// How often the job writes, and how much: a megabyte a second.
const TIMES_A_SECOND: u64 = 10;
const LINES: usize = 1_000;

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, followers: usize, seconds: u64) -> Result<()> {
    let path = dir.join("followers.db");
    machine::remove_database(&path);
    let (server, url) = children::server(&path).await?;
    let worker = children::worker(&url, 1).await?;
    let mut connection = Connection::open(&url, &serve::user_token()?).await?;
    let block = std::path::absolute(dir.join("followers-block"))?;
    let line = format!("{}\n", "0123456789".repeat(10).get(..99).context("99 characters")?);
    std::fs::write(&block, line.repeat(LINES))?;
    // It begins once everybody follows.
    let go = std::path::absolute(dir.join("followers-go"))?;
    let _ = std::fs::remove_file(&go);
    let count = seconds * TIMES_A_SECOND;
    let script = format!(
        "until [ -e '{}' ]; do sleep 0.1; done; i=0; while [ $i -lt {count} ]; do cat '{}'; sleep 0.{}; i=$((i+1)); done",
        go.display(),
        block.display(),
        10 / TIMES_A_SECOND,
    );
    let created = connection.post("/api/jobs/create", Bytes::from(json!({ "command": script }).to_string())).await?;
    let created: Value = serde_json::from_slice(&created)?;
    let id = created.get("jobId").and_then(Value::as_str).context("jobId")?.to_owned();
    let expected = line.len() * LINES * usize::try_from(count)?;

    let mut reading = JoinSet::new();
    for n in 0..followers {
        let mut connection = Connection::open(&url, &serve::user_token()?).await?;
        let path = format!("/api/jobs/logs?jobId={id}&follow=true");
        // One reads what it gets; that the others got the same their digests say.
        let reads = n == 0;
        reading.spawn(async move {
            let (mut digest, mut text) = (DefaultHasher::new(), Vec::new());
            connection
                .stream(&path, |bytes| {
                    // A sign of life while nothing happens.
                    if bytes != b":\n\n" {
                        digest.write(bytes);
                        text.extend_from_slice(if reads { bytes } else { &[] });
                    }
                })
                .await?;
            anyhow::Ok((digest.finish(), text, Instant::now()))
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = server.used()?;
    std::fs::write(&go, "")?;
    let start = Instant::now();
    let mut digests = Vec::new();
    let mut ends = Vec::new();
    while let Some(read) = reading.join_next().await {
        let (digest, text, end) = read??;
        if !text.is_empty() {
            let got: usize = events(&text)?;
            ensure!(got == expected, "{got} bytes came instead of {expected}");
        }
        digests.push(digest);
        ends.push(end.saturating_duration_since(start));
    }
    let used = server.used()?;
    worker.kill().await?;
    server.kill().await?;
    machine::remove_database(&path);
    let _ = std::fs::remove_file(&block);
    let _ = std::fs::remove_file(&go);

    let same = digests.iter().filter(|digest| Some(*digest) == digests.first()).count();
    let ends = Sample::new(ends);
    let title = format!("{followers} followers of one job that writes 1 MB/s for {seconds} s");
    let mut report = Report::new(&title, &["what", "measured", "at most"]);
    report.row(["got every byte".into(), format!("{same} of {followers}"), String::new()]);
    report.row(["the server: peak memory".into(), mib(used.peak), "150 MiB".into()]);
    let cpu = (used.cpu.saturating_sub(before.cpu)).as_secs_f64() / ends.quantile(1.0).as_secs_f64();
    report.row(["the server: processor".into(), format!("{:.0} % of a core", cpu * 100.0), String::new()]);
    let spread = ends.quantile(1.0).saturating_sub(ends.quantile(0.0));
    report.row(["the end: from the first to the last follower".into(), ms(spread), String::new()]);
    report.print();
    ensure!(same == followers, "not everybody got everything");
    Ok(())
}

/// How many bytes of output events carry; they must end with the end.
fn events(text: &[u8]) -> Result<usize> {
    let text = std::str::from_utf8(text)?;
    let mut bytes = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let data: Value = serde_json::from_str(line)?;
        bytes += data.get("data").and_then(Value::as_str).map_or(0, str::len);
    }
    ensure!(text.ends_with("event: end\ndata: {\"status\":\"completed\"}\n\n"), "it has no end");
    Ok(bytes)
}
