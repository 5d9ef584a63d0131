//! Group commit: what several callers want at the same time goes to the server in one command.
//!
//! While fewer than a few groups are under way nobody waits; what comes in the meantime goes together. The server shares
//! one journal flush between commands anyway: what is saved is the cost of a command, on both sides.
//!
//! The work belongs to the store and not to its callers: one who goes away in the middle changes nothing.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::error::Error;

/// How many groups may be under way: the server works on one while the next is on its way.
const UNDER_WAY: usize = 2;

/// How much goes into one group, in whatever `weight` counts.
const GROUP: usize = 4_096;

/// What is done with what was gathered.
pub(crate) trait Work: Send + Sync + 'static {
    /// What one caller wants.
    type Item: Send;
    /// What it is told.
    type Answer: Send;

    /// Does what several callers want, and answers each, in order.
    fn carry_out(&self, items: Vec<Self::Item>) -> impl Future<Output = Vec<Result<Self::Answer, Error>>> + Send;
}

/// Gathers what callers want.
pub(crate) struct Gather<W: Work> {
    work: W,
    state: Mutex<State<W>>,
}

struct State<W: Work> {
    waiting: VecDeque<Waiting<W>>,
    under_way: usize,
}

struct Waiting<W: Work> {
    item: W::Item,
    weight: usize,
    reply: oneshot::Sender<Result<W::Answer, Error>>,
}

impl<W: Work> Gather<W> {
    pub(crate) fn new(work: W) -> Arc<Self> {
        Arc::new(Self { work, state: Mutex::new(State { waiting: VecDeque::new(), under_way: 0 }) })
    }

    /// Hands an item over and waits for its answer. Callers are as many as requests may be under way, which bounds what waits.
    pub(crate) async fn call(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        item: W::Item,
        weight: usize,
    ) -> Result<W::Answer, Error> {
        if tasks.is_closed() {
            return Err(Error::closed());
        }
        let (reply, answer) = oneshot::channel();
        let starts = {
            let mut state = self.state();
            state.waiting.push_back(Waiting { item, weight, reply });
            let starts = state.under_way < UNDER_WAY;
            state.under_way += usize::from(starts);
            starts
        };
        if starts {
            tasks.spawn(Arc::clone(self).run());
        }
        // The task ends without an answer only with the runtime.
        answer.await.unwrap_or_else(|_| Err(Error::closed()))
    }

    async fn run(self: Arc<Self>) {
        loop {
            let group = self.next_group();
            if group.is_empty() {
                return;
            }
            let (items, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|w| (w.item, w.reply)).unzip();
            let answers = self.work.carry_out(items).await;
            for (reply, answer) in replies.into_iter().zip(answers) {
                // A caller that has gone wants no answer.
                let _ = reply.send(answer);
            }
        }
    }

    /// What goes next. An empty group means that this runner has ended: decided under the lock, so that nobody's item is left
    /// without one.
    fn next_group(&self) -> Vec<Waiting<W>> {
        let mut state = self.state();
        let mut group = Vec::with_capacity(state.waiting.len());
        let mut weight = 0;
        while let Some(next) = state.waiting.pop_front_if(|next| weight == 0 || weight + next.weight <= GROUP) {
            weight += next.weight.max(1);
            group.push(next);
        }
        if group.is_empty() {
            state.under_way -= 1;
        }
        group
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
