//! The cases of the Autobahn test suite, played by `kosoku` against the frames and closings of a session. `scripts/test` installs it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::path::Path;

use cmdexec_transport_ws::server::echo;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

/// Larger than any case's message.
const MOST: usize = 64 << 20;

/// Framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, and what is odd. Not mass and size (9), which take long, nor
/// compression (12, 13), which is not offered; `CMDEXEC_CONFORMANCE='*'` plays all.
const CASES: [&str; 8] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];

/// How they end. What is not strict is when a broken message is noticed, and some cases only show what is done; `docs/protocol.md` says the same.
const COUNTS: [(&str, usize); 3] = [("INFORMATIONAL", 3), ("NON-STRICT", 2), ("OK", 242)];

async fn serve(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let service = service_fn(|mut request| async move {
            let (response, run) = echo(&mut request, MOST);
            tokio::spawn(run);
            Ok::<_, Infallible>(response)
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
    }
}

/// What came of each case, from the report's index.
fn outcomes(reports: &Path) -> Vec<(String, String, String)> {
    let index: Value = serde_json::from_slice(&std::fs::read(reports.join("index.json")).unwrap()).unwrap();
    let agent = index.as_object().unwrap().values().next().unwrap();
    let text = |case: &Value, name: &str| case[name].as_str().unwrap_or_default().to_owned();
    let cases = agent.as_object().unwrap().iter();
    cases.map(|(name, case)| (name.clone(), text(case, "behavior"), text(case, "behaviorClose"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cases_of_the_autobahn_suite_pass() {
    let Some(kosoku) = std::env::var_os("CMDEXEC_TEST_KOSOKU") else {
        cmdexec_testkit::skip("CMDEXEC_TEST_KOSOKU is not set");
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(serve(listener));
    let reports = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(kosoku);
    command.arg("--outdir").arg(reports.path()).args(["--parallelism", "8"]);
    let chosen = std::env::var("CMDEXEC_CONFORMANCE").ok();
    let cases = chosen.clone().map_or_else(|| CASES.map(str::to_owned).to_vec(), |cases| vec![cases]);
    for cases in cases {
        command.args(["--include", &cases]);
    }
    let output = command.arg(&address).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(reports.path().join("index.json").exists(), "{said}");
    let outcomes = outcomes(reports.path());
    let is_fine = |outcome: &str| matches!(outcome, "OK" | "NON-STRICT" | "INFORMATIONAL");
    let (mut counts, mut failed) = (std::collections::BTreeMap::<_, usize>::new(), Vec::new());
    for (name, behavior, close) in outcomes {
        *counts.entry(behavior.clone()).or_default() += 1;
        let is_unoffered = behavior == "UNIMPLEMENTED" && (name.starts_with("12.") || name.starts_with("13."));
        let is_good = is_unoffered || is_fine(&behavior) && is_fine(&close);
        if !is_good {
            failed.push(format!("{name}: {behavior}, closing {close}"));
        }
    }
    println!("{counts:?}");
    assert!(failed.is_empty(), "{failed:#?}");
    match chosen {
        Some(_) => assert_ne!(counts.len(), 0, "{said}"),
        None => assert_eq!(counts, COUNTS.map(|(outcome, count)| (outcome.to_owned(), count)).into(), "{said}"),
    }
    serving.abort();
}
