//! Older spellings: what clients and workers of earlier protocol versions send and expect, accepted and answered here, so
//! that the rest of the code knows only the newer names.
//!
//! Requests: fields are taken under their newer names before anything else looks at them. Answers: what older readers look for
//! is added around the newer answer.

use std::borrow::Cow;

use bytes::Bytes;
use cmdexec_core::files::FileId;
use cmdexec_core::job::{Command, JobSpec};
use serde::Serialize;

use crate as wire;
use crate::read::{Fields, Json, Malformed, Number};

/// An answer with `success: true`, as every JSON success body has.
#[derive(Debug, Serialize)]
pub struct Success<T> {
    success: bool,
    #[serde(flatten)]
    body: T,
}

impl<T> Success<T> {
    pub fn of(body: T) -> Self {
        Self { success: true, body }
    }
}

/// A job with the names under which older clients look for its worker, error and files.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    assigned_agent_id: Option<String>,
    error_message: Option<String>,
    result_file_url: Option<String>,
    #[serde(flatten)]
    job: wire::Job,
}

impl From<wire::Job> for Job {
    fn from(job: wire::Job) -> Self {
        Self {
            assigned_agent_id: job.worker_id.clone(),
            error_message: job.error.clone(),
            result_file_url: job.artifacts_url.clone(),
            job,
        }
    }
}

/// A page of jobs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobPage {
    pub jobs: Vec<Job>,
    pub next_cursor: Option<String>,
    pub total: usize,
}

/// Several jobs.
#[derive(Debug, Serialize)]
pub struct JobList {
    pub jobs: Vec<Option<Job>>,
}

/// An upload as older clients look for it: under `file` too.
#[derive(Debug, Serialize)]
pub struct Uploaded {
    #[serde(flatten)]
    stored: wire::Stored,
    file: wire::Stored,
}

impl From<wire::Stored> for Uploaded {
    fn from(stored: wire::Stored) -> Self {
        Self { file: stored.clone(), stored }
    }
}

/// The answer to a heartbeat, with when the next is expected.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BeatAck {
    #[serde(flatten)]
    pub ack: wire::BeatAck,
    pub timestamp: wire::Time,
    pub next_check_in: u64,
}

/// The answer to whether a job is cancelled.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancelled {
    cancelled: bool,
    cancel_requested: bool,
}

impl Cancelled {
    pub fn is(cancelled: bool) -> Self {
        Self { cancelled, cancel_requested: cancelled }
    }
}

/// The answer to `get-job` without `max`: one lease at the top and again under `job`, or none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum GetJob {
    None {
        #[serde(rename = "jobId")]
        job_id: (),
        job: (),
    },
    One {
        #[serde(flatten)]
        lease: Box<Lease>,
        job: Box<Lease>,
    },
}

impl GetJob {
    pub fn of(lease: Option<wire::Lease>) -> Self {
        match lease.map(Lease::from) {
            None => Self::None { job_id: (), job: () },
            Some(lease) => Self::One { job: Box::new(lease.clone()), lease: Box::new(lease) },
        }
    }
}

/// A lease with the name under which older workers look for its bound.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    #[serde(flatten)]
    lease: wire::Lease,
    timeout_ms: Option<u128>,
}

impl From<wire::Lease> for Lease {
    fn from(lease: wire::Lease) -> Self {
        Self { timeout_ms: lease.spec.timeout.map(|timeout| timeout.0.as_millis()), lease }
    }
}

/// A ZIP without entries: what an older worker downloads and unpacks for a job that brings no files.
pub const EMPTY_ZIP: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Its digest.
pub const EMPTY: FileId = FileId::from_sha256([
    0x87, 0x39, 0xc7, 0x6e, 0x68, 0x1f, 0x90, 0x09, 0x23, 0xb9, 0x00, 0xc9, 0xdf, 0x0e, 0xf7, 0x5c, 0xf4, 0x21, 0xd3,
    0x9c, 0xab, 0xb5, 0x46, 0x50, 0xc4, 0xb9, 0xad, 0x19, 0xb6, 0xa7, 0x6d, 0x85,
]);

/// A job as an older worker can run it: one `command` line that stops at the first failure, begun where it is to begin, and
/// always a ZIP, with a name.
pub fn plain(lease: &mut wire::Lease, spec: &JobSpec) {
    lease.reuse_scope = None;
    if let Some(line) = one_line(&spec.command) {
        lease.spec.command = Some(line);
    }
    if let (Some(directory), Some(line)) = (lease.spec.working_directory.take(), &mut lease.spec.command) {
        // A script of several lines is one word to the shell that goes there first.
        let inner = match spec.command {
            Command::Shell(_) => format!("/bin/sh -c {}", quoted(line)),
            Command::Argv(_) | Command::Steps(_) => std::mem::take(line),
        };
        *line = format!("cd {} && {inner}", quoted(&directory));
    }
    (lease.spec.args, lease.spec.commands) = (None, None);
    let id = spec.input.unwrap_or(EMPTY);
    lease.spec.file_url = Some(wire::file_url(id));
    lease.file_sha256 = Some(id.to_string());
    lease.spec.filename.get_or_insert_with(|| format!("{id}.zip"));
}

/// `args` and `commands` as one line.
fn one_line(command: &Command) -> Option<String> {
    Some(match command {
        Command::Shell(_) => return None,
        Command::Argv(argv) => argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
        // Each line is a shell of its own, as on newer workers: `cd` and `exit` in one don't reach the next.
        Command::Steps(lines) => {
            lines.iter().map(|line| format!("/bin/sh -c {}", quoted(line))).collect::<Vec<_>>().join(" && ")
        }
    })
}

/// A word that any POSIX shell takes as it is.
fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&b);
    // A word with `=` in front would be an assignment.
    if !word.is_empty() && !word.contains('=') && word.bytes().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

/// A spec's older names.
pub fn spec(fields: &mut Fields<'_, '_>) {
    fields.rename("timeoutMs", "timeout", |ms| scaled(ms, 1e-3));
    fields.rename("requiredCpu", "cpus", Ok);
    fields.rename("requiredRamMb", "memoryMb", Ok);
    fields.rename("maxRetries", "maxAttempts", |retries| match retries {
        Json::Number(Number::Whole(retries)) if (0..=99).contains(&retries) => {
            Ok(Json::Number(Number::Whole(retries + 1)))
        }
        _ => Err("must be a whole number from 0 to 99".to_owned()),
    });
    named_priority(fields);
}

/// `priority` as `low`, `normal` or `high`.
fn named_priority(fields: &mut Fields<'_, '_>) {
    fields.replace("priority", |json| match json {
        Json::Text(name) => match &*name {
            "low" => Ok(Json::Number(Number::Whole(-50))),
            "normal" => Ok(Json::Number(Number::Whole(0))),
            "high" => Ok(Json::Number(Number::Whole(50))),
            _ => Err("must be a whole number from -100 to 100, or low, normal or high".to_owned()),
        },
        other => Ok(other),
    });
}

/// A registration's older names.
pub fn registration(fields: &mut Fields<'_, '_>) {
    // Only older workers send these, and some of them have no name but their id.
    let is_older = ["os", "ramTotalMb", "ramFreeMb"].iter().any(|name| fields.has(name));
    if is_older && !fields.has("hostname") {
        fields.copy("workerId", "hostname");
    }
    let ram_total = fields.peek("ramTotalMb");
    ram_usage(fields, ram_total);
    fields.rename("cpuCores", "cpuCount", Ok);
    fields.rename("ramTotalMb", "totalMemoryMb", Ok);
    fields.rename("totalMemory", "totalMemoryMb", |bytes| match bytes {
        Json::Number(Number::Whole(bytes)) if bytes >= 1 << 20 => Ok(Json::Number(Number::Whole(bytes >> 20))),
        #[expect(clippy::cast_possible_truncation, reason = "a double this large is far from i128's end")]
        Json::Number(Number::Float(bytes)) if (1_048_576.0..1e30).contains(&bytes) => {
            Ok(Json::Number(Number::Whole(bytes as i128 >> 20)))
        }
        _ => Err("must be a number of bytes, 1 MiB at least".to_owned()),
    });
    worker_status(fields);
    if let Some(os) = fields.text("os") {
        fields.set_in_metadata("osType", os);
    }
}

/// A heartbeat's older names.
pub fn heartbeat(fields: &mut Fields<'_, '_>) {
    let ram_total = not_negative(fields, "ramTotalMb");
    ram_usage(fields, ram_total);
    for name in ["dockerContainers", "dockerCpuUsage", "dockerMemoryMb"] {
        // Some send the containers themselves.
        if name != "dockerContainers" {
            not_negative(fields, name);
        }
    }
    worker_status(fields);
}

/// How full the memory is, from how much there is and how much of it is free.
fn ram_usage(fields: &mut Fields<'_, '_>, total: Option<f64>) {
    let free = not_negative(fields, "ramFreeMb");
    if let (Some(free), Some(total)) = (free, total)
        && total > 0.0
        && !fields.has("ramUsage")
    {
        fields.set("ramUsage", Json::Number(Number::Float((1.0 - free / total).clamp(0.0, 1.0) * 100.0)));
    }
}

/// `IDLE`, `BUSY`, `UNHEALTHY`, `OFFLINE`.
fn worker_status(fields: &mut Fields<'_, '_>) {
    fields.replace("status", |json| match json {
        Json::Text(name) => match &*name.to_ascii_lowercase() {
            "unhealthy" => Ok(Json::Text("error".into())),
            status @ ("idle" | "busy" | "offline" | "draining" | "error") => Ok(Json::Text(status.to_owned().into())),
            _ => Err("must be idle, busy, draining, offline, error or unhealthy".to_owned()),
        },
        other => Ok(other),
    });
}

/// Output without `chunks`: `data` or `output`, `stream` or `type`.
pub fn output(fields: &mut Fields<'_, '_>) {
    fields.rename("type", "stream", Ok);
    fields.rename("output", "data", Ok);
}

/// A report's older names.
pub fn report(fields: &mut Fields<'_, '_>) {
    fields.rename("errorMessage", "error", Ok);
}

/// The ZIP of an attempt's outputs inside its report. It is called after its job, whatever its worker calls it.
pub fn result_zip(fields: &mut Fields<'_, '_>) -> Option<Bytes> {
    let _ = fields.text("resultZipName");
    let text = fields.text("resultZipBase64").filter(|text| !text.is_empty())?;
    let zip = wire::decode(&text);
    if zip.is_none() {
        fields.wrong("resultZipBase64", "must be base64");
    }
    zip
}

/// Reads a body, if need be with its halves of characters (a `\\ud83d` alone) mended: JavaScript makes them when it cuts a text,
/// and Python of bytes that are no text. They are no JSON to anybody stricter, and a worker that is refused for one says nothing else.
pub fn mending<T>(body: &[u8], read: impl Fn(&[u8]) -> Result<T, Malformed>) -> Result<T, Malformed> {
    read(body).or_else(|malformed| mended(body).map_or(Err(malformed), |mended| read(&mended)))
}

/// JSON with U+FFFD for each half of a character; `None` if it has none.
fn mended(json: &[u8]) -> Option<Vec<u8>> {
    let escape = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut mended: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(next) = json.get(at..).and_then(|rest| rest.iter().position(|b| *b == b'\\')) {
        at += next;
        at += match (escape(at), escape(at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                let whole = mended.get_or_insert_with(|| json.to_vec()).get_mut(at..at + 6)?;
                whole.copy_from_slice(b"\\ufffd");
                6
            }
            _ => 2,
        };
    }
    mended
}

fn not_negative(fields: &mut Fields<'_, '_>, name: &str) -> Option<f64> {
    let number = fields.number(name)?;
    if number < 0.0 {
        fields.wrong(name, "must not be negative");
    }
    Some(number)
}

/// A number in another unit.
fn scaled(json: Json<'_>, factor: f64) -> Result<Json<'_>, String> {
    match json {
        Json::Number(Number::Whole(whole)) => Ok(Json::Number(Number::Float(whole as f64 * factor))),
        Json::Number(Number::Float(float)) => Ok(Json::Number(Number::Float(float * factor))),
        other => Err(format!("must be a number, not {}", other.kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_zip_is_what_its_digest_says() {
        use sha2::{Digest, Sha256};
        assert_eq!(FileId::from_sha256(Sha256::digest(EMPTY_ZIP).into()), EMPTY);
    }

    #[test]
    fn halves_of_characters_are_mended_and_nothing_else() {
        for (json, expected) in [
            (r"", None),
            (r"\ud83d\ude00", None),
            (r"\\ud83d", None),
            (r"\ud83", None),
            (r"\ud83d", Some(r"\ufffd")),
            (r"\uD83D\ud83d\uDE00", Some(r"\ufffd\ud83d\uDE00")),
            (r"\ude00\ud83d", Some(r"\ufffd\ufffd")),
            (r"\\\udc80ä\n", Some(r"\\\ufffdä\n")),
        ] {
            assert_eq!(mended(json.as_bytes()).as_deref(), expected.map(str::as_bytes), "{json}");
        }
    }

    #[test]
    fn words_are_quoted_for_any_shell() {
        for (word, line) in [
            ("a-b", "a-b"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("A=b", "'A=b'"),
            ("a\nb", "'a\nb'"),
            ("~", "'~'"),
            ("ü", "'ü'"),
        ] {
            assert_eq!(quoted(word), line);
        }
    }
}
