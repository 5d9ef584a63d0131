//! The contract of the two services, held by the client at the far end of a real socket, and by a worker's with HTTP behind it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::service::{JobService, WorkerService};
use cmdexec_core::time::ManualClock;
use cmdexec_testkit::service::{FarEnd, Rig, in_memory};
use cmdexec_transport_http as http;
use cmdexec_transport_ws::Client;
use cmdexec_transport_ws::client::{Fallback, Options};
use support::{World, unlimited};

/// A server, and the ways to it.
#[derive(Debug, Clone)]
struct Site {
    world: Arc<World>,
    clock: ManualClock,
}

impl Site {
    async fn new() -> Self {
        let clock = ManualClock::default();
        let world = Arc::new(World::over(Arc::new(in_memory(&clock).await), unlimited()).await);
        Self { world, clock }
    }

    fn by_http(&self) -> http::client::Builder {
        http::Client::builder(format!("http://{}", self.world.address))
    }

    fn user(&self, token: String) -> Arc<dyn JobService> {
        let files = self.by_http().user_token(&token).build().unwrap();
        Arc::new(Client::builder(self.world.url()).user_token(token).files(Arc::new(files)).build().unwrap())
    }

    fn worker(&self, token: String) -> Arc<dyn WorkerService> {
        let files = self.by_http().worker_token(&token).build().unwrap();
        let client = Client::builder(self.world.url()).worker_token(token).clock(Arc::new(self.clock.clone()));
        Arc::new(client.worker_files(Arc::new(files)).build().unwrap())
    }

    /// The first of its calls go by HTTP, because the socket is not there yet.
    fn falling_back(&self, token: String) -> Arc<dyn WorkerService> {
        let other = self.by_http().worker_token(&token).build().unwrap();
        let mut options = Options::default();
        options.retry_for = Duration::ZERO;
        let socket = Client::builder(self.world.url()).worker_token(token).clock(Arc::new(self.clock.clone()));
        Arc::new(Fallback::new(socket.options(options).build().unwrap(), Arc::new(other)))
    }

    fn rig(self, worker: impl Fn(&Self, String) -> Arc<dyn WorkerService> + Send + Sync + 'static) -> Rig {
        let (user, workers, clock) = (self.clone(), self.clone(), self.clock.clone());
        let tokens = self.world.tokens.clone();
        let far = FarEnd::new(tokens, move |token| user.user(token), move |token| worker(&workers, token));
        Rig::new(Arc::new(far), clock)
    }
}

mod by_socket {
    async fn rig() -> super::Rig {
        super::Site::new().await.rig(super::Site::worker)
    }

    cmdexec_testkit::service_suite!(rig);
}

mod by_socket_or_http {
    async fn rig() -> super::Rig {
        super::Site::new().await.rig(super::Site::falling_back)
    }

    cmdexec_testkit::service_suite!(rig);
}
