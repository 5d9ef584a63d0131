//! The contract of the two services, held by the client at the far end of a real socket.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::files::Files;
use cmdexec_core::service::{JobService, Services, UserPrincipal, WorkerPrincipal, WorkerService};
use cmdexec_core::store::MemoryStore;
use cmdexec_core::time::ManualClock;
use cmdexec_core::token::{UserClaims, WorkerClaims};
use cmdexec_testkit::service::Rig;
use cmdexec_transport_http as http;
use cmdexec_transport_ws::Client;
use support::{World, now, unlimited};

/// The services at the far end: a client with a token for each principal.
#[derive(Debug)]
struct FarEnd(Arc<World>, ManualClock);

#[async_trait]
impl Services for FarEnd {
    fn as_user(&self, principal: UserPrincipal) -> Arc<dyn JobService> {
        let token = self.0.keys.mint_user(&UserClaims::new(principal.owner, principal.role, now()));
        let files = http::Client::builder(format!("http://{}", self.0.address)).user_token(&token).build().unwrap();
        Arc::new(Client::builder(self.0.url()).user_token(token).files(Arc::new(files)).build().unwrap())
    }

    fn as_worker(&self, principal: WorkerPrincipal) -> Arc<dyn WorkerService> {
        let id = match principal {
            WorkerPrincipal::Bound(id) => Some(id),
            WorkerPrincipal::Any => None,
        };
        let token = self.0.keys.mint_worker(&WorkerClaims::new(id, now()));
        let files = http::Client::builder(format!("http://{}", self.0.address)).worker_token(&token).build().unwrap();
        let client = Client::builder(self.0.url()).worker_token(token).clock(Arc::new(self.1.clone()));
        Arc::new(client.worker_files(Arc::new(files)).build().unwrap())
    }

    async fn health(&self) -> Result<(), Error> {
        Ok(())
    }
}

async fn rig() -> Rig {
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(Arc::new(clock.clone()));
    let coordinator = Coordinator::builder(store).clock(Arc::new(clock.clone())).files(Files::in_memory());
    let coordinator = coordinator.build().await.unwrap();
    let world = Arc::new(World::over(Arc::new(coordinator), unlimited()).await);
    Rig::new(Arc::new(FarEnd(Arc::clone(&world), clock.clone())), clock).keeping(world)
}

cmdexec_testkit::service_suite!(rig);
