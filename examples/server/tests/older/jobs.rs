//! Jobs that fail, are cancelled, or are not for everybody; agents that come again.

use serde_json::{Value, json};

use crate::site::{Site, until};

#[test]
fn a_job_that_could_not_be_run_fails_with_the_agents_words_and_is_tried_as_often_as_asked() {
    let site = Site::new();
    let (mut user, mut agent) = (site.user("ada"), site.agent("agent-1"));
    let job = user.submit(&json!({ "command": "true", "maxRetries": 0 }));
    agent.wait();
    agent.fail(&job, "no space left on device").ok(200);
    // Repeated, like a result.
    agent.fail(&job, "no space left on device").ok(200);
    let failed = user.job(&job);
    assert_eq!((&failed["status"], &failed["exitCode"]), (&json!("failed"), &Value::Null));
    assert!(failed["errorMessage"].as_str().unwrap().contains("no space left on device"), "{failed}");
    assert_eq!(failed["errorMessage"], failed["error"]);

    let job = user.submit(&json!({ "command": "echo again", "maxRetries": 1 }));
    agent.wait();
    agent.fail(&job, "no space left on device").ok(200);
    let lease = agent.wait();
    assert_eq!(lease.job, job);
    agent.work(&lease);
    let done = user.job(&job);
    assert_eq!((&done["status"], &done["stdout"]), (&json!("completed"), &json!("again\n")));
    assert_eq!((&done["attempts"].as_array().unwrap().len(), &done["errorMessage"]), (&2, &Value::Null));
}

#[test]
fn a_command_that_fails_is_a_result() {
    let site = Site::new();
    let (mut user, mut agent) = (site.user("ada"), site.agent("agent-1"));
    let job = user.submit(&json!({ "command": "echo wrong >&2; exit 7", "maxRetries": 3 }));
    let lease = agent.wait();
    agent.work(&lease);
    let done = user.job(&job);
    assert_eq!((&done["status"], &done["exitCode"], &done["stderr"]), (&json!("failed"), &json!(7), &json!("wrong\n")));
    assert_eq!(done["result"]["success"], false);
    assert!(done["errorMessage"].is_string() && done["resultFileUrl"].is_string(), "{done}");
    assert!(agent.poll().is_none());
}

#[test]
fn a_job_is_cancelled_while_it_runs() {
    let site = Site::new();
    let (mut user, mut agent) = (site.user("ada"), site.agent("agent-1"));
    // However the agent says that it has stopped.
    for says in ["an exit code", "an error"] {
        let job = user.submit(&json!({ "command": "echo begun; exec sleep 600" }));
        let lease = agent.wait();
        let mut child = agent.spawn(&lease);
        assert!(!agent.stream(&job, "begun\n", "stdout"));
        assert_eq!(user.cancel(&job), "cancelling");
        assert!(agent.stream(&job, "more\n", "stdout"));
        assert_eq!(agent.heartbeat("BUSY")["cancel"], json!([job]));
        until("the agent is told", || agent.is_cancelled(&job).then_some(()));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        if says == "an error" {
            agent.fail(&job, "Job cancelled by user").ok(200);
        } else {
            let result = agent.result(&lease, &output);
            agent.report(&result).ok(200);
        }
        let done = user.job(&job);
        assert_eq!(done["status"], "cancelled", "{done}");
        assert!(done["stdout"].as_str().unwrap().starts_with("begun\n"), "{done}");
        assert!(agent.is_cancelled(&job), "what is over is not worth going on with");
    }
    assert!(agent.poll().is_none());
}

#[test]
fn a_job_with_outputs_waits_for_a_worker_that_collects_them() {
    let site = Site::new();
    let (mut user, mut agent) = (site.user("ada"), site.agent("agent-1"));
    let collected = user.submit(&json!({ "command": "true", "outputs": ["dist/**"] }));
    // It keeps nobody else from running.
    let plain = user.submit(&json!({ "command": "true" }));
    let lease = agent.wait();
    assert_eq!(lease.job, plain);
    assert!(agent.poll().is_none());
    agent.work(&lease);
    assert!(agent.poll().is_none());
    assert_eq!(user.job(&collected)["status"], "queued");
    assert_eq!(user.cancel(&collected), "cancelled");
}

#[test]
fn an_agent_that_registers_again_goes_on_with_its_job() {
    let site = Site::new();
    let (mut user, mut agent) = (site.user("ada"), site.agent("agent-1"));
    let job = user.submit(&json!({ "command": "echo whole" }));
    let lease = agent.wait();
    assert!(!agent.stream(&job, "part", "stdout"));
    agent.register();
    assert_eq!(agent.heartbeat("BUSY")["lost"], json!([]));
    assert!(!agent.is_cancelled(&job));
    assert!(agent.poll().is_none(), "it has the job already");
    agent.work(&lease);
    let done = user.until(&job, "completed");
    assert_eq!((&done["stdout"], &done["attempts"].as_array().unwrap().len()), (&json!("whole\n"), &1));
    let worker = user.get("/api/workers/agent-1").ok(200);
    assert_eq!((&worker["cpuCount"], &worker["totalMemoryMb"]), (&json!(4), &json!(16_000)));
    assert_eq!((&worker["metadata"]["osType"], &worker["version"]), (&json!("linux"), &json!("1.0.0")));
    assert_eq!(worker["ramUsage"], 75.0);
}

#[test]
fn an_agent_says_nothing_of_another_ones_job() {
    let site = Site::new();
    let (mut user, mut agent, mut other) = (site.user("ada"), site.agent("agent-1"), site.agent("agent-2"));
    let job = user.submit(&json!({ "command": "echo mine" }));
    let lease = agent.wait();
    let output = agent.run(&lease);
    let mut result = agent.result(&lease, &output);
    result["workerId"] = json!("agent-2");
    other.report(&result).refused(409, "lease_lost");
    other.fail(&job, "not mine").refused(409, "lease_lost");
    assert!(other.is_cancelled(&job));
    assert_eq!(user.job(&job)["status"], "running");
    result["workerId"] = json!("agent-1");
    agent.report(&result).ok(200);
    assert_eq!(user.job(&job)["stdout"], "mine\n");
}

#[test]
fn an_agent_that_is_not_well_gets_no_jobs() {
    let site = Site::new();
    let (mut user, mut agent) = (site.user("ada"), site.agent("agent-1"));
    let job = user.submit(&json!({ "command": "true" }));
    for (status, shown) in [("UNHEALTHY", "error"), ("OFFLINE", "offline")] {
        agent.heartbeat(status);
        assert!(agent.poll().is_none());
        assert_eq!(user.get("/api/workers/agent-1").ok(200)["status"], shown);
    }
    agent.heartbeat("IDLE");
    assert_eq!(agent.wait().job, job);
}
