//! Many coordinators over one MongoDB: the store beside a bare driver loop, claimers beside one another, and how long a job
//! takes from one coordinator to another's worker. Against the server that `CMDEXEC_BENCH_MONGO` names.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::id::{JobId, LeaseToken, Owner, WorkerId};
use cmdexec_core::job::{
    Applied, Class, Details, Event, Job, JobSpec, Outcome, Report as Ended, Status, Timer, submitted, transition,
};
use cmdexec_core::service::{FinishedAttempt, JobServiceExt, LeaseRequest, Registration, Submission, WorkerService};
use cmdexec_core::store::{Change, Insert, Store, Written};
use cmdexec_core::time::Timestamp;
use cmdexec_store_mongo::MongoStore;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::options::{Acknowledgment, WriteConcern};
use mongodb::{Client, Database};

use crate::stats::{Sample, ms};
use crate::table::{Report, rate, ratio};

/// How many jobs go together.
const BATCH: usize = 100;

/// How many batches are under way at once, through the store and through the bare driver.
const UNDER_WAY: usize = 4;

fn address() -> Result<String> {
    std::env::var("CMDEXEC_BENCH_MONGO").context("CMDEXEC_BENCH_MONGO must be the address of a replica set")
}

/// A database of this run's own.
async fn database(name: &str) -> Result<(MongoStore, Database)> {
    let name = format!("bench-{}-{name}", std::process::id());
    let address = address()?;
    let database = Client::with_uri_str(&address).await?.database(&name);
    Ok((MongoStore::options().database(name).open(&address).await?, database))
}

/// Measures and prints.
pub(crate) async fn bench(_dir: &Path, jobs: usize) -> Result<()> {
    let [mut bare, mut one, mut two, mut one_light, mut two_light] = [const { Vec::new() }; 5];
    // In turns, so that whatever else the machine does meets all alike.
    for round in 0..3 {
        bare.push(bare_loop(&format!("bare-{round}"), jobs).await?);
        one.push(through_store(&format!("one-{round}"), jobs, 1, UNDER_WAY).await?);
        two.push(through_store(&format!("two-{round}"), jobs, 2, UNDER_WAY).await?);
        // The server has processor left with one batch at a time.
        one_light.push(through_store(&format!("one-light-{round}"), jobs, 1, 1).await?);
        two_light.push(through_store(&format!("two-light-{round}"), jobs, 2, 1).await?);
    }
    let [bare, one, two, one_light, two_light] = [bare, one, two, one_light, two_light].map(median);
    let mut report = Report::new(
        "MongoDB: insert, claim, finish in batches of 100 (median of three)",
        &["what", "measured", "ratio", "at least"],
    );
    report.row(["bare driver loop".to_owned(), rate(bare), String::new(), String::new()]);
    report.row(["one store".to_owned(), rate(one), ratio(one / bare), "0.5".to_owned()]);
    report.row(["two stores together".to_owned(), rate(two), ratio(two / one), "1.3".to_owned()]);
    report.row(["one store, a batch at a time".to_owned(), rate(one_light), String::new(), String::new()]);
    let of_light = ratio(two_light / one_light);
    report.row(["two stores together, each a batch at a time".to_owned(), rate(two_light), of_light, "1.3".to_owned()]);
    report.print();

    let mut report = Report::new(
        "MongoDB: coordinators that claim at one queue, no-op jobs, 50 at a time",
        &["coordinators", "jobs", "of one"],
    );
    let mut alone = None;
    for claimers in [1, 2, 4, 8] {
        let per_second = claim(claimers, jobs).await?;
        let alone = *alone.get_or_insert(per_second);
        report.row([claimers.to_string(), rate(per_second), ratio(per_second / alone)]);
    }
    report.print();

    let times = across(300).await?;
    let mut report =
        Report::new("MongoDB: submit at one coordinator → worker of another has it", &["p50", "p99", "p50 at most"]);
    report.row([ms(times.quantile(0.5)), ms(times.quantile(0.99)), "25 ms".to_owned()]);
    report.print();
    Ok(())
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or_default()
}

fn job(n: usize, now: Timestamp) -> (Job, Timer) {
    let spec = JobSpec::shell("make -C build test");
    let (life, timer, _) = submitted(&spec, now);
    let mut bytes = [0; 16];
    let (_, low) = bytes.split_at_mut(8);
    low.copy_from_slice(&(n as u64).to_be_bytes());
    let class = Class::of(&spec);
    let id = JobId::from_bytes(bytes);
    (Job { id, owner: Owner::local(), created: now, spec: spec.into(), class, life, version: 0 }, timer)
}

/// What follows for each job of a batch.
fn changes(jobs: &mut [Job], event: impl Fn(&Job) -> Event, now: Timestamp) -> Result<Vec<Change>> {
    let mut changes = Vec::with_capacity(jobs.len());
    for job in jobs {
        let Ok(Applied::Changed { life, timer, .. }) = transition(job, event(job), now) else {
            anyhow::bail!("a no-op was refused");
        };
        changes.push(Change { id: job.id, version: job.version, life: life.clone(), timer });
        *job = Job { life, version: job.version + 1, ..job.clone() };
    }
    Ok(changes)
}

fn claimed(job: &Job) -> Event {
    let token = LeaseToken::from_bits(u128::from_be_bytes(*job.id.as_bytes()) + 1);
    Event::Claim { worker: WorkerId::local(), token, lease: Duration::from_secs(60) }
}

fn finished(job: &Job) -> Event {
    let token = job.life.lease().map(|lease| lease.token);
    let outcome = Outcome::Exited { code: 0 };
    Event::Report(Ended { worker: WorkerId::local(), token, outcome, details: Details::default() })
}

/// Jobs through their lives by `stores` stores over one database, as coordinators would write them, each with so many batches
/// `under_way`; jobs a second.
async fn through_store(name: &str, jobs: usize, stores: usize, under_way: usize) -> Result<f64> {
    let mut all = Vec::new();
    let mut made = None;
    for _ in 0..stores {
        let (store, database) = database(name).await?;
        all.push(store);
        made = Some(database);
    }
    let start = Instant::now();
    let mut tasks = Vec::new();
    let batches = jobs / BATCH / stores / under_way;
    for (which, store) in all.iter().enumerate() {
        for part in 0..under_way {
            let store = store.clone();
            tasks.push(tokio::spawn(async move {
                for batch in 0..batches {
                    let first = ((which * under_way + part) * batches + batch) * BATCH;
                    let now = store.now();
                    let new: Vec<_> = (first..first + BATCH).map(|n| job(n, now)).collect();
                    let mut jobs: Vec<Job> = new.iter().map(|(job, _)| job.clone()).collect();
                    store.insert(Insert { jobs: new, key: None }).await?;
                    for event in [claimed, finished] {
                        let written = store.update(changes(&mut jobs, event, now)?).await?;
                        ensure!(written.iter().all(|written| *written == Written::Yes), "a claim was lost");
                    }
                }
                anyhow::Ok(())
            }));
        }
    }
    for task in tasks {
        task.await.context("a task panicked")??;
    }
    let done = batches * BATCH * under_way * stores;
    let per_second = done as f64 / start.elapsed().as_secs_f64();
    let completed = all.first().context("no store")?.counts().await?;
    ensure!(completed == [(Status::Completed, done as u64)], "{completed:?} of {done}");
    for store in all {
        store.close().await;
    }
    made.context("no store")?.drop().await?;
    Ok(per_second)
}

/// The same documents, inserted and conditionally updated in batches of the same size by the driver alone, in a
/// collection with the same indexes; jobs a second.
async fn bare_loop(name: &str, jobs: usize) -> Result<f64> {
    let (store, database) = database(name).await?;
    // What the store writes of a job is what the loop writes too.
    let now = store.now();
    let (model, timer) = job(usize::MAX >> 1, now);
    store.insert(Insert { jobs: vec![(model.clone(), timer)], key: None }).await?;
    let collection = database.collection::<Document>("jobs");
    let stages = async {
        let mut stages = Vec::new();
        let mut model = vec![model];
        for event in [None, Some(claimed as fn(&Job) -> Event), Some(finished)] {
            if let Some(event) = event {
                store.update(changes(&mut model, event, now)?).await?;
            }
            stages.push(collection.find_one(doc! {}).await?.context("no job")?);
        }
        anyhow::Ok(stages)
    };
    let stages = Arc::new(stages.await?);
    collection.delete_many(doc! {}).await?;
    store.close().await;
    let start = Instant::now();
    let batches = jobs / BATCH / UNDER_WAY;
    let tasks: Vec<_> = (0..UNDER_WAY)
        .map(|part| {
            let (database, stages) = (database.clone(), Arc::clone(&stages));
            tokio::spawn(async move {
                for batch in 0..batches {
                    bare_batch(&database, &stages, (part * batches + batch) * BATCH).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await.context("a task panicked")??;
    }
    let per_second = (batches * BATCH * UNDER_WAY) as f64 / start.elapsed().as_secs_f64();
    database.drop().await?;
    Ok(per_second)
}

async fn bare_batch(database: &Database, stages: &[Document], first: usize) -> Result<()> {
    let [new, claimed, finished] = stages else { anyhow::bail!("three stages") };
    let ids = first..first + BATCH;
    let majority = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
    let id = |n: usize| i64::try_from(n).unwrap_or(0);
    let documents = ids.clone().map(|n| {
        let mut document = new.clone();
        document.insert("_id", id(n));
        document
    });
    let collection = database.collection::<Document>("jobs");
    collection.insert_many(documents).ordered(false).write_concern(majority).await?;
    for (version, stage) in [(0_i64, claimed), (1, finished)] {
        let mut set = stage.clone();
        for fixed in ["_id", "spec", "class", "rank", "owner", "createdAt", "inserted"] {
            set.remove(fixed);
        }
        let gone: Document = ["due", "floor", "hardEnd"]
            .iter()
            .filter(|field| !set.contains_key(**field))
            .map(|field| ((*field).to_owned(), mongodb::bson::Bson::Boolean(true)))
            .collect();
        let update = if gone.is_empty() {
            doc! { "$set": set }
        } else {
            doc! { "$set": set, "$unset": gone }
        };
        let update = RawDocumentBuf::try_from(&update)?;
        let mut updates = mongodb::bson::RawArrayBuf::new();
        for n in ids.clone() {
            updates.push(mongodb::bson::rawdoc! { "q": { "_id": id(n), "version": version }, "u": update.clone() });
        }
        let command = mongodb::bson::rawdoc! {
            "update": "jobs", "ordered": false, "updates": updates, "writeConcern": { "w": "majority", "j": true },
        };
        let reply = database.run_raw_command(command).await?;
        ensure!(reply.get_i32("n")? == i32::try_from(BATCH)?, "{reply}");
    }
    Ok(())
}

/// No-op jobs by as many coordinators with a worker each at one queue; jobs a second.
async fn claim(coordinators: usize, jobs: usize) -> Result<f64> {
    let name = format!("claim-{coordinators}");
    let mut all = Vec::new();
    let mut made = None;
    for _ in 0..coordinators {
        let (store, database) = database(&name).await?;
        all.push(Arc::new(Coordinator::builder(store).build().await?));
        made = Some(database);
    }
    let first = all.first().context("none")?;
    for _ in 0..jobs / 1_000 {
        let specs = vec![JobSpec::shell("true"); 1_000];
        first.jobs().submit_batch(Submission { specs, idempotency_key: None }).await?;
    }
    let jobs = jobs / 1_000 * 1_000;
    let start = Instant::now();
    let mut tasks = Vec::new();
    for (n, coordinator) in all.iter().enumerate() {
        let id: WorkerId = format!("w{n}").parse()?;
        let service: Arc<dyn WorkerService> = coordinator.as_worker(id.clone());
        let registration = Registration { worker: Some(id.clone()), ..Registration::new("bench", 2, 1_024) };
        service.register(registration).await?;
        tasks.push(tokio::spawn(async move {
            let (mut done, mut last) = (0_usize, Instant::now());
            loop {
                let request = LeaseRequest { max: 50, wait: Duration::from_millis(1_500) };
                let leased = service.lease(&id, request).await?;
                if leased.is_empty() {
                    return anyhow::Ok((done, last));
                }
                let ended = leased.iter().map(|leased| FinishedAttempt::new(leased, Outcome::Exited { code: 0 }));
                for answer in service.finish(&id, ended.collect()).await? {
                    answer?;
                    done += 1;
                }
                last = Instant::now();
            }
        }));
    }
    let (mut done, mut end) = (0, start);
    for task in tasks {
        let (part, last) = task.await.context("a task panicked")??;
        done += part;
        end = end.max(last);
    }
    ensure!(done == jobs, "{done} of {jobs} jobs were finished: some twice or never");
    // Claimed once and finished once, by the documents' own count.
    let database = made.context("none")?;
    let versions = database.collection::<Document>("jobs").count_documents(doc! { "version": 2 }).await?;
    ensure!(versions == jobs as u64, "{versions} of {jobs} jobs were written twice");
    for coordinator in &all {
        coordinator.shutdown(Duration::from_secs(10)).await;
    }
    database.drop().await?;
    Ok(jobs as f64 / (end - start).as_secs_f64())
}

/// From the submission at one coordinator until a worker that waits at another has the job.
async fn across(jobs: usize) -> Result<Sample> {
    let (store, database) = database("across").await?;
    let here = Coordinator::builder(store).build().await?;
    let (store, _) = self::database("across").await?;
    let there = Coordinator::builder(store).build().await?;
    let id: WorkerId = "w".parse()?;
    let service = there.as_worker(id.clone());
    service.register(Registration { worker: Some(id.clone()), ..Registration::new("bench", 2, 1_024) }).await?;
    let mut times = Vec::with_capacity(jobs);
    for _ in 0..jobs {
        let waiting = async {
            let request = LeaseRequest { max: 1, wait: Duration::from_secs(30) };
            let leased = service.lease(&id, request).await?;
            anyhow::Ok((Instant::now(), leased))
        };
        let submitting = async {
            // The worker has to be waiting again.
            tokio::time::sleep(Duration::from_millis(5)).await;
            let start = Instant::now();
            here.jobs().submit(JobSpec::shell("true")).await?;
            anyhow::Ok(start)
        };
        let (leased, start) = tokio::try_join!(waiting, submitting)?;
        let (at, leased) = leased;
        let leased = leased.first().context("nothing came")?;
        times.push(at.saturating_duration_since(start));
        service.finish(&id, vec![FinishedAttempt::new(leased, Outcome::Exited { code: 0 })]).await?.remove(0)?;
    }
    here.shutdown(Duration::from_secs(5)).await;
    there.shutdown(Duration::from_secs(5)).await;
    database.drop().await?;
    Ok(Sample::new(times))
}
