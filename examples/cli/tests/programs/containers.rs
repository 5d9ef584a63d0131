//! Jobs in containers, with the programs. `CMDEXEC_TEST_DOCKER` is where a daemon listens; `scripts/test` starts one.

use nix::sys::signal::Signal;

use crate::harness::Site;

const IMAGE: &str = "cmdexec-test:latest";

fn daemon() -> Option<String> {
    let host = std::env::var("CMDEXEC_TEST_DOCKER").ok();
    if host.is_none() {
        cmdexec_testkit::skip("there is no Docker daemon (CMDEXEC_TEST_DOCKER)");
    }
    host
}

#[test]
fn a_job_that_names_an_image_runs_in_it() {
    let Some(host) = daemon() else { return };
    let site = Site::new();
    let server = site.server(0, &[]);
    let worker = site.worker(&server, "w", &[("ENABLE_DOCKER", "true"), ("DOCKER_HOST", &host), ("SLOTS", "4")]);
    let cli = site.cli(&server);

    let output = cli.run(&["run", "--image", IMAGE, "hostname; pwd; echo oh >&2; exit 7"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(7), b"job\n/work\n".as_slice()));
    assert!(output.stderr.starts_with(b"oh\n"));
    // Beside a process, on the same worker.
    assert_ne!(cli.say(&["run", "hostname"]), "job");

    // Files come along, and what it leaves is kept: twice, the second time from the worker's cache and in a container that was ready.
    let project = site.path().join("project");
    std::fs::create_dir(&project).unwrap();
    std::fs::write(project.join("in.txt"), "brought").unwrap();
    for i in 0..2 {
        let out = site.path().join(format!("out-{i}"));
        let (dir, into) = (project.to_str().unwrap(), out.to_str().unwrap());
        let line = "cat in.txt; rm in.txt; echo made > out.txt; id -u > user.txt";
        let run = ["run", "--image", IMAGE, "--dir", dir, "--outputs", "*.txt", "--download", into, "--", line];
        assert!(cli.say(&run).starts_with("brought"), "{run:?}");
        assert_eq!(std::fs::read_to_string(out.join("out.txt")).unwrap(), "made\n");
        assert!(!out.join("in.txt").exists());
    }

    let id = cli.say(&["submit", "--image", IMAGE, "--reuse", "--memory", "64M", "true"]);
    let job = cli.until(&id, "completed");
    assert_eq!(job["reuse"], true);
    let output = cli.run(&["run", "--image", "cmdexec-none:1", "--max-attempts", "1", "true"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("cmdexec-none:1") && said.contains("could not be pulled"),
        "{said}"
    );

    // A worker without graphics processors is not given such a job.
    let id = cli.say(&["submit", "--image", IMAGE, "--gpus", "1", "true"]);
    cli.say(&["run", "--image", IMAGE, "true"]);
    assert_eq!(cli.job(&id)["status"], "queued");
    let output = cli.run(&["submit", "--gpus", "1", "true"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("needs a `containerImage`"));

    worker.signal(Signal::SIGTERM);
    assert!(worker.ended().success());
    let containers = site.path().join("w/containers");
    let label = format!("label=cmdexec.dir={}", containers.display());
    let left =
        std::process::Command::new("docker").args(["-H", &host, "ps", "-aq", "--filter", &label]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}
