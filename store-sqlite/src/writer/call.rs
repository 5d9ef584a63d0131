//! A call to the writer, and where its answer goes.

use tokio::sync::oneshot;

use super::group::Group;
use crate::error::Error;

/// How long a call may wait for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Somebody waits for it.
    Now,
    /// It is long output: others go first, and only a part of it at a time.
    InTurn,
    /// Nobody minds if it waits a little for others to be committed with.
    AtLeisure,
}

/// A call that waits in the mailbox.
pub(super) trait Call: Send {
    /// Writes within the group's transaction, and keeps the answer until it may be given. May be repeated if the
    /// transaction is rolled back.
    fn carry_out(&mut self, group: &mut Group<'_>) -> Result<(), Error>;

    /// Gives the answer: the error, or what was decided when the call was carried out.
    fn answer(self: Box<Self>, failure: Option<&Error>);

    /// How many rows it is about: see [`weight`].
    fn weight(&self) -> usize;

    /// How long it may wait for others.
    fn urgency(&self) -> Urgency;
}

/// The [`Call`] that a closure makes.
pub(super) struct Write<F, T> {
    pub(super) write: F,
    pub(super) weight: usize,
    pub(super) urgency: Urgency,
    /// Decided before it may be given: nobody hears of what is not committed.
    pub(super) decided: Option<T>,
    pub(super) sender: oneshot::Sender<Result<T, Error>>,
}

impl<F, T> Call for Write<F, T>
where
    F: Fn(&mut Group<'_>) -> Result<T, Error> + Send,
    T: Send,
{
    fn carry_out(&mut self, group: &mut Group<'_>) -> Result<(), Error> {
        self.decided = Some((self.write)(group)?);
        Ok(())
    }

    fn answer(self: Box<Self>, failure: Option<&Error>) {
        let answer = match (failure, self.decided) {
            (None, Some(answer)) => Ok(answer),
            (None, None) => return,
            (Some(error), _) => Err(error.told()),
        };
        // The caller may have gone away; then nobody is told.
        let _ = self.sender.send(answer);
    }

    fn weight(&self) -> usize {
        self.weight
    }

    fn urgency(&self) -> Urgency {
        self.urgency
    }
}

/// What rows of these lengths weigh: one each, and one more for each 4 KiB.
pub(crate) fn weight(lengths: impl Iterator<Item = usize>) -> usize {
    lengths.map(|length| 1 + length / 4096).sum()
}
