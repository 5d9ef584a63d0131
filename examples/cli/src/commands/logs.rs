//! `logs`: a job's output, of its current or last attempt.

use cmdexec_core::service::{JobService, OutputEvent, OutputQuery};
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_program::signals;
use futures_util::StreamExt;

use crate::args::{LogsArgs, Since};
use crate::exit::Exit;
use crate::follow::{Followed, OnInterrupt, Shown, follow};
use crate::terminal::Progress;

pub(crate) async fn run(jobs: &dyn JobService, args: &LogsArgs, json: bool) -> anyhow::Result<Exit> {
    let shown = match args.stream {
        _ if json => Shown::Json,
        Some(_) => Shown::One,
        None => Shown::Raw,
    };
    let (from, since) = match args.since {
        None => (None, None),
        Some(Since::Ago(ago)) => (None, Some(SystemClock.now().before(ago))),
        Some(Since::Time(time)) => (None, Some(time)),
        Some(Since::Cursor(cursor)) => (Some(cursor), None),
    };
    let query = OutputQuery { from, since, tail: args.tail, follow: args.follow, stream: args.stream };
    if args.follow {
        let interrupt = OnInterrupt { signals: signals::listen()?, cancel: false };
        let progress = Progress::start(false);
        return match follow(jobs, args.job, query, shown, &progress, &interrupt).await? {
            Followed::Ended(_) => Ok(Exit::OK),
            Followed::Interrupted => Ok(Exit::INTERRUPTED),
        };
    }
    let mut output = jobs.output(args.job, query).await?;
    while let Some(event) = output.next().await {
        match event? {
            OutputEvent::Chunk { stream, bytes, .. } => shown.chunk(stream, &bytes)?,
            OutputEvent::Gap { bytes, .. } => shown.gap(bytes)?,
            // Before the first piece there is nothing that could be void.
            OutputEvent::Reset { .. } => {}
            OutputEvent::End { .. } => break,
        }
    }
    Ok(Exit::OK)
}
