//! The store's contract as code.
//!
//! [`store_suite!`](crate::store_suite) makes one test of every promise of [`Store`], and one that runs random
//! sequences of calls against the backend and against [`MemoryStore`](cmdexec_core::store::MemoryStore), which must
//! answer alike. A backend of yours is held to it with a few lines:
//!
//! ```
//! use std::sync::Arc;
//!
//! use cmdexec_core::store::{MemoryStore, Store};
//! use cmdexec_core::time::ManualClock;
//! use cmdexec_testkit::store::Backend;
//!
//! struct Memory;
//!
//! #[async_trait::async_trait]
//! impl Backend for Memory {
//!     async fn open(&self, clock: ManualClock) -> Arc<dyn Store> {
//!         Arc::new(MemoryStore::with_clock(Arc::new(clock)))
//!     }
//! }
//!
//! mod memory {
//!     use super::*;
//!     cmdexec_testkit::store_suite!(Memory);
//! }
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use cmdexec_core::store::Store;
use cmdexec_core::time::ManualClock;

mod faulty;
pub mod make;
pub mod model;
#[doc(hidden)]
pub mod suite;

pub use faulty::{Call, Fault, FaultyStore, Gate};

/// What the suite runs against: a place for one test's data.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The store by this clock; empty the first time. A durable backend may be asked again, after the store was closed
    /// or dropped, and then finds what was there.
    async fn open(&self, clock: ManualClock) -> Arc<dyn Store>;

    /// Whether data is still there when the store is opened again. The tests of it pass over one that says no.
    fn is_durable(&self) -> bool {
        false
    }
}

/// What each test of the suite gets.
#[derive(Clone)]
pub struct Bench {
    /// An empty store.
    pub store: Arc<dyn Store>,
    /// The store's clock.
    pub clock: ManualClock,
    backend: Arc<dyn Backend>,
}

impl Bench {
    /// A bench with an empty store.
    pub async fn new(backend: impl Backend) -> Self {
        let backend: Arc<dyn Backend> = Arc::new(backend);
        let clock = ManualClock::default();
        Self { store: backend.open(clock.clone()).await, clock, backend }
    }

    /// Closes the store and opens it again; `None` if the backend is not durable.
    pub async fn reopened(self) -> Option<Self> {
        if !self.backend.is_durable() {
            return None;
        }
        self.store.close().await;
        drop(self.store);
        Some(Self { store: self.backend.open(self.clock.clone()).await, clock: self.clock, backend: self.backend })
    }
}

/// One test for every promise of [`Store`], for the [`Backend`] that the expression makes. Put it into a module of its
/// own; the crate needs `tokio` with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! store_suite {
    ($backend:expr) => {
        $crate::store_tests!($backend);

        #[test]
        fn answers_as_memory_does() {
            $crate::store::model::check(|| $backend);
        }
    };
}

impl Bench {
    /// The time by the store's clock.
    pub fn clock_now(&self) -> cmdexec_core::time::Timestamp {
        self.store.now()
    }
}
