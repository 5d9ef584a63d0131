//! What an executor says of an attempt besides its outcome: how each step ended, in which image it ran, and what its user should know.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::job::Step;

/// Where an executor says how each step of a [`crate::job::Command::Steps`] ended, what it ran in, and what
/// its user should know. Clones are the same log.
#[derive(Debug, Clone, Default)]
pub struct StepLog(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    steps: Vec<Step>,
    image: Option<String>,
    warnings: Vec<String>,
}

impl StepLog {
    /// The next step has ended, or was under way when the job was ended.
    pub fn ended(&self, step: Step) {
        self.lock().steps.push(step);
    }

    /// The attempt runs in exactly this image.
    pub fn runs_in(&self, image: impl Into<String>) {
        self.lock().image = Some(image.into());
    }

    /// What it runs in, if it was said.
    pub fn image(&self) -> Option<String> {
        self.lock().image.clone()
    }

    /// Something that its user should know though it changes nothing; it becomes one of [`crate::job::Details::warnings`].
    pub fn warn(&self, warning: impl Into<String>) {
        self.lock().warnings.push(warning.into());
    }

    /// What its user should know, in the order in which it was said.
    pub fn warnings(&self) -> Vec<String> {
        self.lock().warnings.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        // Each change is one assignment or one push.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The steps so far, in order.
    pub fn steps(&self) -> Vec<Step> {
        self.lock().steps.clone()
    }
}
