//! What a user may do: ownership and roles are decided here, and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Shared, follow, view};
use crate::Error;
use crate::files::{ByteStream, Download, FileId, GetRange, StoredFile};
use crate::id::{JobId, Owner, WorkerId};
use crate::job::{Event, Job, Status};
use crate::service::{
    ClassStats, JobPage, JobQuery, JobService, JobView, OutputQuery, OutputStream, Role, Stats, Submission,
    SubmittedJob, UpdateStream, UserPrincipal, WatchQuery, WorkerStatus, WorkerView,
};
use crate::store::{ListQuery, WorkerRow};

/// How far a listing counts.
const COUNT_TO: usize = 10_000;

/// How many workers are read at once.
const WORKERS: usize = 500;

/// What one user may do.
pub(super) struct UserJobs {
    shared: Arc<Shared>,
    principal: UserPrincipal,
}

impl fmt::Debug for UserJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserJobs").field("principal", &self.principal).finish_non_exhaustive()
    }
}

impl UserJobs {
    pub(super) fn new(shared: Arc<Shared>, principal: UserPrincipal) -> Self {
        Self { shared, principal }
    }

    /// Whose jobs the user may see; `None`: everybody's.
    fn sees_only(&self) -> Option<Owner> {
        (self.principal.role != Role::Admin).then(|| self.principal.owner.clone())
    }

    fn may_see(&self, job: &Job) -> bool {
        self.sees_only().is_none_or(|owner| owner == job.owner)
    }

    fn may_change(&self) -> Result<(), Error> {
        match self.principal.role {
            Role::Admin | Role::User => Ok(()),
            Role::Viewer => Err(Error::Forbidden("a viewer may not change anything")),
        }
    }

    /// The jobs with these ids that the user may see.
    async fn find(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, Error> {
        let jobs = self.shared.store.get(ids).await?;
        Ok(jobs.into_iter().map(|job| job.filter(|job| self.may_see(job))).collect())
    }

    async fn job(&self, id: JobId) -> Result<Job, Error> {
        self.find(&[id]).await?.pop().flatten().ok_or(Error::JobNotFound)
    }

    /// How many jobs of an owner are in a status, up to [`COUNT_TO`].
    async fn count(&self, owner: &Owner, status: Status) -> Result<u64, Error> {
        let (owner, status) = (Some(owner.clone()), Some(status));
        let query = ListQuery { owner, status, limit: 1, count_to: COUNT_TO, ..ListQuery::default() };
        Ok(self.shared.store.list(&query).await?.total as u64)
    }

    async fn all_workers(&self) -> Result<Vec<WorkerRow>, Error> {
        let mut rows: Vec<WorkerRow> = Vec::new();
        loop {
            let page = self.shared.store.list_workers(rows.last().map(|row| &row.id), WORKERS).await?;
            let is_last = page.len() < WORKERS;
            rows.extend(page);
            if is_last {
                return Ok(rows);
            }
        }
    }
}

#[async_trait]
impl JobService for UserJobs {
    async fn submit_batch(&self, submission: Submission) -> Result<Vec<SubmittedJob>, Error> {
        self.may_change()?;
        self.shared.submit(&self.principal.owner, submission).await
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<Option<JobView>>, Error> {
        let mut views = Vec::with_capacity(ids.len());
        for job in self.find(ids).await? {
            views.push(match job {
                Some(job) => Some(self.shared.with_output(job).await?),
                None => None,
            });
        }
        Ok(views)
    }

    async fn list(&self, query: &JobQuery) -> Result<JobPage, Error> {
        if !(1..=500).contains(&query.limit) {
            return Err(Error::invalid("limit", "must be from 1 to 500"));
        }
        if query.offset > COUNT_TO {
            return Err(Error::invalid("offset", "must be at most 10000; use the cursor"));
        }
        let query = ListQuery {
            owner: self.sees_only(),
            status: query.status,
            worker: query.worker.clone(),
            label: query.label.clone(),
            input: None,
            created_after: query.created_after,
            before: query.before,
            offset: query.offset,
            limit: query.limit,
            count_to: COUNT_TO,
        };
        let page = self.shared.store.list(&query).await?;
        let next = page.jobs.last().filter(|_| page.more).map(|job| job.id);
        Ok(JobPage { jobs: page.jobs.into_iter().map(view::summary).collect(), next, total: page.total })
    }

    async fn cancel(&self, id: JobId) -> Result<Status, Error> {
        let job = self.job(id).await?;
        self.may_change()?;
        let mut settled = self.shared.settle(vec![(Arc::new(job), Event::Cancel)]).await?;
        match settled.pop() {
            Some(Ok(Some(settled))) => Ok(settled.job.status()),
            // It is being cancelled already.
            Some(Ok(None)) => Ok(Status::Cancelling),
            Some(Err(refused)) => Err(refused.into()),
            None => Err(Error::Internal),
        }
    }

    async fn output(&self, id: JobId, query: OutputQuery) -> Result<OutputStream, Error> {
        if query.tail.is_some_and(|lines| lines > OutputQuery::MAX_TAIL) {
            return Err(Error::invalid("tail", format!("must be at most {}", OutputQuery::MAX_TAIL)));
        }
        let job = self.job(id).await?;
        follow::output(Arc::clone(&self.shared), &job, query).await
    }

    async fn watch(&self, query: WatchQuery) -> Result<UpdateStream, Error> {
        match query {
            WatchQuery::Job(id) => Ok(follow::watch_job(Arc::clone(&self.shared), &self.job(id).await?)),
            WatchQuery::All => Ok(follow::watch_all(&self.shared, self.sees_only())),
        }
    }

    async fn stats(&self) -> Result<Stats, Error> {
        let shared = &self.shared;
        let now = shared.store.now();
        let mut jobs: BTreeMap<_, _> = Status::ALL.into_iter().map(|status| (status, 0)).collect();
        let mut queues = Vec::new();
        let owner = self.sees_only();
        if let Some(owner) = &owner {
            for (status, count) in &mut jobs {
                *count = self.count(owner, *status).await?;
            }
        } else {
            jobs.extend(shared.store.counts().await?);
            queues.extend(shared.store.classes().await?.into_iter().map(|queue| ClassStats {
                head_wait: now.since(queue.head.id.made_at()),
                class: queue.class,
                queued: queue.queued,
            }));
        }
        let mut workers: BTreeMap<_, u64> = WorkerStatus::ALL.into_iter().map(|status| (status, 0)).collect();
        for row in self.all_workers().await? {
            let said = view::said(&row).map_or(WorkerStatus::Idle, |usage| usage.status);
            let status = view::status(said, row.renewed, now, shared.options.heartbeat_timeout);
            *workers.entry(status).or_default() += 1;
        }
        let finished_last_minute = shared.tally.last_minute(owner.as_ref(), shared.clock.uptime());
        Ok(Stats { jobs, queues, workers, finished_last_minute })
    }

    async fn workers(&self, ids: Option<&[WorkerId]>) -> Result<Vec<WorkerView>, Error> {
        let rows = match ids {
            Some(ids) => {
                let rows = self.shared.store.get_workers(ids).await?;
                rows.into_iter().flatten().filter(|row| !row.removed).collect()
            }
            None => self.all_workers().await?,
        };
        let owner = self.sees_only();
        self.shared.worker_views(rows, owner.as_ref()).await
    }

    async fn remove_worker(&self, worker: &WorkerId) -> Result<(), Error> {
        if self.principal.role != Role::Admin {
            return Err(Error::Forbidden("only an admin may remove workers"));
        }
        if !self.shared.store.remove_worker(worker).await? {
            return Err(Error::WorkerNotFound);
        }
        self.shared.removed(worker).await;
        Ok(())
    }

    async fn upload(&self, name: Option<&str>, bytes: ByteStream) -> Result<StoredFile, Error> {
        self.may_change()?;
        self.shared.upload(&self.principal.owner, name, bytes).await
    }

    async fn files(&self, after: Option<FileId>, limit: usize) -> Result<Vec<StoredFile>, Error> {
        self.shared.uploads(&self.principal.owner, after, limit).await
    }

    async fn file(&self, id: FileId) -> Result<StoredFile, Error> {
        self.shared.file(self.sees_only().as_ref(), id).await
    }

    async fn download(&self, id: FileId, range: Option<GetRange>) -> Result<Download, Error> {
        let file = self.file(id).await?;
        self.shared.open(file, range).await
    }

    async fn delete_file(&self, id: FileId) -> Result<(), Error> {
        self.may_change()?;
        self.shared.delete_file(&self.principal.owner, id).await
    }
}
