//! A daemon of a test's own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cmdexec_executor_docker::{DockerExecutor, Options};
use cmdexec_testkit::executor::Subject;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{GRACE, IMAGE, docker, docker_says, host};

pub(crate) struct Daemon {
    process: Child,
    arguments: Vec<String>,
    /// Where its socket is, and all that it has but for what `arguments` put elsewhere.
    dir: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::SIGCONT);
        self.signal(Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

impl Daemon {
    /// One with the image, where there is one at all.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// One that is told more.
    pub(crate) fn start_with(arguments: &[&str]) -> Option<Self> {
        let mut program = Command::new("dockerd");
        Self::start_as(&mut program, arguments)
    }

    /// One that is started by this program, which is told what the daemon is to be told.
    pub(crate) fn start_as(program: &mut Command, arguments: &[&str]) -> Option<Self> {
        let tests = host()?;
        let dir = tempfile::tempdir().unwrap();
        // Who is root in its containers may be somebody else here, and must get to their files.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let arguments = Self::arguments(dir.path(), arguments);
        let daemon = Self { process: Self::spawn(program, &arguments), arguments, dir };
        daemon.wait();
        let image = daemon.dir.path().join("image.tar");
        docker_says(&tests, &["save", "-o", image.to_str().unwrap(), IMAGE]);
        docker_says(&daemon.host(), &["load", "-i", image.to_str().unwrap()]);
        Some(daemon)
    }

    fn arguments(dir: &Path, more: &[&str]) -> Vec<String> {
        let at = |name: &str| dir.join(name).display().to_string();
        let mut arguments: Vec<String> = ["--bridge", "none", "--iptables=false"].map(str::to_owned).into();
        arguments.extend(["--host".to_owned(), format!("unix://{}", at("socket"))]);
        for name in ["exec-root", "pidfile", "data-root"] {
            // Said twice, it does not start.
            if !more.iter().any(|argument| argument.starts_with(&format!("--{name}="))) {
                arguments.push(format!("--{name}={}", at(name)));
            }
        }
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        arguments
    }

    fn spawn(program: &mut Command, arguments: &[String]) -> Child {
        program.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("socket").display())
    }

    fn wait(&self) {
        for _ in 0..300 {
            if docker(&self.host(), &["version"]).status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the daemon does not start");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(i32::try_from(self.process.id()).unwrap()), signal);
    }

    pub(crate) fn restart(&mut self) {
        self.signal(Signal::SIGTERM);
        self.process.wait().unwrap();
        self.process = Self::spawn(&mut Command::new("dockerd"), &self.arguments);
        self.wait();
    }

    pub(crate) fn options(&self, change: impl FnOnce(&mut Options)) -> Options {
        let mut options = Options::new(super::dir());
        options.host = self.host();
        options.grace = GRACE;
        change(&mut options);
        options
    }

    pub(crate) async fn executor(&self, change: impl FnOnce(&mut Options)) -> DockerExecutor {
        DockerExecutor::open(self.options(change)).await.unwrap()
    }

    pub(crate) async fn subject(&self, change: impl FnOnce(&mut Options)) -> Subject {
        Subject::new(self.executor(change).await, GRACE).with_image(IMAGE)
    }
}

/// An address on this machine where nobody listens yet.
pub(crate) fn free_address() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("tcp://127.0.0.1:{port}")
}
