//! What workers say of themselves: registrations and heartbeats.

use cmdexec_core::executor::{Capabilities, Kind};
use cmdexec_core::id::WorkerId;
use cmdexec_core::service::{Heartbeat, Registration, Usage, WorkerStatus};
use cmdexec_core::store::Listed;

use super::{Fields, Json, Malformed, Problems};
use crate as wire;
use crate::older;
use cmdexec_core::Error;

/// More labels, tags or executors than this are a mistake or an attack.
const MAX_ITEMS: usize = 64;

/// How many attempts a worker can hold.
const MAX_HELD: usize = 10_000;

/// A registration.
pub fn registration(body: &[u8]) -> Result<Result<Registration, Error>, Malformed> {
    let json = Json::parse(body)?;
    let mut problems = Problems::default();
    let mut fields = Fields::of_body(json, &mut problems);
    older::registration(&mut fields);
    let worker = fields.parsed::<WorkerId>("workerId");
    fields.require("hostname");
    let hostname = fields.text("hostname");
    if hostname.as_ref().is_some_and(|name| name.is_empty() || name.len() > 255 || name.contains(char::is_control)) {
        fields.wrong("hostname", "must be 1 to 255 bytes without control characters");
    }
    fields.require("cpuCount");
    let cpu_count = fields.whole("cpuCount", 1..=1_000_000);
    fields.require("totalMemoryMb");
    let total_memory_mb = fields.whole("totalMemoryMb", 1..=1 << 40);
    let executors = executors(&mut fields);
    let slots = fields.whole("slots", 1..=10_000);
    let mut labels = fields.texts("labels").unwrap_or_default();
    let version = fields.text("version");
    if version.as_ref().is_some_and(|version| version.len() > 128) {
        fields.wrong("version", "must be at most 128 bytes");
    }
    let metadata = match fields.take("metadata").map(|value| value.json) {
        None => Vec::new(),
        Some(Json::Object(metadata)) => metadata,
        Some(other) => {
            fields.wrong("metadata", format!("must be an object, not {}", other.kind()));
            Vec::new()
        }
    };
    for (i, tag) in tags(&metadata, &mut fields).into_iter().enumerate() {
        match tag {
            Json::Text(tag) => labels.push(tag.clone().into_owned()),
            other => fields.wrong(&format!("metadata.tags[{i}]"), format!("must be a string, not {}", other.kind())),
        }
    }
    let is_label = |label: &String| (1..=128).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_graphic());
    if labels.len() > MAX_ITEMS || !labels.iter().all(is_label) {
        let field = if metadata.iter().any(|(name, _)| name == "tags") { "metadata.tags" } else { "labels" };
        fields.wrong(field, format!("must be at most {MAX_ITEMS} labels of 1 to 128 bytes of visible ASCII"));
    }
    let usage = usage(&mut fields);
    let metadata = metadata.into_iter().map(|(name, json)| (name.into_owned(), value(json))).collect();
    let registration = (|| {
        Some(Registration {
            worker,
            hostname: hostname?,
            cpu_count: cpu_count?,
            total_memory_mb: total_memory_mb?,
            executors,
            slots,
            labels: labels.into_iter().collect(),
            version,
            metadata,
            usage,
        })
    })();
    Ok(problems.check(registration))
}

/// How a worker is when it comes, if it says anything of that.
fn usage(fields: &mut Fields<'_, '_>) -> Option<Usage> {
    let says = ["status", "cpuUsage", "ramUsage"].iter().any(|name| fields.has(name));
    let (cpu, ram) = (percentage(fields, "cpuUsage"), percentage(fields, "ramUsage"));
    let status = status(fields).unwrap_or(WorkerStatus::Idle);
    says.then_some(Usage { status, cpu, ram })
}

/// What a worker is doing, if it says so.
fn status(fields: &mut Fields<'_, '_>) -> Option<WorkerStatus> {
    let name = fields.text("status")?;
    let status = WorkerStatus::ALL.into_iter().find(|status| status.as_str() == name);
    if status.is_none() {
        fields.wrong("status", "must be idle, busy, draining, offline or error");
    }
    status
}

/// The tags among a registration's metadata: labels by another name.
fn tags<'m, 'a>(
    metadata: &'m [(std::borrow::Cow<'a, str>, Json<'a>)],
    fields: &mut Fields<'_, '_>,
) -> Vec<&'m Json<'a>> {
    match metadata.iter().find(|(name, _)| name == "tags").map(|(_, json)| json) {
        None | Some(Json::Null) => Vec::new(),
        Some(Json::List(tags)) => tags.iter().collect(),
        Some(other) => {
            fields.wrong("metadata.tags", format!("must be a list, not {}", other.kind()));
            Vec::new()
        }
    }
}

/// `["process", {"kind": "docker", "limits": [...]}]`; absent from workers of earlier protocol versions.
fn executors(fields: &mut Fields<'_, '_>) -> Option<Vec<Capabilities>> {
    let items = fields.list("executors")?;
    if items.len() > MAX_ITEMS {
        fields.wrong("executors", format!("must be at most {MAX_ITEMS}"));
        return None;
    }
    let kind = |name: &str| match name {
        "process" => Some(Kind::Process),
        "docker" => Some(Kind::Docker),
        _ => None,
    };
    let mut executors = Vec::new();
    for (i, item) in items.into_iter().enumerate() {
        let (name, limits, gpus) = match item {
            Json::Text(name) => (Some(name.into_owned()), Vec::new(), None),
            object => {
                let mut fields = fields.item(object, "executors", i);
                (fields.text("kind"), fields.texts("limits").unwrap_or_default(), fields.nearest("gpus", 0, u32::MAX))
            }
        };
        match name.as_deref().and_then(kind) {
            Some(kind) => {
                let limits = limits.into_iter().map(serde_json::Value::String).collect();
                executors.push(wire::Executor { kind, limits, gpus }.into_capabilities());
            }
            None => fields.wrong(&format!("executors[{i}]"), "must be process or docker"),
        }
    }
    Some(executors)
}

/// A tree as `serde_json`'s own.
fn value(json: Json<'_>) -> serde_json::Value {
    use serde_json::{Number, Value};
    match json {
        Json::Null | Json::Items(_) => Value::Null,
        Json::Bool(flag) => Value::Bool(flag),
        Json::Number(super::Number::Float(float)) => Number::from_f64(float).map_or(Value::Null, Value::Number),
        Json::Number(super::Number::Whole(whole)) => Number::from_i128(whole).map_or(Value::Null, Value::Number),
        Json::Text(text) => Value::String(text.into_owned()),
        Json::List(items) => Value::Array(items.into_iter().map(value).collect()),
        Json::Object(entries) => {
            Value::Object(entries.into_iter().map(|(name, json)| (name.into_owned(), value(json))).collect())
        }
    }
}

/// A heartbeat and whose it is, if it says so.
#[derive(Debug)]
pub struct Beat {
    pub worker: Option<WorkerId>,
    pub beat: Heartbeat,
}

/// A heartbeat.
pub fn beat(body: &[u8]) -> Result<Result<Beat, Error>, Malformed> {
    let json = Json::parse(body)?;
    let mut problems = Problems::default();
    let mut fields = Fields::of_body(json, &mut problems);
    older::heartbeat(&mut fields);
    let worker = fields.parsed::<WorkerId>("workerId");
    let cpu = percentage(&mut fields, "cpuUsage");
    let ram = percentage(&mut fields, "ramUsage");
    let _ = fields.whole::<u64>("jobsCompleted", 0..=i128::from(u64::MAX));
    let held = held(&mut fields);
    let is_busy = held.as_ref().is_some_and(|held| !held.is_empty());
    let status = status(&mut fields).unwrap_or(if is_busy { WorkerStatus::Busy } else { WorkerStatus::Idle });
    let beat = Beat { worker, beat: Heartbeat { usage: Usage { status, cpu, ram }, held } };
    Ok(problems.check(Some(beat)))
}

/// How full something is. Above 100 is no mistake worth losing a worker for: several processors, or a rounding.
fn percentage(fields: &mut Fields<'_, '_>, name: &str) -> f64 {
    match fields.number(name) {
        Some(n) if n >= 0.0 => n.min(100.0),
        Some(_) => {
            fields.wrong(name, "must not be negative");
            0.0
        }
        None => 0.0,
    }
}

fn held(fields: &mut Fields<'_, '_>) -> Option<Vec<Listed>> {
    let items = fields.list("running")?;
    if items.len() > MAX_HELD {
        fields.wrong("running", format!("must be at most {MAX_HELD}"));
        return None;
    }
    let mut held = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let mut fields = fields.item(item, "running", i);
        fields.require("jobId");
        fields.require("leaseToken");
        if let (Some(job), Some(token)) = (fields.parsed("jobId"), fields.parsed("leaseToken")) {
            held.push(Listed { job, token });
        }
    }
    Some(held)
}
