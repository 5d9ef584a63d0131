//! Fetching images, from a registry that asks who one is.
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
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cmdexec_core::job::{JobSpec, Outcome};
use cmdexec_executor_docker::{Credentials, Options, Pull};
use cmdexec_testkit::disk::Disk;
use cmdexec_testkit::executor::{Ended, Subject};

use common::daemon::Daemon;
use common::{GRACE, IMAGE, complaint, docker, docker_says, executor, host};

/// `hush`, as `htpasswd -B` writes it.
const PASSWORD_FILE: &str = "me:$2b$04$PJKgyGMdx8uTE/P/8AOcoOpnPUOUxKZrS/cIbJB3rz.SvArb1inAi\n";

/// A registry on this machine.
struct Registry {
    server: Child,
    port: u16,
    host: String,
    dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Registry {
    /// Starts it, with a login that is asked for if `asks`.
    fn start(asks: bool) -> Option<Self> {
        let host = host()?;
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let users = dir.path().join("users");
        fs::write(&users, PASSWORD_FILE).unwrap();
        let auth = if asks {
            format!("auth:\n  htpasswd:\n    realm: r\n    path: {}\n", users.display())
        } else {
            String::new()
        };
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{auth}",
            dir.path().join("data").display()
        );
        let path = dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(path)
            .stdout(fs::File::create(dir.path().join("log")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Self { server, port, host, dir })
    }

    /// Puts an image there that holds this, and takes it from the daemon; its name.
    fn put(&self, name: &str, content: &str) -> String {
        let image = format!("localhost:{}/{name}", self.port);
        let made = docker_says(&self.host, &["create", IMAGE, "true"]);
        docker_says(&self.host, &["commit", "-c", &format!("ENV CONTENT={content}"), &made, &image]);
        docker_says(&self.host, &["rm", &made]);
        // The program keeps logins in a file of its own.
        let config = self.dir.path().join("config").display().to_string();
        let registry = format!("localhost:{}", self.port);
        docker(&self.host, &["--config", &config, "login", "-u", "me", "-p", "hush", &registry]);
        docker_says(&self.host, &["--config", &config, "push", &image]);
        docker_says(&self.host, &["rmi", &image]);
        image
    }

    /// How often an image was asked for, by what the registry has noted.
    fn asked(&self, name: &str) -> usize {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
        let asks = |line: &&str| {
            ["GET", "HEAD"].iter().any(|method| line.contains(&format!("\"{method} /v2/{name}/manifests/")))
        };
        log.lines().filter(asks).count()
    }

    fn has(&self, image: &str) -> bool {
        docker(&self.host, &["image", "inspect", image]).status.success()
    }
}

async fn run(image: &str, change: impl FnOnce(&mut Options)) -> Ended {
    let subject = Subject::new(executor(change).await.unwrap(), GRACE).with_image(image);
    subject.sh("echo $CONTENT").await
}

#[tokio::test]
async fn an_image_is_fetched_and_its_output_says_so() {
    let Some(registry) = Registry::start(false) else { return };
    let image = registry.put("plain:1", "one");
    let ended = run(&image, |_| ()).await;
    assert_eq!(ended.succeeded(), "one\n");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        said.contains(&format!("pulling {image}\n")) && said.contains("pulled localhost:") && said.contains("@sha256:"),
        "{said}"
    );
    // It is there now.
    let again = run(&image, |options| options.pull = Pull::Never).await;
    assert_eq!((again.succeeded(), again.stderr.len()), ("one\n".to_owned(), 0));
}

#[tokio::test]
async fn a_newer_image_is_fetched_where_that_is_wanted() {
    let Some(registry) = Registry::start(false) else { return };
    let image = registry.put("moving:1", "one");
    let subject =
        Subject::new(executor(|options| options.pull = Pull::Always).await.unwrap(), GRACE).with_image(&image);
    assert_eq!(subject.sh("echo $CONTENT").await.succeeded(), "one\n");
    let digest = docker_says(&registry.host, &["image", "inspect", "-f", "{{index .RepoDigests 0}}", &image]);
    registry.put("moving:1", "two");
    assert_eq!(subject.sh("echo $CONTENT").await.succeeded(), "two\n");
    // By its digest it is what it was.
    assert_eq!(run(&digest, |_| ()).await.succeeded(), "one\n");
}

#[tokio::test]
async fn what_the_registry_says_is_said() {
    let Some(registry) = Registry::start(false) else { return };
    let ended = run(&format!("localhost:{}/missing", registry.port), |_| ()).await;
    assert!(complaint(&ended.outcome).contains("manifest unknown"), "{:?}", ended.outcome);
}

#[tokio::test]
async fn credentials_are_the_workers() {
    let Some(registry) = Registry::start(true) else { return };
    let image = registry.put("private:1", "mine");
    let ended = run(&image, |_| ()).await;
    assert!(complaint(&ended.outcome).contains("no basic auth credentials"), "{:?}", ended.outcome);
    let of = |registry: String, password: &str| {
        let credentials = Credentials { registry, username: "me".to_owned(), password: password.to_owned() };
        move |options: &mut Options| options.credentials = vec![credentials]
    };
    let ended = run(&image, of(format!("localhost:{}", registry.port), "wrong")).await;
    assert!(!complaint(&ended.outcome).contains("wrong"), "{:?}", ended.outcome);
    // Those of another registry are not shown to this one.
    assert!(matches!(run(&image, of("ghcr.io".to_owned(), "hush")).await.outcome, Outcome::ExecutorError { .. }));
    let ended = run(&image, of(format!("localhost:{}", registry.port), "hush")).await;
    assert_eq!(ended.succeeded(), "mine\n");
}

#[tokio::test]
async fn many_who_want_an_image_fetch_it_once() {
    let Some(registry) = Registry::start(false) else { return };
    let image = registry.put("lonely:1", "one");
    let before = registry.asked("lonely");
    run(&image, |_| ()).await.succeeded();
    let once = registry.asked("lonely") - before;
    assert!(once > 0);

    let image = registry.put("popular:1", "all");
    let before = registry.asked("popular");
    let subject = Subject::new(executor(|_| ()).await.unwrap(), GRACE).with_image(&image);
    let mut trials: Vec<_> = (0..6).map(|_| subject.begin(JobSpec::shell("echo $CONTENT"))).collect();
    // One that is stopped does not stop the others.
    let stopped = trials.remove(0);
    stopped.stop.cancel();
    stopped.end().await;
    for trial in trials {
        assert_eq!(trial.end().await.succeeded(), "all\n");
    }
    assert_eq!(registry.asked("popular") - before, once, "one pull for all of them");
}

#[tokio::test]
async fn images_beyond_the_budget_go_and_others_stay() {
    let Some(registry) = Registry::start(false) else { return };
    let [first, second, third] = ["one", "two", "three"].map(|name| registry.put(&format!("budget-{name}:1"), name));
    // Each is about 2 MiB, by what the daemon says.
    let subject = |image: &str, executor| Subject::new(executor, GRACE).with_image(image);
    let dir = common::dir();
    let open = || {
        executor(|options| {
            options.images_mb = Some(5);
            options.pool.most = 0;
            options.dir.clone_from(&dir);
        })
    };
    for image in [&first, &second, &first, &third] {
        let subject = subject(image, open().await.unwrap());
        subject.sh("true").await.succeeded();
        subject.executor.shutdown().await;
    }
    assert!(!registry.has(&second), "it was not used for longest");
    assert!(registry.has(&first) && registry.has(&third));
    assert!(registry.has(IMAGE), "it was there before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_not_the_registrys_fault() {
    let Some(registry) = Registry::start(false) else { return };
    let Some(disk) = Disk::mount(48) else { return };
    let image = registry.put("small:1", "one");
    let Some(daemon) = Daemon::start_with(&[&format!("--data-root={}", disk.path().display())]) else { return };
    let subject = Subject::new(daemon.executor(|_| ()).await, GRACE).with_image(&image);
    disk.fill();
    let ended = subject.sh("true").await;
    assert!(complaint(&ended.outcome).contains("the container daemon's disk is full"), "{:?}", ended.outcome);
    disk.empty();
    assert_eq!(subject.sh("echo $CONTENT").await.succeeded(), "one\n");
    subject.executor.shutdown().await;
}
