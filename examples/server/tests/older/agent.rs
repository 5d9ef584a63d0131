//! A worker agent of an earlier protocol version. It registers, beats and polls; downloads and unpacks the ZIP that comes with
//! each job, runs the one command line there, sends output without numbers, and reports with the output and the directory.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{Body, Http, Reply};
use crate::site::until;
use crate::zips;

const JSON: &str = "application/json; charset=utf-8";

/// How an agent shows its token.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shown {
    /// As `x-worker-token`.
    Header,
    /// As `Authorization: Bearer`.
    Bearer,
}

pub(crate) struct Agent {
    pub(crate) http: Http,
    url: String,
    id: String,
    token: (&'static str, String),
    folder: tempfile::TempDir,
}

/// What a job is to an agent.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) job: String,
    pub(crate) command: String,
    pub(crate) file_url: String,
    pub(crate) filename: String,
    pub(crate) timeout_ms: u64,
}

impl Agent {
    pub(crate) fn new(url: &str, id: &str, token: &str, shown: Shown) -> Self {
        let token = match shown {
            Shown::Header => ("x-worker-token", token.to_owned()),
            Shown::Bearer => ("Authorization", format!("Bearer {token}")),
        };
        let folder = tempfile::tempdir().unwrap();
        Self { http: Http::to(url), url: url.to_owned(), id: id.to_owned(), token, folder }
    }

    pub(crate) fn get(&mut self, target: &str) -> Reply {
        self.http.send("GET", target, &[(self.token.0, &self.token.1)], &Body::None)
    }

    /// Every body is chunked.
    fn send(&mut self, method: &str, target: &str, body: &Value) -> Reply {
        self.send_text(method, target, &body.to_string())
    }

    /// Sends JSON that may be wrong.
    pub(crate) fn send_text(&mut self, method: &str, target: &str, body: &str) -> Reply {
        self.http.send(method, target, &[(self.token.0, &self.token.1)], &Body::Chunked(JSON, body.as_bytes()))
    }

    /// Sends each of these on a connection of its own before it looks at any answer.
    pub(crate) fn send_at_once(&mut self, bodies: &[(&str, Value)]) -> Vec<Reply> {
        let mut connections: Vec<_> = bodies.iter().map(|_| Http::to(&self.url)).collect();
        for ((target, body), http) in bodies.iter().zip(&mut connections) {
            let body = body.to_string();
            http.ask("POST", target, &[(self.token.0, &self.token.1)], &Body::Chunked(JSON, body.as_bytes()));
        }
        connections.iter_mut().map(Http::answer).collect()
    }

    pub(crate) fn register(&mut self) {
        let registration = json!({
            "workerId": self.id, "hostname": "desk", "os": "linux", "cpuCount": 4, "cpuUsage": 12.5,
            "ramTotalMb": 16_000, "ramFreeMb": 8_000, "version": "1.0.0", "status": "IDLE",
        });
        let answer = self.send("POST", "/api/workers/register", &registration).ok(200);
        assert_eq!((&answer["ok"], &answer["workerId"]), (&json!(true), &json!(self.id)));
        assert!(answer["heartbeatIntervalMs"].is_u64() && answer["pollIntervalMs"].is_u64(), "{answer}");
    }

    /// Gives the answer.
    pub(crate) fn heartbeat(&mut self, status: &str) -> Value {
        let beat = json!({
            "workerId": self.id, "status": status, "cpuUsage": 80, "ramFreeMb": 4_000, "ramTotalMb": 16_000,
            "dockerContainers": 2, "dockerCpuUsage": 10.5, "dockerMemoryMb": 512,
        });
        let answer = self.send("POST", "/api/workers/heartbeat", &beat).ok(200);
        assert!(answer["timestamp"].is_string() && answer["nextCheckIn"].is_u64(), "{answer}");
        answer
    }

    /// Asks once.
    pub(crate) fn poll(&mut self) -> Option<Lease> {
        let answer = self.get(&format!("/api/jobs/get-job?workerId={}", self.id)).ok(200);
        if answer["job"].is_null() {
            assert_eq!(answer["jobId"], Value::Null);
            return None;
        }
        let job = &answer["job"];
        for name in ["jobId", "command", "fileUrl", "filename", "timeoutMs"] {
            assert_eq!(job[name], answer[name], "{name} differs in {answer}");
        }
        let text = |name: &str| job[name].as_str().unwrap_or_else(|| panic!("no {name} in {job}")).to_owned();
        Some(Lease {
            job: text("jobId"),
            command: text("command"),
            file_url: text("fileUrl"),
            filename: text("filename"),
            timeout_ms: job["timeoutMs"].as_u64().unwrap(),
        })
    }

    /// Asks until there is a job.
    pub(crate) fn wait(&mut self) -> Lease {
        until("a job", || self.poll())
    }

    /// Downloads a job's ZIP from where the lease says, whether that names the server or not.
    pub(crate) fn fetch(&mut self, lease: &Lease) -> Vec<u8> {
        let target = lease.file_url.strip_prefix(&*self.url).unwrap_or(&lease.file_url);
        assert!(target.starts_with('/'), "{} is somewhere else", lease.file_url);
        let reply = self.get(target);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/zip"));
        reply.body
    }

    /// A job's directory with its files, as they come from the server.
    pub(crate) fn unpack(&mut self, lease: &Lease) -> PathBuf {
        let directory = self.folder.path().join(&lease.job);
        fs::create_dir_all(&directory).unwrap();
        let saved = self.folder.path().join(&lease.filename);
        let zip = self.fetch(lease);
        fs::write(&saved, zip).unwrap();
        zips::write(&zips::unpack(&fs::read(&saved).unwrap()), &directory);
        directory
    }

    /// Begins a job's command in its directory.
    pub(crate) fn spawn(&mut self, lease: &Lease) -> Child {
        let directory = self.unpack(lease);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &lease.command]).current_dir(directory).stdin(Stdio::null());
        shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a job's command to its end.
    pub(crate) fn run(&mut self, lease: &Lease) -> Output {
        self.spawn(lease).wait_with_output().unwrap()
    }

    /// Sends one piece of output; whether the job is to be stopped.
    pub(crate) fn stream(&mut self, job: &str, data: &str, stream: &str) -> bool {
        let piece = json!({ "jobId": job, "data": data, "type": stream });
        let answer = self.send("POST", "/api/jobs/stream-output", &piece).ok(200);
        answer["cancel"].as_bool().unwrap()
    }

    /// Sends output line by line: the last first, and each twice.
    pub(crate) fn stream_badly(&mut self, job: &str, output: &Output) {
        for (bytes, stream) in [(&output.stderr, "stderr"), (&output.stdout, "stdout")] {
            let text = String::from_utf8(bytes.clone()).unwrap();
            for line in text.split_inclusive('\n').rev() {
                for _ in 0..2 {
                    assert!(!self.stream(job, line, stream));
                }
            }
        }
    }

    pub(crate) fn is_cancelled(&mut self, job: &str) -> bool {
        let answer = self.get(&format!("/api/jobs/check-cancel?jobId={job}")).ok(200);
        assert_eq!(answer["cancelled"], answer["cancelRequested"]);
        answer["cancelRequested"].as_bool().unwrap()
    }

    /// The report of a run, with the directory as it is now.
    pub(crate) fn result(&self, lease: &Lease, output: &Output) -> Value {
        let left = zips::pack(&zips::read(&self.folder.path().join(&lease.job)));
        json!({
            "jobId": lease.job, "workerId": self.id,
            "exitCode": output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap()),
            "stdout": String::from_utf8(output.stdout.clone()).unwrap(),
            "stderr": String::from_utf8(output.stderr.clone()).unwrap(),
            "resultZipBase64": STANDARD.encode(left), "resultZipName": format!("{}-result.zip", lease.job),
        })
    }

    pub(crate) fn report(&mut self, result: &Value) -> Reply {
        self.send("POST", "/api/jobs/submit-result", result)
    }

    /// Says that a job could not be run.
    pub(crate) fn fail(&mut self, job: &str, message: &str) -> Reply {
        let failure = json!({ "jobId": job, "workerId": self.id, "errorMessage": message });
        self.send("PUT", "/api/jobs/submit-result", &failure)
    }

    /// Does all that there is to do with a job.
    pub(crate) fn work(&mut self, lease: &Lease) {
        let output = self.run(lease);
        self.stream_badly(&lease.job, &output);
        assert!(!self.is_cancelled(&lease.job));
        let result = self.result(lease, &output);
        self.report(&result).ok(200);
    }
}
