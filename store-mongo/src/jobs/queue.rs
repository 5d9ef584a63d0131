//! The questions of the coordinator: what is ready, what is due, whose lease is over, and how much waits.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use cmdexec_core::id::WorkerId;
use cmdexec_core::job::{Class, Job, Place, Status};
use cmdexec_core::store::Queue;
use cmdexec_core::time::Timestamp;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::Hint;

use super::count::Counted;
use super::document::{Decoder, date, id_of, priority, rank, timestamp};
use super::read::{each, jobs};
use crate::client::{Mongo, binary, bounded};
use crate::error::Error;
use crate::schema::{HEARTBEATS, index};

/// Up to so many queued jobs are counted each time; see [`Counted`] for more.
const COUNT_ALL: i64 = 2_000;

/// The statuses of jobs that a worker has.
const LEASED: [Status; 2] = [Status::Running, Status::Cancelling];

fn hint(name: &str) -> Hint {
    Hint::Name(name.to_owned())
}

/// What a limit is to the server, for which 0 is none.
fn limit(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Few queued jobs are counted in the index with their heads, in one go. Of many only the heads are looked up, which
/// costs a step for each class, and how many follow them is known from before.
pub(crate) async fn classes(mongo: &Mongo, decoder: &Decoder, counted: &Counted) -> Result<Vec<Queue>, Error> {
    let queues = heads(mongo, decoder, Some(COUNT_ALL)).await?;
    if queues.iter().map(|queue| queue.queued).sum::<u64>() < COUNT_ALL.unsigned_abs() {
        return Ok(queues);
    }
    let mut queues = heads(mongo, decoder, None).await?;
    let counts = counted.queued(mongo).await?;
    for queue in &mut queues {
        queue.queued = counts.get(queue.class.key()).copied().unwrap_or(1).max(1);
    }
    Ok(queues)
}

/// The head of each class's queue. With a limit, of no more jobs than that, which are counted.
async fn heads(mongo: &Mongo, decoder: &Decoder, most: Option<i64>) -> Result<Vec<Queue>, Error> {
    let mut pipeline = vec![
        doc! { "$match": { "status": Status::Queued.as_str() } },
        doc! { "$sort": { "status": 1, "class": 1, "rank": 1, "_id": 1 } },
    ];
    let mut group = doc! { "_id": "$class", "rank": { "$first": "$rank" }, "id": { "$first": "$_id" } };
    if let Some(most) = most {
        pipeline.push(doc! { "$limit": most });
        group.insert("queued", doc! { "$sum": 1_i64 });
    }
    pipeline.push(doc! { "$group": group });
    let collection = mongo.jobs();
    let ask = collection.aggregate(pipeline).hint(hint(index::READY)).with_type::<mongodb::bson::RawDocumentBuf>();
    let cursor = bounded(async { Ok(ask.await?) }).await?;
    let mut queues = Vec::new();
    each(cursor, |row| {
        let wrong = |error: mongodb::bson::error::Error| Error::row("a queue", error);
        let head = Place { priority: priority(row.get_i32("rank").map_err(wrong)?)?, id: id_of(row, "id")? };
        let queued = match most {
            Some(_) => u64::try_from(row.get_i64("queued").map_err(wrong)?).unwrap_or(0),
            None => 1,
        };
        queues.push(Queue { class: decoder.class(row.get_str("_id").map_err(wrong)?)?, head, queued });
        Ok(())
    })
    .await?;
    Ok(queues)
}

pub(crate) async fn ready(
    mongo: &Mongo,
    decoder: &Decoder,
    class: &Class,
    after: Option<Place>,
    most: usize,
) -> Result<Vec<Job>, Error> {
    if most == 0 {
        return Ok(Vec::new());
    }
    let queued = doc! { "status": Status::Queued.as_str(), "class": class.key() };
    let Some(Place { priority, id }) = after else { return page(mongo, decoder, queued, most).await };
    let (rank, id) = (rank(priority), binary(*id.as_bytes()));
    // One after the other: as one condition, the index would be walked from the head.
    let mut same = queued.clone();
    same.extend(doc! { "rank": rank, "_id": { "$gt": id } });
    let mut found = page(mongo, decoder, same, most).await?;
    if found.len() < most {
        let mut later = queued;
        later.insert("rank", doc! { "$gt": rank });
        found.extend(page(mongo, decoder, later, most - found.len()).await?);
    }
    Ok(found)
}

async fn page(mongo: &Mongo, decoder: &Decoder, filter: Document, most: usize) -> Result<Vec<Job>, Error> {
    let collection = mongo.jobs();
    let sort = doc! { "rank": 1, "_id": 1 };
    let find = collection.find(filter).sort(sort).limit(limit(most)).hint(hint(index::READY));
    jobs(bounded(async { Ok(find.await?) }).await?, decoder).await
}

pub(crate) async fn due(mongo: &Mongo, decoder: &Decoder, now: Timestamp, most: usize) -> Result<Vec<Job>, Error> {
    if most == 0 {
        return Ok(Vec::new());
    }
    let filter = doc! { "status": Status::Scheduled.as_str(), "due": { "$lte": date(now) } };
    let collection = mongo.jobs();
    let find = collection.find(filter).sort(doc! { "due": 1, "_id": 1 }).limit(limit(most)).hint(hint(index::DUE));
    jobs(bounded(async { Ok(find.await?) }).await?, decoder).await
}

pub(crate) async fn next_due(mongo: &Mongo) -> Result<Option<Timestamp>, Error> {
    // A date: a job that is not to be watched for has none.
    let filter = doc! { "status": Status::Scheduled.as_str(), "due": { "$type": "date" } };
    let collection = mongo.jobs();
    let find = collection
        .find_one(filter)
        .sort(doc! { "due": 1, "_id": 1 })
        .projection(doc! { "due": 1 })
        .hint(hint(index::DUE));
    let Some(row) = bounded(async { Ok(find.await?) }).await? else { return Ok(None) };
    row.get_datetime("due").map(|at| Some(timestamp(at))).map_err(|error| Error::row("due", error))
}

/// Looks at each worker that holds a lease, not at each lease: from one to the next by the index.
pub(crate) async fn expired(
    mongo: &Mongo,
    decoder: &Decoder,
    now: Timestamp,
    lease: Duration,
    most: usize,
) -> Result<Vec<Job>, Error> {
    if most == 0 {
        return Ok(Vec::new());
    }
    let statuses = || LEASED.map(Status::as_str).to_vec();
    let collection = mongo.jobs();
    let hard = doc! { "hardEnd": { "$lte": date(now) }, "status": { "$in": statuses() } };
    let find = collection.find(hard).limit(limit(most)).hint(hint(index::HARD_END));
    let mut found = jobs(bounded(async { Ok(find.await?) }).await?, decoder).await?;
    let silent = silent(mongo, now.before(lease)).await?;
    if found.len() < most && !silent.is_empty() {
        let soft = doc! {
            "status": { "$in": statuses() },
            "workerId": { "$in": silent },
            "floor": { "$lte": date(now) },
            "$or": [{ "hardEnd": { "$gt": date(now) } }, { "hardEnd": { "$exists": false } }],
        };
        let find = collection.find(soft).limit(limit(most - found.len())).hint(hint(index::STATUS_WORKER));
        found.extend(jobs(bounded(async { Ok(find.await?) }).await?, decoder).await?);
    }
    Ok(found)
}

/// The workers that hold a lease and have not renewed their session since `since`.
async fn silent(mongo: &Mongo, since: Timestamp) -> Result<Vec<String>, Error> {
    let mut holders = HashSet::new();
    for status in LEASED {
        let command =
            doc! { "distinct": crate::schema::JOBS, "key": "workerId", "query": { "status": status.as_str() } };
        let reply = bounded(async { Ok(mongo.database.run_command(command).await?) }).await?;
        let values = reply.get_array("values").map_err(|error| Error::row("workers", error))?;
        holders.extend(values.iter().filter_map(Bson::as_str).map(str::to_owned));
    }
    if holders.is_empty() {
        return Ok(Vec::new());
    }
    let sessions = mongo.collection(HEARTBEATS);
    let alive = doc! {
        "_id": { "$in": holders.iter().cloned().collect::<Vec<_>>() },
        "lastHeartbeat": { "$gt": date(since) },
    };
    let find = sessions.find(alive).projection(doc! { "_id": 1 });
    each(bounded(async { Ok(find.await?) }).await?, |row| {
        holders.remove(row.get_str("_id").map_err(|error| Error::row("a worker's id", error))?);
        Ok(())
    })
    .await?;
    Ok(holders.into_iter().collect())
}

pub(crate) async fn leased(mongo: &Mongo, decoder: &Decoder, workers: &[WorkerId]) -> Result<Vec<Job>, Error> {
    let filter = leased_by(workers);
    let collection = mongo.jobs();
    let find = collection.find(filter).hint(hint(index::STATUS_WORKER));
    jobs(bounded(async { Ok(find.await?) }).await?, decoder).await
}

fn leased_by(workers: &[WorkerId]) -> Document {
    let workers: Vec<_> = workers.iter().map(WorkerId::as_str).collect();
    doc! { "status": { "$in": LEASED.map(Status::as_str).to_vec() }, "workerId": { "$in": workers } }
}

/// How many jobs are queued in each class: a walk over the whole of the index.
pub(super) async fn count_queued(mongo: &Mongo) -> Result<HashMap<String, u64>, Error> {
    let pipeline = [
        doc! { "$match": { "status": Status::Queued.as_str() } },
        doc! { "$group": { "_id": "$class", "queued": { "$sum": 1_i64 } } },
    ];
    let collection = mongo.jobs();
    let ask = collection.aggregate(pipeline).hint(hint(index::READY)).with_type::<mongodb::bson::RawDocumentBuf>();
    let mut counts = HashMap::new();
    each(bounded(async { Ok(ask.await?) }).await?, |row| {
        let wrong = |error: mongodb::bson::error::Error| Error::row("a count", error);
        let queued = u64::try_from(row.get_i64("queued").map_err(wrong)?).unwrap_or(0);
        counts.insert(row.get_str("_id").map_err(wrong)?.to_owned(), queued);
        Ok(())
    })
    .await?;
    Ok(counts)
}
