//! Containers that are started before there is a job for them.
//!
//! A job takes one that is ready. Where none is, it waits for the next that comes, and one more is made for it, so that no job
//! waits longer than if there were no pool. In between a task keeps as many ready as the largest burst of late took
//! ([`demand`]): while jobs wait for containers, or have all processors, it makes few or none, for making one takes what jobs need.

mod demand;
mod used;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmdexec_core::job::Network;
use cmdexec_core::time::{Clock, SystemClock};
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::container::Container;
use crate::image::Image;
use crate::profile::Order;
use crate::trouble::Trouble;
use crate::workshop::Workshop;
use demand::Demand;
use used::Used;

/// How often it is looked whether containers are to go.
const LOOK: Duration = Duration::from_secs(1);

/// The containers of all images.
#[derive(Debug)]
pub(crate) struct Pool {
    workshop: Arc<Workshop>,
    /// The user that jobs run as, in the daemon's words.
    user: Option<String>,
    processors: usize,
    state: Mutex<State>,
    changed: Notify,
    ended: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    /// By the image's id.
    shelves: HashMap<String, Shelf>,
    used: Used,
    /// How many jobs run.
    busy: usize,
    is_closed: bool,
}

/// What there is of one image.
#[derive(Debug)]
struct Shelf {
    image: Arc<Image>,
    demand: Demand,
    ready: VecDeque<Container>,
    waiting: VecDeque<oneshot::Sender<Result<Container, Trouble>>>,
    /// How many are being made.
    making: usize,
}

/// A job that runs; until it is dropped, less is made.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Pool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
        self.0.changed.notify_one();
    }
}

impl Pool {
    /// Starts the task that fills it.
    pub(crate) fn start(workshop: Arc<Workshop>, user: Option<String>) -> Arc<Self> {
        let pool = Arc::new(Self {
            workshop,
            user,
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            state: Mutex::default(),
            changed: Notify::new(),
            ended: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let filling = Arc::clone(&pool);
        pool.tasks.spawn(async move { filling.fill().await });
        pool
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything that may panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a job runs.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.lock().busy += 1;
        Busy(Arc::clone(self))
    }

    /// A container of the image: one that is ready, or the next that is made.
    pub(crate) async fn take(self: &Arc<Self>, image: &Arc<Image>) -> Result<Container, Trouble> {
        let coming = {
            let mut state = self.lock();
            if state.is_closed {
                return Err(Trouble::Here("the executor ends".to_owned()));
            }
            let idle = self.workshop.options.pool.idle;
            let shelf = state.shelves.entry(image.id.clone()).or_insert_with(|| Shelf {
                image: Arc::clone(image),
                demand: Demand::new(idle),
                ready: VecDeque::new(),
                waiting: VecDeque::new(),
                making: 0,
            });
            shelf.demand.note(SystemClock.uptime());
            self.changed.notify_one();
            while let Some(container) = shelf.ready.pop_front() {
                // Somebody may have removed it meanwhile, or the daemon was restarted.
                if container.is_alive() {
                    return Ok(container);
                }
            }
            let (sender, receiver) = oneshot::channel();
            shelf.waiting.push_back(sender);
            if shelf.making < shelf.waiting.len() {
                self.make(shelf);
            }
            receiver
        };
        coming.await.unwrap_or_else(|_| Err(Trouble::Here("the executor ends".to_owned())))
    }

    /// A container that a job of this owner has used, or another.
    pub(crate) async fn take_again(self: &Arc<Self>, scope: &str, image: &Arc<Image>) -> Result<Container, Trouble> {
        let used = self.lock().used.take(scope, &image.id);
        match used {
            Some(container) => Ok(container),
            None => self.take(image).await,
        }
    }

    /// Keeps a container that was emptied for the next job of its owner.
    pub(crate) fn give_back(&self, scope: &str, container: Container) {
        let most = self.workshop.options.pool.most;
        let surplus = {
            let mut state = self.lock();
            if state.is_closed {
                Some(container)
            } else {
                state.used.put(scope.to_owned(), container, SystemClock.uptime(), most)
            }
        };
        drop(surplus);
    }

    fn make(self: &Arc<Self>, shelf: &mut Shelf) {
        shelf.making += 1;
        let (pool, image) = (Arc::clone(self), Arc::clone(&shelf.image));
        self.tasks.spawn(async move {
            let order = Order {
                image: image.id.clone(),
                user: pool.user.clone(),
                network: Network::None,
                limits: pool.workshop.options.limits,
                gpus: Vec::new(),
                work: None,
                attempt: None,
                is_attached: false,
            };
            let made = tokio::select! {
                made = pool.workshop.make(Arc::clone(&image), order) => made,
                () = pool.ended.cancelled() => Err(Trouble::Here("the executor ends".to_owned())),
            };
            pool.deliver(&image.id, made);
        });
    }

    /// A container is there, or could not be made: whoever waits for longest has it.
    fn deliver(&self, image: &str, made: Result<Container, Trouble>) {
        let mut state = self.lock();
        let is_closed = state.is_closed;
        let Some(shelf) = state.shelves.get_mut(image) else { return };
        shelf.making -= 1;
        let mut made = made;
        while let Some(waiting) = shelf.waiting.pop_front() {
            match waiting.send(made) {
                Ok(()) => return,
                // It waits no longer.
                Err(back) => made = back,
            }
        }
        match made {
            Ok(container) if !is_closed => shelf.ready.push_back(container),
            Ok(_) => {}
            Err(error) => tracing::warn!(image = shelf.image.name, %error, "a container could not be made ready"),
        }
    }

    /// Keeps as many ready as are wanted, until the end.
    async fn fill(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.ended.cancelled() => return,
                () = self.changed.notified() => {}
                () = sleep(LOOK) => {}
            }
            // Dropped outside of the lock: each tells its keeper.
            let surplus = self.adjust(SystemClock.uptime());
            drop(surplus);
        }
    }

    /// Starts to make what is wanted; gives what is to go.
    fn adjust(self: &Arc<Self>, now: Duration) -> Vec<Container> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let most = self.workshop.options.pool.most;
        let mut surplus = state.used.stale(now, self.workshop.options.pool.idle);
        let mut waits = false;
        for shelf in state.shelves.values_mut() {
            let wanted = shelf.demand.wanted(now);
            while shelf.ready.len() > wanted {
                surplus.extend(shelf.ready.pop_front());
            }
            waits |= !shelf.waiting.is_empty();
        }
        state.shelves.retain(|_, shelf| {
            shelf.demand.wanted(now) > 0 || shelf.making > 0 || !shelf.waiting.is_empty() || !shelf.ready.is_empty()
        });
        if waits {
            return surplus;
        }
        let at_once = if state.busy >= self.processors { 1 } else { self.processors };
        let mut making: usize = state.shelves.values().map(|shelf| shelf.making).sum();
        let mut total = making + state.shelves.values().map(|shelf| shelf.ready.len()).sum::<usize>();
        // Images that were asked for last come first; those of which nothing was heard for longest make room.
        let mut by_use: Vec<_> = state.shelves.values_mut().collect();
        by_use.sort_by_key(|shelf| std::cmp::Reverse(shelf.demand.last()));
        while making < at_once {
            let lacking =
                by_use.iter_mut().position(|shelf| shelf.ready.len() + shelf.making < shelf.demand.wanted(now));
            let Some(place) = lacking else { break };
            if total >= most {
                let Some(older) = by_use.iter_mut().skip(place + 1).rev().find(|shelf| !shelf.ready.is_empty()) else {
                    break;
                };
                surplus.extend(older.ready.pop_front());
                total -= 1;
            }
            if let Some(shelf) = by_use.get_mut(place) {
                self.make(shelf);
            }
            making += 1;
            total += 1;
        }
        surplus
    }

    /// Lets every container go that waits, and makes no more.
    pub(crate) fn end(&self) {
        let waiting = {
            let mut state = self.lock();
            state.is_closed = true;
            (std::mem::take(&mut state.shelves), std::mem::take(&mut state.used))
        };
        self.ended.cancel();
        drop(waiting);
    }

    /// The same, and waits for those that are being made.
    pub(crate) async fn close(&self) {
        self.end();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
