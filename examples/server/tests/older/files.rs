//! Jobs with files, from the upload to the result's download.

use serde_json::{Value, json};

use crate::agent::Shown;
use crate::site::Site;
use crate::zips;

/// Writes to both streams, the same line twice among it, and a file.
const SCRIPT: &str =
    "echo one; echo two; echo one; echo 'Grüße' >&2; cat src/data; mkdir out; echo built > out/built\n";

const STDOUT: &str = "one\ntwo\none\ndata\n";

#[test]
fn a_job_runs_with_files_from_end_to_end() {
    let site = Site::new();
    for shown in [Shown::Header, Shown::Bearer] {
        let mut user = site.user("ada");
        let mut agent = site.agent_that("agent-1", shown);
        let brought = zips::files([("run.sh", SCRIPT), ("src/data", "data\n")]);
        let uploaded = user.upload("my project.zip", &zips::pack(&brought));
        let (id, url) = (&uploaded["fileId"], &uploaded["fileUrl"]);
        let file = &uploaded["file"];
        assert_eq!((&file["fileId"], &file["filename"]), (id, &json!("my project.zip")));
        assert_eq!(file["size"], zips::pack(&brought).len());
        assert_eq!(&user.get("/api/files/list").ok(200)["files"][0]["fileId"], id);

        let job = user.submit(&json!({
            "command": "sh run.sh", "fileUrl": url, "filename": "my project.zip", "timeoutMs": 60_000, "requiredCpu": 1,
            "requiredRamMb": 64, "maxRetries": 2, "priority": "high",
        }));
        agent.heartbeat("IDLE");
        let lease = agent.wait();
        assert_eq!((&lease.job, &*lease.command, lease.timeout_ms), (&job, "sh run.sh", 60_000));
        assert_eq!(lease.filename, "my project.zip");
        let answer = agent.heartbeat("BUSY");
        assert_eq!((&answer["cancel"], &answer["lost"]), (&json!([]), &json!([])));

        let output = agent.run(&lease);
        agent.stream_badly(&job, &output);
        let running = user.job(&job);
        assert_eq!((&running["status"], &running["assignedAgentId"]), (&json!("running"), &json!("agent-1")));
        assert_eq!(running["stdout"], "data\ndata\none\none\ntwo\ntwo\none\none\n");
        assert_eq!(running["resultFileUrl"], Value::Null);
        assert!(!agent.is_cancelled(&job));
        let result = agent.result(&lease, &output);
        agent.report(&result).ok(200);

        let done = user.job(&job);
        assert_eq!((&done["status"], &done["exitCode"]), (&json!("completed"), &json!(0)));
        assert_eq!((&done["stdout"], &done["stderr"]), (&json!(STDOUT), &json!("Grüße\n")));
        assert_eq!((&done["result"]["success"], &done["errorMessage"]), (&json!(true), &Value::Null));
        assert_eq!((&done["priority"], &done["filename"]), (&json!(50), &json!("my project.zip")));
        assert_eq!(user.logs(&job), format!("{STDOUT}Grüße\n"));
        assert_eq!(done["resultFileUrl"], done["artifactsUrl"]);
        let left = user.get(done["resultFileUrl"].as_str().unwrap());
        assert_eq!((left.status, left.header("content-type")), (200, Some("application/zip")));
        let mut expected = brought;
        expected.insert("out/built".to_owned(), b"built\n".to_vec());
        assert_eq!(zips::unpack(&left.body), expected);

        // The answer was lost, and the agent repeats itself.
        agent.report(&result).ok(200);
        assert_eq!(user.job(&job), done);
        let mut another = result;
        another["exitCode"] = json!(1);
        agent.report(&another).refused(409, "lease_lost");
        agent.fail(&job, "too late").refused(409, "lease_lost");
        assert_eq!(user.job(&job), done);
        assert!(agent.poll().is_none());
    }
}

#[test]
fn a_jobs_zip_is_had_by_every_url_while_the_job_is_leased_and_by_its_worker_alone() {
    let site = Site::new();
    let (mut user, mut agent, mut other) = (site.user("ada"), site.agent("agent-1"), site.agent("agent-2"));
    let zip = zips::pack(&zips::files([("a", "b")]));
    let uploaded = user.upload("a.zip", &zip);
    let id = uploaded["fileId"].as_str().unwrap();
    let urls = [
        format!("/uploads/{id}.zip"),
        format!("/uploads/{id}/a.zip"),
        format!("/uploads/{id}/any%20name.zip"),
        format!("/api/files/download/{id}"),
    ];
    // Each of them stands for the file in a job, too.
    for url in &urls {
        let job = user.submit(&json!({ "command": "cat a", "fileUrl": url }));
        let lease = agent.wait();
        assert_eq!((&lease.job, agent.fetch(&lease)), (&job, zip.clone()));
        for url in &urls {
            assert_eq!(agent.get(url).body, zip, "{url}");
            other.get(url).refused(404, "file_not_found");
        }
        agent.work(&lease);
        assert_eq!(user.job(&job)["stdout"], "b");
        for url in &urls {
            agent.get(url).refused(404, "file_not_found");
            assert_eq!(user.get(url).body, zip, "{url}");
            site.user("bob").get(url).refused(404, "file_not_found");
        }
    }
}

#[test]
fn a_job_without_files_comes_with_an_empty_zip() {
    let site = Site::new();
    let (mut user, mut agent) = (site.user("ada"), site.agent("agent-1"));
    let job = user.submit(&json!({ "command": "ls; echo made > file" }));
    let lease = agent.wait();
    assert_eq!(zips::unpack(&agent.fetch(&lease)), zips::files([]));
    agent.work(&lease);
    let done = user.job(&job);
    assert_eq!((&done["status"], &done["stdout"]), (&json!("completed"), &json!("")));
    assert!(done.get("fileUrl").is_none() && done.get("filename").is_none(), "{done}");
    let left = user.get(done["resultFileUrl"].as_str().unwrap());
    assert_eq!(zips::unpack(&left.body), zips::files([("file", "made\n")]));
}

#[test]
fn a_result_may_come_without_a_zip_or_with_an_empty_one() {
    let site = Site::new();
    let (mut user, mut agent) = (site.user("ada"), site.agent("agent-1"));
    let report = |zip: Value, name: Value| {
        move |job: &str| {
            json!({
                "jobId": job, "workerId": "agent-1", "exitCode": 0, "stdout": "x", "stderr": "", "resultZipBase64": zip,
                "resultZipName": name,
            })
        }
    };
    for report in [report(Value::Null, Value::Null), report(json!(""), json!(""))] {
        let job = user.submit(&json!({ "command": "true" }));
        agent.wait();
        agent.report(&report(&job)).ok(200);
        let done = user.job(&job);
        assert_eq!((&done["status"], &done["resultFileUrl"]), (&json!("completed"), &Value::Null));
    }
    let job = user.submit(&json!({ "command": "true" }));
    let lease = agent.wait();
    agent.work(&lease);
    let done = user.job(&job);
    let left = user.get(done["resultFileUrl"].as_str().unwrap());
    assert_eq!(zips::unpack(&left.body), zips::files([]));
}

#[test]
fn arguments_and_lines_run_where_they_should_as_one_line() {
    let site = Site::new();
    let (mut user, mut agent) = (site.user("ada"), site.agent("agent-1"));
    let zip = zips::pack(&zips::files([("it's a/b/data", "here\n")]));
    let uploaded = user.upload("a.zip", &zip);
    let inside = |mut spec: Value| {
        (spec["fileId"], spec["workingDirectory"]) = (uploaded["fileId"].clone(), json!("it's a/b"));
        spec
    };
    let script = "cat data\nif true; then\n  echo deep\nfi\nexit 3";
    for (spec, stdout, code) in [
        (inside(json!({ "args": ["cat", "data"] })), "here\n", 0),
        (
            inside(json!({ "commands": ["cat data", "cd /; exit 0", "cat data", "exit 4", "echo no"] })),
            "here\nhere\n",
            4,
        ),
        (inside(json!({ "command": script })), "here\ndeep\n", 3),
        (json!({ "args": ["printf", "%s|", "a b", "it's", "$HOME", "", "\n", "A=b"] }), "a b|it's|$HOME||\n|A=b|", 0),
        (json!({ "args": ["A=b"] }), "", 127),
        (json!({ "commands": ["echo 'a  b'", "echo \"it's $((1 + 1))\"", "# nothing"] }), "a  b\nit's 2\n", 0),
    ] {
        let job = user.submit(&spec);
        let lease = agent.wait();
        agent.work(&lease);
        let done = user.job(&job);
        assert_eq!((&done["stdout"], &done["exitCode"]), (&json!(stdout), &json!(code)), "{}: {done}", lease.command);
        assert_eq!(done["status"], if code == 0 { "completed" } else { "failed" });
    }
}
