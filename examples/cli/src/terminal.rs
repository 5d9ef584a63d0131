//! What a person sees while waiting: one line on standard error, and only where that is a terminal.

use std::io::IsTerminal;
use std::sync::Arc;
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

/// A bar that shows how much of a file has been carried. Clones are the same bar.
#[derive(Debug, Clone)]
pub(crate) struct Transfer(Arc<Bar>);

#[derive(Debug)]
struct Bar(ProgressBar);

impl Transfer {
    pub(crate) fn start(what: &'static str, bytes: u64, quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self(Arc::new(Bar(ProgressBar::hidden())));
        }
        let bar = ProgressBar::new(bytes).with_message(what);
        let template = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(Arc::new(Bar(bar)))
    }

    pub(crate) fn advance(&self, bytes: usize) {
        self.0.0.inc(bytes as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
