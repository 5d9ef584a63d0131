//! `cmdexec-worker`: takes jobs from a server and runs them as isolated processes and in containers.

mod credentials;
mod docker;
mod identity;
mod no_network;
mod run;
mod settings;

use std::process::ExitCode;

use clap::Command;

fn main() -> ExitCode {
    let about = "Takes jobs from a Command Executor server and runs them as isolated processes and in containers.";
    let command = Command::new("cmdexec-worker").version(env!("CARGO_PKG_VERSION")).about(about).max_term_width(110);
    let options = cmdexec_program::settings::read_or_exit(command, settings::declare);
    cmdexec_program::logs::start(options.log_format, &options.log_level);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cmdexec-worker can't start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run::run(options)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cmdexec-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
