//! What the callers of two HTTP servers see while the primary is killed and stepped down under them: an answer, or 503 with
//! a word on when to come again. Nothing that was acknowledged is lost, and a repetition by its key is the same job.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::limiter::RequestLimits;
use cmdexec_core::service::Role;
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_core::token::{Keys, UserClaims, WorkerClaims};
use cmdexec_store_mongo::MongoStore;
use cmdexec_transport_http::{Server, server};
use reqwest::Method;
use serde_json::{Value, json};
use support::set::Set;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What any call may take: the server gives up on one after 30 s.
const PATIENCE: Duration = Duration::from_secs(45);

/// Two servers over one database, and what their answers were.
struct World {
    urls: Vec<String>,
    http: reqwest::Client,
    user: String,
    worker: String,
    turn: AtomicU32,
    answered: AtomicU32,
    unavailable: AtomicU32,
    stop: AtomicBool,
    _coordinators: Vec<Arc<Coordinator>>,
}

impl World {
    async fn start(database: &str) -> Arc<Self> {
        let keys = Keys::new("the secret of the users, long enough", "the secret of the workers, long enough").unwrap();
        let (mut urls, mut coordinators) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let store = MongoStore::open(database).await.unwrap();
            let coordinator = Arc::new(Coordinator::builder(store).build().await.unwrap());
            let mut options = server::Options::default();
            options.limits = RequestLimits::none();
            let server = Server::builder(Arc::clone(&coordinator) as _, keys.clone()).options(options).build().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            urls.push(format!("http://{}", listener.local_addr().unwrap()));
            tokio::spawn(async move { server.serve(listener, CancellationToken::new()).await });
            coordinators.push(coordinator);
        }
        Arc::new(Self {
            urls,
            http: reqwest::Client::builder().timeout(PATIENCE).build().unwrap(),
            user: keys.mint_user(&UserClaims::new("ada".parse().unwrap(), Role::User, SystemClock.now())),
            worker: keys.mint_worker(&WorkerClaims::new(None, SystemClock.now())),
            turn: AtomicU32::new(0),
            answered: AtomicU32::new(0),
            unavailable: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            _coordinators: coordinators,
        })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Calls the servers in turn until one answers; each refusal must be one that says when to come again.
    async fn call(&self, method: Method, path: &str, key: Option<&str>, body: Option<Value>) -> (u16, Value) {
        loop {
            let url = &self.urls[self.turn.fetch_add(1, Ordering::Relaxed) as usize % 2];
            let mut request = self.http.request(method.clone(), format!("{url}{path}"));
            request = request.bearer_auth(&self.user).header("x-worker-token", &self.worker);
            request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
            request = body.iter().fold(request, reqwest::RequestBuilder::json);
            let response = request.send().await.unwrap_or_else(|error| panic!("{path} hangs: {error}"));
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let text = response.text().await.unwrap();
            let answer: Value = serde_json::from_str(&text).unwrap();
            if status != 503 {
                assert!(status < 500, "{path}: {status} {text}");
                self.answered.fetch_add(1, Ordering::Relaxed);
                return (status, answer);
            }
            if path != "/api/health" {
                assert_eq!(answer["code"], "unavailable", "{path}");
                assert!(headers.contains_key("retry-after"), "{path}");
            }
            self.unavailable.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.call(Method::GET, path, None, None).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, None, Some(body)).await
    }
}

/// Submits with a key of each own, says it again to the other server, and keeps what was acknowledged.
async fn submit(world: Arc<World>, task: u32) -> HashMap<String, Vec<String>> {
    let mut acknowledged = HashMap::new();
    let mut n = 0_u32;
    while !world.stopped() {
        n += 1;
        let key = format!("{task}-{n}");
        let spec = json!({ "command": format!("echo {key}") });
        let (path, body) = if n.is_multiple_of(4) {
            ("/api/jobs/create-batch", json!({ "jobs": vec![spec; 3] }))
        } else {
            ("/api/jobs/create", spec)
        };
        let ids = |answer: &Value| -> Vec<String> {
            let alone = std::slice::from_ref(answer);
            let jobs = answer["jobs"].as_array().map_or(alone, Vec::as_slice);
            jobs.iter().map(|job| job["jobId"].as_str().unwrap().to_owned()).collect()
        };
        let (status, first) = world.call(Method::POST, path, Some(&key), Some(body.clone())).await;
        assert!(status == 201 || status == 200, "{status} {first}");
        let (status, again) = world.call(Method::POST, path, Some(&key), Some(body)).await;
        assert_eq!((status, ids(&again)), (200, ids(&first)), "{again}");
        acknowledged.insert(key, ids(&first));
    }
    acknowledged
}

/// Looks at whatever there is to be looked at.
async fn look(world: Arc<World>) {
    while !world.stopped() {
        for path in ["/api/jobs/list?limit=5", "/api/stats", "/api/workers/list", "/api/health"] {
            world.get(path).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Takes jobs and reports on them, now at one server and now at the other.
async fn work(world: Arc<World>, id: &'static str) {
    let register = json!({
        "workerId": id, "hostname": "h", "cpuCores": 64, "totalMemory": 8_589_934_592_u64, "executors": ["process"],
    });
    world.post("/api/workers/register", register).await;
    while !world.stopped() {
        let beat = json!({ "workerId": id, "status": "idle", "cpuUsage": 1, "ramUsage": 1 });
        assert_eq!(world.post("/api/workers/heartbeat", beat).await.0, 200);
        let answer = world.get(&format!("/api/jobs/get-job?workerId={id}&max=4&wait=1")).await;
        for lease in answer["jobs"].as_array().unwrap() {
            let (job, token) = (&lease["jobId"], &lease["leaseToken"]);
            let output = json!({
                "workerId": id, "jobId": job, "leaseToken": token,
                "chunks": [{ "seq": 0, "stream": "stdout", "data": "out" }],
            });
            let (status, answer) = world.post("/api/jobs/stream-output", output).await;
            assert_eq!(status, 200, "{answer}");
            let report = json!({ "workerId": id, "jobId": job, "leaseToken": token, "exitCode": 0 });
            let (status, answer) = world.post("/api/jobs/submit-result", report).await;
            assert_eq!(status, 200, "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_see_answers_or_are_told_to_come_again() {
    let mut set = Set::start().await;
    let world = World::start(&set.address()).await;
    let submitting: Vec<_> = (0..3).map(|task| tokio::spawn(submit(Arc::clone(&world), task))).collect();
    let mut others = vec![tokio::spawn(look(Arc::clone(&world)))];
    others.extend(["w1", "w2"].map(|id| tokio::spawn(work(Arc::clone(&world), id))));
    let goes_on = async |what: &str| {
        let (enough, begun) = (world.answered.load(Ordering::Relaxed) + 200, SystemClock.uptime());
        while world.answered.load(Ordering::Relaxed) < enough {
            let waited = SystemClock.uptime().saturating_sub(begun);
            let failed = submitting.iter().any(JoinHandle::is_finished) || others.iter().any(JoinHandle::is_finished);
            assert!(!failed && waited < Duration::from_secs(90), "nothing goes on after {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    goes_on("the beginning").await;

    set.lose_primaries(&goes_on).await;

    // Without a majority nobody is promised anything, and nobody waits for ever.
    let primary = set.primary(None).await;
    (0..3).filter(|n| *n != primary).for_each(|n| set.members[n].pause());
    let (refused, begun) = (world.unavailable.load(Ordering::Relaxed), SystemClock.uptime());
    while world.unavailable.load(Ordering::Relaxed) < refused + 6 {
        assert!(SystemClock.uptime().saturating_sub(begun) < Duration::from_secs(120), "nobody is refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (0..3).filter(|n| *n != primary).for_each(|n| set.members[n].resume());
    goes_on("a majority was back").await;

    world.stop.store(true, Ordering::Relaxed);
    let mut jobs = 0;
    for task in submitting {
        for (key, ids) in task.await.unwrap() {
            for id in ids {
                let job = world.get(&format!("/api/jobs/status?jobId={id}")).await;
                assert_eq!(job["command"], format!("echo {key}"));
                jobs += 1;
            }
        }
    }
    for task in others {
        task.await.unwrap();
    }
    let total = world.get("/api/jobs/list?limit=1").await["total"].clone();
    assert_eq!(total, jobs, "what was submitted once is there once");
    println!("{jobs} jobs, {} calls refused", world.unavailable.load(Ordering::Relaxed));
}
