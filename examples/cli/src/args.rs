//! What can be typed.

#![expect(clippy::doc_markdown, reason = "doc comments are the help, which has no backticks around variables")]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use cmdexec_core::executor::Stream;
use cmdexec_core::files::FileId;
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::job::Status;
use cmdexec_core::service::{Cursor, OutputQuery};
use cmdexec_core::time::Timestamp;
use cmdexec_program::settings::parse::Span;

use crate::commands::token::TokenArgs;
use crate::spec::SpecArgs;

/// Submits commands to a Command Executor server, and shows what becomes of them.
#[derive(Debug, Parser)]
#[command(name = "cmdexec", version, max_term_width = 110, after_long_help = AFTER)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Print JSON, by the names of the HTTP API, instead of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "\
Exit codes:
  0        it worked; for `run`, `submit --follow` and `wait`: the job completed
  1..255   for those three: the job's own exit code (128 + the number for a signal), and
  124      the job's time was over
  125      the job could not be run, or nothing is known of it: not the command's fault
  130      interrupted, or the job was cancelled
  137      the job used more memory than it may
  For every other command, 1 says that it failed. 2 is always a mistake in what was typed.

Examples:
  cmdexec run 'make && make test'
  cmdexec submit --memory 512M --retries 2 -- python3 train.py
  cmdexec list --status running
";

/// How to reach the server.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// The server [default: http://127.0.0.1:3000] [env: CMDEXEC_URL, SERVER_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The user's token; better in the environment, where other users do not see it [env: CMDEXEC_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// A TOML file with `url` and `token` [default: ~/.config/cmdexec/config.toml] [env: CMDEXEC_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit a job, print its id and return
    #[command(after_help = "Examples:\n  \
        cmdexec submit 'make && make test'          one argument: a shell line\n  \
        cmdexec submit --cpus 2 -- make -j2 test    several: a program and its arguments, without a shell\n  \
        cmdexec submit --step 'make' --step 'make test'\n  \
        cmdexec submit --in 1h --name nightly --script nightly.sh\n  \
        cmdexec submit --spec job.json --follow")]
    Submit(SubmitArgs),
    /// Submit a job, show its output live and exit with its exit code
    #[command(after_help = "Examples:\n  \
        cmdexec run 'echo hello; exit 3'; echo $?\n  \
        cmdexec run --timeout 10m --env CI=true -- cargo test\n  \
        cmdexec run --image alpine:3 -- cat /etc/os-release\n  \
        cmdexec run --dir . -- make test\n  \
        cmdexec run --dir . --outputs 'dist/**' --download ./out -- make dist\n\n\
        Ctrl-C leaves the job running, unless --cancel-on-interrupt.")]
    Run(RunArgs),
    /// Show a job
    #[command(after_help = "Example:\n  cmdexec status 01990b8e-6a7c-7000-8000-0123456789ab")]
    Status(JobsArgs),
    /// Wait for jobs to end, and exit with the first exit code that is not 0
    #[command(after_help = "Example:\n  cmdexec wait $(cmdexec submit make) && echo built")]
    Wait(JobsArgs),
    /// List jobs, newest first
    #[command(after_help = "Examples:\n  cmdexec list --status failed --since 1d\n  cmdexec list --all --json")]
    List(ListArgs),
    /// Print a job's output
    #[command(after_help = "Examples:\n  \
        cmdexec logs -f JOB\n  \
        cmdexec logs --tail 20 -f JOB               the last 20 lines, and what follows\n  \
        cmdexec logs --since 10m --stream stderr JOB\n\n\
        Where output was too much to be kept, a line on standard error says how much is missing.")]
    Logs(LogsArgs),
    /// Show, save or unpack the files that a job has left
    #[command(after_help = "Examples:\n  cmdexec artifacts JOB\n  cmdexec artifacts --unpack ./out JOB\n  \
        cmdexec artifacts --save - JOB > artifacts.zip")]
    Artifacts(ArtifactsArgs),
    /// Upload a ZIP, or a directory as one, for jobs to bring, and print its id
    #[command(after_help = "Example:\n  id=$(cmdexec upload .)\n  \
        for n in 1 2 3; do cmdexec submit --file-id $id -- ./part.sh $n; done")]
    Upload(UploadArgs),
    /// Show the files that were uploaded, or remove some
    #[command(after_help = "Examples:\n  cmdexec files\n  cmdexec files --remove ID")]
    Files(FilesListArgs),
    /// Cancel jobs
    #[command(after_help = "Examples:\n  cmdexec cancel JOB\n  cmdexec cancel --wait JOB JOB")]
    Cancel(CancelArgs),
    /// Show the workers, or remove one
    #[command(after_help = "Examples:\n  cmdexec workers\n  cmdexec workers --remove old-laptop")]
    Workers(WorkersArgs),
    /// Show how much there is of everything
    Stats,
    /// Show jobs as they change, until Ctrl-C
    #[command(after_help = "Examples:\n  cmdexec watch\n  cmdexec watch --json | jq .status")]
    Watch(WatchArgs),
    /// Make a token, from the secrets of the server
    #[command(after_help = "Examples:\n  \
        export CMDEXEC_TOKEN=$(cmdexec token user --id ada --role admin)\n  \
        cmdexec token worker --id build-1 --ttl 30d")]
    Token(TokenArgs),
    /// Print what a shell needs to complete this program's commands
    #[command(after_help = "Example:\n  cmdexec completions bash > /etc/bash_completion.d/cmdexec")]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

impl Command {
    /// Whether its exit code is otherwise a job's.
    pub(crate) fn is_about_one_job(&self) -> bool {
        match self {
            Self::Run(_) | Self::Wait(_) => true,
            Self::Submit(args) => args.follow,
            _ => false,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// Show the output live and exit with the job's exit code, as `run` does
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// At Ctrl-C cancel the job; again, stop waiting for its end
    #[arg(long)]
    pub(crate) cancel_on_interrupt: bool,
    /// No progress line, and no word about the job but its output
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Unpack what --outputs kept into this directory, over what is there, once the job has ended
    #[arg(long, value_name = "DIR")]
    pub(crate) download: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) spec: SpecArgs,
}

#[derive(Debug, Args)]
pub(crate) struct JobsArgs {
    /// The jobs' ids
    #[arg(required = true, value_name = "JOB")]
    pub(crate) jobs: Vec<JobId>,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only jobs in this status
    #[arg(long, value_parser = status)]
    pub(crate) status: Option<Status>,
    /// Only jobs that this worker has or had
    #[arg(long)]
    pub(crate) worker: Option<WorkerId>,
    /// Only jobs that ask for this label
    #[arg(long)]
    pub(crate) label: Option<String>,
    /// Only jobs that were submitted within this time, such as 1h
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) since: Option<Duration>,
    /// How many
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The job's id
    pub(crate) job: JobId,
    /// Go on until the job has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only this stream, on standard output: stdout or stderr
    #[arg(long, value_parser = stream)]
    pub(crate) stream: Option<Stream>,
    /// Only what came within this time, such as 10m; at this time or later, such as 2026-11-20T12:00:00Z; or after a
    /// cursor of the HTTP API
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<Since>,
    /// Only the last so many lines
    #[arg(short = 'n', long, value_name = "LINES", value_parser = tail)]
    pub(crate) tail: Option<usize>,
}

/// From where on output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    Ago(Duration),
    Time(Timestamp),
    Cursor(Cursor),
}

#[derive(Debug, Args)]
pub(crate) struct ArtifactsArgs {
    /// The job's id
    pub(crate) job: JobId,
    /// Unpack them into this directory, over what is there
    #[arg(long, value_name = "DIR")]
    pub(crate) unpack: Option<PathBuf>,
    /// Save the ZIP itself under this name; - is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "unpack")]
    pub(crate) save: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct UploadArgs {
    /// The ZIP or directory
    pub(crate) path: PathBuf,
    /// No progress bar
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FilesListArgs {
    /// Remove these, which no job may need that has not ended
    #[arg(long, value_name = "ID", value_parser = crate::files::file_id, num_args = 1..)]
    pub(crate) remove: Vec<FileId>,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    pub(crate) jobs: JobsArgs,
    /// Wait until they have ended
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WorkersArgs {
    /// Only these
    #[arg(value_name = "WORKER")]
    pub(crate) workers: Vec<WorkerId>,
    /// Remove this worker: it gets no further jobs, and what it runs is tried again elsewhere (admins only)
    #[arg(long, value_name = "WORKER", conflicts_with = "workers")]
    pub(crate) remove: Option<WorkerId>,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Only this job, until it has ended
    pub(crate) job: Option<JobId>,
}

pub(crate) fn span(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(|span| span.0)
}

fn status(text: &str) -> Result<Status, String> {
    text.parse().map_err(|_| {
        let names: Vec<_> = Status::ALL.iter().map(|status| status.as_str()).collect();
        format!("must be one of {}", names.join(", "))
    })
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(ago) = span(text) {
        return Ok(Since::Ago(ago));
    }
    let cursor = || text.parse().ok().map(Since::Cursor);
    let since = Timestamp::parse_rfc3339(text).map(Since::Time).or_else(cursor);
    since.ok_or_else(|| {
        "must be a length of time such as 10m, a time such as 2026-11-20T12:00:00Z, or a cursor".to_owned()
    })
}

fn tail(text: &str) -> Result<usize, String> {
    let most = OutputQuery::MAX_TAIL;
    text.parse().ok().filter(|lines| *lines <= most).ok_or_else(|| format!("must be a number up to {most}"))
}

fn stream(text: &str) -> Result<Stream, String> {
    match text {
        "stdout" => Ok(Stream::Stdout),
        "stderr" => Ok(Stream::Stderr),
        _ => Err("must be stdout or stderr".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_hold_together() {
        super::Cli::command().debug_assert();
    }
}
