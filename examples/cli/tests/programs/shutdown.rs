//! Signals end the programs in order; a second one ends them at once.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::harness::{Site, nap, processes, until};

#[test]
fn a_server_ends_in_order_and_its_successor_carries_on() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let port = server.port();
    let _worker = site.worker(&server, "w", &[]);
    let cli = site.cli(&server);
    let line = format!("echo one; while ! test -e {}/go; do sleep 0.05; done; echo two", site.traces().display());
    let id = cli.say(&["submit", &line]);
    cli.until(&id, "running");
    // Streams and waiting polls hold up nothing.
    let following = cli.command(&["logs", "-f", &id]).stdout(std::process::Stdio::piped()).spawn().unwrap();

    server.process.signal(Signal::SIGTERM);
    assert_eq!(server.process.ended().code(), Some(0));

    let _server = site.server(port, &[]);
    fs::write(site.traces().join("go"), "").unwrap();
    let job = cli.until(&id, "completed");
    assert_eq!((&job["stdout"], job["attempts"].as_array().unwrap().len()), (&"one\ntwo\n".into(), 1));
    assert_eq!(following.wait_with_output().unwrap().stdout, b"one\ntwo\n", "whoever followed saw it all, once");
}

#[test]
fn a_worker_finishes_what_it_has_within_the_time_for_it() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let worker = site.worker(&server, "w", &[("DRAIN_TIMEOUT", "60s"), ("SLOTS", "1")]);
    let cli = site.cli(&server);
    let line = format!("while ! test -e {}/go; do sleep 0.05; done; echo done", site.traces().display());
    let first = cli.say(&["submit", &line]);
    cli.until(&first, "running");
    let second = cli.say(&["submit", "true"]);

    worker.signal(Signal::SIGTERM);
    until("it drains", || (cli.json(&["workers"])["workers"][0]["status"] == "draining").then_some(()));
    fs::write(site.traces().join("go"), "").unwrap();
    assert_eq!(worker.ended().code(), Some(0));
    assert_eq!(cli.job(&first)["stdout"], "done\n");
    assert_eq!(cli.job(&second)["status"], "queued");
}

#[test]
fn a_worker_gives_back_what_it_can_not_finish() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let cli = site.cli(&server);
    let nap = nap(13);
    let id = cli.say(&["submit", "--max-attempts", "1", &format!("exec {nap}")]);
    for (name, drain, signals) in [("patient", "0s", 1), ("hurried", "1h", 2)] {
        let worker = site.worker(&server, name, &[("DRAIN_TIMEOUT", drain)]);
        cli.until(&id, "running");
        for _ in 0..signals {
            worker.signal(Signal::SIGTERM);
            until("it drains", || (cli.json(&["workers", name])["workers"][0]["status"] != "busy").then_some(()));
        }
        assert_eq!(worker.ended().code(), Some(if signals == 1 { 0 } else { 130 }));
        assert_eq!(processes(&nap), 0);
        let job = cli.job(&id);
        assert_eq!((&job["status"], &job["attempts"][0]["outcome"]), (&"queued".into(), &"returned".into()));
    }
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let cli = site.cli(&server);
    // A request that is not finished holds up the orderly end.
    let mut stuck = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let head = format!("POST /api/jobs/create HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n", cli.token);
    let rest = "content-type: application/json\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n";
    stuck.write_all(format!("{head}{rest}").as_bytes()).unwrap();
    // The server says that it waits for the body: from here on the request is in flight.
    let mut go_on = [0; 12];
    stuck.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100");
    server.process.signal(Signal::SIGTERM);
    let gone = || TcpStream::connect(("127.0.0.1", server.port())).is_err().then_some(());
    until("it takes no more connections", gone);
    server.process.signal(Signal::SIGTERM);
    assert_eq!(server.process.ended().code(), Some(130));
}
