//! What a person sees while waiting: one line on standard error, and only where that is a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use cmdexec_core::job::Status;
use cmdexec_core::service::JobUpdate;
use indicatif::{ProgressBar, ProgressStyle};

/// The line that says what is being waited for. It goes away as soon as there is output to see.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn start(quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner:.dim} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    pub(crate) fn show(&self, update: &JobUpdate) {
        let message = match (update.status, &update.worker) {
            (Status::Running, Some(worker)) => format!("running on {worker}"),
            (Status::Queued, _) => "queued, waiting for a worker".to_owned(),
            (Status::Scheduled, _) => "scheduled, waiting for its time".to_owned(),
            (status, _) => status.as_str().to_owned(),
        };
        self.0.set_message(message);
    }

    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
