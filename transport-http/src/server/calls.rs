//! How many calls of one worker there are at once. Workers' calls are not counted against request limits; this bounds them.
//!
//! One too many waits for its turn: older workers send each line of output without waiting for the answer to the last, and a
//! report that was refused behind them would not be sent again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::id::WorkerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many times as many as may go on at once may be there together with those that wait.
const WAITING: usize = 8;

/// The calls in progress, by caller.
#[derive(Debug)]
pub(super) struct Calls {
    most: usize,
    now: Mutex<HashMap<Caller, Calling>>,
}

/// The calls of one caller.
#[derive(Debug)]
struct Calling {
    /// Those that go on and those that wait.
    count: usize,
    room: Arc<Semaphore>,
}

const TOO_MANY: Error = Error::RateLimited { retry_after: Duration::from_secs(1) };

/// Whose calls are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Caller {
    Worker(WorkerId),
    /// A worker whose token and request don't say which it is.
    Address(Option<IpAddr>),
}

impl From<&WorkerId> for Caller {
    fn from(worker: &WorkerId) -> Self {
        Self::Worker(worker.clone())
    }
}

/// A call in progress, or on its way there; over when it is dropped.
#[derive(Debug)]
pub(super) struct Call {
    calls: Arc<Calls>,
    caller: Caller,
    room: Option<OwnedSemaphorePermit>,
}

impl Calls {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, now: Mutex::default() })
    }

    /// Begins a call that may take long, unless it is one too many.
    pub(super) fn begin(self: &Arc<Self>, caller: impl Into<Caller>) -> Result<Call, Error> {
        let (mut call, room) = self.enter(caller.into(), self.most)?;
        call.room = Some(room.try_acquire_owned().map_err(|_| TOO_MANY)?);
        Ok(call)
    }

    /// Begins a call, after those that came before it, but waits no longer than that.
    pub(super) async fn turn(self: &Arc<Self>, caller: impl Into<Caller>, patience: Duration) -> Result<Call, Error> {
        let (mut call, room) = self.enter(caller.into(), self.most.saturating_mul(WAITING))?;
        let room = tokio::time::timeout(patience, room.acquire_owned()).await;
        call.room = Some(room.map_err(|_| TOO_MANY)?.map_err(|_| TOO_MANY)?);
        Ok(call)
    }

    /// Counts a call, if there are fewer than so many.
    fn enter(self: &Arc<Self>, caller: Caller, most: usize) -> Result<(Call, Arc<Semaphore>), Error> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let calling = now.entry(caller.clone()).or_insert_with(|| {
            let room = Semaphore::new(self.most.min(Semaphore::MAX_PERMITS));
            Calling { count: 0, room: Arc::new(room) }
        });
        if calling.count >= most {
            return Err(TOO_MANY);
        }
        calling.count += 1;
        let room = Arc::clone(&calling.room);
        drop(now);
        Ok((Call { calls: Arc::clone(self), caller, room: None }, room))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.room = None;
        let mut now = self.calls.now.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calling) = now.get_mut(&self.caller) {
            calling.count -= 1;
            if calling.count == 0 {
                now.remove(&self.caller);
            }
        }
    }
}
