//! Output as agents send it that don't care; and agents of a server that comes again.

use serde_json::{Value, json};

use crate::site::Site;

#[test]
fn an_agent_waits_for_no_answer() {
    let site = Site::new();
    let (mut user, mut agent) = (site.user("ada"), site.agent("agent-1"));
    let job = user.submit(&json!({ "command": "seq 200" }));
    let lease = agent.wait();
    let output = agent.run(&lease);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let piece = |line: &str| ("/api/jobs/stream-output", json!({ "jobId": job, "data": line, "type": "stdout" }));
    let mut bodies: Vec<_> = text.split_inclusive('\n').map(piece).collect();
    bodies.push(("/api/jobs/submit-result", agent.result(&lease, &output)));
    let replies = agent.send_at_once(&bodies);
    // The report may be faster than some of the output, which is late then.
    replies.last().unwrap().ok(200);
    for reply in &replies {
        if reply.status != 200 {
            reply.refused(409, "lease_lost");
        }
    }
    let done = user.job(&job);
    assert_eq!((&done["status"], &done["stdout"]), (&json!("completed"), &json!(text)));
}

/// Half of a character, as JavaScript cuts texts, or a byte that is none, as Python reads them.
#[test]
fn texts_are_cut_within_a_character() {
    let site = Site::new();
    let (mut user, mut agent) = (site.user("ada"), site.agent("agent-1"));
    let job = user.submit(&json!({ "command": "true" }));
    agent.wait();
    for (sent, kept) in [
        (r"\ud83d", "\u{fffd}"),
        (r"\ude00a", "\u{fffd}a"),
        (r"\udc80\ud83d\ude00", "\u{fffd}\u{1f600}"),
        (r"\\ud83d", r"\ud83d"),
    ] {
        let before = user.job(&job)["stdout"].as_str().unwrap().to_owned();
        let body = format!(r#"{{"jobId":"{job}","data":"{sent}","type":"stdout"}}"#);
        agent.send_text("POST", "/api/jobs/stream-output", &body).ok(200);
        assert_eq!(user.job(&job)["stdout"], format!("{before}{kept}"), "{sent}");
    }
    let body =
        format!(r#"{{"jobId":"{job}","workerId":"agent-1","exitCode":0,"stdout":"all but \ud83d","stderr":""}}"#);
    agent.send_text("POST", "/api/jobs/submit-result", &body).ok(200);
    let done = user.job(&job);
    assert_eq!((&done["status"], &done["stdout"]), (&json!("completed"), &json!("all but \u{fffd}")));

    let job = user.submit(&json!({ "command": "true", "maxRetries": 0 }));
    agent.wait();
    let body = format!(r#"{{"jobId":"{job}","errorMessage":"no \udcff"}}"#);
    agent.send_text("PUT", "/api/jobs/submit-result", &body).ok(200);
    assert!(user.job(&job)["errorMessage"].as_str().unwrap().contains("no \u{fffd}"));
    // What is broken otherwise stays so.
    agent.send_text("POST", "/api/jobs/stream-output", r#"{"data":"\ud83d"#).refused(400, "malformed");
}

#[test]
fn a_server_that_comes_again_knows_agents_jobs_and_files() {
    let mut site = Site::new();
    let (mut user, mut agent) = (site.user("ada"), site.agent("agent-1"));
    let job = user.submit(&json!({ "args": ["echo", "a  b"] }));
    let next = user.submit(&json!({ "args": ["echo", "it's"] }));
    let lease = agent.wait();
    let output = agent.run(&lease);
    assert!(!agent.stream(&job, "a", "stdout"));
    site.restart();
    agent.http.hang_up();
    user.http.hang_up();
    assert_eq!(agent.heartbeat("BUSY")["lost"], json!([]));
    assert!(!agent.stream(&job, "b", "stdout"));
    assert_eq!(user.job(&job)["stdout"], "ab");
    let result = agent.result(&lease, &output);
    agent.report(&result).ok(200);
    let lease = agent.wait();
    assert_eq!((&lease.job, &*lease.command), (&next, r"echo 'it'\''s'"));
    agent.work(&lease);
    site.restart();
    agent.http.hang_up();
    user.http.hang_up();
    // A repeat, to a server that did not see the first.
    agent.report(&result).ok(200);
    let done = user.job(&job);
    assert_eq!((&done["status"], &done["stdout"]), (&json!("completed"), &json!("a  b\n")));
    assert_eq!(user.get(done["resultFileUrl"].as_str().unwrap()).status, 200);
    assert_eq!(user.job(&next)["errorMessage"], Value::Null);
}
