//! Additions to output.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::id::JobId;
use cmdexec_core::store::{Append, Written};
use cmdexec_core::time::Timestamp;
use futures_util::future::try_join;
use mongodb::bson::{RawDocumentBuf, doc, rawdoc};

use super::head::{Head, Known, NewSegment};
use super::segment;
use crate::client::{Mongo, Op, binary, bounded};
use crate::conditional::{self, Item};
use crate::error::Error;
use crate::gather::Work;
use crate::jobs::{among, each, id_of};
use crate::schema;

/// How often another coordinator may be faster with the same job.
const TRIES: u32 = 50;

/// Carries out what several callers add.
pub(crate) struct Appends(pub(crate) Arc<Mongo>);

impl Work for Appends {
    type Item = Vec<Append>;
    type Answer = ();

    async fn carry_out(&self, calls: Vec<Vec<Append>>) -> Vec<Result<(), Error>> {
        match append(&self.0, &calls).await {
            Ok(()) => calls.iter().map(|_| Ok(())).collect(),
            Err(error) => calls.iter().map(|_| Err(error.told())).collect(),
        }
    }
}

/// A job's head as it was read, and as it is to be.
struct Plan {
    job: JobId,
    before: Head,
    after: Head,
    segments: Vec<NewSegment>,
    op: Op,
}

async fn append(mongo: &Mongo, calls: &[Vec<Append>]) -> Result<(), Error> {
    let now = mongo.now().await?;
    // Additions to one job in the order given, and all of them in one write.
    let mut by_job: HashMap<JobId, Vec<&Append>> = HashMap::new();
    for append in calls.iter().flatten() {
        by_job.entry(append.job).or_default().push(append);
    }
    for tried in 0..TRIES {
        let lost = round(mongo, &by_job, now).await?;
        mongo.bell.outputs(by_job.keys().filter(|job| !lost.contains(*job)).copied());
        by_job.retain(|job, _| lost.contains(job));
        if by_job.is_empty() {
            return Ok(());
        }
        // Another coordinator has written to the same job: whoever is behind waits a little, each time a little longer.
        tokio::time::sleep(Duration::from_millis(u64::from(tried.min(20)))).await;
    }
    Err(Error::unavailable("others write to the same output all the time"))
}

/// Tries once; the answer is the jobs that somebody else was faster with.
async fn round(mongo: &Mongo, by_job: &HashMap<JobId, Vec<&Append>>, now: Timestamp) -> Result<HashSet<JobId>, Error> {
    let ids: Vec<JobId> = by_job.keys().copied().collect();
    let mut heads = read_heads(mongo, &ids).await?;
    let new: Vec<JobId> = ids.iter().filter(|id| !heads.contains_key(id)).copied().collect();
    for id in existing(mongo, &new).await? {
        heads.insert(id, Head::default());
    }
    let known = look_up(mongo, by_job, &heads).await?;
    let mut plans = Vec::with_capacity(heads.len());
    for (job, before) in heads {
        let mut after = before.clone();
        by_job.get(&job).into_iter().flatten().for_each(|append| after.apply(append, now, &known));
        if after == before && before.version.is_some() {
            continue;
        }
        let segments = after.roll(|| mongo.ops.next());
        plans.push(Plan { job, before, after, segments, op: mongo.ops.next() });
    }
    write(mongo, plans).await
}

async fn read_heads(mongo: &Mongo, ids: &[JobId]) -> Result<HashMap<JobId, Head>, Error> {
    let mut heads = HashMap::with_capacity(ids.len());
    let logs = mongo.collection(schema::LOGS);
    let cursor = bounded(async { Ok(logs.find(among(ids)).await?) }).await?;
    each(cursor, |document| {
        heads.insert(id_of(document, "_id")?, Head::read(document)?);
        Ok(())
    })
    .await?;
    Ok(heads)
}

/// Which of these jobs there are.
async fn existing(mongo: &Mongo, ids: &[JobId]) -> Result<Vec<JobId>, Error> {
    let mut found = Vec::with_capacity(ids.len());
    if ids.is_empty() {
        return Ok(found);
    }
    let jobs = mongo.jobs();
    let find = jobs.find(among(ids)).projection(doc! { "_id": 1 });
    each(bounded(async { Ok(find.await?) }).await?, |document| {
        found.push(id_of(document, "_id")?);
        Ok(())
    })
    .await?;
    Ok(found)
}

/// Looks up what is in the segments that additions cut or fill.
async fn look_up(
    mongo: &Mongo,
    by_job: &HashMap<JobId, Vec<&Append>>,
    heads: &HashMap<JobId, Head>,
) -> Result<Known, Error> {
    let mut known = Known::new();
    let mut segments = HashSet::new();
    for (job, head) in heads {
        for append in by_job.get(job).into_iter().flatten() {
            segments.extend(head.unknown(append, &known));
        }
    }
    if segments.is_empty() {
        return Ok(known);
    }
    let ids: Vec<_> = segments.into_iter().map(binary).collect();
    let collection = mongo.collection(schema::SEGMENTS);
    let find = collection.find(doc! { "_id": { "$in": ids } }).projection(doc! { "bytes": 0 });
    each(bounded(async { Ok(find.await?) }).await?, |document| {
        let id = document.get_binary("_id").map_err(|error| Error::row("a segment's id", error))?;
        let id = id.bytes.try_into().map_err(|error| Error::row("a segment's id", error))?;
        known.insert(id, segment::shapes(document)?);
        Ok(())
    })
    .await?;
    Ok(known)
}

/// Writes segments, and then the heads that name them. The answer is the jobs that somebody else was faster with.
async fn write(mongo: &Mongo, plans: Vec<Plan>) -> Result<HashSet<JobId>, Error> {
    let segments: Vec<RawDocumentBuf> = plans
        .iter()
        .flat_map(|plan| plan.segments.iter().map(|new| segment::document(new.id, plan.job, &new.pieces)))
        .collect();
    mongo.insert_many(schema::SEGMENTS, &segments).await?;
    let (known, new): (Vec<Plan>, Vec<Plan>) = plans.into_iter().partition(|plan| plan.before.version.is_some());
    let (updated, inserted) = try_join(update(mongo, &known), insert(mongo, &new)).await?;
    let mut lost = HashSet::new();
    let mut unnamed: Vec<Op> = Vec::new();
    for (plan, written) in known.iter().zip(updated).chain(new.iter().zip(inserted)) {
        let (from, to) = if written == Written::Yes {
            (&plan.before, &plan.after)
        } else {
            lost.insert(plan.job);
            (&plan.after, &plan.before)
        };
        let named: HashSet<Op> = to.views.iter().map(|view| view.segment).collect();
        unnamed.extend(from.views.iter().map(|view| view.segment).filter(|segment| !named.contains(segment)));
    }
    remove(mongo, unnamed).await;
    Ok(lost)
}

async fn update(mongo: &Mongo, plans: &[Plan]) -> Result<Vec<Written>, Error> {
    let mut items = Vec::with_capacity(plans.len());
    let mut statements = Vec::with_capacity(plans.len());
    for Plan { job, before, after, op, .. } in plans {
        let version = before.version.unwrap_or(0);
        items.push(Item { id: *job, version, op: *op });
        statements.push(rawdoc! {
            "q": { "_id": binary(*job.as_bytes()), "version": version },
            "u": after.update(before, *op),
        });
    }
    conditional::update(mongo, schema::LOGS, &items, statements).await
}

async fn insert(mongo: &Mongo, plans: &[Plan]) -> Result<Vec<Written>, Error> {
    let documents: Vec<_> = plans.iter().map(|plan| plan.after.document(plan.job.as_bytes(), plan.op)).collect();
    let mut answers = vec![Written::Yes; plans.len()];
    for at in mongo.insert_many(schema::LOGS, &documents).await? {
        let (Some(plan), Some(answer)) = (plans.get(at), answers.get_mut(at)) else { continue };
        // An earlier try of this insertion may be what is there.
        let mine = doc! { "_id": binary(*plan.job.as_bytes()), "op": binary(plan.op) };
        let logs = mongo.collection(schema::LOGS);
        if bounded(async { Ok(logs.find_one(mine).await?) }).await?.is_none() {
            *answer = Written::Stale;
        }
    }
    Ok(answers)
}

/// Removes segments that no head names. What a death in between leaves goes with its job.
async fn remove(mongo: &Mongo, segments: Vec<Op>) {
    if segments.is_empty() {
        return;
    }
    let ids: Vec<_> = segments.into_iter().map(binary).collect();
    let collection = mongo.collection(schema::SEGMENTS);
    let removal = collection.delete_many(doc! { "_id": { "$in": ids } });
    if let Err(error) = bounded(async { Ok(removal.await?) }).await {
        tracing::debug!(%error, "segments of output that nothing names are left for the purge");
    }
}
