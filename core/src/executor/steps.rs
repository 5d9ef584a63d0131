//! How the steps of a job ended, as its executor says it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::job::Step;

/// Where an executor says how each step of a [`crate::job::Command::Steps`] ended. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct StepLog(Arc<Mutex<Vec<Step>>>);

impl StepLog {
    /// The next step has ended, or was under way when the job was ended.
    pub fn ended(&self, step: Step) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }

    /// The steps so far, in order.
    pub fn steps(&self) -> Vec<Step> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
