//! A call to the writer, and where its answer goes.

use tokio::sync::oneshot;

use super::group::Group;
use crate::error::Error;

/// A call that waits in the mailbox.
pub(super) trait Call: Send {
    /// Writes within the group's transaction, and keeps the answer until it may be given. May be repeated if the
    /// transaction is rolled back.
    fn carry_out(&mut self, group: &mut Group<'_>) -> Result<(), Error>;

    /// Gives the answer: the error, or what was decided when the call was carried out.
    fn answer(self: Box<Self>, failure: Option<&Error>);

    /// How many rows it is about: see [`weight`].
    fn weight(&self) -> usize;

    /// Whether nobody minds if it waits a little for others to be committed with.
    fn can_wait(&self) -> bool;
}

/// The [`Call`] that a closure makes.
pub(super) struct Write<F, T> {
    pub(super) write: F,
    pub(super) weight: usize,
    pub(super) can_wait: bool,
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

    fn can_wait(&self) -> bool {
        self.can_wait
    }
}

/// What rows of these lengths weigh: one each, and one more for each 4 KiB.
pub(crate) fn weight(lengths: impl Iterator<Item = usize>) -> usize {
    lengths.map(|length| 1 + length / 4096).sum()
}
