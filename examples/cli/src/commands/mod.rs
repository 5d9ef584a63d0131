//! One room for each command.

pub(crate) mod artifacts;
pub(crate) mod cancel;
pub(crate) mod files;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod token;
pub(crate) mod upload;
pub(crate) mod wait;
pub(crate) mod watch;
pub(crate) mod workers;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::Exit;

pub(crate) fn completions(shell: Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cmdexec", &mut script);
    std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
    Ok(Exit::OK)
}
