//! Where tests find their server: `scripts/test` starts one and exports its address.

#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "not every test uses all of it, and one fails by panicking"
)]

pub(crate) mod lesser;
#[cfg(unix)]
pub(crate) mod load;
#[cfg(target_os = "linux")]
pub(crate) mod net;
#[cfg(unix)]
pub(crate) mod set;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cmdexec_core::store::Error;
use cmdexec_core::time::{Clock, SystemClock};
use mongodb::Client;
use mongodb::bson::{Document, doc};

/// A database of a test's own, which goes with the test.
#[derive(Debug)]
pub(crate) struct Place {
    address: String,
    name: String,
}

/// The address of the server that tests talk to. Makes it a replica set if it is none yet.
pub(crate) fn address() -> String {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    let found = ADDRESS.get_or_init(|| {
        let address = std::env::var("CMDEXEC_TEST_MONGO").unwrap_or_default();
        assert!(!address.is_empty(), "CMDEXEC_TEST_MONGO is no address of a MongoDB server; scripts/test starts one");
        let member = address.split(['/', '?']).nth(2).unwrap().to_owned();
        apart(async move { initiate(&[&member]).await });
        address
    });
    found.clone()
}

/// Runs on a runtime of its own, so that it can be waited for within a test's and without one.
fn apart<T: Send + 'static>(what: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime().block_on(what)).join().unwrap()
}

/// Makes servers a replica set, and waits until the first is its primary or knows one.
pub(crate) async fn initiate(members: &[&str]) {
    let client = direct(members[0]).await;
    let admin = client.database("admin");
    let list: Vec<Document> = (0_i32..).zip(members).map(|(n, member)| doc! { "_id": n, "host": *member }).collect();
    let settings = doc! { "electionTimeoutMillis": 2_000, "heartbeatIntervalMillis": 500 };
    let config = doc! { "_id": "rs0", "members": list, "settings": settings };
    loop {
        // Another test's process may be faster, and another member not be there yet.
        let _ = admin.run_command(doc! { "replSetInitiate": config.clone() }).await;
        for _ in 0..20 {
            let hello = admin.run_command(doc! { "hello": 1 }).await;
            if hello.is_ok_and(|hello| hello.contains_key("primary")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A connection to one server, whatever its part in a replica set.
pub(crate) async fn direct(member: &str) -> Client {
    Client::with_uri_str(format!("mongodb://{member}/?directConnection=true")).await.unwrap()
}

/// Repeats a call until it is acknowledged, which it must be `within` a time.
pub(crate) async fn acknowledged<T>(within: Duration, mut call: impl AsyncFnMut() -> Result<T, Error>) -> T {
    let begun = SystemClock.uptime();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        assert!(SystemClock.uptime().saturating_sub(begun) < within, "not acknowledged within {within:?}");
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self { address: address(), name }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (address, name) = (self.address.clone(), self.name.clone());
        apart(async move {
            let client = Client::with_uri_str(address).await.unwrap();
            // A server that is gone keeps nothing.
            let _ = client.database(&name).drop().await;
        });
    }
}
