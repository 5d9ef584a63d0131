//! What a job writes, and how it reaches the reader.

use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::executor::Stream;
use cmdexec_core::job::{JobSpec, Outcome};

use super::Subject;

/// Every byte arrives, in the order in which it was written, also what was written last.
pub async fn output_is_complete_and_in_order(subject: &Subject) {
    let text = subject.sh("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done").await.succeeded();
    assert!(text.ends_with('\n') && text.lines().eq((0..20_000).map(|i| i.to_string())), "{} bytes", text.len());
    let large = subject.sh("head -c 20000000 /dev/zero; echo end").await;
    assert_eq!((large.stdout.len(), large.stdout.ends_with(b"\0end\n")), (20_000_004, true));
}

/// Output is bytes: neither NUL nor what is no UTF-8 is changed.
pub async fn output_is_bytes(subject: &Subject) {
    let escapes: Vec<String> = (0..=255).map(|byte| format!("\\{byte:03o}")).collect();
    let ended = subject.sh(&format!("printf '{}'", escapes.concat())).await;
    assert_eq!(ended.stdout, (0..=255).collect::<Vec<u8>>());
}

/// Standard output and standard error are told apart.
pub async fn output_keeps_its_streams_apart(subject: &Subject) {
    let ended = subject.sh("echo out; echo err >&2; echo out").await;
    assert_eq!(ended.succeeded(), "out\nout\n");
    assert_eq!(ended.stderr, b"err\n");
}

/// Output arrives when it is written, not at the end.
pub async fn output_arrives_while_the_command_runs(subject: &Subject) {
    let mut trial = subject.begin(JobSpec::shell("echo early; while ! test -e go; do sleep 0.05; done; echo late"));
    trial.until("early").await;
    std::fs::write(trial.dir.join("go"), "").expect("a file in the directory");
    assert_eq!(trial.end().await.succeeded(), "early\nlate\n");
}

/// Writes that are apart in time keep their order across the streams.
pub async fn streams_keep_their_order_where_writes_are_apart(subject: &Subject) {
    let line = "i=0; while [ $i -lt 5 ]; do echo $i; sleep 0.06; echo e$i >&2; sleep 0.06; i=$((i+1)); done";
    let expected: Vec<String> = (0..5).flat_map(|i| [format!("{i}\n"), format!("e{i}\n")]).collect();
    let (context, mut source) = subject.context(JobSpec::shell(line), 4);
    let reading = async {
        let mut text = Vec::new();
        while let Some(chunk) = source.next().await {
            text.extend_from_slice(&chunk.bytes);
        }
        text
    };
    let (outcome, text) = tokio::join!(subject.executor.run(context), reading);
    assert_eq!(outcome, Outcome::Exited { code: 0 });
    assert_eq!(String::from_utf8_lossy(&text), expected.concat());
}

/// What was written last before a job dies arrives, whatever it dies of.
pub async fn the_last_words_arrive(subject: &Subject) {
    let killed = subject.sh("printf 'last words'; kill -9 $$").await;
    assert_eq!((killed.outcome.exit_code(), killed.text().as_str()), (Some(137), "last words"));
    let mut spec = JobSpec::shell("trap '' TERM; printf 'last words'; while :; do sleep 0.05; done");
    spec.timeout = Duration::from_millis(300);
    let late = subject.run(spec).await;
    assert_eq!((&late.outcome, late.text().as_str()), (&Outcome::TimedOut, "last words"));
}

/// What a job writes between the polite signal and the kill arrives too.
pub async fn output_flows_during_the_grace(subject: &Subject) {
    let line = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done";
    let mut trial = subject.begin(JobSpec::shell(line));
    trial.until("ready").await;
    trial.stop.cancel();
    let ended = trial.end().await;
    assert_eq!(ended.outcome, Outcome::Stopped);
    assert_eq!(ended.text(), "ready\nasked\n");
}

/// A writer that is faster than its reader waits, and what waits in between is bounded; then everything arrives.
pub async fn a_slow_reader_slows_the_writer(subject: &Subject) {
    const TOTAL: usize = 64 * 1024 * 1024;
    let line = format!("head -c {TOTAL} /dev/zero; : > done; sleep 0.1");
    let (context, mut source) = subject.context(JobSpec::shell(line), 2);
    let done = context.dir.join("done");
    let executor = Arc::clone(&subject.executor);
    let running = tokio::spawn(async move { executor.run(context).await });
    let first = source.next().await.expect("a first chunk");
    // Long enough for an unhindered writer to be through.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!done.exists(), "64 MiB went somewhere without being read");
    let mut total = first.bytes.len();
    while let Some(chunk) = source.next().await {
        assert_eq!(chunk.stream, Stream::Stdout);
        total += chunk.bytes.len();
    }
    assert_eq!(total, TOTAL);
    assert_eq!(running.await.expect("no panic"), Outcome::Exited { code: 0 });
}

/// A job whose output nobody wants runs to its end.
pub async fn a_reader_that_leaves_does_not_stop_the_job(subject: &Subject) {
    let (context, source) = subject.context(JobSpec::shell("head -c 1000000 /dev/zero; echo x; exit 5"), 1);
    drop(source);
    assert_eq!(subject.executor.run(context).await, Outcome::Exited { code: 5 });
}

/// Standard input is there, and at its end.
pub async fn standard_input_is_empty(subject: &Subject) {
    assert_eq!(subject.sh("cat; echo read").await.succeeded(), "read\n");
}
