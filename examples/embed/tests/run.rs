//! The examples do what they say.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::process::Command;

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_queue_of_functions_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("letters.db");
    for times in 1..=2 {
        let said = said(env!("CARGO_BIN_EXE_function_queue"), &[database.to_str().unwrap()]);
        assert!(said.starts_with(&format!("a letter to ada@example.org\ncompleted: {times} in")), "{said}");
    }
}

#[test]
fn a_batch_is_watched_to_its_end() {
    let said = said(env!("CARGO_BIN_EXE_batch"), &[]);
    assert!(said.ends_with("4 completed\n6 failed\n"), "{said}");
}

#[test]
fn a_scheduler_of_ones_own_places_every_job() {
    let said = said(env!("CARGO_BIN_EXE_scheduler"), &[]);
    // On which worker depends on which asks while.
    assert_eq!(said.matches(" ran on ").count(), 4, "{said}");
}

#[test]
fn a_remote_worker_says_what_it_needs() {
    let output = Command::new(env!("CARGO_BIN_EXE_remote_worker")).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("say where the server is"));
}
