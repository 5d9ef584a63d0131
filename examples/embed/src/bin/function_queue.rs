//! A durable job queue inside a program: jobs are run by one of its own async functions.
//!
//! `cargo run -p cmdexec-embed --bin function_queue`. Run it again: the database remembers what was done before.

use std::time::Duration;

use anyhow::bail;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::executor::{FunctionExecutor, RunContext, Stream};
use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{Command, JobSpec, Outcome};
use cmdexec_core::service::JobServiceExt;
use cmdexec_core::worker::Worker;
use cmdexec_store_sqlite::SqliteStore;

/// A job is `send ADDRESS`.
async fn run(context: RunContext) -> Outcome {
    let Command::Argv(argv) = &context.spec.command else {
        return Outcome::InputError { message: "a job is a list of words".to_owned() };
    };
    match argv.as_slice() {
        [verb, address] if verb == "send" => {
            context.output.write(Stream::Stdout, format!("a letter to {address}\n").into()).await;
            Outcome::Exited { code: 0 }
        }
        // Others may do better: this counts against `max_attempts`, and is tried again.
        _ => Outcome::ExecutorError { message: format!("nobody here can {}", argv.join(" ")) },
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "data/letters.db".to_owned());
    let coordinator = Coordinator::builder(SqliteStore::open(&path).await?).build().await?;
    let worker = Worker::builder(coordinator.as_worker(WorkerId::local()), FunctionExecutor::new(run));
    let worker = worker.slots(4).start().await?;

    let jobs = coordinator.jobs();
    let job = jobs.run(JobSpec::argv(["send", "ada@example.org"])).await?;
    print!("{}", String::from_utf8_lossy(&job.stdout));
    let done = jobs.stats().await?.jobs.get(&job.status).copied().unwrap_or_default();
    println!("{}: {done} in {path}", job.status);

    worker.shutdown().await;
    if !coordinator.shutdown(Duration::from_secs(5)).await {
        bail!("the database was not closed in time");
    }
    Ok(())
}
