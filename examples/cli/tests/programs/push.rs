//! The push channel between the programs: watching over it, its own port, doing without it, and being thrown out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Cli, Process, Server, Site, program, until};
use crate::relay::Relay;

/// A command whose lines are read as they come; killed when it is dropped.
struct Lines {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Lines {
    fn of(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let lines = Arc::<Mutex<Vec<String>>>::default();
        std::thread::spawn({
            let lines = Arc::clone(&lines);
            move || output.lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line))
        });
        Self { child, lines }
    }

    fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn interrupt(&self) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    }

    fn ended(&mut self) -> Option<i32> {
        until("a command's end", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server behind a relay, and the command line through it.
fn behind(site: &Site) -> (Server, Relay, Cli) {
    let server = site.server(0, &[]);
    let relay = Relay::to(server.port());
    let cli = Cli { url: relay.url("http"), ..site.cli(&server) };
    (server, relay, cli)
}

fn worker(site: &Site, server: &Server, name: &str, url: &str, transport: &str) -> Process {
    site.worker(server, name, &[("SERVER_URL", url), ("TRANSPORT", transport)])
}

#[test]
fn watching_a_job_over_a_socket_ends_with_the_job() {
    let site = Site::new();
    let (server, relay, cli) = behind(&site);
    let id = cli.say(&["submit", "exit 3"]);
    let (mut plain, mut json) =
        (Lines::of(cli.command(&["watch", &id])), Lines::of(cli.command(&["--json", "watch", &id])));
    until("both know where it stands", || (plain.all().len() == 1 && json.all().len() == 1).then_some(()));
    assert_eq!(relay.opened(), 2, "each has a socket");

    let _worker = worker(&site, &server, "w", &server.url, "http");
    assert_eq!((plain.ended(), json.ended()), (Some(0), Some(0)));
    let updates: Vec<Value> = json.all().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(updates.iter().all(|update| update["jobId"] == *id), "{updates:?}");
    assert_eq!(updates[0]["status"], "queued");
    let last = updates.last().unwrap();
    assert_eq!((&last["status"], &last["exitCode"], &last["workerId"]), (&"failed".into(), &3.into(), &"w".into()));
    let versions: Vec<_> = updates.iter().map(|update| update["version"].as_u64().unwrap()).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    let line = plain.all().pop().unwrap();
    assert!(line.ends_with(&format!("{id} failed on w exit 3")), "{line}");
}

#[test]
fn watching_all_jobs_shows_ones_own_until_it_is_interrupted() {
    let site = Site::new();
    let (_server, relay, cli) = behind(&site);
    let mut watching = Lines::of(cli.command(&["--json", "watch"]));
    // Changes count from when it has begun.
    until("a change is seen", || {
        cli.say(&["submit", "true"]);
        (!watching.all().is_empty()).then_some(())
    });
    let (first, second) = (cli.say(&["submit", "true"]), cli.say(&["submit", "true"]));
    cli.say(&["cancel", &first]);
    let saw = |id: &str, status: &str| {
        watching.all().iter().any(|line| line.contains(id) && line.contains(&format!("\"{status}\"")))
    };
    until("both are seen", || (saw(&first, "cancelled") && saw(&second, "queued")).then_some(()));
    assert_eq!(relay.opened(), 1, "over a socket");

    // It goes on over the next socket, and by HTTP where there is none.
    relay.refuse();
    until("changes are seen without a socket", || {
        let id = cli.say(&["submit", "true"]);
        saw(&id, "queued").then_some(())
    });
    watching.interrupt();
    assert_eq!(watching.ended(), Some(130));
}

#[test]
fn a_worker_goes_on_by_http_without_a_socket_and_returns_to_it() {
    let site = Site::new();
    let (server, relay, cli) = behind(&site);
    relay.refuse();
    let _worker = worker(&site, &server, "w", &relay.url("ws"), "auto");
    assert_eq!(cli.say(&["run", "echo by http"]), "by http");
    until("it has tried the socket", || (relay.refused() > 0 && relay.opened() == 0).then_some(()));

    relay.allow();
    let opened = until("it has a socket", || Some(relay.opened()).filter(|opened| *opened > 0));
    assert_eq!(cli.say(&["run", "echo over it"]), "over it");

    // While a job runs it is cut: the job goes on, and is reported by HTTP.
    let go = site.traces().join("go");
    let id =
        cli.say(&["submit", &format!("echo one; while ! test -e {}; do sleep 0.05; done; echo two", go.display())]);
    cli.until(&id, "running");
    let refused = relay.refused();
    relay.refuse();
    until("it misses the socket", || (relay.refused() > refused).then_some(()));
    std::fs::write(go, "").unwrap();
    let job = cli.until(&id, "completed");
    assert_eq!((&job["stdout"], job["attempts"].as_array().unwrap().len()), (&"one\ntwo\n".into(), 1));

    relay.allow();
    until("it is back at a socket", || (relay.opened() > opened).then_some(()));
    assert_eq!(cli.say(&["run", "echo over it again"]), "over it again");
}

#[test]
fn a_transport_that_is_named_beats_the_scheme() {
    let site = Site::new();
    let (server, relay, cli) = behind(&site);
    let asking = worker(&site, &server, "asking", &relay.url("ws"), "http");
    assert_eq!(cli.say(&["run", "echo asked for"]), "asked for");
    assert_eq!((relay.opened(), relay.refused()), (0, 0));
    drop(asking);
    let _pushed = worker(&site, &server, "pushed", &relay.url("http"), "ws");
    until("it has a socket", || (relay.opened() > 0).then_some(()));
    assert_eq!(cli.say(&["run", "--max-attempts", "9", "echo pushed"]), "pushed");
}

/// A port that is free now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The answer to a request, until the server has said so much.
fn ask(port: u16, request: &str, until: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let (mut answer, mut piece) = (String::new(), [0; 1024]);
    while !answer.contains(until) {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "it ended after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(piece.get(..read).unwrap()));
    }
    answer
}

fn handshake(token: &str) -> String {
    format!(
        "GET /api/ws HTTP/1.1\r\nhost: here\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-worker-token: {token}\r\n\r\n"
    )
}

fn worker_token(site: &Site, id: &str) -> String {
    let mut command = Command::new(program("cmdexec"));
    command.env_clear().args(["token", "worker", "--id", id, "--secrets"]).arg(site.path().join("data/secrets.env"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_push_channel_has_a_port_of_its_own_where_one_is_set() {
    let site = Site::new();
    let port = free_port();
    let server = site.server(0, &[("WS_PORT", &port.to_string()), ("LEASE_MS", "6000")]);
    let token = worker_token(&site, "told");
    for port in [port, server.port()] {
        // Who is gone is found within two heartbeats, of which a lease has six.
        let answer = ask(port, &handshake(&token), "\"pingIntervalMs\":1000,");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    }
    let body = r#"{"hostname": "h", "cpuCount": 1, "totalMemoryMb": 64}"#;
    let request = format!(
        "POST /api/workers/register HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nx-worker-token: {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        server.port(),
        body.len()
    );
    let told = ask(server.port(), &request, "/api/ws");
    assert!(told.contains(&format!("ws://127.0.0.1:{port}/api/ws")), "{told}");

    let _worker = worker(&site, &server, "w", &format!("ws://127.0.0.1:{port}"), "auto");
    assert_eq!(site.cli(&server).say(&["run", "echo through it"]), "through it");
}

#[test]
fn a_worker_that_is_removed_loses_its_socket_and_ends() {
    let site = Site::new();
    let (server, relay, cli) = behind(&site);
    let worker = worker(&site, &server, "gone", &relay.url("ws"), "auto");
    until("it has a socket", || (relay.opened() > 0).then_some(()));
    // Another socket of the same worker's, which says nothing.
    let mut silent = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    silent.write_all(handshake(&worker_token(&site, "gone")).as_bytes()).unwrap();
    let (mut said, mut piece) = (Vec::new(), [0; 1024]);
    while !String::from_utf8_lossy(&said).contains("welcome") {
        let read = silent.read(&mut piece).unwrap();
        assert!(read > 0);
        said.extend_from_slice(piece.get(..read).unwrap());
    }

    cli.say(&["workers", "--remove", "gone"]);
    silent.read_to_end(&mut said).unwrap();
    let close = [&[0x88, 2 + 22][..], &4403_u16.to_be_bytes(), b"the worker was removed"].concat();
    assert!(said.ends_with(&close), "{:?}", String::from_utf8_lossy(&said));
    assert_eq!(worker.ended().code(), Some(1));
}
