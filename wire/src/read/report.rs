//! How attempts ended, as a worker reports it.

use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{Details, Outcome, Step};
use cmdexec_core::service::{FinalOutput, FinishedAttempt};

use super::{Fields, Json, Malformed, Problems, output};
use crate::Seconds;
use crate::older;

/// How many attempts one request may report on.
const MAX_RESULTS: usize = 10_000;

/// Reports and whose they are, if they say so.
#[derive(Debug)]
pub struct Report {
    pub worker: Option<WorkerId>,
    pub attempts: Vec<FinishedAttempt>,
    /// Whose ZIP came with the report, and the ZIP.
    pub zips: Vec<(usize, Bytes)>,
    /// Whether they came as `results`, and are to be answered so.
    pub many: bool,
}

/// What a report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// POST: how the command ended.
    Result,
    /// PUT: that it could not be run.
    Failure,
}

/// One report.
pub fn report(body: &[u8], kind: Kind) -> Result<Result<Report, Error>, Malformed> {
    older::mending(body, |body| one_report(body, kind))
}

fn one_report(body: &[u8], kind: Kind) -> Result<Result<Report, Error>, Malformed> {
    let json = Json::parse(body)?;
    let mut problems = Problems::default();
    let mut fields = Fields::of_body(json, &mut problems);
    let worker = fields.parsed::<WorkerId>("workerId");
    let mut zips = Vec::new();
    let attempt = attempt(&mut fields, kind, 0, &mut zips);
    Ok(problems.check(attempt.map(|attempt| Report { worker, attempts: vec![attempt], zips, many: false })))
}

/// One report, or `results` with several.
pub fn reports(body: &[u8]) -> Result<Result<Report, Error>, Malformed> {
    older::mending(body, many_reports)
}

fn many_reports(body: &[u8]) -> Result<Result<Report, Error>, Malformed> {
    let mut problems = Problems::default();
    let (mut attempts, mut zips) = (Vec::new(), Vec::new());
    let mut workers: Vec<(usize, WorkerId)> = Vec::new();
    let rest = Json::parse_items(body, "results", &mut |i, item| {
        if i < MAX_RESULTS {
            let mut fields = Fields::of_item(item, "results", i, &mut problems);
            workers.extend(fields.parsed::<WorkerId>("workerId").map(|worker| (i, worker)));
            let place = attempts.len();
            attempts.extend(attempt(&mut fields, Kind::Result, place, &mut zips));
        }
    })?;
    let mut fields = Fields::of_body(rest, &mut problems);
    let mut worker = fields.parsed::<WorkerId>("workerId");
    let many = match fields.take("results").map(|value| value.json) {
        None => false,
        Some(Json::Items(0..=MAX_RESULTS)) => true,
        Some(Json::Items(_)) => {
            fields.wrong("results", format!("must be at most {MAX_RESULTS}"));
            true
        }
        Some(other) => {
            fields.wrong("results", format!("must be a list, not {}", other.kind()));
            true
        }
    };
    for (i, item) in workers {
        if *worker.get_or_insert_with(|| item.clone()) != item {
            fields.wrong(&format!("results[{i}].workerId"), "differs from the others: one worker a request");
        }
    }
    if !many {
        attempts.extend(attempt(&mut fields, Kind::Result, 0, &mut zips));
    }
    Ok(problems.check(Some(Report { worker, attempts, zips, many })))
}

fn attempt(
    fields: &mut Fields<'_, '_>,
    kind: Kind,
    place: usize,
    zips: &mut Vec<(usize, Bytes)>,
) -> Option<FinishedAttempt> {
    older::report(fields);
    fields.require("jobId");
    let job = fields.parsed("jobId");
    let token = fields.parsed("leaseToken");
    let seconds = fields.number("duration").map(Seconds::from_f64);
    if seconds == Some(None) {
        fields.wrong("duration", "must be a number of seconds, not negative");
    }
    let millis = fields.whole("durationMs", 0..=i128::from(u32::MAX) * 1_000).map(Duration::from_millis);
    let duration = millis.or(seconds.flatten().map(|Seconds(duration)| duration));
    let details = Details {
        duration,
        steps: steps(fields),
        artifacts: fields.parsed("artifacts"),
        warnings: fields.texts("warnings").unwrap_or_default(),
        image: fields.text("image").map(short),
    };
    if let Some(zip) = older::result_zip(fields) {
        zips.push((place, zip));
    }
    let output = final_output(fields);
    let outcome = match kind {
        Kind::Result => outcome(fields),
        Kind::Failure => {
            fields.require("error");
            let message = fields.text("error");
            message.map(|message| Outcome::ExecutorError { message: short(message) })
        }
    };
    Some(FinishedAttempt { job: job?, token, outcome: outcome?, details, output })
}

/// How the steps ended.
fn steps(fields: &mut Fields<'_, '_>) -> Vec<Step> {
    let mut steps = Vec::new();
    for (i, item) in fields.list("steps").unwrap_or_default().into_iter().enumerate() {
        let mut fields = fields.item(item, "steps", i);
        let exit_code = fields.whole("exitCode", i128::from(i32::MIN)..=i128::from(i32::MAX));
        fields.require("duration");
        match fields.number("duration").map(Seconds::from_f64) {
            Some(Some(Seconds(duration))) => steps.push(Step { exit_code, duration }),
            Some(None) => fields.wrong("duration", "must be a number of seconds, not negative"),
            None => {}
        }
    }
    steps
}

/// How the attempt ended: precisely by `outcome`, or by its exit code.
fn outcome(fields: &mut Fields<'_, '_>) -> Option<Outcome> {
    let exit_code = fields.whole("exitCode", i128::from(i32::MIN)..=i128::from(i32::MAX));
    let error = fields.text("error");
    if !fields.has("outcome") {
        return match (exit_code, error) {
            (Some(code), _) => Some(Outcome::Exited { code }),
            (None, Some(message)) => Some(Outcome::ExecutorError { message: short(message) }),
            (None, None) => {
                fields.wrong("exitCode", "is required, unless there is an outcome");
                None
            }
        };
    }
    let mut fields = fields.object("outcome")?;
    fields.require("how");
    let how = fields.text("how")?;
    let mut needed = |name: &str| {
        fields.require(name);
        fields.whole(name, i128::from(i32::MIN)..=i128::from(i32::MAX))
    };
    Some(match how.as_str() {
        "exited" => Outcome::Exited { code: needed("code")? },
        "signaled" => {
            fields.require("signal");
            Outcome::Signaled { signal: fields.whole("signal", 1..=127)? }
        }
        "timed_out" => Outcome::TimedOut,
        "out_of_memory" => Outcome::OutOfMemory,
        "stopped" => Outcome::Stopped,
        "returned" => Outcome::Returned,
        "input_error" => Outcome::InputError { message: short(fields.text("message").unwrap_or_default()) },
        "executor_error" => Outcome::ExecutorError { message: short(fields.text("message").unwrap_or_default()) },
        _ => {
            let expected = "must be exited, signaled, timed_out, out_of_memory, stopped, returned, input_error or \
                            executor_error";
            fields.wrong("how", expected);
            return None;
        }
    })
}

/// What a message for people may cost the store.
fn short(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(4_096));
    message
}

/// The whole output, the rest of it, or nothing.
fn final_output(fields: &mut Fields<'_, '_>) -> FinalOutput {
    let stdout = output::data(fields, "stdout", "stdoutBase64");
    let stderr = output::data(fields, "stderr", "stderrBase64");
    let rest = fields.list("chunks").map(|items| output::numbered(fields, items));
    match (stdout, stderr, rest) {
        (None, None, None) => FinalOutput::None,
        (None, None, Some(chunks)) => FinalOutput::Rest(chunks),
        (stdout, stderr, rest) => {
            if rest.is_some_and(|chunks| !chunks.is_empty()) {
                fields.wrong("chunks", "is too many beside stdout and stderr, which are the whole output");
            }
            FinalOutput::Whole { stdout: stdout.unwrap_or_default(), stderr: stderr.unwrap_or_default() }
        }
    }
}
