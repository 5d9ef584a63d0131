//! What a user does, as calls.

use std::sync::Arc;

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::files::{ByteStream, Download, FileId, GetRange, StoredFile};
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::job::Status;
use cmdexec_core::service::{
    JobPage, JobQuery, JobService, JobView, OutputQuery, OutputStream, Stats, Submission, SubmittedJob, UpdateStream,
    WatchQuery, WorkerView,
};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::http::{As, Call};
use super::{Client, download, events};
use crate::wire::{self, body};

/// How many jobs one request asks about: each may come with 128 KiB of output.
const IDS: usize = 64;

/// How many workers one request asks about: their ids stand in its URL.
const WORKERS: usize = 32;

#[derive(Serialize)]
struct Jobs {
    jobs: Vec<wire::Spec>,
}

#[async_trait]
impl JobService for Client {
    async fn submit_batch(&self, mut submission: Submission) -> Result<Vec<SubmittedJob>, Error> {
        let mut own_key = submission.idempotency_key;
        if let [alone] = submission.specs.as_mut_slice() {
            own_key = own_key.or_else(|| alone.idempotency_key.clone());
        }
        for spec in submission.specs.iter_mut().filter(|spec| spec.idempotency_key == own_key) {
            // The header says it.
            spec.idempotency_key = None;
        }
        let key = own_key.clone().unwrap_or_else(|| format!("~{}", uuid::Uuid::new_v4()));
        let key = HeaderValue::try_from(key)
            .map_err(|_| Error::invalid("idempotencyKey", "must be 1 to 256 bytes of visible ASCII"))?;
        let specs: Vec<_> = submission.specs.iter().map(wire::Spec::sparse).collect();
        let name = HeaderName::from_static("idempotency-key");
        let (status, jobs) = match specs.as_slice() {
            [spec] => {
                let call = Call::post(As::User, "/api/jobs/create", body(spec)).header(name, key);
                let (status, job) =
                    self.http.call_with_status::<wire::Created>(&call).await.map_err(key_by_its_name)?;
                (status, vec![job])
            }
            _ => {
                let call =
                    Call::post(As::User, "/api/jobs/create-batch", body(&Jobs { jobs: specs })).header(name, key);
                let (status, batch) =
                    self.http.call_with_status::<wire::CreatedBatch>(&call).await.map_err(key_by_its_name)?;
                (status, batch.jobs)
            }
        };
        // With a key of our own making, a repeat is only our second try.
        let repeated = own_key.is_some() && status == StatusCode::OK;
        let submitted = |job: wire::Created| SubmittedJob {
            id: JobId::from_uuid(job.job_id),
            status: job.status,
            created: job.created_at.0,
            repeated,
        };
        Ok(jobs.into_iter().map(submitted).collect())
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<Option<JobView>>, Error> {
        if let [id] = ids {
            let call = Call::get(As::User, "/api/jobs/status").query("jobId", id);
            return match self.http.call::<wire::Job>(&call).await {
                Ok(job) => Ok(vec![Some(job.into_view().ok_or(Error::Internal)?)]),
                Err(Error::JobNotFound) => Ok(vec![None]),
                Err(error) => Err(error),
            };
        }
        let mut views = Vec::with_capacity(ids.len());
        for ids in ids.chunks(IDS) {
            let asked = json!({ "jobIds": ids });
            let call = Call::post(As::User, "/api/jobs/status-batch", body(&asked));
            let list: wire::JobList = self.http.call(&call).await?;
            for job in list.jobs {
                views.push(job.map(|job| job.into_view().ok_or(Error::Internal)).transpose()?);
            }
        }
        if views.len() == ids.len() { Ok(views) } else { Err(Error::Internal) }
    }

    async fn list(&self, query: &JobQuery) -> Result<JobPage, Error> {
        let mut call = Call::get(As::User, "/api/jobs/list").query("limit", query.limit);
        let JobQuery { status, worker, label, created_after, before, offset, limit: _ } = query;
        if let Some(status) = status {
            call = call.query("status", status);
        }
        if let Some(worker) = worker {
            call = call.query("workerId", worker);
        }
        if let Some(label) = label {
            call = call.query("label", label);
        }
        if let Some(after) = created_after {
            call = call.query("createdAfter", after);
        }
        if let Some(before) = before {
            call = call.query("cursor", before);
        }
        if *offset > 0 {
            call = call.query("offset", offset);
        }
        let page: wire::JobPage = self.http.call(&call).await?;
        let next = page.next_cursor.map(|cursor| cursor.parse()).transpose().map_err(|_| Error::Internal)?;
        let jobs: Option<Vec<_>> = page.jobs.into_iter().map(wire::Job::into_view).collect();
        Ok(JobPage { jobs: jobs.ok_or(Error::Internal)?, next, total: page.total })
    }

    async fn cancel(&self, id: JobId) -> Result<Status, Error> {
        let call = Call::post(As::User, "/api/jobs/cancel", body(&json!({ "jobId": id })));
        self.http.call::<wire::JobState>(&call).await.map(|job| job.status)
    }

    async fn output(&self, id: JobId, query: OutputQuery) -> Result<OutputStream, Error> {
        events::output(Arc::clone(&self.http), id, query).await
    }

    async fn watch(&self, query: WatchQuery) -> Result<UpdateStream, Error> {
        events::watch(Arc::clone(&self.http), query).await
    }

    async fn stats(&self) -> Result<Stats, Error> {
        let stats: wire::Stats = self.http.call(&Call::get(As::User, "/api/stats")).await?;
        stats.into_stats().ok_or(Error::Internal)
    }

    async fn workers(&self, ids: Option<&[WorkerId]>) -> Result<Vec<WorkerView>, Error> {
        // No ids in a request asks for all.
        let groups: Vec<&[WorkerId]> = ids.map_or(vec![&[]], |ids| ids.chunks(WORKERS).collect());
        let mut views = Vec::new();
        for group in groups {
            let call = Call::get(As::User, "/api/workers/list");
            let call = group.iter().fold(call, |call, id| call.query("workerId", id));
            let list: wire::WorkerList = self.http.call(&call).await?;
            for worker in list.workers {
                views.push(worker.into_view().ok_or(Error::Internal)?);
            }
        }
        views.sort_by(|one, other| one.id.cmp(&other.id));
        views.dedup_by(|one, other| one.id == other.id);
        Ok(views)
    }

    async fn remove_worker(&self, worker: &WorkerId) -> Result<(), Error> {
        let id: String = form_urlencoded::byte_serialize(worker.as_str().as_bytes()).collect();
        self.http.call_for_nothing(&Call::delete(As::User, format!("/api/workers/{id}"))).await
    }

    async fn upload(&self, name: Option<&str>, bytes: ByteStream) -> Result<StoredFile, Error> {
        let call = Call::sending(As::User, "/api/files/upload");
        let call = name.iter().fold(call, |call, name| call.query("name", name));
        let stored: wire::Stored = self.http.send(&call, bytes).await?;
        stored.into_stored().ok_or(Error::Internal)
    }

    async fn files(&self, after: Option<FileId>, limit: usize) -> Result<Vec<StoredFile>, Error> {
        let call = Call::get(As::User, "/api/files/list").query("limit", limit);
        let call = after.iter().fold(call, |call, after| call.query("cursor", after));
        let page: wire::StoredPage = self.http.call(&call).await?;
        let files: Option<Vec<_>> = page.files.into_iter().map(wire::Stored::into_stored).collect();
        files.ok_or(Error::Internal)
    }

    async fn file(&self, id: FileId) -> Result<StoredFile, Error> {
        let stored: wire::Stored = self.http.call(&Call::get(As::User, format!("/api/files/{id}"))).await?;
        stored.into_stored().ok_or(Error::Internal)
    }

    async fn download(&self, id: FileId, range: Option<GetRange>) -> Result<Download, Error> {
        let response = self.http.open(&download::call(As::User, id, range.as_ref())?).await?;
        download::begin(Arc::clone(&self.http), id, response)
    }

    async fn delete_file(&self, id: FileId) -> Result<(), Error> {
        self.http.call_for_nothing(&Call::delete(As::User, format!("/api/files/{id}")).once()).await
    }
}

/// The service knows the key by one name; over the wire it travels in a header.
fn key_by_its_name(error: Error) -> Error {
    match error {
        Error::Invalid(mut problems) => {
            for problem in problems.iter_mut().filter(|problem| problem.field == "Idempotency-Key") {
                "idempotencyKey".clone_into(&mut problem.field);
            }
            Error::Invalid(problems)
        }
        other => other,
    }
}
