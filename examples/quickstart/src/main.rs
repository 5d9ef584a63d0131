//! `quickstart`: a coordinator, its store, its API and a worker in one process, which runs a real job at once.
//!
//! Only the library's small half is compiled for it: SQLite and the HTTP server, no client and no argument parser.

mod args;
mod job;

mod service;
mod upload;

use std::process::ExitCode;

use anyhow::Context;
use cmdexec_program::signals::{self, Shutdown};

use args::{Args, Asked};
use service::Service;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match args::parse(std::env::args().skip(1)) {
        Ok(Asked::Run(args)) => args,
        Ok(Asked::Help) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            eprintln!("quickstart: {mistake}\n\n{}", args::HELP);
            return ExitCode::from(2);
        }
    };
    run(&args).await.unwrap_or_else(|error| {
        eprintln!("quickstart: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let signals = signals::listen().context("listening for signals")?;
    let service = Service::start(args, &signals).await?;
    service.introduce();
    let code = tokio::select! {
        code = first_job(args, &service) => code?,
        () = signals.asked.cancelled() => ExitCode::from(130),
    };
    if !args.once && !signals.asked.is_cancelled() {
        service.say_what_next();
        signals.asked.cancelled().await;
    }
    let ended = end(service, args.once, &signals).await;
    Ok(if args.once { code } else { ended })
}

async fn first_job(args: &Args, service: &Service) -> anyhow::Result<ExitCode> {
    let packed = upload::upload(&args.dir, service.jobs()).await?;
    println!("Packed {}: {packed}", args.dir.display());
    job::run(service.jobs(), args.command.to_spec(packed.id)).await
}

async fn end(service: Service, quietly: bool, signals: &Shutdown) -> ExitCode {
    if !quietly {
        println!("\nEnding; once more Ctrl-C ends at once.");
    }
    tokio::select! {
        () = service.end() => ExitCode::SUCCESS,
        () = signals.forced.cancelled() => ExitCode::from(130),
    }
}
