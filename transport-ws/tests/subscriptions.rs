//! Subscriptions over a bare socket: what they give, where they go on, and when they rest.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::job::{JobSpec, Outcome};
use cmdexec_core::service::{
    FinishedAttempt, JobService, JobServiceExt, LeaseRequest, LeasedJob, OutputBatch, OutputPieces, Registration, Role,
    WorkerService,
};
use cmdexec_core::store::Chunk;
use cmdexec_transport_ws::Client;
use serde_json::{Value, json};
use support::{Bare, World};

/// A worker that does as it is told.
struct Hand {
    client: Client,
    id: WorkerId,
}

impl Hand {
    async fn new(world: &World) -> Self {
        let client = world.worker(Some("w"));
        let id: WorkerId = "w".parse().unwrap();
        let registration = Registration { worker: Some(id.clone()), ..Registration::new("h", 1, 1) };
        client.register(registration).await.unwrap();
        Self { client, id }
    }

    async fn take(&self, count: usize) -> Vec<LeasedJob> {
        let mut leased = Vec::new();
        while leased.len() < count {
            let request = LeaseRequest { max: count - leased.len(), wait: Duration::from_secs(5) };
            leased.extend(self.client.lease(&self.id, request).await.unwrap());
        }
        leased
    }

    async fn write(&self, lease: &LeasedJob, seq: u64, text: &'static str) {
        let chunk = Chunk { seq, stream: Stream::Stdout, bytes: Bytes::from_static(text.as_bytes()) };
        let pieces = OutputPieces::Numbered(vec![chunk]);
        let batch = OutputBatch { job: lease.job, token: Some(lease.token), pieces };
        self.client.append_output(&self.id, vec![batch]).await.unwrap().remove(0).unwrap();
    }

    async fn finish(&self, lease: &LeasedJob) {
        let report = FinishedAttempt::new(lease, Outcome::Exited { code: 0 });
        self.client.finish(&self.id, vec![report]).await.unwrap().remove(0).unwrap();
    }
}

/// What a subscription said of each job, with `kind`s of events in their order, text, and the last cursor.
#[derive(Debug, Default)]
struct Heard(BTreeMap<String, (Vec<String>, String, Option<String>)>);

impl Heard {
    fn take(&mut self, message: &Value) {
        assert_eq!(message["type"], "event", "{message}");
        for event in message["body"]["events"].as_array().unwrap() {
            let (kinds, text, cursor) = self.0.entry(event["jobId"].as_str().unwrap().to_owned()).or_default();
            let kind = if event["event"] == "status" { &event["status"] } else { &event["event"] };
            kinds.push(kind.as_str().unwrap().to_owned());
            text.push_str(event["data"].as_str().unwrap_or_default());
            *cursor = event["cursor"].as_str().map(str::to_owned).or(cursor.take());
        }
    }

    fn count(&self, kind: &str) -> usize {
        self.0.values().flat_map(|(kinds, ..)| kinds).filter(|heard| *heard == kind).count()
    }

    async fn until(&mut self, bare: &mut Bare, kind: &str, count: usize) {
        while self.count(kind) < count {
            self.take(&bare.next().await);
        }
    }

    fn of(&self, job: JobId) -> (&[String], &str, Option<&str>) {
        let (kinds, text, cursor) = &self.0[&job.to_string()];
        (kinds, text, cursor.as_deref())
    }
}

/// Nothing comes for a while.
async fn nothing_follows(bare: &mut Bare) {
    let next = tokio::time::timeout(Duration::from_millis(300), bare.next()).await;
    assert!(next.is_err(), "{next:?}");
}

#[tokio::test]
async fn one_subscription_gives_all_of_ones_jobs_and_what_they_write_once() {
    let world = World::start().await;
    let mut bare = world.bare_user("ada").await;
    assert_eq!(bare.ask("subscribe", 1, json!({ "credits": 1_000 })).await["type"], "ok");
    let hand = Hand::new(&world).await;
    let ada = world.user("ada", Role::User);
    let mut jobs = Vec::new();
    for _ in 0..20 {
        jobs.push(ada.submit(JobSpec::shell("true")).await.unwrap());
    }
    world.user("eve", Role::User).submit(JobSpec::shell("true")).await.unwrap();
    for lease in hand.take(21).await {
        hand.write(&lease, 0, "hello").await;
        hand.finish(&lease).await;
    }
    let mut heard = Heard::default();
    heard.until(&mut bare, "end", 20).await;
    heard.until(&mut bare, "completed", 20).await;
    nothing_follows(&mut bare).await;
    assert_eq!(heard.0.len(), 20, "nothing of eve's");
    for job in jobs {
        let (kinds, text, _) = heard.of(job.id);
        assert_eq!(text, "hello");
        let states: Vec<_> = kinds.iter().filter(|kind| !["output", "end"].contains(&kind.as_str())).collect();
        assert_eq!(states, ["queued", "running", "completed"]);
        assert_eq!(kinds.iter().filter(|kind| *kind == "end").count(), 1);
    }
}

#[tokio::test]
async fn a_subscription_to_all_jobs_finds_what_runs_and_goes_on_where_it_was() {
    let world = World::start().await;
    let hand = Hand::new(&world).await;
    let ada = world.user("ada", Role::User);
    let job = ada.submit(JobSpec::shell("true")).await.unwrap();
    let lease = hand.take(1).await.remove(0);
    hand.write(&lease, 0, "one ").await;

    // It runs already.
    let mut bare = world.bare_user("ada").await;
    assert_eq!(bare.ask("subscribe", 1, json!({ "events": ["output"] })).await["type"], "ok");
    let mut heard = Heard::default();
    heard.until(&mut bare, "output", 1).await;
    assert_eq!(heard.of(job.id).1, "one ");
    let cursor = heard.of(job.id).2.unwrap().to_owned();
    drop(bare);

    // It ends while nobody listens.
    hand.write(&lease, 1, "two").await;
    hand.finish(&lease).await;
    let mut bare = world.bare_user("ada").await;
    let cursors = json!({ job.id.to_string(): cursor, "00000000-0000-0000-0000-000000000000": cursor });
    let body = json!({ "events": ["output"], "cursors": cursors });
    assert_eq!(bare.ask("subscribe", 1, body).await["type"], "ok");
    let mut heard = Heard::default();
    heard.until(&mut bare, "end", 1).await;
    assert_eq!(heard.of(job.id).1, "two", "only what was not seen before");
    nothing_follows(&mut bare).await;
}

#[tokio::test]
async fn what_makes_no_sense_of_a_subscription_is_named() {
    let world = World::start().await;
    let job = world.user("ada", Role::User).submit(JobSpec::shell("true")).await.unwrap();
    let mut bare = world.bare_user("ada").await;
    for (id, (body, field)) in [
        (json!({ "events": [] }), "events"),
        (json!({ "cursor": "1.0.0" }), "cursor"),
        (json!({ "jobId": job.id, "cursor": "x" }), "cursor"),
        (json!({ "jobId": job.id, "cursors": {} }), "cursors"),
        (json!({ "cursors": { job.id.to_string(): "x" } }), "cursors"),
        (json!({ "follow": false }), "follow"),
        (json!({ "jobId": job.id, "tail": 1_000_000_000 }), "tail"),
        (json!({ "jobId": "x" }), "body"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = bare.ask("subscribe", id as u64, body.clone()).await;
        assert_eq!(answer["body"]["code"], "invalid", "{body}");
        assert_eq!(answer["body"]["problems"][0]["field"], field, "{body}");
    }
    assert_eq!(bare.ask("subscribe", 100, json!({ "jobId": job.id })).await["type"], "ok");
    bare.say(&json!({ "type": "subscribe", "id": 100, "body": { "jobId": job.id } })).await;
    loop {
        let answer = bare.next().await;
        if answer["type"] == "error" {
            assert_eq!(answer["body"]["problems"][0]["field"], "id");
            break;
        }
    }
}

#[tokio::test]
async fn as_many_subscriptions_as_may_be_are_open() {
    let mut options = support::unlimited();
    options.max_subscriptions = 2;
    let world = World::with(options).await;
    let mut bare = world.bare_user("ada").await;
    for id in 0..2 {
        assert_eq!(bare.ask("subscribe", id, json!({})).await["type"], "ok");
    }
    assert_eq!(bare.ask("subscribe", 2, json!({})).await["body"]["code"], "forbidden");
    assert_eq!(bare.ask("unsubscribe", 0, json!({})).await["type"], "end");
    assert_eq!(bare.ask("subscribe", 2, json!({})).await["type"], "ok");
}

#[tokio::test]
async fn jobs_that_fill_more_than_one_answer_are_all_had() {
    let world = World::start().await;
    let ada = world.user("ada", Role::User);
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(ada.submit(JobSpec::shell("x".repeat(500_000))).await.unwrap().id);
    }
    ids.insert(7, cmdexec_core::id::JobId::from_bytes([0; 16]));
    let views = ada.get(&ids).await.unwrap();
    let had: Vec<_> = views.iter().map(|view| view.as_ref().map(|view| view.id)).collect();
    let asked: Vec<_> = ids.iter().enumerate().map(|(at, id)| (at != 7).then_some(*id)).collect();
    assert_eq!(had, asked);
}
