//! What is killed without warning costs nothing that was acknowledged, and nothing runs twice.

use std::collections::BTreeSet;
use std::fs;
use std::thread;

use crate::harness::{Server, Site, nap, processes, run_server, until};

/// Clients that submit jobs at the same time, and how many each.
const CLIENTS: usize = 4;
const EACH: usize = 15;
/// How often the server is killed meanwhile.
const CRASHES: usize = 4;

#[test]
fn a_server_that_is_killed_under_load_loses_nothing_and_runs_nothing_twice() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let _worker = site.worker(&server, "w", &[("SLOTS", "4")]);
    let cli = site.cli(&server);
    let traces = site.traces();

    // This one runs through every crash.
    let long = format!("echo x >> {0}/long; while ! test -e {0}/over; do sleep 0.05; done", traces.display());
    let long = cli.say(&["submit", &long]);
    until("the long job runs", || site.trace("long"));

    let (mut acknowledged, _server) = thread::scope(|scope| {
        let submit = |client: usize| {
            let (cli, traces) = (&cli, &traces);
            scope.spawn(move || {
                let one = |i: usize| {
                    let trace = format!("job-{client}-{i}");
                    let line = format!("echo x >> {}/{trace}; sleep 0.05", traces.display());
                    // While the server is away, the program tries again under the same key.
                    (cli.say(&["submit", &line]), trace)
                };
                (0..EACH).map(one).collect::<Vec<_>>()
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(submit).collect();
        let server = crash_again_and_again(&site, server);
        let acknowledged: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        (acknowledged, server)
    });

    fs::write(traces.join("over"), "").unwrap();
    acknowledged.push((long, "long".to_owned()));
    let ids: Vec<&str> = acknowledged.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), CLIENTS * EACH + 1);
    cli.say(&[&["wait"], ids.as_slice()].concat());
    for (id, trace) in &acknowledged {
        assert_eq!(site.trace(trace).as_deref(), Some("x\n"), "{trace} ran exactly once");
        let job = cli.job(id);
        // A lease whose answer the crash cut off goes back without having run.
        let attempts = job["attempts"].as_array().unwrap();
        let ran: Vec<_> = attempts.iter().filter(|attempt| attempt["outcome"] != "returned").collect();
        assert_eq!(ran.len(), 1, "{job}");
    }
    assert_eq!(cli.json(&["stats"])["jobs"]["completed"], ids.len(), "and there is nothing else");
}

/// Kills the server in the midst of things: whenever some more jobs have left their traces.
fn crash_again_and_again(site: &Site, mut server: Server) -> Server {
    let port = server.port();
    for crash in 1..=CRASHES {
        let enough = crash * CLIENTS * EACH / (CRASHES + 2);
        until("more jobs run", || (fs::read_dir(site.traces()).unwrap().count() > enough).then_some(()));
        server.process.kill();
        server = site.server(port, &[]);
    }
    server
}

#[test]
fn the_jobs_of_a_worker_that_is_killed_are_tried_elsewhere_and_its_processes_die_with_it() {
    let site = Site::new();
    let server = site.server(0, &[("LEASE_MS", "1500")]);
    let first = site.worker(&server, "first", &[]);
    let cli = site.cli(&server);
    // The first time it stays, with a child that tries to get away.
    let (nap, escape) = (nap(11), nap(12));
    let traces = site.traces();
    let line = format!("cd {}; if mkdir been-here; then setsid {escape} & exec {nap}; fi; echo done", traces.display());
    let id = cli.say(&["submit", &line]);
    until("it runs", || (processes(&nap) + processes(&escape) == 2).then_some(()));

    first.kill();
    until("its processes are gone", || (processes(&nap) + processes(&escape) == 0).then_some(()));
    let _second = site.worker(&server, "second", &[]);
    let job = cli.until(&id, "completed");
    assert_eq!(job["attempts"][0]["outcome"], "worker_lost");
    assert_eq!((&job["attempts"][1]["workerId"], &job["stdout"]), (&"second".into(), &"done\n".into()));

    // The killed one comes back to its folder, which is clean, and works.
    let _first = site.worker(&server, "first", &[]);
    assert_eq!(fs::read_dir(site.path().join("first/attempts")).unwrap().count(), 0);
}

#[test]
fn two_servers_do_not_share_a_database() {
    let site = Site::new();
    let first = site.server(0, &[]);
    let database = format!("sqlite://{}", site.path().join("data/jobs.db").display());
    let second = run_server(&["--port", "0", "--metrics-bind", "off", "--database-url", &database]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8(second.stderr).unwrap().contains("is open already"));

    // Nor an address.
    let taken = run_server(&["--dev", "--port", &first.port().to_string()]);
    assert_eq!(taken.status.code(), Some(1));
    assert!(String::from_utf8(taken.stderr).unwrap().contains("PORT"));
}
