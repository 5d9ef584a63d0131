//! `logs`: a job's output, of its current or last attempt.

use cmdexec_core::service::{JobService, OutputEvent, OutputQuery};
use cmdexec_program::signals;
use futures_util::StreamExt;

use crate::args::LogsArgs;
use crate::exit::Exit;
use crate::follow::{Followed, OnInterrupt, Shown, follow};
use crate::terminal::Progress;

pub(crate) async fn run(jobs: &dyn JobService, args: &LogsArgs, json: bool) -> anyhow::Result<Exit> {
    let shown = match args.stream {
        _ if json => Shown::Json,
        Some(_) => Shown::One,
        None => Shown::Raw,
    };
    if args.follow {
        let interrupt = OnInterrupt { signals: signals::listen()?, cancel: false };
        let progress = Progress::start(false);
        return match follow(jobs, args.job, args.stream, shown, &progress, &interrupt).await? {
            Followed::Ended(_) => Ok(Exit::OK),
            Followed::Interrupted => Ok(Exit::INTERRUPTED),
        };
    }
    let query = OutputQuery { from: None, follow: false, stream: args.stream };
    let mut output = jobs.output(args.job, query).await?;
    while let Some(event) = output.next().await {
        match event? {
            OutputEvent::Chunk { stream, bytes, .. } => shown.chunk(stream, &bytes)?,
            // Before the first piece there is nothing that could be void.
            OutputEvent::Reset { .. } => {}
            OutputEvent::End { .. } => break,
        }
    }
    Ok(Exit::OK)
}
