//! The first try does what the README says.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::process::{Command, Output};

fn quickstart(data: &std::path::Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    command.args(["--port", "0", "--once", "--data", data.to_str().unwrap()]).args(args).output().unwrap()
}

#[test]
fn it_runs_the_tests_of_the_project_that_comes_along() {
    let data = tempfile::tempdir().unwrap();
    let output = quickstart(data.path(), &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in
        ["Packed ", "$ sh test.sh\nok 1 - 1 is written I\n", "34 checks, 0 failed\n", "The job is completed after "]
    {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
    // The secrets are there for `cmdexec token`, and for no one else.
    assert!(data.path().join("secrets.env").is_file());
}

#[test]
fn any_directory_and_command_will_do() {
    let (data, project) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(project.path().join("hello.txt"), "hello from a file\n").unwrap();
    let output = quickstart(data.path(), &["--dir", project.path().to_str().unwrap(), "--", "cat hello.txt; exit 3"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stdout).unwrap().contains("hello from a file\n"));

    let nowhere = quickstart(data.path(), &["--dir", "/nowhere", "--", "true"]);
    assert!(String::from_utf8(nowhere.stderr).unwrap().contains("--dir: /nowhere: No such file"));
}
