//! `cmdexec`: submits commands to a Command Executor server, and shows what becomes of them.

mod args;
mod commands;
mod connect;
mod exit;
mod files;
mod follow;
mod json;
mod spec;
mod spec_file;
mod table;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use cmdexec_core::Error;
use cmdexec_core::service::JobService;

use args::{Cli, Command};
use exit::Exit;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).await {
        Ok(exit) => exit.into(),
        Err(error) => exit::explain(&error, cli.command.is_about_one_job()).into(),
    }
}

async fn run(cli: &Cli) -> anyhow::Result<Exit> {
    // These need no server.
    match &cli.command {
        Command::Token(args) => return commands::token::run(args, cli.json),
        Command::Completions { shell } => return commands::completions(*shell),
        _ => {}
    }
    let client = connect::client(&cli.server)?;
    // Why the server does not answer, its error alone does not say.
    call(cli, &client).await.map_err(|error| match client.trouble() {
        Some(trouble) if matches!(error.downcast_ref(), Some(Error::Unavailable { .. })) => error.context(trouble),
        _ => error,
    })
}

async fn call(cli: &Cli, jobs: &dyn JobService) -> anyhow::Result<Exit> {
    let json = cli.json;
    match &cli.command {
        Command::Submit(args) => commands::submit::submit(jobs, args, json).await,
        Command::Run(args) => commands::submit::run(jobs, args, json).await,
        Command::Status(args) => commands::status::run(jobs, args, json).await,
        Command::Wait(args) => commands::wait::run(jobs, args, json).await,
        Command::List(args) => commands::list::run(jobs, args, json).await,
        Command::Logs(args) => commands::logs::run(jobs, args, json).await,
        Command::Artifacts(args) => commands::artifacts::run(jobs, args, json).await,
        Command::Upload(args) => commands::upload::run(jobs, args, json).await,
        Command::Files(args) => commands::files::run(jobs, args, json).await,
        Command::Cancel(args) => commands::cancel::run(jobs, args, json).await,
        Command::Workers(args) => commands::workers::run(jobs, args, json).await,
        Command::Stats => commands::stats::run(jobs, json).await,
        Command::Watch(args) => commands::watch::run(&connect::socket(&cli.server)?, jobs, args, json).await,
        Command::Token(_) | Command::Completions { .. } => Ok(Exit::OK),
    }
}
