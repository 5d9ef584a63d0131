//! Directories that come along with a job, and what comes back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::Site;

fn project(at: &Path) -> String {
    for folder in ["src", "target"] {
        fs::create_dir_all(at.join(folder)).unwrap();
    }
    let script =
        "#!/bin/sh\nls -A\nmkdir -p dist/sub\nwc -c < src/data > dist/size\necho deep > dist/sub/deep\nexit $1\n";
    for (name, text) in [(".gitignore", "target\n"), ("src/data", "12345"), ("target/large", "x"), ("run.sh", script)] {
        fs::write(at.join(name), text).unwrap();
    }
    fs::set_permissions(at.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    at.display().to_string()
}

#[test]
fn a_directory_comes_along_and_what_the_job_leaves_comes_back() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let _worker = site.worker(&server, "w", &[]);
    let cli = site.cli(&server);
    let dir = project(&site.path().join("project"));
    let out = site.path().join("out");
    fs::create_dir_all(out.join("dist")).unwrap();
    fs::write(out.join("dist/size"), "old").unwrap();
    fs::write(out.join("kept"), "kept").unwrap();

    // Failures leave something too.
    let run = ["run", "--dir", &dir, "--outputs", "dist/**", "--outputs", "*.log", "--download", out.to_str().unwrap()];
    let output = cli.run(&[&run[..], &["--", "./run.sh", "3"]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert_eq!(output.stdout, b".gitignore\nrun.sh\nsrc\n");
    assert!(said.contains("warning: ") && said.contains("*.log") && said.contains("2 files in "), "{said}");
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(
        (read("dist/size"), read("dist/sub/deep"), read("kept")),
        ("5\n".into(), "deep\n".into(), "kept".into())
    );

    // The same directory is known already.
    let files = || -> Value { serde_json::from_str(&cli.say(&["--json", "files"])).unwrap() };
    let known = files();
    let id = known["files"][0]["fileId"].as_str().unwrap().to_owned();
    assert_eq!((known["files"].as_array().unwrap().len(), &known["files"][0]["name"]), (1, &json!("project.zip")));
    assert_eq!(cli.say(&["upload", &dir]), id);
    assert_eq!(files(), known);

    let job = cli.say(&[
        "submit",
        "--follow",
        "--quiet",
        "--file-id",
        &id,
        "--workdir",
        "src",
        "--outputs",
        "data",
        "cat data",
    ]);
    assert_eq!(job, "12345");
    let list: Value = serde_json::from_str(&cli.say(&["--json", "list", "-n", "1"])).unwrap();
    let job = list["jobs"][0]["jobId"].as_str().unwrap();
    assert_eq!(cli.say(&["artifacts", job]).split_whitespace().last(), Some("data"));
    let saved = site.path().join("saved.zip");
    cli.say(&["artifacts", "--save", saved.to_str().unwrap(), job]);
    assert!(fs::read(&saved).unwrap().starts_with(b"PK"));
    // What was saved can come along as it is.
    assert_eq!(cli.say(&["run", "--zip", saved.to_str().unwrap(), "cat data"]), "12345");

    cli.say(&["files", "--remove", &id]);
    assert!(!cli.run(&["run", "--file-id", &id, "true"]).status.success());
}

#[test]
fn what_can_not_come_along_or_back_is_said() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let _worker = site.worker(&server, "w", &[]);
    let cli = site.cli(&server);
    let fails = |args: &[&str]| {
        let output = cli.run(args);
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let text = site.path().join("text");
    fs::write(&text, "this is no ZIP").unwrap();
    assert!(fails(&["run", "--zip", text.to_str().unwrap(), "true"]).contains("is no ZIP"));
    assert!(fails(&["run", "--dir", "/nowhere", "true"]).contains("/nowhere: No such file"));
    assert!(fails(&["run", "--download", "out", "true"]).contains("--outputs"));
    assert!(fails(&["run", "--outputs", "../x", "true"]).contains("outputs[0]"));
    assert!(fails(&["run", "--file-id", &"0".repeat(64), "true"]).contains("fileId: there is no such file"));
    let job = cli.say(&["submit", "--follow", "--json", "true"]);
    let job: Value = serde_json::from_str(&job).unwrap();
    assert!(fails(&["artifacts", job["jobId"].as_str().unwrap()]).contains("the job left nothing"));
}
