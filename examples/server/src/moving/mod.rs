//! Moving house: `migrate` from one database to another, and jobs as lines of JSON out of any database and into any.

mod copy;
mod line;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use cmdexec_core::store::Store;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::database::Database;
use copy::Copied;
use line::Line;

/// How many jobs are read and written together.
const PAGE: usize = 200;

/// The commands that are not serving.
#[derive(Debug, Parser)]
#[command(name = "cmdexec-server", version, max_term_width = 110)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copies a stopped server's database into another, and compares both. Run again after an interruption, it goes on.
    ///
    /// Files are not in the database: give the new server the same `STORAGE_URL`.
    Migrate(Migrate),
    /// Writes every job to standard output, a line of JSON each, with its output.
    Export {
        /// The database: `sqlite://FILE` or `mongodb://HOSTS`.
        #[arg(long)]
        from: String,
    },
    /// Reads jobs as `export` writes them from standard input. Those that are there already are left as they are.
    Import {
        /// The database: `sqlite://FILE` or `mongodb://HOSTS`.
        #[arg(long)]
        to: String,
    },
}

#[derive(Debug, Args)]
struct Migrate {
    /// The stopped server's database: `sqlite://FILE` or `mongodb://HOSTS`.
    #[arg(long)]
    from: String,
    /// Where to: `sqlite://FILE` or `mongodb://HOSTS`. Empty, or with what an interrupted migration has left.
    #[arg(long)]
    to: String,
}

/// Whether the program is asked to do something else than to serve.
pub(crate) fn is_asked(mut arguments: impl Iterator<Item = String>) -> bool {
    let first = arguments.nth(1);
    first.is_some_and(|first| matches!(first.as_str(), "migrate" | "export" | "import"))
}

pub(crate) async fn run() -> anyhow::Result<ExitCode> {
    match Program::parse().command {
        Command::Migrate(Migrate { from, to }) => {
            let (from, to) = (open(&from, "--from").await?, open(&to, "--to").await?);
            let copied = copy::all(&*from, &*to).await;
            let compared = match copied {
                Ok(copied) => copy::compare(&*from, &*to).await.map(|()| copied),
                Err(error) => Err(error),
            };
            from.close().await;
            to.close().await;
            let Copied { jobs, known, keys, workers, records } = compared?;
            println!(
                "copied {jobs} jobs ({known} were there already), {keys} idempotency keys, {workers} workers and {records} records; both are alike"
            );
        }
        Command::Export { from } => {
            let from = open(&from, "--from").await?;
            let exported = export(&*from).await;
            from.close().await;
            eprintln!("{} jobs", exported?);
        }
        Command::Import { to } => {
            let to = open(&to, "--to").await?;
            let imported = import(&*to).await;
            to.close().await;
            let (jobs, known) = imported?;
            eprintln!("{jobs} jobs; {known} more were there already");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn open(url: &str, which: &str) -> anyhow::Result<Arc<dyn Store>> {
    let database = Database::parse(url).map_err(|why| anyhow::anyhow!("{which} {why}"))?;
    if database == Database::Memory {
        bail!("{which} must be a database that is kept");
    }
    database.open().await
}

async fn export(from: &dyn Store) -> anyhow::Result<usize> {
    let mut out = tokio::io::stdout();
    let mut jobs = 0;
    let mut pages = copy::Pages::new(from);
    while let Some(page) = pages.next().await? {
        for job in page {
            let mut line = serde_json::to_vec(&Line::read(from, job).await?)?;
            line.push(b'\n');
            out.write_all(&line).await?;
            jobs += 1;
        }
    }
    out.flush().await?;
    std::io::stdout().flush()?;
    Ok(jobs)
}

async fn import(to: &dyn Store) -> anyhow::Result<(usize, usize)> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let (mut added, mut known, mut number) = (0, 0, 0);
    while let Some(text) = lines.next_line().await? {
        number += 1;
        if text.trim().is_empty() {
            continue;
        }
        let line: Line = serde_json::from_str(&text).with_context(|| format!("line {number}"))?;
        let is_new = line.write(to).await.with_context(|| format!("line {number}"))?;
        if is_new { added += 1 } else { known += 1 }
    }
    Ok((added, known))
}
