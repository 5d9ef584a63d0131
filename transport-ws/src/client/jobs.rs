//! What a user does, as requests.

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::files::{ByteStream, Download, FileId, GetRange, StoredFile};
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::job::Status;
use cmdexec_core::service::{
    JobPage, JobQuery, JobService, JobView, OutputQuery, OutputStream, Stats, Submission, SubmittedJob, UpdateStream,
    WatchQuery, WorkerView,
};
use cmdexec_wire::{self as wire, body};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Client;
use super::link::{Body, Often};
use super::{streams, worker::no_files};
use crate::message::{Files, Get, List, OneFile, OneJob, OneWorker, Submitted, Which};

/// How many jobs one request asks about: each may come with 128 KiB of output.
const IDS: usize = 64;

impl Client {
    /// Asks something that is harmless to repeat.
    async fn ask<T: DeserializeOwned>(&self, kind: &'static str, asked: &impl Serialize) -> Result<T, Error> {
        Ok(self.link.call(kind, Body::Text(body(asked)), Often::UntilAnswered).await?)
    }
}

#[async_trait]
impl JobService for Client {
    async fn submit_batch(&self, mut submission: Submission) -> Result<Vec<SubmittedJob>, Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Submit {
            jobs: Vec<wire::Spec>,
            idempotency_key: String,
        }
        let mut own_key = submission.idempotency_key;
        if let [alone] = submission.specs.as_mut_slice() {
            own_key = own_key.or_else(|| alone.idempotency_key.clone());
        }
        for spec in submission.specs.iter_mut().filter(|spec| spec.idempotency_key == own_key) {
            // It stands beside them.
            spec.idempotency_key = None;
        }
        // What is sent again must be known again.
        let idempotency_key = own_key.clone().unwrap_or_else(|| format!("~{}", uuid::Uuid::new_v4()));
        let jobs = submission.specs.iter().map(wire::Spec::sparse).collect::<Vec<_>>();
        let is_alone = jobs.len() == 1;
        let answer: Result<Submitted, Error> = self.ask("submit", &Submit { jobs, idempotency_key }).await;
        let answer = answer.map_err(|error| if is_alone { by_its_own_names(error) } else { error })?;
        // With a key of our own making, a repeat is only our second try.
        let repeated = own_key.is_some() && answer.repeated;
        let submitted = |job: wire::Created| SubmittedJob {
            id: JobId::from_uuid(job.job_id),
            status: job.status,
            created: job.created_at.0,
            repeated,
        };
        Ok(answer.jobs.into_iter().map(submitted).collect())
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<Option<JobView>>, Error> {
        let mut views = Vec::with_capacity(ids.len());
        let mut left = ids;
        while !left.is_empty() {
            let job_ids: Vec<_> = left.iter().take(IDS).map(JobId::as_uuid).collect();
            let list: wire::JobList = self.ask("get", &Get { job_ids }).await?;
            // The answer has as many as fit.
            left = left.get(list.jobs.len()..).filter(|_| !list.jobs.is_empty()).ok_or(Error::Internal)?;
            for job in list.jobs {
                views.push(job.map(|job| job.into_view().ok_or(Error::Internal)).transpose()?);
            }
        }
        Ok(views)
    }

    async fn list(&self, query: &JobQuery) -> Result<JobPage, Error> {
        let list = List {
            status: query.status,
            worker_id: query.worker.as_ref().map(ToString::to_string),
            label: query.label.clone(),
            created_after: query.created_after.map(wire::Time),
            cursor: query.before.map(|id| id.to_string()),
            offset: Some(query.offset),
            limit: Some(query.limit),
        };
        let page: wire::JobPage = self.ask("list", &list).await?;
        let next = page.next_cursor.map(|cursor| cursor.parse()).transpose().map_err(|_| Error::Internal)?;
        let jobs: Option<Vec<_>> = page.jobs.into_iter().map(wire::Job::into_view).collect();
        Ok(JobPage { jobs: jobs.ok_or(Error::Internal)?, next, total: page.total })
    }

    async fn cancel(&self, id: JobId) -> Result<Status, Error> {
        let state: wire::JobState = self.ask("cancel", &OneJob { job_id: id.as_uuid() }).await?;
        Ok(state.status)
    }

    async fn output(&self, id: JobId, query: OutputQuery) -> Result<OutputStream, Error> {
        streams::follow(std::sync::Arc::clone(&self.link), id, query).await
    }

    async fn watch(&self, query: WatchQuery) -> Result<UpdateStream, Error> {
        streams::watch(std::sync::Arc::clone(&self.link), query).await
    }

    async fn stats(&self) -> Result<Stats, Error> {
        let stats: wire::Stats = self.ask("stats", &serde_json::json!({})).await?;
        stats.into_stats().ok_or(Error::Internal)
    }

    async fn workers(&self, ids: Option<&[WorkerId]>) -> Result<Vec<WorkerView>, Error> {
        let worker_ids = ids.map(|ids| ids.iter().map(ToString::to_string).collect());
        let list: wire::WorkerList = self.ask("workers", &Which { worker_ids }).await?;
        let views: Option<Vec<_>> = list.workers.into_iter().map(wire::Worker::into_view).collect();
        views.ok_or(Error::Internal)
    }

    async fn remove_worker(&self, worker: &WorkerId) -> Result<(), Error> {
        let removed: serde_json::Value =
            self.ask("remove_worker", &OneWorker { worker_id: worker.to_string() }).await?;
        drop(removed);
        Ok(())
    }

    async fn upload(&self, name: Option<&str>, bytes: ByteStream) -> Result<StoredFile, Error> {
        self.files.as_ref().ok_or_else(no_files)?.upload(name, bytes).await
    }

    async fn files(&self, after: Option<FileId>, limit: usize) -> Result<Vec<StoredFile>, Error> {
        let asked = Files { cursor: after.map(|id| id.to_string()), limit: Some(limit) };
        let page: wire::StoredPage = self.ask("files", &asked).await?;
        let files: Option<Vec<_>> = page.files.into_iter().map(wire::Stored::into_stored).collect();
        files.ok_or(Error::Internal)
    }

    async fn file(&self, id: FileId) -> Result<StoredFile, Error> {
        let stored: wire::Stored = self.ask("file", &OneFile { file_id: id.to_string() }).await?;
        stored.into_stored().ok_or(Error::Internal)
    }

    async fn download(&self, id: FileId, range: Option<GetRange>) -> Result<Download, Error> {
        self.files.as_ref().ok_or_else(no_files)?.download(id, range).await
    }

    async fn delete_file(&self, id: FileId) -> Result<(), Error> {
        let asked = body(&OneFile { file_id: id.to_string() });
        let gone: serde_json::Value = self.link.call("delete_file", Body::Text(asked), Often::Once).await?;
        drop(gone);
        Ok(())
    }
}

/// A job that is submitted alone has its fields to itself.
fn by_its_own_names(error: Error) -> Error {
    match error {
        Error::Invalid(mut problems) => {
            for problem in &mut problems {
                if let Some(own) = problem.field.strip_prefix("jobs[0].") {
                    problem.field = own.to_owned();
                }
            }
            Error::Invalid(problems)
        }
        other => other,
    }
}
