//! What `get-job` hands a worker.

use cmdexec_core::service::LeasedJob;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[cfg(feature = "server")]
use super::{Seconds, file_url};
use super::{Spec, Time};

/// A job that a worker has the lease for, with what of its spec a worker needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    pub job_id: Uuid,
    /// What fences the attempt: every message about it carries this.
    pub lease_token: String,
    /// Which attempt, counted from 1.
    pub attempt: u32,
    /// How long the lease lasts from the last acknowledged heartbeat, and at least from now.
    pub lease_ttl_ms: u64,
    /// When the lease ends if no heartbeat renews it, by the server's clock.
    pub lease_expires_at: Time,
    /// The SHA-256 of the ZIP at `fileUrl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_sha256: Option<String>,
    /// What stands for the job's owner: what a worker keeps for the owner's other jobs goes by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse_scope: Option<String>,
    #[serde(flatten)]
    pub spec: Spec,
}

/// Several leases: the answer to `max`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Leases {
    pub jobs: Vec<Lease>,
}

#[cfg(feature = "server")]
impl From<&LeasedJob> for Lease {
    fn from(leased: &LeasedJob) -> Self {
        let mut spec = Spec::sparse(&leased.spec);
        spec.timeout = Some(Seconds(leased.spec.timeout));
        spec.env = Some(leased.spec.env.clone());
        spec.exclusive = Some(leased.spec.exclusive);
        // The submitter's own.
        spec.idempotency_key = None;
        // The digest says it.
        spec.file_id = None;
        spec.file_url = leased.spec.input.map(file_url);
        Self {
            job_id: leased.job.as_uuid(),
            lease_token: leased.token.reveal(),
            attempt: leased.attempt,
            lease_ttl_ms: u64::try_from(leased.lease.as_millis()).unwrap_or(u64::MAX),
            lease_expires_at: Time(leased.expires),
            file_sha256: leased.spec.input.map(|id| id.to_string()),
            reuse_scope: leased.scope.clone(),
            spec,
        }
    }
}

#[cfg(feature = "client")]
impl Lease {
    /// The lease as the service gave it; `None` if the answer makes no sense.
    pub fn into_leased(self) -> Option<LeasedJob> {
        Some(LeasedJob {
            job: cmdexec_core::id::JobId::from_uuid(self.job_id),
            token: self.lease_token.parse().ok()?,
            attempt: self.attempt,
            lease: std::time::Duration::from_millis(self.lease_ttl_ms),
            expires: self.lease_expires_at.0,
            scope: self.reuse_scope,
            spec: Spec { file_id: self.file_sha256, ..self.spec }.into_spec()?.into(),
        })
    }
}
