//! Measures the system against the limits of the machine it runs on, as ratios within one run.
//!
//! `cargo run --release -p cmdexec-benches -- all` prints every table; `-- --help` names the parts.
#![expect(clippy::disallowed_methods, reason = "benches measure with the machine's clock")]

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod children;
mod classes;
mod containers;
mod embedded;
mod followers;
mod idle;
mod inputs;
mod latency;
mod load;
mod machine;
mod million;
mod noop;
mod output;
mod process;
mod push;
mod rest;
mod serve;
mod shared;
mod stats;
mod submit;
mod table;
mod upload;

/// Measures the system against the limits of the machine it runs on.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
    /// Where databases are made; it must be on the disk that is to be measured.
    #[arg(long, global = true, default_value = "target/bench")]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Every bench, one after the other.
    All,
    /// The machine's own limits.
    Machine,
    /// Submitting over HTTP: single jobs over 64 connections, and batches of 100.
    Submit {
        /// For how long each is measured, in seconds.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Claiming and finishing of no-op jobs by workers over HTTP.
    Noop {
        /// How many jobs.
        #[arg(long, default_value_t = 40_000)]
        jobs: usize,
    },
    /// No-op jobs from submission to result, embedded, in batches.
    Embedded {
        /// How many jobs.
        #[arg(long, default_value_t = 60_000)]
        jobs: usize,
    },
    /// `true` as a process, end to end: one server and one worker process over HTTP.
    Process {
        /// How many jobs.
        #[arg(long, default_value_t = 8_000)]
        jobs: usize,
        /// The worker's slots.
        #[arg(long, default_value_t = 8)]
        slots: usize,
        /// Over a socket rather than HTTP.
        #[arg(long)]
        socket: bool,
    },
    /// No-op jobs from submission to result, by workers over sockets and by long poll.
    Push {
        /// How many jobs.
        #[arg(long, default_value_t = 100_000)]
        jobs: usize,
        /// How many workers.
        #[arg(long, default_value_t = 16)]
        workers: usize,
    },
    /// A server with thousands of idle workers at its sockets.
    Sockets {
        /// How many workers.
        #[arg(long, default_value_t = 5_000)]
        workers: usize,
        /// For how long it is measured, in seconds.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// Changes of jobs to somebody who watches all of them over a socket.
    Updates {
        /// How many changes a second.
        #[arg(long, default_value_t = 10_000)]
        rate: usize,
        /// For how long, in seconds.
        #[arg(long, default_value_t = 10)]
        seconds: usize,
    },
    /// From submission until an idle worker has the job, by long poll and pushed.
    Latency {
        /// How many jobs.
        #[arg(long, default_value_t = 1_000)]
        jobs: usize,
    },
    /// Submitting and claiming with a million jobs in the queue.
    Million {
        /// How many jobs are in the queue.
        #[arg(long, default_value_t = 1_000_000)]
        queued: usize,
    },
    /// Claiming beside many classes of jobs that no worker can run.
    Classes {
        /// How many classes.
        #[arg(long, default_value_t = 10_000)]
        classes: usize,
    },
    /// A server that a thousand workers wait at.
    Idle {
        /// How many workers.
        #[arg(long, default_value_t = 1_000)]
        workers: usize,
        /// For how long it is measured, in seconds.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// A load test: workers, jobs of mixed length, and whether anything was lost or run twice.
    Load {
        /// How many workers.
        #[arg(long, default_value_t = 100)]
        workers: usize,
        /// How many jobs.
        #[arg(long, default_value_t = 1_000)]
        jobs: usize,
    },
    /// One job's output to the store, and short jobs beside those that never stop writing.
    Output {
        /// How many MiB.
        #[arg(long, default_value_t = 1_024)]
        mib: u64,
        /// Over a socket rather than HTTP.
        #[arg(long)]
        socket: bool,
    },
    /// A large file on its way in, beside a copy of it.
    Upload {
        /// How many MiB.
        #[arg(long, default_value_t = 1_024)]
        mib: u64,
    },
    /// Jobs over one ZIP of many files, beside jobs without files.
    Inputs {
        /// How many at once.
        #[arg(long, default_value_t = 1_000)]
        jobs: usize,
    },
    /// Many who follow one job.
    Followers {
        /// How many.
        #[arg(long, default_value_t = 300)]
        followers: usize,
        /// For how long, in seconds.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// Jobs in containers, beside the daemon's plain API. Not one of all: it takes a daemon and an image with `true` and a shell.
    Containers {
        /// Where the daemon listens.
        #[arg(long, env = "DOCKER_HOST", default_value = "unix:///var/run/docker.sock")]
        host: String,
        /// The image.
        #[arg(long, default_value = "cmdexec-test:latest")]
        image: String,
        /// For how long each is measured, in seconds.
        #[arg(long, default_value_t = 8)]
        seconds: u64,
    },
    /// Many coordinators over the MongoDB replica set that `CMDEXEC_BENCH_MONGO` names. Not one of `all`.
    Shared {
        /// How many jobs.
        #[arg(long, default_value_t = 40_000)]
        jobs: usize,
    },
    /// The server process that the other benches start.
    #[command(hide = true)]
    Serve {
        /// The database.
        database: PathBuf,
        /// How many MiB of a job's output are kept.
        #[arg(long, default_value_t = 16)]
        output_cap: u64,
    },
    /// The worker process that the other benches start.
    #[command(hide = true)]
    Work {
        /// The server.
        url: String,
        /// Its slots.
        slots: usize,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(arguments))
}

async fn run(Arguments { bench, dir }: Arguments) -> Result<()> {
    std::fs::create_dir_all(&dir)?;
    match bench {
        Bench::All => {
            machine::bench(&dir).await?;
            submit::bench(&dir, 5).await?;
            noop::bench(&dir, 40_000).await?;
            embedded::bench(&dir, 60_000).await?;
            process::bench(&dir, 8_000, 8, false).await?;
            process::bench(&dir, 8_000, 8, true).await?;
            push::noop::bench(&dir, 100_000, 16).await?;
            push::idle::bench(&dir, 5_000, 20).await?;
            push::updates::bench(&dir, 10_000, 10).await?;
            latency::bench(&dir, 1_000).await?;
            idle::bench(&dir, 1_000, 20).await?;
            load::bench(&dir, 100, 1_000).await?;
            output::bench(&dir, 1_024, false).await?;
            output::bench(&dir, 1_024, true).await?;
            upload::bench(&dir, 1_024).await?;
            inputs::bench(&dir, 1_000).await?;
            followers::bench(&dir, 300, 20).await?;
            classes::bench(&dir, 10_000).await?;
            million::bench(&dir, 1_000_000).await
        }
        Bench::Machine => machine::bench(&dir).await,
        Bench::Submit { seconds } => submit::bench(&dir, seconds).await,
        Bench::Noop { jobs } => noop::bench(&dir, jobs).await,
        Bench::Embedded { jobs } => embedded::bench(&dir, jobs).await,
        Bench::Process { jobs, slots, socket } => process::bench(&dir, jobs, slots, socket).await,
        Bench::Push { jobs, workers } => push::noop::bench(&dir, jobs, workers).await,
        Bench::Sockets { workers, seconds } => push::idle::bench(&dir, workers, seconds).await,
        Bench::Updates { rate, seconds } => push::updates::bench(&dir, rate, seconds).await,
        Bench::Latency { jobs } => latency::bench(&dir, jobs).await,
        Bench::Million { queued } => million::bench(&dir, queued).await,
        Bench::Classes { classes } => classes::bench(&dir, classes).await,
        Bench::Idle { workers, seconds } => idle::bench(&dir, workers, seconds).await,
        Bench::Load { workers, jobs } => load::bench(&dir, workers, jobs).await,
        Bench::Output { mib, socket } => output::bench(&dir, mib, socket).await,
        Bench::Upload { mib } => upload::bench(&dir, mib).await,
        Bench::Inputs { jobs } => inputs::bench(&dir, jobs).await,
        Bench::Followers { followers, seconds } => followers::bench(&dir, followers, seconds).await,
        Bench::Containers { host, image, seconds } => {
            containers::bench(&dir, &containers::Settings { host, image, seconds }).await
        }
        Bench::Shared { jobs } => shared::bench(&dir, jobs).await,
        Bench::Serve { database, output_cap } => serve::server(&database, output_cap).await,
        Bench::Work { url, slots } => serve::worker(&url, slots).await,
    }
}
