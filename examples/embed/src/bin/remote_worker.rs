//! A worker of a server elsewhere, inside a program: it runs jobs that ask for the label `letters` by a function.
//!
//! `WORKER_TOKEN=$(cmdexec token worker) cargo run -p cmdexec-embed --bin remote_worker -- http://127.0.0.1:3000`,
//! and then `cmdexec run --label letters -- send ada@example.org`.

use std::sync::Arc;

use anyhow::Context;
use cmdexec_core::executor::{FunctionExecutor, RunContext, Stream};
use cmdexec_core::job::{Command, Outcome};
use cmdexec_core::worker::Worker;
use cmdexec_transport_http::Client;

async fn run(context: RunContext) -> Outcome {
    let line = match &context.spec.command {
        Command::Argv(argv) => argv.join(" "),
        Command::Shell(line) => line.clone(),
        Command::Steps(lines) => lines.join("; "),
    };
    context.output.write(Stream::Stdout, format!("done: {line}\n").into()).await;
    Outcome::Exited { code: 0 }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).context("say where the server is, such as http://127.0.0.1:3000")?;
    let token = std::env::var("WORKER_TOKEN").context("WORKER_TOKEN must be a worker's token")?;
    // The worker can't tell this client from the coordinator itself.
    let client = Arc::new(Client::builder(url).worker_token(token).build()?);
    let worker = Worker::builder(client, FunctionExecutor::new(run)).labels(["letters"]).start().await?;
    println!("{} takes jobs until Ctrl-C", worker.id());
    tokio::signal::ctrl_c().await?;
    worker.shutdown().await;
    Ok(())
}
