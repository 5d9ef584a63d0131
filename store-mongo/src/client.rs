//! The connection: collections, the names of operations, and how a command is sent until its outcome is known.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cmdexec_core::store::ErrorKind;
use cmdexec_core::time::{Clock, SystemClock, Timestamp};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Document, RawArrayBuf, RawDocumentBuf, rawdoc};
use mongodb::{Client, Collection, Database};
use tokio_util::task::TaskTracker;

use crate::bell::Bell;
use crate::clock::ServerClock;
use crate::error::Error;
use crate::schema;

/// How long an answer is waited for. A server that is cut off without a word would otherwise be waited for until the
/// system gives up on its connection.
const ANSWER: Duration = Duration::from_secs(15);

/// For how long a write is tried again whose outcome is not known: an election takes some seconds.
pub(crate) const PERSIST: Duration = Duration::from_secs(6);

/// How long a majority is waited for. Without one, what was written may still be taken back.
pub(crate) const MAJORITY: Duration = Duration::from_secs(10);

/// How many bytes of statements one command carries: a command is a document, which may have 16 MiB.
const COMMAND_BYTES: usize = 8 << 20;

/// How many statements one command may carry; the server's own bound is 100,000.
const COMMAND_STATEMENTS: usize = 50_000;

/// What everything in a store uses.
#[derive(Debug)]
pub(crate) struct Mongo {
    pub(crate) client: Client,
    pub(crate) database: Database,
    pub(crate) clock: ServerClock,
    pub(crate) ops: Ops,
    /// Tells the other stores what this one has written.
    pub(crate) bell: Arc<Bell>,
    /// What is under way on behalf of callers.
    pub(crate) tasks: TaskTracker,
}

/// Names operations: a document says by which it was written last, since a bulk update's reply only counts.
#[derive(Debug)]
pub(crate) struct Ops {
    /// Which store: distinguishes it from every other that writes to the database.
    instance: [u8; 8],
    next: AtomicU64,
}

/// The name of an operation.
pub(crate) type Op = [u8; 16];

impl Ops {
    pub(crate) fn new(instance: [u8; 8]) -> Self {
        Self { instance, next: AtomicU64::new(0) }
    }

    pub(crate) fn next(&self) -> Op {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let mut op = [0; 16];
        let (instance, number) = op.split_at_mut(8);
        instance.copy_from_slice(&self.instance);
        number.copy_from_slice(&n.to_be_bytes());
        op
    }
}

impl Mongo {
    pub(crate) fn collection(&self, name: &str) -> Collection<RawDocumentBuf> {
        self.database.collection(name)
    }

    pub(crate) fn jobs(&self) -> Collection<RawDocumentBuf> {
        self.collection(schema::JOBS)
    }

    /// The server's time.
    pub(crate) async fn now(&self) -> Result<Timestamp, Error> {
        bounded(self.clock.current(&self.database)).await
    }

    /// # Errors
    /// `Unavailable`: the store was closed.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.tasks.is_closed() { Err(Error::closed()) } else { Ok(()) }
    }

    /// Sends conditional updates in as few commands as hold them, side by side. Each must be harmless when it is sent again.
    /// The answer is how many documents they found, by the last try.
    pub(crate) async fn update_many(&self, collection: &str, statements: Vec<RawDocumentBuf>) -> Result<u64, Error> {
        let mut commands = Vec::new();
        let mut updates = RawArrayBuf::new();
        let (mut bytes, mut count) = (0, 0);
        for statement in statements {
            let length = statement.as_bytes().len();
            if count > 0 && (bytes + length > COMMAND_BYTES || count >= COMMAND_STATEMENTS) {
                commands.push(std::mem::take(&mut updates));
                (bytes, count) = (0, 0);
            }
            bytes += length;
            count += 1;
            updates.push(statement);
        }
        commands.push(updates);
        let sent = commands.into_iter().map(|updates| self.send_update(collection, updates));
        let found = futures_util::future::join_all(sent).await;
        found.into_iter().sum()
    }

    async fn send_update(&self, collection: &str, updates: RawArrayBuf) -> Result<u64, Error> {
        let command = rawdoc! {
            "update": collection,
            "ordered": false,
            "writeConcern": { "w": "majority", "j": true, "wtimeout": i64::try_from(MAJORITY.as_millis()).unwrap_or(0) },
            "updates": updates,
        };
        let reply = persist(|| async { Ok(self.database.run_raw_command(command.clone()).await?) }).await?;
        refuse_failures(&reply)?;
        Ok(reply.get("n").and_then(number).unwrap_or(0))
    }

    /// Inserts documents that know by themselves which operation they are of, in no order.
    ///
    /// The answer names those that were there already, by their place. A document that an earlier try of this very call
    /// has inserted is among them.
    pub(crate) async fn insert_many(
        &self,
        collection: &str,
        documents: &[RawDocumentBuf],
    ) -> Result<Vec<usize>, Error> {
        if documents.is_empty() {
            return Ok(Vec::new());
        }
        let collection = self.collection(collection);
        let insert = || async {
            match collection.insert_many(documents).ordered(false).await {
                Ok(_) => Ok(Vec::new()),
                Err(error) => there_already(error),
            }
        };
        persist(insert).await
    }
}

/// Which documents of an insertion were there already, if nothing else was wrong.
fn there_already(error: mongodb::error::Error) -> Result<Vec<usize>, Error> {
    let mongodb::error::ErrorKind::InsertMany(failed) = error.kind.as_ref() else { return Err(error.into()) };
    let errors = failed.write_errors.as_deref().unwrap_or_default();
    let only_those = errors.iter().all(|write| crate::error::is_duplicate(write.code));
    if failed.write_concern_error.is_some() || !only_those || errors.is_empty() {
        return Err(error.into());
    }
    Ok(errors.iter().map(|write| write.index).collect())
}

/// # Errors
/// A statement failed, or no majority has what was written.
fn refuse_failures(reply: &Document) -> Result<(), Error> {
    let failed = reply.get_array("writeErrors").ok().and_then(|errors| errors.first()?.as_document());
    if let Some(failed) = failed {
        let code = failed.get("code").and_then(number).unwrap_or(0);
        let what = format!("MongoDB: {} (code {code})", failed.get_str("errmsg").unwrap_or("a statement failed"));
        // Documents that grow too large are the one thing that is the caller's.
        let is_too_large = matches!(code, 10334 | 17280 | 17419 | 17420);
        return Err(if is_too_large { Error::Refused(ErrorKind::Invalid, what) } else { Error::unavailable(what) });
    }
    match reply.get_document("writeConcernError") {
        Ok(failed) => {
            let why = failed.get_str("errmsg").unwrap_or("no majority");
            Err(Error::unavailable(format!("MongoDB: it is not known whether the write will last: {why}")))
        }
        Err(_) => Ok(()),
    }
}

fn number(value: &mongodb::bson::Bson) -> Option<u64> {
    let signed = value.as_i64().or_else(|| value.as_i32().map(i64::from))?;
    u64::try_from(signed).ok()
}

/// Waits for an answer, but not for ever.
pub(crate) async fn bounded<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::unavailable("MongoDB does not answer")),
    }
}

/// Tries again what is harmless to repeat, for as long as an election takes.
pub(crate) async fn persist<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut pause = Duration::from_millis(20);
    let until = SystemClock.uptime().saturating_add(PERSIST);
    loop {
        match bounded(attempt()).await {
            Err(error) if error.is_transient() && SystemClock.uptime() < until => {
                tracing::debug!(%error, "MongoDB: trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(640));
            }
            answer => return answer,
        }
    }
}

/// Sixteen bytes, as BSON has them.
pub(crate) fn binary(bytes: impl Into<Vec<u8>>) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: bytes.into() }
}
