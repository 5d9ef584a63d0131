//! The narrow waist: what users do and what workers do, as two object-safe traits.
//!
//! [`crate::coordinator::Coordinator`] implements both for somebody; a transport carries them over a wire and implements them again at
//! its far end. `cmdexec_testkit::service` is their contract as code and runs on either side.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::Error;

mod ext;
mod job;
mod stops;
mod worker;

pub use ext::JobServiceExt;
pub use job::{
    AttemptView, ClassStats, Cursor, Ended, JobPage, JobQuery, JobService, JobUpdate, JobView, OutputEvent,
    OutputQuery, OutputStream, ParseCursorError, Role, Stats, Submission, SubmittedJob, UpdateStream, UserPrincipal,
    WatchQuery, WorkerStatus, WorkerView,
};
pub use stops::{StopStream, Stops};
pub use worker::{
    FinalOutput, FinishedAttempt, Heartbeat, HeartbeatReply, LeaseRequest, LeasedJob, OutputAck, OutputBatch,
    OutputPieces, Registered, Registration, Usage, WorkerPrincipal, WorkerService,
};

/// Hands out both services for somebody: what the server half of a transport is given.
#[async_trait]
pub trait Services: fmt::Debug + Send + Sync + 'static {
    /// What this user may do. Cheap: made anew for each request.
    fn as_user(&self, principal: UserPrincipal) -> Arc<dyn JobService>;

    /// What this worker may do. Cheap: made anew for each request.
    fn as_worker(&self, principal: WorkerPrincipal) -> Arc<dyn WorkerService>;

    /// Whether what is behind the services answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn health(&self) -> Result<(), Error>;
}
