//! A job's output as it comes, through lost connections and new attempts, until the job has ended.

use std::io::Write;
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::JobId;
use cmdexec_core::job::Status;
use cmdexec_core::service::{
    Cursor, JobService, JobServiceExt, JobUpdate, JobView, OutputEvent, OutputQuery, OutputStream, UpdateStream,
    WatchQuery,
};
use cmdexec_program::signals::Shutdown;
use futures_util::StreamExt;

use crate::json;
use crate::terminal::Progress;

/// How output is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shown {
    /// Each stream on our own of the same name.
    Raw,
    /// The one stream that was asked for, on standard output.
    One,
    /// A JSON object for each piece.
    Json,
    /// Not at all.
    Nothing,
}

impl Shown {
    pub(crate) fn chunk(self, stream: Stream, bytes: &bytes::Bytes) -> std::io::Result<()> {
        match (self, stream) {
            (Self::Nothing, _) => Ok(()),
            (Self::Json, _) => json::print(&json::chunk(stream, bytes)),
            (Self::One, _) | (Self::Raw, Stream::Stdout) => write_now(std::io::stdout().lock(), bytes),
            (Self::Raw, Stream::Stderr) => write_now(std::io::stderr().lock(), bytes),
        }
    }

    pub(crate) fn gap(self, bytes: u64) -> std::io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Json => json::print(&serde_json::json!({"event": "gap", "bytes": bytes})),
            Self::Raw | Self::One => {
                writeln!(std::io::stderr().lock(), "--- {bytes} bytes are missing here: they were too much to be kept")
            }
        }
    }

    pub(crate) fn reset(self) -> std::io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Json => json::print(&serde_json::json!({"event": "reset"})),
            Self::Raw | Self::One => {
                writeln!(std::io::stderr().lock(), "--- the job is tried again; its output starts anew")
            }
        }
    }
}

fn write_now(mut to: impl Write, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// What was waited for.
#[derive(Debug)]
pub(crate) enum Followed {
    /// The job has ended.
    Ended(Box<JobView>),
    /// Somebody was asked to stop waiting, and did.
    Interrupted,
}

/// What an interruption does.
#[derive(Debug)]
pub(crate) struct OnInterrupt {
    pub(crate) signals: Shutdown,
    /// Cancel the job and wait for its end; a second interruption ends the wait.
    pub(crate) cancel: bool,
}

/// What happens while a job is followed.
enum Happened {
    Output(Result<OutputEvent, Error>),
    Update(JobUpdate),
    Interrupted,
    Forced,
}

/// Shows a job's output until it has ended.
pub(crate) async fn follow(
    jobs: &dyn JobService,
    id: JobId,
    mut query: OutputQuery,
    shown: Shown,
    progress: &Progress,
    interrupt: &OnInterrupt,
) -> anyhow::Result<Followed> {
    let mut cursor: Option<Cursor> = None;
    query.follow = true;
    let mut output = None;
    let mut updates = jobs.watch(WatchQuery::Job(id)).await.ok();
    let mut is_cancelled = false;
    loop {
        query.from = cursor.or(query.from);
        let happened = tokio::select! {
            event = next_output(jobs, id, query, &mut output) => Happened::Output(event),
            Some(update) = next_update(&mut updates) => Happened::Update(update),
            () = interrupt.signals.asked.cancelled(), if !is_cancelled => Happened::Interrupted,
            () = interrupt.signals.forced.cancelled() => Happened::Forced,
        };
        match happened {
            Happened::Output(Ok(OutputEvent::Chunk { cursor: next, stream, bytes })) => {
                progress.end();
                shown.chunk(stream, &bytes)?;
                cursor = Some(next);
            }
            Happened::Output(Ok(OutputEvent::Gap { cursor: next, bytes })) => {
                progress.end();
                shown.gap(bytes)?;
                cursor = Some(next);
            }
            Happened::Output(Ok(OutputEvent::Reset { cursor: next })) => {
                progress.end();
                // Nothing was shown that could be void.
                if cursor.replace(next).is_some() {
                    shown.reset()?;
                }
            }
            Happened::Output(Ok(OutputEvent::End { .. })) => {
                progress.end();
                return Ok(Followed::Ended(Box::new(jobs.wait(id).await?)));
            }
            Happened::Output(Err(error)) => {
                output = None;
                let Some(pause) = error.retry_after() else { return Err(error.into()) };
                pause_unless(pause, interrupt).await;
            }
            Happened::Update(update) => progress.show(&update),
            Happened::Interrupted if interrupt.cancel => {
                is_cancelled = true;
                // It may end by itself in between; the stream says so either way.
                let _: Result<Status, Error> = jobs.cancel(id).await;
            }
            Happened::Interrupted | Happened::Forced => return Ok(Followed::Interrupted),
        }
    }
}

async fn next_output(
    jobs: &dyn JobService,
    id: JobId,
    query: OutputQuery,
    open: &mut Option<OutputStream>,
) -> Result<OutputEvent, Error> {
    let stream = match open {
        Some(stream) => stream,
        None => open.insert(jobs.output(id, query).await?),
    };
    match stream.next().await {
        Some(event) => event,
        // The connection ended before the output did: again, from where we are.
        None => Err(Error::Unavailable { retry_after: Duration::from_millis(200) }),
    }
}

/// Updates are only for the progress line: when they stop, there are none.
async fn next_update(updates: &mut Option<UpdateStream>) -> Option<JobUpdate> {
    match updates {
        Some(stream) => match stream.next().await {
            Some(Ok(update)) => Some(update),
            _ => {
                *updates = None;
                None
            }
        },
        None => std::future::pending().await,
    }
}

async fn pause_unless(pause: Duration, interrupt: &OnInterrupt) {
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = interrupt.signals.forced.cancelled() => {}
        () = interrupt.signals.asked.cancelled(), if !interrupt.cancel => {}
    }
}
