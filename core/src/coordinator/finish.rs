//! Reports of ended attempts.

use std::sync::Arc;

use futures_util::future::join_all;

use super::Shared;
use super::apply::Refused;
use crate::Error;
use crate::id::{LeaseToken, WorkerId};
use crate::job::{Details, Event, Job, Outcome, Report};
use crate::service::{FinalOutput, FinishedAttempt, OutputAck, OutputBatch, OutputPieces};

/// How long an error's text may be.
const MAX_MESSAGE: usize = 4 << 10;

/// How many steps a job can have.
const MAX_STEPS: usize = 1_000;

/// How many warnings of an attempt are kept.
const MAX_WARNINGS: usize = 20;

impl Shared {
    /// Accepts reports; durable when it returns.
    pub(super) async fn finish(
        &self,
        worker: &WorkerId,
        attempts: Vec<FinishedAttempt>,
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let ids: Vec<_> = attempts.iter().map(|attempt| attempt.job).collect();
        let jobs = self.jobs(&ids).await?;
        let mut answers: Vec<Result<(), Error>> = Vec::with_capacity(attempts.len());
        let mut events = Vec::with_capacity(attempts.len());
        let mut places = Vec::with_capacity(attempts.len());
        // Side by side, so that what output they bring shares a commit.
        let judging = attempts.into_iter().zip(jobs).map(|(attempt, job)| self.judge(worker, attempt, job));
        for judged in join_all(judging).await {
            match judged {
                Ok(event) => {
                    places.push(answers.len());
                    answers.push(Ok(()));
                    events.push(event);
                }
                Err(Error::Unavailable { retry_after }) => return Err(Error::Unavailable { retry_after }),
                Err(error) => answers.push(Err(error)),
            }
        }
        let settled = self.settle(events).await?;
        for (place, settled) in places.into_iter().zip(settled) {
            if let (Some(answer), Err(refused)) = (answers.get_mut(place), settled) {
                *answer = Err(match refused {
                    // Another worker's word about a job, and one about a job that is gone, are told apart by nobody.
                    Refused::Missing | Refused::Rejected(_) => Error::LeaseLost,
                });
            }
        }
        Ok(answers)
    }

    /// Keeps the output that comes with a report, and makes the report an event.
    async fn judge(
        &self,
        worker: &WorkerId,
        attempt: FinishedAttempt,
        job: Option<Arc<Job>>,
    ) -> Result<(Arc<Job>, Event), Error> {
        let mut job = job.ok_or(Error::LeaseLost)?;
        if attempt.output != FinalOutput::None {
            // What replaces output must be the holder's word beyond doubt.
            if matches!(attempt.output, FinalOutput::Whole { .. }) || !is_holder(&job, worker, attempt.token) {
                // It may have changed since it was seen last.
                job = self.stored(job.id).await?.map(Arc::new).ok_or(Error::LeaseLost)?;
            }
            if is_holder(&job, worker, attempt.token) {
                self.add_final_output(&job, attempt.output).await?;
            }
        }
        let outcome = checked(attempt.outcome)?;
        if let Some(artifacts) = attempt.details.artifacts
            && !self.has_artifacts(&job.owner, job.id, artifacts).await?
        {
            return Err(Error::invalid("artifacts", "were not uploaded for this job"));
        }
        let (token, details) = (attempt.token, checked_details(attempt.details)?);
        Ok((job, Event::Report(Report { worker: worker.clone(), token, outcome, details })))
    }

    /// Adds to the output of attempts; durable when it returns.
    pub(super) async fn append_output(
        &self,
        worker: &WorkerId,
        batches: Vec<OutputBatch>,
    ) -> Result<Vec<Result<OutputAck, Error>>, Error> {
        let ids: Vec<_> = batches.iter().map(|batch| batch.job).collect();
        let jobs = self.jobs(&ids).await?;
        // Side by side, so that they share a commit; those of one attempt keep their order.
        let appending = batches.into_iter().zip(jobs).map(|(batch, job)| self.append(worker, batch, job));
        let answers = join_all(appending).await.into_iter();
        let is_away = |answer| match answer {
            Err(Error::Unavailable { retry_after }) => Err(Error::Unavailable { retry_after }),
            answer => Ok(answer),
        };
        answers.map(is_away).collect()
    }

    async fn append(&self, worker: &WorkerId, batch: OutputBatch, job: Option<Arc<Job>>) -> Result<OutputAck, Error> {
        let mut job = job.ok_or(Error::LeaseLost)?;
        let is_question = match &batch.pieces {
            OutputPieces::Numbered(pieces) => pieces.is_empty(),
            OutputPieces::Plain(pieces) => pieces.is_empty(),
        };
        if is_question || !is_holder(&job, worker, batch.token) {
            // What a worker is told to stop is read from the store, never only from memory.
            job = self.stored(job.id).await?.map(Arc::new).ok_or(Error::LeaseLost)?;
            self.leases.put([Arc::clone(&job)]);
        }
        if !is_holder(&job, worker, batch.token) {
            return Err(Error::LeaseLost);
        }
        if !is_question {
            self.add_output(&job, batch.pieces).await?;
        }
        Ok(OutputAck { cancel: matches!(job.life.state, crate::job::State::Cancelling { .. }) })
    }
}

/// Whether a worker holds the job's current lease, by its token if it sent one.
fn is_holder(job: &Job, worker: &WorkerId, token: Option<LeaseToken>) -> bool {
    job.life.lease().is_some_and(|lease| lease.worker == *worker && token.is_none_or(|token| token == lease.token))
}

/// What else a worker may say of an attempt's end, no more of it than can be kept.
fn checked_details(mut details: Details) -> Result<Details, Error> {
    if details.steps.len() > MAX_STEPS {
        return Err(Error::invalid("steps", format!("must be at most {MAX_STEPS}")));
    }
    details.warnings.truncate(MAX_WARNINGS);
    details.warnings.iter_mut().chain(&mut details.image).for_each(cut);
    Ok(details)
}

/// Cuts a text to a length that can be kept.
fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(MAX_MESSAGE));
}

/// What a worker may say of an attempt's end, with its texts cut to a length that can be kept.
fn checked(mut outcome: Outcome) -> Result<Outcome, Error> {
    match outcome {
        Outcome::Lost => Err(Error::invalid("outcome", "only the coordinator says that an attempt is lost")),
        Outcome::Signaled { signal } if !(1..=127).contains(&signal) => {
            Err(Error::invalid("outcome", "a signal is from 1 to 127"))
        }
        Outcome::InputError { ref mut message } | Outcome::ExecutorError { ref mut message } => {
            cut(message);
            Ok(outcome)
        }
        outcome => Ok(outcome),
    }
}
