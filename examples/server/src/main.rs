//! `cmdexec-server`: a coordinator over SQLite or MongoDB, behind HTTP.

mod database;
mod measured;
mod metrics;
mod moving;
mod serve;
mod settings;
mod storage;

use std::process::ExitCode;

use clap::Command;

fn main() -> ExitCode {
    if moving::is_asked(std::env::args()) {
        return finish(moving::run());
    }
    let about = "Keeps jobs safe and hands them to workers.";
    let command = Command::new("cmdexec-server").version(env!("CARGO_PKG_VERSION")).about(about).max_term_width(110);
    let command = command.after_help(
        "Other commands: migrate, export, import (to another database and back); `cmdexec-server migrate --help`.",
    );
    let options = cmdexec_program::settings::read_or_exit(command, settings::declare);
    cmdexec_program::logs::start(options.log_format, &options.log_level);
    finish(serve::run(options))
}

fn finish(program: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cmdexec-server can't start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(program) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cmdexec-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}
