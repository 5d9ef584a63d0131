//! A job's spec, alone, in a batch, or with how to execute it.

use std::borrow::Cow;
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::files::FileId;
use cmdexec_core::job::{Backoff, JobSpec, Network, Resources};

use super::{Fields, Json, Malformed, Problems};
use crate::older;
use crate::{self as wire, Cpus, Seconds};

/// How many jobs a batch may have.
const MAX_BATCH: usize = 10_000;

/// What was submitted.
#[derive(Debug)]
pub struct Submit {
    pub specs: Vec<JobSpec>,
    pub key: Option<String>,
}

/// What is to be executed, and whether to wait for it.
#[derive(Debug)]
pub struct Execution {
    pub submit: Submit,
    pub direct: bool,
    pub wait: Option<Duration>,
}

/// One job.
pub fn single(body: &[u8], header_key: Option<String>) -> Result<Result<Submit, Error>, Malformed> {
    let json = Json::parse(body)?;
    let mut problems = Problems::default();
    let mut fields = Fields::of_body(json, &mut problems);
    let key = idempotency_key(&mut fields, header_key);
    let spec = spec(&mut fields);
    Ok(problems.check(Some(Submit { specs: vec![spec], key })))
}

/// One job, with `mode` and `waitMs`.
pub fn execution(body: &[u8], header_key: Option<String>) -> Result<Result<Execution, Error>, Malformed> {
    let json = Json::parse(body)?;
    let mut problems = Problems::default();
    let mut fields = Fields::of_body(json, &mut problems);
    let execution = execution_of(&mut fields, header_key);
    Ok(problems.check(Some(execution)))
}

/// The same as the fields of a form, with the file that came with them.
pub fn execution_form(
    texts: &[(String, String)],
    file: Option<FileId>,
    header_key: Option<String>,
) -> Result<Execution, Error> {
    /// These are texts; what else there is looks as it does in JSON.
    const TEXTS: [&str; 12] = [
        "command",
        "name",
        "containerImage",
        "fileId",
        "fileUrl",
        "filename",
        "workingDirectory",
        "network",
        "runAt",
        "idempotencyKey",
        "mode",
        "priority",
    ];
    let mut problems = Problems::default();
    let mut values: Vec<(Cow<'_, str>, Json<'_>)> = Vec::new();
    for (name, text) in texts {
        if values.iter().any(|(known, _)| known == name) {
            problems.push(name, "is given twice");
            continue;
        }
        let number = || Json::parse(text.as_bytes()).ok().filter(|json| matches!(json, Json::Number(_)));
        let value = match name.as_str() {
            "commands" if !text.trim_start().starts_with('[') => {
                let lines = text.lines().filter(|line| !line.trim().is_empty());
                Json::List(lines.map(|line| Json::Text(line.into())).collect())
            }
            "priority" => number().unwrap_or_else(|| Json::Text(text.into())),
            known if TEXTS.contains(&known) => Json::Text(text.into()),
            _ => Json::parse(text.as_bytes()).unwrap_or_else(|_| Json::Text(text.into())),
        };
        values.push((name.into(), value));
    }
    let mut fields = Fields::of_body(Json::Object(values), &mut problems);
    if let Some(file) = file {
        for other in ["fileId", "fileUrl"] {
            if fields.take(other).is_some() {
                fields.wrong(other, "is one too many beside a file");
            }
        }
        fields.set("fileId", Json::Text(file.to_string().into()));
    }
    let execution = execution_of(&mut fields, header_key);
    problems.check(Some(execution))
}

fn execution_of(fields: &mut Fields<'_, '_>, header_key: Option<String>) -> Execution {
    let key = idempotency_key(fields, header_key);
    let direct = match fields.text("mode").as_deref() {
        None | Some("distributed") => false,
        Some("direct") => true,
        Some(_) => {
            fields.wrong("mode", "must be direct or distributed");
            false
        }
    };
    let wait = fields.whole::<u64>("waitMs", 0..=86_400_000).map(Duration::from_millis);
    let spec = spec(fields);
    Execution { submit: Submit { specs: vec![spec], key }, direct, wait }
}

/// Many jobs, all or none. Each is read and forgotten as a tree before the next, so that a batch costs its specs and no more.
pub fn batch(body: &[u8], header_key: Option<String>) -> Result<Result<Submit, Error>, Malformed> {
    let mut problems = Problems::default();
    let mut specs = Vec::new();
    let rest = Json::parse_items(body, "jobs", &mut |i, item| {
        if i >= MAX_BATCH {
            return;
        }
        let mut fields = Fields::of_item(item, "jobs", i, &mut problems);
        if fields.take("idempotencyKey").is_some() {
            fields.wrong("idempotencyKey", "belongs to the whole batch: beside `jobs`, or in the header");
        }
        specs.push(spec(&mut fields));
    })?;
    let mut fields = Fields::of_body(rest, &mut problems);
    let key = idempotency_key(&mut fields, header_key);
    match fields.take("jobs").map(|value| value.json) {
        Some(Json::Items(0)) => fields.wrong("jobs", "must not be empty"),
        Some(Json::Items(1..=MAX_BATCH)) => {}
        Some(Json::Items(_)) => fields.wrong("jobs", format!("must be at most {MAX_BATCH}")),
        Some(other) => fields.wrong("jobs", format!("must be a list, not {}", other.kind())),
        None => fields.wrong("jobs", "is required"),
    }
    Ok(problems.check(Some(Submit { specs, key })))
}

/// The key from the header or the field; both is one too many, unless they are the same.
fn idempotency_key(fields: &mut Fields<'_, '_>, header: Option<String>) -> Option<String> {
    let field = fields.text("idempotencyKey");
    for (name, key) in [("Idempotency-Key", &header), ("idempotencyKey", &field)] {
        let fits = |key: &String| (1..=256).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        if key.as_ref().is_some_and(|key| !fits(key)) {
            fields.wrong(name, "must be 1 to 256 bytes of visible ASCII");
        }
    }
    if header.is_some() && field.is_some() && header != field {
        fields.wrong("idempotencyKey", "differs from the header Idempotency-Key");
    }
    header.or(field)
}

/// A job's spec, judged: everything that is wrong with it is said.
fn spec(fields: &mut Fields<'_, '_>) -> JobSpec {
    older::spec(fields);
    let mut spec = command(fields);
    spec.name = fields.text("name");
    spec.container_image = fields.text("containerImage");
    spec.env = fields.text_map("env").unwrap_or_default();
    if let Some(timeout) = fields.number("timeout") {
        match Seconds::from_f64(timeout) {
            Some(Seconds(timeout)) => spec.timeout = timeout,
            None => spec.timeout = Duration::ZERO,
        }
    }
    // What does not fit is put out of bounds, so that the one who knows the bounds says them.
    let cpus = fields.number("cpus").map(|cpus| Cpus::from_f64(cpus).map_or(u32::MAX, |Cpus(millis)| millis));
    let memory_mb = fields.nearest("memoryMb", u64::MIN, u64::MAX);
    let pids = fields.nearest("pids", u32::MIN, u32::MAX);
    let gpus = fields.nearest("gpus", u32::MIN, u32::MAX);
    spec.resources = Resources { cpu_millis: cpus, memory_mb, pids, gpus };
    spec.network = match fields.text("network").as_deref() {
        None => None,
        Some("none") => Some(Network::None),
        Some("bridge") => Some(Network::Bridge),
        Some(_) => {
            fields.wrong("network", "must be none or bridge");
            None
        }
    };
    spec.labels = fields.texts("labels").unwrap_or_default().into_iter().collect();
    spec.priority = fields.nearest("priority", i8::MIN, i8::MAX).unwrap_or(spec.priority);
    spec.max_attempts = fields.nearest("maxAttempts", u32::MIN, u32::MAX).unwrap_or(spec.max_attempts);
    spec.retries = fields.whole("retries", 0..=u32::MAX.into()).unwrap_or(spec.retries);
    spec.backoff = backoff(fields).unwrap_or(spec.backoff);
    spec.exclusive = fields.flag("exclusive").unwrap_or(spec.exclusive);
    spec.reuse = fields.flag("reuse").unwrap_or(spec.reuse);
    spec.run_at = fields.time("runAt");
    spec.input = input(fields);
    spec.input_name = fields.text("filename");
    spec.working_directory = fields.text("workingDirectory");
    spec.outputs = fields.texts("outputs").unwrap_or_default();
    for later in ["dependsOn", "secrets"] {
        fields.unsupported(later);
    }
    for problem in spec.validate() {
        let name = fields.older_name(&problem.field).unwrap_or(&problem.field);
        fields.wrong(name, problem.message);
    }
    spec
}

/// Exactly one of `command`, `args` and `commands`.
fn command(fields: &mut Fields<'_, '_>) -> JobSpec {
    const WAYS: [&str; 3] = ["command", "args", "commands"];
    let mut given = WAYS.map(|way| fields.has(way).then_some(way)).into_iter().flatten();
    let Some(way) = given.next() else {
        fields.wrong("command", "is required: exactly one of command, args and commands");
        return JobSpec::shell("true");
    };
    for another in given {
        fields.wrong(another, format!("is one too many beside {way}: exactly one of command, args and commands"));
    }
    let spec = match way {
        "command" => fields.text(way).map(JobSpec::shell),
        "args" => fields.texts(way).map(JobSpec::argv),
        _ => fields.texts(way).map(JobSpec::steps),
    };
    spec.unwrap_or_else(|| JobSpec::shell("true"))
}

/// The ZIP to unpack, by its id or its URL.
fn input(fields: &mut Fields<'_, '_>) -> Option<FileId> {
    let id: Option<FileId> = fields.parsed("fileId");
    let Some(url) = fields.text("fileUrl") else { return id };
    let Some(named) = wire::file_of(&url) else {
        fields.wrong("fileUrl", "must be one that this server gave out, such as /uploads/{fileId}.zip");
        return id;
    };
    if id.is_some_and(|id| id != named) {
        fields.wrong("fileUrl", "is another file than fileId");
    }
    Some(named)
}

fn backoff(fields: &mut Fields<'_, '_>) -> Option<Backoff> {
    let mut fields = fields.object("backoff")?;
    let default = Backoff::default();
    let bounds = 0..=i128::from(u32::MAX);
    Some(Backoff {
        initial: fields.whole("initialMs", bounds.clone()).map_or(default.initial, Duration::from_millis),
        factor: fields.number("factor").unwrap_or(default.factor),
        max: fields.whole("maxMs", bounds).map_or(default.max, Duration::from_millis),
    })
}
