//! How many calls of one worker there are at once. Workers' calls are not counted against request limits; this bounds them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::id::WorkerId;

/// The calls in progress, by caller.
#[derive(Debug)]
pub(super) struct Calls {
    most: usize,
    now: Mutex<HashMap<Caller, usize>>,
}

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

/// A call in progress; over when it is dropped.
#[derive(Debug)]
pub(super) struct Call {
    calls: Arc<Calls>,
    caller: Caller,
}

impl Calls {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, now: Mutex::default() })
    }

    /// Begins a call, unless it is one too many.
    pub(super) fn begin(self: &Arc<Self>, caller: impl Into<Caller>) -> Result<Call, Error> {
        let caller = caller.into();
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let count = now.entry(caller.clone()).or_default();
        if *count >= self.most {
            return Err(Error::RateLimited { retry_after: Duration::from_secs(1) });
        }
        *count += 1;
        drop(now);
        Ok(Call { calls: Arc::clone(self), caller })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut now = self.calls.now.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = now.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                now.remove(&self.caller);
            }
        }
    }
}
