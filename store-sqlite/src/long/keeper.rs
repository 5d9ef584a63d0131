//! The thread that owns the files: writes, syncs, has the rows committed, and gives back what has no row any more.
//!
//! A caller hands an addition over and waits; one that goes away meanwhile changes nothing, so that no bytes are left behind
//! which nobody counts. What waits is written and synced together.

use std::collections::HashMap;
use std::io;

use cmdexec_core::id::JobId;
use cmdexec_core::store::Append;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::file::{self, Writing};
use super::{Addition, Body, Extent, Folder, Freed, Sweep};
use crate::error::Error;
use crate::writer::{Group, Handle, weight};

/// How many messages wait at most; further callers wait for room.
const MAILBOX: usize = 32;

/// How many bytes are written before they are synced, about: also bounds how many files are open at once.
const BATCH: usize = 8 << 20;

/// How many files stay open between two batches.
const OPEN: usize = 32;

enum Message {
    Append { appends: Vec<Append>, answer: oneshot::Sender<Result<(), Error>> },
    Free(Vec<(JobId, Freed)>),
    Remove(Vec<JobId>),
    Close,
}

/// The way to the thread. Clones lead to the same one.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    mailbox: mpsc::Sender<Message>,
    ended: CancellationToken,
}

impl Keeper {
    /// Adds to the output of attempts, of which some is long.
    pub(crate) async fn append(&self, appends: Vec<Append>) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        self.mailbox.send(Message::Append { appends, answer }).await.map_err(|_| Error::closed())?;
        answered.await.map_err(|_| Error::closed())?
    }

    /// Gives back what has no row any more. If the store is closed meanwhile, it goes with its job.
    pub(crate) async fn free(&self, freed: Vec<(JobId, Freed)>) {
        if !freed.is_empty() {
            let _ = self.mailbox.send(Message::Free(freed)).await;
        }
    }

    /// Removes the files of jobs that are gone. If the store is closed meanwhile, the next start removes them.
    pub(crate) async fn remove(&self, jobs: Vec<JobId>) {
        if !jobs.is_empty() {
            let _ = self.mailbox.send(Message::Remove(jobs)).await;
        }
    }

    /// Completes once everything that was handed over is done.
    pub(crate) async fn close(&self) {
        // If the mailbox is closed already, somebody else's closing is under way.
        let _ = self.mailbox.send(Message::Close).await;
        self.ended.cancelled().await;
    }
}

/// Starts the thread. It ends when it is closed, or when every [`Keeper`] is gone.
pub(crate) fn start(folder: Folder, sweep: Sweep, writer: Handle) -> Result<Keeper, Error> {
    let (sender, mailbox) = mpsc::channel(MAILBOX);
    let ended = CancellationToken::new();
    let keeper = Keeper { mailbox: sender, ended: ended.clone() };
    let thread = Thread { folder, mailbox, writer, files: HashMap::new(), can_punch: None, is_new: false };
    std::thread::Builder::new().name("sqlite-output".to_owned()).spawn(move || {
        // Whatever becomes of the thread, nobody shall wait for it for ever.
        let _ended = ended.drop_guard();
        if let Err(error) = sweep.run(&thread.folder) {
            tracing::warn!(%error, "files of jobs that are gone could not be removed");
        }
        thread.run();
    })?;
    Ok(keeper)
}

struct Thread {
    folder: Folder,
    mailbox: mpsc::Receiver<Message>,
    writer: Handle,
    files: HashMap<JobId, Writing>,
    /// Whether the folder's file system can punch holes; not known before the first file.
    can_punch: Option<bool>,
    /// A file was made, and the folder is not synced yet.
    is_new: bool,
}

/// An append whose bytes are written, and who waits for it.
type Placed = (Vec<Addition>, oneshot::Sender<Result<(), Error>>);

/// What has no row any more once an append's rows are written.
type Committed = Result<Vec<(JobId, Freed)>, Error>;

impl Thread {
    fn run(mut self) {
        while let Some(message) = self.mailbox.blocking_recv() {
            let (mut placed, mut bytes) = (Vec::new(), 0);
            let mut next = Some(message);
            while let Some(message) = next.take() {
                self.take(message, &mut placed, &mut bytes);
                if bytes < BATCH {
                    next = self.mailbox.try_recv().ok();
                }
            }
            self.commit(placed);
            if self.files.len() > OPEN {
                self.files.clear();
            }
        }
    }

    fn take(&mut self, message: Message, placed: &mut Vec<Placed>, bytes: &mut usize) {
        match message {
            Message::Append { appends, answer } => {
                *bytes +=
                    appends.iter().flat_map(|append| &append.chunks).map(|chunk| chunk.bytes.len()).sum::<usize>();
                match self.place(appends) {
                    Ok(additions) => placed.push((additions, answer)),
                    Err(error) => drop(answer.send(Err(error))),
                }
            }
            Message::Free(freed) => self.free(freed),
            Message::Remove(jobs) => jobs.into_iter().for_each(|job| self.remove(job)),
            // What is in the mailbox is still received and done.
            Message::Close => self.mailbox.close(),
        }
    }

    /// Writes what goes into files. After an error nothing of it is there.
    fn place(&mut self, appends: Vec<Append>) -> Result<Vec<Addition>, Error> {
        let can_punch = self.can_punch()?;
        let mut ends = Vec::new();
        let mut additions = Vec::with_capacity(appends.len());
        for append in appends {
            if !can_punch || !self.folder.takes(&append) {
                additions.push(Addition::in_rows(append));
                continue;
            }
            match self.place_one(append, &mut ends) {
                Ok(addition) => additions.push(addition),
                Err(error) => {
                    for (job, end) in ends.into_iter().rev() {
                        self.files.entry(job).and_modify(|open| open.back_to(end));
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(additions)
    }

    fn place_one(&mut self, append: Append, ends: &mut Vec<(JobId, u64)>) -> io::Result<Addition> {
        let (folder, job) = (self.folder.clone(), append.job);
        let open = self.open(job)?;
        ends.push((job, open.end()));
        let mut failed = Ok(());
        let addition = Addition::new(append, |bytes| {
            if failed.is_err() || !folder.takes_piece(&bytes) {
                return Body::Row(bytes);
            }
            match open.add(&bytes) {
                Ok(extent) => Body::File(extent),
                Err(error) => {
                    failed = Err(error);
                    Body::Row(bytes)
                }
            }
        });
        failed.map(|()| addition)
    }

    fn open(&mut self, job: JobId) -> io::Result<&mut Writing> {
        use std::collections::hash_map::Entry;
        match self.files.entry(job) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let (open, is_new) = Writing::open(&self.folder.file(job))?;
                self.is_new |= is_new;
                Ok(entry.insert(open))
            }
        }
    }

    /// Makes the folder and tries it, once.
    fn can_punch(&mut self) -> Result<bool, Error> {
        if let Some(known) = self.can_punch {
            return Ok(known);
        }
        crate::file::make_directory(&self.folder.path)?;
        let can = file::can_punch(&self.folder.path)?;
        if !can {
            tracing::warn!("the file system can't punch holes: long output stays in the database, which is slower");
        }
        self.can_punch = Some(can);
        Ok(can)
    }

    /// Makes what was written durable, has its rows written, and answers.
    fn commit(&mut self, placed: Vec<Placed>) {
        if placed.is_empty() {
            return;
        }
        if let Err(error) = self.sync(&placed) {
            tracing::warn!(%error, "long output could not be synced");
            let error = Error::from(error);
            for (additions, answer) in placed {
                let _ = answer.send(Err(error.told()));
                self.free(additions.iter().map(|addition| (addition.job, written(addition))).collect());
            }
            return;
        }
        let asked: Vec<_> = placed.into_iter().map(|(additions, answer)| (self.ask(additions), answer)).collect();
        for (written, answer) in asked {
            match written.and_then(|written| written.blocking_recv().map_err(|_| Error::closed())?) {
                Ok(freed) => {
                    let _ = answer.send(Ok(()));
                    self.free(freed);
                }
                // It is not known whether the rows are there.
                Err(error) => drop(answer.send(Err(error))),
            }
        }
    }

    fn sync(&mut self, placed: &[Placed]) -> io::Result<()> {
        let mut written: Vec<JobId> = placed.iter().flat_map(|(additions, _)| additions).map(|a| a.job).collect();
        written.sort_unstable();
        written.dedup();
        for open in written.iter().filter_map(|job| self.files.get(job)) {
            open.sync()?;
        }
        if self.is_new {
            crate::file::sync_directory(&self.folder.path)?;
            self.is_new = false;
        }
        Ok(())
    }

    fn ask(&self, additions: Vec<Addition>) -> Result<oneshot::Receiver<Committed>, Error> {
        let weight = weight(additions.iter().flat_map(Addition::lengths));
        self.writer.ask(weight, move |group: &mut Group<'_>| group.append(&additions))
    }

    fn free(&mut self, freed: Vec<(JobId, Freed)>) {
        for (job, Freed { extents, is_gone }) in freed {
            if is_gone {
                self.remove(job);
            } else if !extents.is_empty()
                && let Err(error) = self.open(job).and_then(|open| open.punch(&extents))
            {
                tracing::warn!(%job, %error, "trimmed output could not be given back to the disk; it goes with the job");
            }
        }
    }

    fn remove(&mut self, job: JobId) {
        self.files.remove(&job);
        match std::fs::remove_file(self.folder.file(job)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%job, %error, "a file of output could not be removed; the next start tries again");
            }
            _ => {}
        }
    }
}

/// What an addition has in the job's file.
fn written(addition: &Addition) -> Freed {
    let extent = |body: &Body| match body {
        Body::File(extent) => Some(*extent),
        Body::Row(_) => None,
    };
    let extents: Vec<Extent> = addition.pieces.iter().filter_map(|piece| extent(&piece.body)).collect();
    Freed { extents, is_gone: false }
}
