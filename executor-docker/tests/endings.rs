//! What keeps a job from running, or ends it from outside: each told apart.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "helpers of tests fail as tests do"
)]

mod common;

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::executor::Executor;
use cmdexec_core::job::{JobSpec, Outcome};
use cmdexec_executor_docker::{DockerExecutor, Options, Pull};
use cmdexec_testkit::executor::Subject;

use common::{GRACE, IMAGE, complaint, dir, docker, docker_says, executor, host, options, subject};

/// What an executor says of a job in an image.
async fn said_of(change: impl FnOnce(&mut Options), image: &str, spec: JobSpec) -> Option<Outcome> {
    let subject = Subject::new(executor(change).await?, GRACE).with_image(image);
    Some(subject.run(spec).await.outcome)
}

/// Makes an image with these files and no others.
fn image_of(host: &str, name: &str, files: &[(&str, &str)]) {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let tar = root.path().with_extension("tar");
    assert!(
        Command::new("tar")
            .args(["-C", root.path().to_str().unwrap(), "-cf", tar.to_str().unwrap(), "."])
            .status()
            .unwrap()
            .success()
    );
    docker_says(host, &["import", tar.to_str().unwrap(), name]);
    fs::remove_file(tar).unwrap();
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named() {
    let Some(outcome) = said_of(|o| o.pull = Pull::Never, "cmdexec-missing:1", JobSpec::shell("x")).await else {
        return;
    };
    assert!(complaint(&outcome).contains("docker.io/library/cmdexec-missing:1"), "{outcome:?}");
    // Nobody answers there.
    let outcome = said_of(|_| (), "localhost:1/missing", JobSpec::shell("x")).await.unwrap();
    let said = complaint(&outcome);
    assert!(said.contains("localhost:1/missing:latest could not be pulled") && said.contains("refused"), "{said}");
}

#[tokio::test]
async fn the_beginning_of_an_id_is_no_name() {
    let Some(host) = host() else { return };
    let id = docker_says(&host, &["image", "inspect", "-f", "{{.Id}}", IMAGE]);
    let short = &id.trim_start_matches("sha256:")[..12];
    let outcome = said_of(|o| o.pull = Pull::Never, short, JobSpec::shell("x")).await.unwrap();
    assert!(complaint(&outcome).contains("does not have the image"), "{outcome:?}");
}

#[tokio::test]
async fn an_image_without_a_shell_says_so() {
    let Some(host) = host() else { return };
    image_of(&host, "cmdexec-empty:1", &[("data", "x")]);
    let outcome = said_of(|_| (), "cmdexec-empty:1", JobSpec::shell("x")).await.unwrap();
    let said = complaint(&outcome);
    assert!(said.contains("/bin/sh") && said.contains("cmdexec-empty:1") && said.contains("No such file"), "{said}");
}

#[tokio::test]
async fn a_policy_is_asked_before_anything_is_fetched() {
    let refuse = |options: &mut Options| {
        options.policy.images = vec!["debian".to_owned()];
        options.pull = Pull::Always;
    };
    let Some(outcome) = said_of(refuse, "localhost:1/x", JobSpec::shell("x")).await else { return };
    assert!(complaint(&outcome).contains("images: debian"), "{outcome:?}");
    let most = |options: &mut Options| options.policy.most.memory_mb = Some(64);
    let mut greedy = JobSpec::shell("x");
    greedy.resources.memory_mb = Some(65);
    let outcome = said_of(most, IMAGE, greedy).await.unwrap();
    assert!(complaint(&outcome).contains("more than 64 MiB"), "{outcome:?}");
    // One that does not say gets no more.
    let hog = JobSpec::shell("x=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; while :; do x=$x$x; done");
    assert_eq!(said_of(most, IMAGE, hog).await.unwrap(), Outcome::OutOfMemory);
}

#[tokio::test]
async fn the_image_s_variables_are_the_jobs() {
    let Some(host) = host() else { return };
    let name = "cmdexec-env:1";
    let made = docker_says(&host, &["create", IMAGE, "true"]);
    docker_says(
        &host,
        &[
            "commit",
            "-c",
            "ENV TOOL=9",
            "-c",
            "ENV PATH=/tools:/bin",
            "-c",
            "ENV LANG=de",
            "-c",
            "ENTRYPOINT [\"/bin/false\"]",
            &made,
            name,
        ],
    );
    docker_says(&host, &["rm", &made]);
    let subject = Subject::new(executor(|_| ()).await.unwrap(), GRACE).with_image(name);
    let mut spec = JobSpec::shell("echo $TOOL $PATH $LANG $HOME");
    assert_eq!(subject.run(spec.clone()).await.succeeded(), "9 /tools:/bin de /work\n");
    spec.env.insert("TOOL".to_owned(), "10".to_owned());
    assert_eq!(subject.run(spec).await.succeeded(), "10 /tools:/bin de /work\n");
}

#[tokio::test]
async fn a_signal_is_reported_as_the_kernel_does() {
    for attach in [false, true] {
        let Some(subject) = subject(|options| options.attach = attach).await else { return };
        assert_eq!(subject.sh("kill -9 $$").await.outcome, Outcome::Signaled { signal: 9 });
        assert_eq!(
            subject.run(JobSpec::steps(["kill -6 $$", "echo second"])).await.outcome,
            Outcome::Signaled { signal: 6 }
        );
        assert_eq!(subject.sh("exit 137").await.outcome, Outcome::Exited { code: 137 });
    }
}

#[tokio::test]
async fn the_longest_time_is_the_workers() {
    let Some(subject) = subject(|options| options.most_time = Some(Duration::from_millis(300))).await else { return };
    assert_eq!(subject.sh("sleep 100").await.outcome, Outcome::TimedOut);
}

/// The containers of an executor, by what the daemon knows.
fn left(host: &str, dir: &std::path::Path) -> Vec<String> {
    let filter = format!("label=cmdexec.dir={}", dir.display());
    docker_says(host, &["ps", "-aq", "--filter", &filter]).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn nothing_is_left_at_the_end() {
    let Some(options) = options(|options| options.policy.network = true) else { return };
    let (host, dir) = (options.host.clone(), options.dir.clone());
    let subject = Subject::new(DockerExecutor::open(options).await.unwrap(), GRACE).with_image(IMAGE);
    subject.sh("echo x > /tmp/x").await.succeeded();
    let mut networked = JobSpec::shell("true");
    networked.network = Some(cmdexec_core::job::Network::Bridge);
    subject.run(networked).await.succeeded();
    let mut under_way = subject.begin(JobSpec::shell("echo ready; sleep 100"));
    under_way.until("ready").await;
    under_way.abandon();
    subject.executor.shutdown().await;
    assert_eq!(left(&host, &dir), [""; 0]);
    let filter = format!("label=cmdexec.dir={}", dir.display());
    assert_eq!(docker_says(&host, &["network", "ls", "-q", "--filter", &filter]), "");
    let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["init"]);
    // After the end there is nothing to run jobs with.
    assert!(matches!(subject.sh("true").await.outcome, Outcome::ExecutorError { .. }));
}

/// Is run as a process of its own by the next test, and killed there.
#[tokio::test]
#[ignore = "the other test runs it as the process that is killed"]
async fn a_worker_that_will_be_killed() {
    let Some(path) = std::env::var_os("CMDEXEC_TEST_DOCKER_DIR") else { return };
    let Some(options) = options(|options| options.dir = path.into()) else { return };
    let subject = Subject::new(DockerExecutor::open(options).await.unwrap(), GRACE).with_image(IMAGE);
    let mut trial =
        subject.begin(JobSpec::shell(": > beat; while :; do echo x >> beat; sleep 0.02; done & echo ready; sleep 100"));
    trial.until("ready").await;
    println!("runs in {}", trial.dir.display());
    trial.end().await;
}

#[tokio::test]
async fn what_a_killed_worker_left_ends_and_is_swept() {
    use std::io::BufRead;
    let Some(host) = host() else { return };
    let dir = dir();
    let mut worker = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--nocapture", "--exact", "a_worker_that_will_be_killed"])
        .env("CMDEXEC_TEST_DOCKER_DIR", &dir)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(worker.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.contains("runs in ")).unwrap();
    let job = std::path::PathBuf::from(line.split_once("runs in ").unwrap().1);
    worker.kill().unwrap();
    worker.wait().unwrap();
    // Its jobs end with it, by themselves.
    let length = || fs::metadata(job.join("beat")).unwrap().len();
    let mut before = 0;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if before == length() {
            break;
        }
        before = length();
    }
    assert_eq!(length(), before, "the job still runs");
    assert!(!left(&host, &dir).is_empty());
    // A neighbour's are not swept with them.
    let neighbour = subject(|_| ()).await.unwrap();
    let mut neighbours = neighbour.begin(JobSpec::shell("echo ready; sleep 1; echo on"));
    neighbours.until("ready").await;
    let next = executor(|options| options.dir.clone_from(&dir)).await.unwrap();
    next.recover().await.unwrap();
    assert_eq!(left(&host, &dir), [""; 0]);
    assert_eq!(neighbours.end().await.succeeded(), "ready\non\n");
    fs::remove_dir_all(job.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn a_container_that_somebody_removes_is_told() {
    let Some(options) = options(|_| ()) else { return };
    let (host, dir) = (options.host.clone(), options.dir.clone());
    let subject = Subject::new(DockerExecutor::open(options).await.unwrap(), GRACE).with_image(IMAGE);
    let mut trial = subject.begin(JobSpec::shell("echo ready; sleep 100"));
    trial.until("ready").await;
    let found = left(&host, &dir);
    let arguments: Vec<&str> = ["rm", "-f"].into_iter().chain(found.iter().map(String::as_str)).collect();
    docker(&host, &arguments);
    let ended = trial.end().await;
    let said = complaint(&ended.outcome);
    assert!(said.contains("removed") || said.contains("ended from outside"), "{said}");
    assert_eq!(subject.sh("echo next").await.succeeded(), "next\n");
}

/// A container that is frozen ends when it is told to, though its first process hears nothing.
#[tokio::test]
async fn a_frozen_container_is_ended() {
    let Some(options) = options(|_| ()) else { return };
    let (host, dir) = (options.host.clone(), options.dir.clone());
    let subject = Subject::new(DockerExecutor::open(options).await.unwrap(), GRACE).with_image(IMAGE);
    let mut spec = JobSpec::shell("echo ready; sleep 100");
    spec.timeout = Duration::from_secs(1);
    let mut trial = subject.begin(spec);
    trial.until("ready").await;
    let found = left(&host, &dir);
    let arguments: Vec<&str> = ["pause"].into_iter().chain(found.iter().map(String::as_str)).collect();
    docker(&host, &arguments);
    assert_eq!(trial.end().await.outcome, Outcome::TimedOut);
    subject.executor.shutdown().await;
    assert_eq!(left(&host, &dir), [""; 0]);
}

#[tokio::test]
async fn limits_hold_in_containers_that_were_ready() {
    let Some(subject) = subject(|_| ()).await else { return };
    // The first makes one ready for the next.
    subject.sh("true").await.succeeded();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut spec =
        JobSpec::shell("cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true");
    spec.resources.memory_mb = Some(48);
    assert_eq!(subject.run(spec).await.succeeded().trim(), (48 << 20).to_string());
}

#[tokio::test]
async fn a_runtime_that_the_daemon_lacks_is_refused() {
    let Some(options) = options(|options| options.runtime = Some("nowhere".to_owned())) else { return };
    assert!(DockerExecutor::open(options).await.unwrap_err().to_string().contains("nowhere"));
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_said() {
    let mut options = Options::new(dir());
    options.host = "unix:///nowhere/docker.sock".to_owned();
    let said = DockerExecutor::open(options).await.unwrap_err().to_string();
    assert!(said.contains("/nowhere/docker.sock"), "{said}");
}

#[tokio::test]
async fn stopping_while_an_image_is_fetched_is_a_stop() {
    let Some(_) = host() else { return };
    // A registry that takes the connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("localhost:{}/x", silent.local_addr().unwrap().port());
    let subject = Arc::new(Subject::new(executor(|_| ()).await.unwrap(), GRACE).with_image(image));
    let trial = subject.begin(JobSpec::shell("true"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    trial.stop.cancel();
    let ended = trial.end().await;
    assert_eq!(ended.outcome, Outcome::Stopped);
    assert!(String::from_utf8_lossy(&ended.stderr).contains("pulling localhost:"));
}

#[tokio::test]
async fn graphics_processors_that_are_not_there_are_said() {
    let Some(subject) = subject(|options| options.gpus = Some(1)).await else { return };
    assert_eq!(subject.executor.capabilities().gpus, 1);
    let mut spec = JobSpec::shell("true");
    spec.resources.gpus = Some(2);
    assert!(complaint(&subject.run(spec.clone()).await.outcome).contains("does not have that many"));
    // The daemon is asked for the one, and has none.
    spec.resources.gpus = Some(1);
    let said = subject.run(spec.clone()).await.outcome;
    assert!(complaint(&said).contains("device driver"), "{said:?}");
    // It is free for the next all the same.
    let said = subject.run(spec).await.outcome;
    assert!(complaint(&said).contains("device driver"), "{said:?}");
}

#[tokio::test]
async fn the_attempt_says_which_image_it_ran_in() {
    let Some(subject) = subject(|_| ()).await else { return };
    let trial = subject.begin(JobSpec::shell("true"));
    let steps = trial.steps();
    trial.end().await.succeeded();
    assert!(steps.image().unwrap().starts_with("sha256:"), "{steps:?}");
}

#[tokio::test]
async fn an_image_has_nothing_run_beside_the_job() {
    let Some(host) = host() else { return };
    let made = docker_says(&host, &["create", IMAGE, "true"]);
    let check = "HEALTHCHECK --interval=1s CMD echo x >> /work/checked";
    docker_says(&host, &["commit", "-c", check, &made, "cmdexec-checked:1"]);
    docker_says(&host, &["rm", &made]);
    let subject = Subject::new(executor(|_| ()).await.unwrap(), GRACE).with_image("cmdexec-checked:1");
    assert_eq!(subject.sh("sleep 2.5; ls").await.succeeded(), "");
}
