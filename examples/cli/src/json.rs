//! What `--json` prints: the names of the HTTP API.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::files::{FileId, StoredFile};
use cmdexec_core::job::{Command, Network, Step};
use cmdexec_core::service::{JobUpdate, JobView, Stats, WorkerView};
use serde_json::{Map, Value, json};

/// Prints one value on a line of its own.
pub(crate) fn print(value: &Value) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{value}")
}

/// A job. In a list, its output is left out.
pub(crate) fn job(job: &JobView, with_output: bool) -> Value {
    let spec = &job.spec;
    let mut map = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            map.insert(name.to_owned(), value);
        }
    };
    put("jobId", json!(job.id.to_string()));
    put("status", json!(job.status.as_str()));
    put("name", json!(spec.name));
    match &spec.command {
        Command::Shell(line) => put("command", json!(line)),
        Command::Argv(argv) => put("args", json!(argv)),
        Command::Steps(lines) => put("commands", json!(lines)),
    }
    put("owner", json!(job.owner.as_str()));
    put("workerId", json!(job.worker.as_ref().map(ToString::to_string)));
    put("createdAt", json!(job.created.to_string()));
    put("startedAt", json!(job.started.map(|at| at.to_string())));
    put("completedAt", json!(job.completed.map(|at| at.to_string())));
    put("exitCode", json!(job.exit_code));
    put("reason", json!(job.reason.map(cmdexec_core::job::Reason::as_str)));
    put("error", json!(job.error));
    if job.status.is_finished() {
        let duration = job.details.duration.map(|duration| duration.as_secs_f64());
        let step = |step: &Step| json!({"exitCode": step.exit_code, "duration": step.duration.as_secs_f64()});
        let steps: Vec<_> = job.details.steps.iter().map(step).collect();
        put("result", json!({"success": job.exit_code == Some(0), "duration": duration, "steps": steps}));
    }
    put("artifactsUrl", json!(job.artifacts.map(url)));
    if !job.details.warnings.is_empty() {
        put("warnings", json!(job.details.warnings));
    }
    put("fileId", json!(spec.input.map(|id| id.to_string())));
    put("workingDirectory", json!(spec.working_directory));
    if !spec.outputs.is_empty() {
        put("outputs", json!(spec.outputs));
    }
    put("containerImage", json!(spec.container_image));
    put("timeout", json!(spec.timeout.as_secs_f64()));
    put("cpus", json!(spec.resources.cpu_millis.map(|millis| f64::from(millis) / 1_000.0)));
    put("memoryMb", json!(spec.resources.memory_mb));
    put("pids", json!(spec.resources.pids));
    put("gpus", json!(spec.resources.gpus));
    put("reuse", json!(spec.reuse.then_some(true)));
    put("network", json!(spec.network.map(|network| if network == Network::None { "none" } else { "bridge" })));
    put("labels", json!(spec.labels));
    put("priority", json!(spec.priority));
    put("maxAttempts", json!(spec.max_attempts));
    put("retries", json!(spec.retries));
    put("exclusive", json!(spec.exclusive));
    put("runAt", json!(spec.run_at.map(|at| at.to_string())));
    put("truncated", json!(job.dropped > 0));
    put("droppedBytes", json!((job.dropped > 0).then_some(job.dropped)));
    let attempts = job.attempts.iter().map(|attempt| {
        json!({
            "number": attempt.number,
            "workerId": attempt.worker.as_str(),
            "startedAt": attempt.started.to_string(),
            "endedAt": attempt.ended.map(|at| at.to_string()),
            "outcome": attempt.outcome,
            "exitCode": attempt.exit_code,
        })
    });
    put("attempts", attempts.collect());
    if with_output {
        put("env", json!(spec.env));
        put("stdout", json!(String::from_utf8_lossy(&job.stdout)));
        put("stderr", json!(String::from_utf8_lossy(&job.stderr)));
    }
    Value::Object(map)
}

/// A file.
pub(crate) fn file(file: &StoredFile) -> Value {
    json!({
        "fileId": file.id.to_string(),
        "fileUrl": url(file.id),
        "name": file.name,
        "size": file.size,
        "createdAt": file.created.to_string(),
        "expiresAt": file.expires.map(|at| at.to_string()),
    })
}

fn url(id: FileId) -> String {
    format!("/uploads/{id}.zip")
}

/// A piece of output; as base64 where it is not UTF-8.
pub(crate) fn chunk(stream: Stream, bytes: &Bytes) -> Value {
    let stream = stream_name(stream);
    match std::str::from_utf8(bytes) {
        Ok(data) => json!({"stream": stream, "data": data}),
        Err(_) => json!({"stream": stream, "dataBase64": STANDARD.encode(bytes)}),
    }
}

fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// A job's change.
pub(crate) fn update(update: &JobUpdate) -> Value {
    json!({
        "jobId": update.id.to_string(),
        "status": update.status.as_str(),
        "version": update.version,
        "workerId": update.worker.as_ref().map(ToString::to_string),
        "exitCode": update.exit_code,
        "at": update.at.to_string(),
    })
}

/// A worker.
pub(crate) fn worker(worker: &WorkerView) -> Value {
    json!({
        "workerId": worker.id.as_str(),
        "hostname": worker.hostname,
        "status": worker.status.as_str(),
        "cpuCount": worker.cpu_count,
        "totalMemoryMb": worker.total_memory_mb,
        "cpuUsage": worker.cpu_usage,
        "ramUsage": worker.ram_usage,
        "labels": worker.labels,
        "executors": worker.executors,
        "slots": worker.slots,
        "running": worker.running.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "jobsCompleted": worker.jobs_completed,
        "jobsFailed": worker.jobs_failed,
        "lastHeartbeat": worker.last_heartbeat.to_string(),
        "registeredAt": worker.registered.to_string(),
        "version": worker.version,
        "metadata": worker.metadata,
    })
}

/// How much there is of everything.
pub(crate) fn stats(stats: &Stats) -> Value {
    let jobs: Map<_, _> = stats.jobs.iter().map(|(status, n)| (status.as_str().to_owned(), json!(n))).collect();
    let workers: Map<_, _> = stats.workers.iter().map(|(status, n)| (status.as_str().to_owned(), json!(n))).collect();
    let queues = stats.queues.iter().map(|queue| {
        json!({"class": queue.class.key(), "queued": queue.queued, "oldestWait": queue.head_wait.as_secs_f64()})
    });
    json!({
        "jobs": jobs,
        "queues": queues.collect::<Vec<_>>(),
        "workers": workers,
        "finishedLastMinute": stats.finished_last_minute,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use cmdexec_core::id::{JobId, Owner};
    use cmdexec_core::job::{Details, JobSpec, Status};
    use cmdexec_core::time::Timestamp;

    use super::*;

    pub(crate) fn a_job() -> JobView {
        JobView {
            id: JobId::from_bytes([7; 16]),
            owner: Owner::local(),
            spec: Arc::new(JobSpec::shell("echo hello")),
            status: Status::Completed,
            version: 3,
            worker: None,
            created: Timestamp::from_millis(0),
            started: None,
            completed: None,
            exit_code: Some(0),
            details: Details::default(),
            artifacts: None,
            reason: None,
            error: None,
            attempts: Vec::new(),
            stdout: Bytes::from_static(b"hello\n"),
            stderr: Bytes::new(),
            dropped: 0,
        }
    }

    #[test]
    fn a_job_has_the_names_of_the_api_and_no_nulls() {
        let value = job(&a_job(), true);
        assert_eq!(value["command"], "echo hello");
        assert_eq!(value["createdAt"], "1970-01-01T00:00:00.000Z");
        assert_eq!(value["stdout"], "hello\n");
        assert_eq!(value["timeout"], 300.0);
        assert!(value.as_object().unwrap().values().all(|value| !value.is_null()));
        assert!(job(&a_job(), false).get("stdout").is_none());
    }

    #[test]
    fn output_that_is_not_text_survives() {
        assert_eq!(
            chunk(Stream::Stdout, &Bytes::from_static(b"\xff")),
            json!({"stream": "stdout", "dataBase64": "/w=="})
        );
    }
}
