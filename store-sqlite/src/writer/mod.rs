//! The one writer: gathers what waits into a group, and commits each group as one transaction.
//!
//! It is a thread with a connection of its own, which its calls' statements run on row by row: a round trip through
//! sqlx would cost each of them two changes of threads, some 50 µs. Because nobody else writes, nothing is ever locked.
//!
//! Callers wait for their answer, but the writer owns the work: a call whose future is dropped once it was handed over
//! is carried out all the same, and one dropped before is not carried out at all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::time::Clock;
use sqlx::sqlite::SqlitePool;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::file::Claim;

mod call;
mod connection;
mod group;
mod jobs;
mod output;
mod purge;
mod records;
mod workers;

pub(crate) use call::weight;
pub(crate) use connection::Settings;
pub(crate) use group::Group;
pub(crate) use jobs::{Changed, NewJob, rank};

use call::{Call, Urgency, Write};
use connection::Writer;

/// How many calls wait at most; further callers wait for room, which slows them down to what the disk takes.
const MAILBOX: usize = 1024;

/// How many rows' worth of work go into one transaction, so that nobody waits long behind a crowd.
pub(crate) const GROUP_WEIGHT: usize = 4096;

/// How many rows' worth of long output go into one transaction: a MiB. Nothing else is ever behind more of it than that.
const OUTPUT_WEIGHT: usize = 256;

/// Output of up to so many rows' worth, as comes with a result, is not long.
const SHORT: usize = 16;

/// How long renewals of sessions wait for others when nothing else is to be written. Nobody waits for a heartbeat's answer,
/// and a thousand idle workers then share a few commits a second.
const LINGER: Duration = Duration::from_millis(25);

enum Message {
    Call(Box<dyn Call>),
    Close,
}

/// The way to the writer. Clones lead to the same one.
#[derive(Clone)]
pub(crate) struct Handle {
    mailbox: mpsc::Sender<Message>,
    ended: CancellationToken,
}

impl Handle {
    /// Hands a write over and waits for its answer. `weight`: see [`weight()`].
    pub(crate) async fn call<T, F>(&self, weight: usize, write: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&mut Group<'_>) -> Result<T, Error> + Send + 'static,
    {
        self.send(weight, Urgency::Now, write).await
    }

    /// As [`Handle::call`], for output: where it is long, whatever else waits goes first.
    pub(crate) async fn call_in_turn<T, F>(&self, weight: usize, write: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&mut Group<'_>) -> Result<T, Error> + Send + 'static,
    {
        self.send(weight, in_turn(weight), write).await
    }

    /// As [`Handle::call`], for what nobody waits for: it may be kept a little for others to come.
    pub(crate) async fn call_at_leisure<T, F>(&self, weight: usize, write: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&mut Group<'_>) -> Result<T, Error> + Send + 'static,
    {
        self.send(weight, Urgency::AtLeisure, write).await
    }

    /// As [`Handle::call_in_turn`], from a thread outside of any runtime, which waits for the answer as it sees fit.
    pub(crate) fn ask<T, F>(&self, weight: usize, write: F) -> Result<oneshot::Receiver<Result<T, Error>>, Error>
    where
        T: Send + 'static,
        F: Fn(&mut Group<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let call = Box::new(Write { write, weight, urgency: in_turn(weight), decided: None, sender });
        self.mailbox.blocking_send(Message::Call(call)).map_err(|_| Error::closed())?;
        Ok(answer)
    }

    async fn send<T, F>(&self, weight: usize, urgency: Urgency, write: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&mut Group<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let call = Box::new(Write { write, weight, urgency, decided: None, sender });
        self.mailbox.send(Message::Call(call)).await.map_err(|_| Error::closed())?;
        answer.await.map_err(|_| Error::closed())?
    }

    /// Completes once everything that was handed over is done and the database is closed.
    pub(crate) async fn close(&self) {
        // If the mailbox is closed already, somebody else's closing is under way.
        let _ = self.mailbox.send(Message::Close).await;
        self.ended.cancelled().await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.mailbox.is_closed()
    }
}

fn in_turn(weight: usize) -> Urgency {
    if weight > SHORT { Urgency::InTurn } else { Urgency::Now }
}

/// Starts the writer. It ends when it is closed, or when every handle is gone and what they handed over is done.
pub(crate) async fn start(
    settings: Settings,
    readers: SqlitePool,
    clock: Arc<dyn Clock>,
    claim: Claim,
) -> Result<Handle, Error> {
    let (sender, mailbox) = mpsc::channel(MAILBOX);
    let (opened, is_open) = oneshot::channel();
    let ended = CancellationToken::new();
    let handle = Handle { mailbox: sender, ended: ended.clone() };
    // For the mailbox and the timer only; the statements block the thread, which is what it is for.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let thread = move || {
        // Whatever becomes of the thread, nobody shall wait for it for ever.
        let _ended = ended.drop_guard();
        match Writer::open(settings, clock) {
            Ok(writer) => {
                if opened.send(Ok(())).is_ok() {
                    runtime.block_on(run(writer, mailbox, readers));
                }
            }
            Err(error) => drop(opened.send(Err(error))),
        }
        drop(claim);
    };
    std::thread::Builder::new().name("sqlite-writer".to_owned()).spawn(thread)?;
    is_open.await.map_err(|_| Error::closed())??;
    Ok(handle)
}

async fn run(mut writer: Writer, mut mailbox: mpsc::Receiver<Message>, readers: SqlitePool) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match mailbox.recv().await {
                Some(message) => take(message, &mut waiting, &mut mailbox),
                None => break,
            }
        }
        while waiting.len() < MAILBOX
            && let Ok(message) = mailbox.try_recv()
        {
            take(message, &mut waiting, &mut mailbox);
        }
        if waiting.iter().all(|call| call.urgency() == Urgency::AtLeisure) {
            linger(&mut waiting, &mut mailbox).await;
        }
        writer.commit(next_group(&mut waiting));
    }
    readers.close().await;
    writer.close();
}

fn take(message: Message, waiting: &mut VecDeque<Box<dyn Call>>, mailbox: &mut mpsc::Receiver<Message>) {
    match message {
        Message::Call(call) => waiting.push_back(call),
        // What is in the mailbox is still received and done.
        Message::Close => mailbox.close(),
    }
}

/// Waits for company, but no longer than until something comes that somebody waits for.
async fn linger(waiting: &mut VecDeque<Box<dyn Call>>, mailbox: &mut mpsc::Receiver<Message>) {
    let over = tokio::time::sleep(LINGER);
    tokio::pin!(over);
    while waiting.len() < MAILBOX
        && !mailbox.is_closed()
        && waiting.back().is_some_and(|call| call.urgency() == Urgency::AtLeisure)
    {
        tokio::select! {
            biased;
            message = mailbox.recv() => match message {
                Some(message) => take(message, waiting, mailbox),
                None => return,
            },
            () = &mut over => return,
        }
    }
}

/// What goes into one transaction: as many as weigh no more than a group, and at least one. Of long output there is only a part
/// in it, so that a job that never stops writing holds up nothing else. Callers wait for their answers, so that none minds
/// who goes first.
fn next_group(waiting: &mut VecDeque<Box<dyn Call>>) -> Vec<Box<dyn Call>> {
    let mut group = Vec::with_capacity(waiting.len());
    let (mut weight, mut output) = (0, 0);
    let mut left = VecDeque::new();
    while let Some(call) = waiting.pop_front_if(|call| weight == 0 || weight + call.weight() <= GROUP_WEIGHT) {
        if call.urgency() == Urgency::InTurn {
            if output > 0 && output + call.weight() > OUTPUT_WEIGHT {
                left.push_back(call);
                continue;
            }
            output += call.weight();
        }
        weight += call.weight();
        group.push(call);
    }
    // What was passed over is the first of the next group.
    left.append(waiting);
    *waiting = left;
    group
}
