//! Starting, killing and asking the programs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long anything may take. Nothing is judged by time: this only ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub(crate) fn until<T>(what: &str, mut is_so: impl FnMut() -> Option<T>) -> T {
    let step = Duration::from_millis(20);
    for _ in 0..PATIENCE.as_millis() / step.as_millis() {
        if let Some(found) = is_so() {
            return found;
        }
        sleep(step);
    }
    panic!("waited in vain: {what}");
}

/// Where the programs are. Cargo builds those of other packages beside this one's when the whole workspace is tested;
/// otherwise, or if they are older than their source, they are built here.
pub(crate) fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let own = PathBuf::from(env!("CARGO_BIN_EXE_cmdexec"));
    if name == "cmdexec" {
        return own;
    }
    let folder = own.parent().unwrap();
    BUILT.get_or_init(|| {
        let newest = newest_source();
        let is_fresh = |name| fs::metadata(folder.join(name)).is_ok_and(|file| file.modified().unwrap() >= newest);
        if !["cmdexec-server", "cmdexec-worker"].into_iter().all(is_fresh) {
            let mut cargo = Command::new(env!("CARGO"));
            let built = cargo.args(["build", "-p", "cmdexec-server", "-p", "cmdexec-worker"]).status().unwrap();
            assert!(built.success(), "the programs must build");
        }
    });
    folder.join(name)
}

fn newest_source() -> SystemTime {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rooms = [
        "core/src",
        "core/launcher",
        "store-sqlite/src",
        "transport-http/src",
        "transport-ws/src",
        "wire/src",
        "store-mongo/src",
        "executor-docker/src",
        "executor-docker/init",
    ];
    let programs = ["examples/program/src", "examples/server/src", "examples/worker/src"];
    let newest = rooms.iter().chain(&programs).map(|room| newest_in(&root.join(room))).max();
    newest.unwrap()
}

fn newest_in(folder: &Path) -> SystemTime {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let times = entries.map(|path| if path.is_dir() { newest_in(&path) } else { modified(&path) });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// A folder for one test, with a server's database, and a place where jobs can leave traces.
pub(crate) struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Self { folder };
        // Where jobs run as users of their own, they must get through.
        fs::set_permissions(site.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::create_dir(site.traces()).unwrap();
        fs::set_permissions(site.traces(), fs::Permissions::from_mode(0o777)).unwrap();
        site
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A folder that jobs can write to.
    pub(crate) fn traces(&self) -> PathBuf {
        self.path().join("traces")
    }

    /// What a job has left there.
    pub(crate) fn trace(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.traces().join(name)).ok()
    }

    /// A server over this site's database, without request limits.
    pub(crate) fn server(&self, port: u16, settings: &[(&str, &str)]) -> Server {
        let mut command = Command::new(program("cmdexec-server"));
        let database = format!("sqlite://{}", self.path().join("data/jobs.db").display());
        command.env_clear().args(["--port", &port.to_string(), "--database-url", &database, "--metrics-bind", "off"]);
        for limit in ["JOBS", "HEARTBEAT", "REGISTER", "REQUESTS"] {
            command.env(format!("RATE_LIMIT_MAX_{limit}"), "0");
        }
        command.envs(settings.iter().copied());
        let (process, line) = Process::start(&mut command, "listening on ");
        Server { process, url: line }
    }

    pub(crate) fn worker(&self, server: &Server, name: &str, settings: &[(&str, &str)]) -> Process {
        let secrets = fs::read_to_string(self.path().join("data/secrets.env")).unwrap();
        let secret = secrets.lines().find_map(|line| line.strip_prefix("WORKER_TOKEN_SECRET=")).unwrap();
        let mut command = Command::new(program("cmdexec-worker"));
        command.env_clear().env("WORK_DIR", self.path().join(name)).env("WORKER_ID", name);
        command.env("SERVER_URL", &server.url).env("WORKER_TOKEN_SECRET", secret).envs(settings.iter().copied());
        Process::start(&mut command, "worker ").0
    }

    /// The command line program, as a user of this server.
    pub(crate) fn cli(&self, server: &Server) -> Cli {
        let secrets = self.path().join("data/secrets.env");
        let token = Command::new(program("cmdexec"))
            .env_clear()
            .args(["token", "user", "--id", "ada", "--role", "admin", "--secrets"])
            .arg(secrets)
            .output()
            .unwrap();
        assert!(token.status.success(), "{}", String::from_utf8_lossy(&token.stderr));
        Cli { url: server.url.clone(), token: String::from_utf8(token.stdout).unwrap().trim().to_owned() }
    }
}

/// A program that runs until it is told not to; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    _out: std::thread::JoinHandle<()>,
}

impl Process {
    /// Starts it and waits for the line that says that it is there; gives the rest of that line.
    fn start(command: &mut Command, sign: &str) -> (Self, String) {
        let (process, lines) = Self::start_until(command, |line| line.starts_with(sign));
        (process, lines.last().unwrap().strip_prefix(sign).unwrap().to_owned())
    }

    /// Starts it and waits for a line; gives all lines up to it.
    fn start_until(command: &mut Command, is_last: impl Fn(&str) -> bool) -> (Self, Vec<String>) {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| is_last(line)) {
            let line = output.next();
            lines.push(line.unwrap_or_else(|| panic!("{command:?} ended before it was there: {:?}", child.wait())));
        }
        // Nobody reads on, but its pipe must not fill up.
        let out = std::thread::spawn(move || output.for_each(drop));
        (Self { child, _out: out }, lines)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// `kill -9`, and the process is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(9));
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> ExitStatus {
        until("a program's end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }
}

pub(crate) struct Cli {
    pub(crate) url: String,
    pub(crate) token: String,
}

impl Cli {
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("cmdexec"));
        command.env_clear().env("CMDEXEC_URL", &self.url).env("CMDEXEC_TOKEN", &self.token).args(args);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// What it prints, when it must work.
    pub(crate) fn say(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.say(&[&["--json"], args].concat())).unwrap()
    }

    pub(crate) fn job(&self, id: &str) -> Value {
        self.json(&["status", id])
    }

    /// Waits until a job is in this status.
    pub(crate) fn until(&self, id: &str, status: &str) -> Value {
        until(&format!("{id} is {status}"), || Some(self.job(id)).filter(|job| job["status"] == status))
    }
}

/// What a server in its first try prints, until the line that has this text.
pub(crate) fn try_server(args: &[&str], last: &str) -> (Process, Vec<String>) {
    let mut command = Command::new(program("cmdexec-server"));
    Process::start_until(command.env_clear().args(args), |line| line.contains(last))
}

/// A server that is not expected to run.
pub(crate) fn run_server(args: &[&str]) -> Output {
    Command::new(program("cmdexec-server")).env_clear().args(args).stdin(Stdio::null()).output().unwrap()
}

/// A command that ends by itself only after the test, and that no other test (nor this one in another run) uses.
pub(crate) fn nap(minutes: u32) -> String {
    format!("sleep {minutes}m 0.{}", std::process::id())
}

/// How many processes run this command.
pub(crate) fn processes(command: &str) -> usize {
    let line = command.replace(' ', "\0");
    let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
    entries.filter(|path| fs::read(path).is_ok_and(|found| String::from_utf8_lossy(&found).starts_with(&line))).count()
}
