//! What workers have room for: credits, each good for one job, for which the service is asked as long as they stand. One question is
//! open for each worker; what comes while it waits is asked for once it is answered, so that nobody can open them without end.

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

#[derive(Default)]
struct Credit {
    /// How many jobs the worker has room for.
    standing: usize,
    /// Whether a question is not answered yet.
    is_open: bool,
    /// Ends it.
    stop: CancellationToken,
    /// Who is to be told when it has ended.
    drained: Option<u64>,
}

/// What became of a question.
pub(super) struct Leased {
    worker: WorkerId,
    /// For how many jobs it was.
    credits: usize,
    /// Whether those credits were taken back meanwhile.
    stop: CancellationToken,
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
        self.0.values().all(|credit| !credit.is_open)
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
        let credit = self.credits.0.entry(worker.clone()).or_default();
        if credits == 0 || credit.standing + credits > MOST {
            return Err(Error::invalid("credits", format!("must be at least 1, and at most {MOST} may stand")));
        }
        credit.standing += credits;
        self.ask(Arc::clone(work), worker);
        Ok(())
    }

    /// Asks the service for as many jobs as there are credits, unless it is being asked.
    fn ask(&mut self, work: Arc<dyn WorkerService>, worker: WorkerId) {
        let closing = self.shared.closing.is_cancelled();
        let Some(credit) = self.credits.0.get_mut(&worker) else { return };
        if credit.is_open || credit.standing == 0 || credit.stop.is_cancelled() || closing {
            return;
        }
        credit.is_open = true;
        let (credits, stop) = (credit.standing, credit.stop.clone());
        self.doing.push(
            async move {
                let request = LeaseRequest { max: credits, wait: WAIT };
                let answer = tokio::select! {
                    biased;
                    answer = work.lease(&worker, request) => Some(answer),
                    // What was claimed for a question that is dropped goes back.
                    () = stop.cancelled() => None,
                };
                Done::Leased(Leased { worker, credits, stop, answer })
            }
            .boxed(),
        );
    }

    /// Takes back a worker's credits; `id` is answered when nothing more can come.
    pub(super) fn drain(&mut self, worker: &WorkerId, id: u64) {
        match self.credits.0.get_mut(worker) {
            Some(credit) if credit.is_open => {
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
        let Leased { worker, credits, stop, answer } = leased;
        let super::session::Served::Worker { work, .. } = &self.who else { return };
        let work = Arc::clone(work);
        let Some(credit) = self.credits.0.get_mut(&worker) else { return };
        credit.is_open = false;
        let drained = credit.drained.take();
        // What stands now came after those were taken back.
        let used =
            |standing: usize, used: usize| if stop.is_cancelled() { standing } else { standing.saturating_sub(used) };
        match answer {
            Some(Ok(jobs)) => {
                credit.standing = used(credit.standing, jobs.len());
                if !jobs.is_empty() {
                    let jobs = jobs.iter().map(wire::Lease::from).collect();
                    self.say("jobs", None, &Jobs { worker_id: worker.to_string(), jobs });
                }
            }
            Some(Err(error)) => {
                credit.standing = used(credit.standing, credits);
                let void = Void { worker_id: worker.to_string(), credits, error: Refusal::from(error) };
                self.say("refused", None, &void);
            }
            None => {}
        }
        if let Some(id) = drained {
            self.say("ok", Some(id), &serde_json::json!({}));
        }
        self.ask(work, worker);
    }
}
