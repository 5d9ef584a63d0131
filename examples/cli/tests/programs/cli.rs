//! What the command line program does for people.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Cli, Site, nap, processes, try_server, until};

#[test]
fn run_shows_both_streams_and_exits_as_the_job_did() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let _worker = site.worker(&server, "w", &[]);
    let cli = site.cli(&server);

    let output = cli.run(&["run", "--env", "NAME=ada", "echo hello $NAME; echo oh >&2; exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"hello ada\n");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("oh\n") && said.contains("exited with code 7"), "{said}");

    // Several arguments are a program and its arguments: no shell looks at them.
    assert_eq!(cli.say(&["run", "--", "echo", "$HOME", "a  b"]), "$HOME a  b");
    assert_eq!(cli.say(&["run", "--step", "echo one", "--step", "echo two"]), "one\ntwo");
    assert_eq!(cli.say(&["run", "--shell", "echo", "$((1 + 1))"]), "2");

    let timeout = cli.run(&["run", "--timeout", "1s", "sleep 60"]);
    assert_eq!(timeout.status.code(), Some(124), "{}", String::from_utf8_lossy(&timeout.stderr));
}

#[test]
fn a_job_is_submitted_watched_listed_and_read() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let cli = site.cli(&server);

    let id = cli.say(&["submit", "--name", "greeting", "--idempotency-key", "k", "echo hello; echo oh >&2"]);
    assert_eq!(cli.say(&["submit", "--name", "greeting", "--idempotency-key", "k", "echo hello; echo oh >&2"]), id);
    assert_eq!(cli.job(&id)["status"], "queued");
    let waiting = cli.command(&["wait", &id]).stdout(Stdio::piped()).spawn().unwrap();
    let following = cli.command(&["logs", "-f", &id]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();

    let _worker = site.worker(&server, "w", &[("LABELS", "fast,near")]);
    let waited = waiting.wait_with_output().unwrap();
    assert!(waited.status.success());
    assert_eq!(String::from_utf8(waited.stdout).unwrap(), format!("{id} completed\n"));
    let followed = following.wait_with_output().unwrap();
    assert_eq!((followed.stdout.as_slice(), followed.stderr.as_slice()), (b"hello\n".as_slice(), b"oh\n".as_slice()));

    let job = cli.job(&id);
    assert_eq!((&job["name"], &job["exitCode"], &job["workerId"]), (&"greeting".into(), &0.into(), &"w".into()));
    assert_eq!(job["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(cli.say(&["logs", "--stream", "stderr", &id]), "oh");
    let chunk: serde_json::Value =
        serde_json::from_str(&cli.say(&["--json", "logs", "--stream", "stdout", &id])).unwrap();
    assert_eq!(chunk, serde_json::json!({"stream": "stdout", "data": "hello\n"}));

    let table = cli.say(&["list"]);
    assert!(table.starts_with("JOB ") && table.contains(&id) && table.contains("greeting"), "{table}");
    let list = cli.json(&["list", "--status", "completed"]);
    assert_eq!((&list["total"], &list["jobs"][0]["jobId"]), (&1.into(), &id.as_str().into()));
    assert_eq!(cli.json(&["list", "--status", "failed"])["jobs"], serde_json::json!([]));
    let workers = cli.json(&["workers"]);
    assert_eq!(workers["workers"][0]["labels"], serde_json::json!(["fast", "near"]));
    assert_eq!(cli.json(&["stats"])["jobs"]["completed"], 1);
    assert!(cli.say(&["stats"]).contains("completed"));

    let run = cli.run(&["--json", "run", "--label", "near", "exit 5"]);
    assert_eq!(run.status.code(), Some(5));
    let run: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&run["reason"], &run["labels"]), (&"exit_code".into(), &serde_json::json!(["near"])));
}

#[test]
fn cancelling_ends_jobs_whether_they_run_or_not() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let cli = site.cli(&server);
    let queued = cli.say(&["submit", "true"]);
    assert_eq!(cli.say(&["cancel", &queued]), format!("{queued} cancelled"));

    let _worker = site.worker(&server, "w", &[]);
    let nap = nap(10);
    let running = cli.say(&["submit", &format!("exec {nap}")]);
    cli.until(&running, "running");
    assert_eq!(cli.say(&["cancel", "--wait", &running]), format!("{running} cancelled"));
    assert_eq!(processes(&nap), 0);

    let again = cli.run(&["cancel", &queued]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8(again.stderr).unwrap().contains("has ended already"));
}

#[test]
fn ctrl_c_leaves_the_job_or_cancels_it_as_it_was_asked_to() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let _worker = site.worker(&server, "w", &[("SLOTS", "2")]);
    let cli = site.cli(&server);
    for (args, status) in
        [(["run", "--"].as_slice(), "running"), (&["run", "--cancel-on-interrupt", "--"], "cancelled")]
    {
        let command = [args, &["sh", "-c", "echo here; exec sleep 600"]].concat();
        let mut run = cli.command(&command).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let id = until("the job runs", || {
            let list = cli.json(&["list", "--status", "running"]);
            list["jobs"].as_array().unwrap().iter().find_map(|job| Some(job["jobId"].as_str()?.to_owned()))
        });
        kill(Pid::from_raw(run.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        assert_eq!(run.wait().unwrap().code(), Some(130));
        assert_eq!(cli.job(&id)["status"], status);
        cli.run(&["cancel", "--wait", &id]);
    }
}

#[test]
fn mistakes_are_told_from_jobs_that_fail() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let cli = site.cli(&server);
    let said = |args: &[&str]| {
        let output = cli.run(args);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, why) = said(&["run", "--cpus", "0", "true"]);
    assert_eq!(code, 2, "{why}");
    let (code, why) = said(&["run", "--priority", "101", "--retries", "1000", "true"]);
    assert!(code == 125 && why.contains("priority") && why.contains("retries"), "{why}");
    let (code, why) = said(&["status", "01990b8e-6a7c-7000-8000-0123456789ab"]);
    assert!(code == 1 && why.contains("there is no job"), "{why}");
    let (code, why) = said(&["--token", "nonsense", "list"]);
    assert!(code == 1 && why.contains("credentials"), "{why}");

    server.process.kill();
    let (code, why) = said(&["run", "true"]);
    assert!(code == 125 && why.contains("127.0.0.1"), "{why}");
}

#[test]
fn completions_and_help_need_no_server() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let cli = site.cli(&server);
    for shell in ["bash", "zsh", "fish"] {
        assert!(cli.say(&["completions", shell]).contains("cancel-on-interrupt"));
    }
    assert!(cli.say(&["--help"]).contains("Exit codes"));
    assert!(cli.say(&["run", "--help"]).contains("Examples:"));
}

#[test]
fn a_first_try_needs_nothing_but_what_the_server_prints() {
    let args = ["--dev", "--port", "0", "--metrics-bind", "127.0.0.1:0"];
    let (_server, lines) = try_server(&args, "/api/docs");
    let after = |sign: &str| {
        let rest = lines.iter().find_map(|line| line.split_once(sign)).unwrap().1;
        rest.split(' ').next().unwrap().to_owned()
    };
    let cli = Cli { url: after("listening on "), token: after("CMDEXEC_TOKEN=") };
    let id = cli.say(&["submit", "true"]);
    assert_eq!(cli.job(&id)["owner"], "local");

    let metrics = after("metrics on http://");
    let mut page = String::new();
    let mut connection = TcpStream::connect(metrics.strip_suffix("/metrics").unwrap()).unwrap();
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    connection.read_to_string(&mut page).unwrap();
    for line in [
        "cmdexec_jobs{status=\"queued\"} 1\n",
        "cmdexec_jobs_submitted_total 1\n",
        "cmdexec_store_seconds_bucket{",
        "cmdexec_http_requests_total{route=\"/api/jobs/create\",method=\"POST\",status=\"2xx\"} 1\n",
        "cmdexec_http_request_seconds_bucket{route=\"/api/jobs/status\",method=\"GET\",le=\"61\"}",
    ] {
        assert!(page.contains(line), "{line} is missing in:\n{page}");
    }
}
