//! How the worker starts, or says why not. The tests of all programs together stand beside the command line program.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::process::{Command, Output};

fn worker(environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cmdexec-worker"));
    command.env_clear().envs(environment.iter().copied()).output().unwrap()
}

#[test]
fn every_wrong_setting_is_said_at_once_and_no_secret() {
    let output = worker(&[
        ("SERVER_URL", "here"),
        ("WORKER_TOKEN_SECRET", "too short to be one"),
        ("WORKER_ID", "has a space"),
        ("SLOTS", "many"),
        ("CPU_LIMIT", "-1"),
        ("RAM_LIMIT", "2G"),
        ("DRAIN_TIMEOUT", "soon"),
        ("ALLOW_PROCESS", "false"),
        ("ENABLE_DOCKER", "false"),
        ("DOCKER_NETWORK_MODE", "host"),
    ]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    let settings = [
        "SERVER_URL",
        "WORKER_TOKEN_SECRET",
        "WORKER_ID",
        "SLOTS",
        "CPU_LIMIT",
        "RAM_LIMIT",
        "DRAIN_TIMEOUT",
        "ALLOW_PROCESS",
        "DOCKER_NETWORK_MODE",
    ];
    for setting in settings {
        assert!(said.contains(&format!("\n  {setting}")), "{setting} is missing in:\n{said}");
    }
    assert!(said.contains("9 settings are wrong") && !said.contains("too short to be one"), "{said}");
}
