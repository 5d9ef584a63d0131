//! One call to both, and what must be alike.

use std::time::Duration;

use cmdexec_core::executor::Stream;
use cmdexec_core::id::JobId;
use cmdexec_core::job::Job;
use cmdexec_core::store::{Change, Error, Insert, MemoryStore, Store};
use cmdexec_core::time::ManualClock;

use super::alike;
use super::op::Op;
use crate::store::make;

/// Makes the call; says what was different.
pub(super) async fn both(op: Op, model: &MemoryStore, store: &dyn Store, clock: &ManualClock) -> Result<(), String> {
    match op {
        Op::Insert(jobs, key) => {
            let batch = Insert { jobs, key };
            alike(model.insert(batch.clone()).await, store.insert(batch).await)
        }
        Op::Get(numbers) => {
            let ids: Vec<JobId> = numbers.into_iter().map(make::id).collect();
            alike(model.get(&ids).await, store.get(&ids).await)
        }
        Op::List(query) => alike(model.list(&query).await, store.list(&query).await),
        Op::Classes => {
            let sorted = |queues: Result<Vec<_>, Error>| {
                queues.map(|mut queues| {
                    queues.sort_by(|a: &cmdexec_core::store::Queue, b| a.class.cmp(&b.class));
                    queues
                })
            };
            alike(sorted(model.classes().await), sorted(store.classes().await))
        }
        Op::Ready { of, after, limit } => {
            let Some(job) = one(model, of).await else { return Ok(()) };
            let after = after.then(|| job.place());
            alike(model.ready(&job.class, after, limit).await, store.ready(&job.class, after, limit).await)
        }
        Op::Due(limit) => alike(model.due(limit).await, store.due(limit).await),
        Op::NextDue => alike(model.next_due().await, store.next_due().await),
        Op::Expired(lease, limit) => {
            let all = by_id(model.expired(lease, usize::MAX).await).map_err(|error| error.to_string())?;
            alike(Ok(all.clone()), by_id(store.expired(lease, usize::MAX).await))?;
            let some = store.expired(lease, limit).await.map_err(|error| error.to_string())?;
            if some.len() == limit.min(all.len()) && some.iter().all(|job| all.contains(job)) {
                Ok(())
            } else {
                Err(format!("at most {limit} of {all:#?}\nare {some:#?}"))
            }
        }
        Op::Leased(workers) => alike(by_id(model.leased(&workers).await), by_id(store.leased(&workers).await)),
        Op::Counts => {
            let present = |counts: Result<Vec<_>, Error>| {
                counts.map(|mut counts| {
                    counts.retain(|(_, jobs)| *jobs > 0);
                    counts.sort_unstable();
                    counts
                })
            };
            alike(present(model.counts().await), present(store.counts().await))
        }
        Op::Update(changes) => {
            let mut with_versions = Vec::new();
            for (n, off, life, timer) in changes {
                let version = one(model, n).await.map_or(0, |job| job.version) + off;
                with_versions.push(Change { id: make::id(n), version, life, timer });
            }
            alike(model.update(with_versions.clone()).await, store.update(with_versions).await)
        }
        Op::Append(appends) => {
            let jobs: Vec<(JobId, u32)> = appends.iter().map(|append| (append.job, append.attempt)).collect();
            alike(model.append_output(appends.clone()).await, store.append_output(appends).await)?;
            for (job, attempt) in jobs {
                alike(model.output_extent(job, attempt).await, store.output_extent(job, attempt).await)?;
                let all = usize::MAX;
                alike(model.read_output(job, attempt, 0, all).await, store.read_output(job, attempt, 0, all).await)?;
                let last = model.output_tail(job, attempt, Stream::Stdout, 5).await;
                alike(last, store.output_tail(job, attempt, Stream::Stdout, 5).await)?;
            }
            Ok(())
        }
        Op::ReadOutput { job, attempt, from, max_bytes } => {
            let job = make::id(job);
            alike(model.output_extent(job, attempt).await, store.output_extent(job, attempt).await)?;
            alike(
                model.read_output(job, attempt, from, max_bytes).await,
                store.read_output(job, attempt, from, max_bytes).await,
            )?;
            alike(
                model.output_index(job, attempt, from, max_bytes).await,
                store.output_index(job, attempt, from, max_bytes).await,
            )?;
            alike(
                model.output_times(job, attempt, from, max_bytes).await,
                store.output_times(job, attempt, from, max_bytes).await,
            )?;
            let recently = model.now().before(Duration::from_secs(from));
            alike(model.output_since(job, attempt, recently).await, store.output_since(job, attempt, recently).await)
        }
        Op::OutputTail { job, attempt, stream, max_bytes } => {
            let job = make::id(job);
            alike(
                model.output_tail(job, attempt, stream, max_bytes).await,
                store.output_tail(job, attempt, stream, max_bytes).await,
            )
        }
        Op::Register(worker, info) => {
            alike(model.register_worker(&worker, info.clone()).await, store.register_worker(&worker, info).await)
        }
        Op::Renew(beats) => {
            let workers: Vec<_> = beats.iter().map(|(worker, _)| worker.clone()).collect();
            alike(model.renew(beats.clone()).await, store.renew(beats).await)?;
            alike(model.get_workers(&workers).await, store.get_workers(&workers).await)
        }
        Op::ListWorkers(after, limit) => {
            let after = after.as_ref();
            alike(model.list_workers(after, limit).await, store.list_workers(after, limit).await)
        }
        Op::RemoveWorker(worker) => {
            alike(model.remove_worker(&worker).await, store.remove_worker(&worker).await)?;
            let ids = [worker];
            alike(model.get_workers(&ids).await, store.get_workers(&ids).await)
        }
        Op::PutWorkers(rows) => {
            alike(model.put_workers(rows.clone()).await, store.put_workers(rows).await)?;
            alike(model.list_all_workers(None, 9).await, store.list_all_workers(None, 9).await)
        }
        Op::PutRecords(kind, writes) => {
            let keys: Vec<String> = writes.iter().map(|(write, _)| write.key.clone()).collect();
            let known = model.get_records(kind, &keys).await.map_err(|error| error.to_string())?;
            let mut with_versions = Vec::new();
            for ((mut write, off), known) in writes.into_iter().zip(known) {
                write.version = known.map_or(0, |record| record.version) + off;
                with_versions.push(write);
            }
            alike(model.put_records(kind, with_versions.clone()).await, store.put_records(kind, with_versions).await)?;
            alike(model.get_records(kind, &keys).await, store.get_records(kind, &keys).await)
        }
        Op::ListRecords(kind, after, limit) => {
            let after = after.as_deref();
            alike(model.list_records(kind, after, limit).await, store.list_records(kind, after, limit).await)
        }
        Op::Purge(keep, limit) => alike(model.purge(keep, limit).await, store.purge(keep, limit).await),
        Op::Advance(by) => {
            clock.advance(by);
            Ok(())
        }
    }
}

async fn one(model: &MemoryStore, n: u32) -> Option<Job> {
    model.get(&[make::id(n)]).await.ok()?.pop().flatten()
}

fn by_id(jobs: Result<Vec<Job>, Error>) -> Result<Vec<Job>, Error> {
    jobs.map(|mut jobs| {
        jobs.sort_by_key(|job| job.id);
        jobs
    })
}
