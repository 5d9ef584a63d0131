//! The one writer: gathers what waits into a group, and commits each group as one transaction.
//!
//! A group goes through three steps: `facts` reads what its calls are about, `plan` decides in plain code what each
//! call comes to and what is to be written, and `script` writes all of it with one round trip, from BEGIN to COMMIT.
//! Because nobody else writes, what was read still holds when it is written.
//!
//! Callers wait for their answer, but the writer owns the work: a call whose future is dropped once it was handed over
//! is carried out all the same, and one dropped before is not carried out at all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::time::Clock;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::file::Claim;
use crate::options::connect;

mod facts;
mod jobs;
mod output;
mod plan;
mod purge;
mod records;
mod script;
mod work;
mod workers;

pub(crate) use script::{Heap, push_row};
pub(crate) use work::{Changed, NewJob, Slot, Work, rank};

use facts::Facts;
use plan::{Classes, Plan};

/// How many calls wait at most; further callers wait for room, which slows them down to what the disk takes.
const MAILBOX: usize = 1024;

/// How many rows' worth of work go into one transaction, so that nobody waits long behind a crowd.
const GROUP_WEIGHT: usize = 4096;

/// How long renewals of sessions wait for others when nothing else is to be written. Nobody waits for a heartbeat's answer,
/// and a thousand idle workers then share a few commits a second.
const LINGER: Duration = Duration::from_millis(25);

/// The way to the writer. Clones lead to the same one.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    mailbox: mpsc::Sender<Work>,
    ended: CancellationToken,
}

impl Handle {
    /// Hands work over and waits for its answer.
    pub(crate) async fn call<T>(&self, work: impl FnOnce(Slot<T>) -> Work) -> Result<T, Error> {
        let (sender, answer) = oneshot::channel();
        self.mailbox.send(work(Slot::new(sender))).await.map_err(|_| Error::closed())?;
        answer.await.map_err(|_| Error::closed())?
    }

    /// Completes once everything that was handed over is done and the database is closed.
    pub(crate) async fn close(&self) {
        // If the mailbox is closed already, somebody else's closing is under way.
        let _ = self.mailbox.send(Work::Close).await;
        self.ended.cancelled().await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.mailbox.is_closed()
    }
}

/// Starts the writer. It ends when it is closed, or when every handle is gone and what they handed over is done.
pub(crate) async fn start(
    mut conn: SqliteConnection,
    options: SqliteConnectOptions,
    readers: SqlitePool,
    clock: Arc<dyn Clock>,
    claim: Claim,
) -> Result<Handle, Error> {
    let last: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM jobs").fetch_one(&mut conn).await?;
    let classes = Classes::load(&mut conn).await?;
    let (sender, mailbox) = mpsc::channel(MAILBOX);
    let ended = CancellationToken::new();
    let writer = Writer { conn: Some(conn), options, clock, next_seq: last + 1, classes };
    tokio::spawn(run(writer, mailbox, readers, claim, ended.clone()));
    Ok(Handle { mailbox: sender, ended })
}

async fn run(
    mut writer: Writer,
    mut mailbox: mpsc::Receiver<Work>,
    readers: SqlitePool,
    claim: Claim,
    ended: CancellationToken,
) {
    // Also when this task is dropped with its runtime, nobody shall wait for it for ever.
    let _ended = ended.drop_guard();
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match mailbox.recv().await {
                Some(work) => waiting.push_back(work),
                None => break,
            }
        }
        while waiting.len() < MAILBOX
            && let Ok(work) = mailbox.try_recv()
        {
            waiting.push_back(work);
        }
        if waiting.iter().all(Work::can_wait) {
            linger(&mut waiting, &mut mailbox).await;
        }
        let group = next_group(&mut waiting);
        if group.iter().any(|work| matches!(work, Work::Close)) {
            // What is in the mailbox is still received and done.
            mailbox.close();
        }
        writer.commit(group).await;
    }
    readers.close().await;
    writer.close().await;
    drop(claim);
}

/// Waits for company, but no longer than until something comes that somebody waits for.
async fn linger(waiting: &mut VecDeque<Work>, mailbox: &mut mpsc::Receiver<Work>) {
    let over = tokio::time::sleep(LINGER);
    tokio::pin!(over);
    while waiting.len() < MAILBOX && waiting.back().is_some_and(Work::can_wait) {
        tokio::select! {
            biased;
            work = mailbox.recv() => match work {
                Some(work) => waiting.push_back(work),
                None => return,
            },
            () = &mut over => return,
        }
    }
}

/// What goes into one transaction. A purge goes alone, because it reads and removes at large.
fn next_group(waiting: &mut VecDeque<Work>) -> Vec<Work> {
    let mut group = Vec::new();
    let mut weight = 0;
    while let Some(work) = waiting.pop_front() {
        let alone = matches!(work, Work::Purge { .. });
        if !group.is_empty() && (alone || weight + work.weight() > GROUP_WEIGHT) {
            waiting.push_front(work);
            break;
        }
        weight += work.weight();
        group.push(work);
        if alone {
            break;
        }
    }
    group
}

struct Writer {
    /// `None` after an error left it in doubt; the next group opens another.
    conn: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    clock: Arc<dyn Clock>,
    next_seq: i64,
    classes: Classes,
}

impl Writer {
    /// Carries a group out and answers its calls.
    async fn commit(&mut self, mut group: Vec<Work>) {
        let mut result = self.attempt(&mut group, false).await;
        if result.as_ref().is_err_and(Error::is_unique_violation) {
            // Somebody inserts a job that exists: find out who, so that the others don't suffer for it.
            result = self.attempt(&mut group, true).await;
        }
        match result {
            Ok(()) => group.into_iter().for_each(Work::answer),
            Err(error) if group.len() > 1 && error.may_be_one_calls_fault() => {
                for work in group {
                    let mut alone = [work];
                    let result = self.attempt(&mut alone, true).await;
                    let [work] = alone;
                    match result {
                        Ok(()) => work.answer(),
                        Err(error) => work.fail(&error),
                    }
                }
            }
            Err(error) => {
                tracing::warn!(error = %error, calls = group.len(), "a write failed");
                for work in group {
                    work.fail(&error);
                }
            }
        }
    }

    /// Reads, decides, writes. On an error nothing is written, or it is not known whether all of it is.
    async fn attempt(&mut self, group: &mut [Work], check_ids: bool) -> Result<(), Error> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => connect(&self.options).await?,
        };
        let result = self.attempt_on(&mut conn, group, check_ids).await;
        if result.is_ok() {
            self.conn = Some(conn);
        } else {
            // Classes may have been numbered that were not written.
            self.classes.forget();
            // Without a transaction (the failure was before it, or undid it) there is nothing to roll back, which
            // SQLite calls an error too. Whatever may be left of one goes with the connection.
            if sqlx::raw_sql("ROLLBACK").execute(&mut conn).await.is_ok() {
                self.conn = Some(conn);
            }
        }
        result
    }

    async fn attempt_on(
        &mut self,
        conn: &mut SqliteConnection,
        group: &mut [Work],
        check_ids: bool,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        if let [Work::Purge { keep, limit, slot }] = group {
            slot.set(Ok(purge::purge(conn, now, *keep, *limit).await?));
            return Ok(());
        }
        let facts = Facts::read(conn, group, &mut self.classes, check_ids).await?;
        let mut plan = Plan::new(facts, now, &mut self.next_seq, &mut self.classes);
        for work in group {
            plan.take(work);
        }
        plan.into_script().execute(conn).await
    }

    async fn close(&mut self) {
        let Some(mut conn) = self.conn.take() else { return };
        // Leaves one file behind where it can; what stays in the log is as durable.
        let _ = sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut conn).await;
        if let Err(error) = conn.close().await {
            tracing::warn!(error = %error, "the database did not close cleanly");
        }
    }
}
