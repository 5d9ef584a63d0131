//! What workers have room for: credits, each good for one job, for which the service is asked as long as they stand.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::id::WorkerId;
use cmdexec_core::service::{LeaseRequest, LeasedJob, WorkerService};
use cmdexec_wire as wire;
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::session::{Done, Session};
use crate::message::{Jobs, Void};
use crate::refusal::Refusal;

/// How long one question to the service waits; then it is asked again.
const WAIT: Duration = Duration::from_secs(60);

/// How many credits one worker may have, and for how many workers one socket may speak.
const MOST: usize = 10_000;
const MOST_WORKERS: usize = 1_024;

/// The credits of the workers that a socket speaks for.
#[derive(Default)]
pub(super) struct Credits(HashMap<WorkerId, Credit>);

struct Credit {
    standing: usize,
    /// Questions that are not answered yet.
    open: usize,
    /// Ends them.
    stop: CancellationToken,
    /// Who is to be told when they have ended.
    drained: Option<u64>,
}

/// What became of a question.
pub(super) struct Leased {
    worker: WorkerId,
    credits: usize,
    /// `None`: it was ended.
    answer: Option<Result<Vec<LeasedJob>, Error>>,
}

impl Credits {
    /// Ends every question.
    pub(super) fn stop(&mut self) {
        self.0.values_mut().for_each(|credit| {
            credit.stop.cancel();
            credit.standing = 0;
        });
    }

    /// Whether no question is open.
    pub(super) fn is_idle(&self) -> bool {
        self.0.values().all(|credit| credit.open == 0)
    }
}

impl Session {
    /// A worker has room for so many more.
    pub(super) fn credit(
        &mut self,
        work: &Arc<dyn WorkerService>,
        worker: WorkerId,
        credits: usize,
    ) -> Result<(), Error> {
        if self.credits.0.len() >= MOST_WORKERS && !self.credits.0.contains_key(&worker) {
            return Err(Error::Forbidden("one socket speaks for too many workers"));
        }
        let credit = self.credits.0.entry(worker.clone()).or_insert_with(|| Credit {
            standing: 0,
            open: 0,
            stop: CancellationToken::new(),
            drained: None,
        });
        if credits == 0 || credit.standing + credits > MOST {
            return Err(Error::invalid("credits", format!("must be at least 1, and at most {MOST} may stand")));
        }
        credit.standing += credits;
        self.ask(Arc::clone(work), worker, credits);
        Ok(())
    }

    /// Asks the service as long as the credits stand.
    fn ask(&mut self, work: Arc<dyn WorkerService>, worker: WorkerId, credits: usize) {
        let closing = self.shared.closing.is_cancelled();
        let Some(credit) = self.credits.0.get_mut(&worker) else { return };
        if closing {
            credit.stop.cancel();
        }
        credit.open += 1;
        let stop = credit.stop.clone();
        self.doing.push(
            async move {
                let request = LeaseRequest { max: credits, wait: WAIT };
                let answer = tokio::select! {
                    biased;
                    answer = work.lease(&worker, request) => Some(answer),
                    // What was claimed for a question that is dropped goes back.
                    () = stop.cancelled() => None,
                };
                Done::Leased(Leased { worker, credits, answer })
            }
            .boxed(),
        );
    }

    /// Takes back a worker's credits; `id` is answered when nothing more can come.
    pub(super) fn drain(&mut self, worker: &WorkerId, id: u64) {
        match self.credits.0.get_mut(worker) {
            Some(credit) if credit.open > 0 => {
                std::mem::take(&mut credit.stop).cancel();
                credit.standing = 0;
                if let Some(earlier) = credit.drained.replace(id) {
                    self.say("ok", Some(earlier), &serde_json::json!({}));
                }
            }
            _ => self.say("ok", Some(id), &serde_json::json!({})),
        }
    }

    /// Takes in what credits brought.
    pub(super) fn leased(&mut self, leased: Leased) {
        let Leased { worker, credits, answer } = leased;
        let super::session::Served::Worker { work, .. } = &self.who else { return };
        let work = Arc::clone(work);
        let Some(credit) = self.credits.0.get_mut(&worker) else { return };
        credit.open -= 1;
        let drained = if credit.open == 0 { credit.drained.take() } else { None };
        let is_drained = drained.is_some() || credit.drained.is_some();
        match answer {
            Some(Ok(jobs)) => {
                let left = credits.saturating_sub(jobs.len());
                credit.standing = credit.standing.saturating_sub(jobs.len());
                if !jobs.is_empty() {
                    let jobs = jobs.iter().map(wire::Lease::from).collect();
                    self.say("jobs", None, &Jobs { worker_id: worker.to_string(), jobs });
                }
                if left > 0 && !is_drained {
                    self.ask(work, worker, left);
                }
            }
            Some(Err(error)) => {
                credit.standing = credit.standing.saturating_sub(credits);
                let void = Void { worker_id: worker.to_string(), credits, error: Refusal::from(error) };
                self.say("refused", None, &void);
            }
            None => {}
        }
        if let Some(id) = drained {
            self.say("ok", Some(id), &serde_json::json!({}));
        }
    }
}
