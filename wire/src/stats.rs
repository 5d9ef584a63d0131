//! How much there is of everything.

use std::collections::{BTreeMap, BTreeSet};

use cmdexec_core::executor::Kind;
use cmdexec_core::job::Network;
#[cfg(feature = "server")]
use cmdexec_core::{
    job::{Class, Status},
    service,
};
use serde::{Deserialize, Serialize};

use super::Cpus;

/// How much there is of everything.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Jobs by status, every status named: all, or the caller's own, each counted to 10,000.
    pub jobs: BTreeMap<String, u64>,
    /// How many jobs are queued in all.
    pub queue_depth: u64,
    /// The queues, by class: jobs that demand the same of a worker. Empty for who is no admin.
    pub queues: Vec<Queue>,
    /// Workers by status, every status named.
    pub workers: BTreeMap<String, u64>,
    pub throughput: Throughput,
}

/// One class's queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    pub class: Demand,
    pub queued: u64,
    /// How long ago the job that is served next was submitted.
    pub oldest_wait_ms: u64,
}

/// What jobs of a class demand of a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Demand {
    #[cfg_attr(feature = "openapi", schema(value_type = super::worker::KindName))]
    pub executor: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<super::spec::NetworkName>))]
    pub network: Option<Network>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outputs: bool,
}

/// How many jobs end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Throughput {
    /// Jobs (the caller's own, or all) that ended at this server within the last minute.
    pub last_minute: u64,
}

#[cfg(feature = "server")]
impl From<&service::Stats> for Stats {
    fn from(stats: &service::Stats) -> Self {
        Self {
            jobs: stats.jobs.iter().map(|(status, n)| (status.as_str().to_owned(), *n)).collect(),
            queue_depth: stats.jobs.get(&Status::Queued).copied().unwrap_or(0),
            queues: stats.queues.iter().map(Queue::from).collect(),
            workers: stats.workers.iter().map(|(status, n)| (status.as_str().to_owned(), *n)).collect(),
            throughput: Throughput { last_minute: stats.finished_last_minute },
        }
    }
}

#[cfg(feature = "server")]
impl From<&service::ClassStats> for Queue {
    fn from(stats: &service::ClassStats) -> Self {
        Self {
            class: Demand::from(&stats.class),
            queued: stats.queued,
            oldest_wait_ms: u64::try_from(stats.head_wait.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(feature = "server")]
impl From<&Class> for Demand {
    fn from(class: &Class) -> Self {
        let demand = class.demand();
        Self {
            executor: demand.kind,
            cpus: demand.resources.cpu_millis.map(Cpus),
            memory_mb: demand.resources.memory_mb,
            gpus: demand.resources.gpus,
            network: demand.network,
            labels: demand.labels.clone(),
            outputs: demand.outputs,
        }
    }
}

#[cfg(feature = "client")]
mod read {
    use std::time::Duration;

    use cmdexec_core::job::{self, Class, Resources};
    use cmdexec_core::service::{self, ClassStats, WorkerStatus};

    use super::{Demand, Stats};

    impl Stats {
        /// The numbers as the service gave them; `None` if the answer makes no sense.
        pub fn into_stats(self) -> Option<service::Stats> {
            let queues = self.queues.into_iter().map(|queue| {
                let class = queue.class.into_class()?;
                Some(ClassStats { class, queued: queue.queued, head_wait: Duration::from_millis(queue.oldest_wait_ms) })
            });
            let worker_status = |name: &str| WorkerStatus::ALL.into_iter().find(|status| status.as_str() == name);
            Some(service::Stats {
                jobs: self.jobs.into_iter().filter_map(|(name, n)| Some((name.parse().ok()?, n))).collect(),
                queues: queues.collect::<Option<_>>()?,
                workers: self.workers.into_iter().filter_map(|(name, n)| Some((worker_status(&name)?, n))).collect(),
                finished_last_minute: self.throughput.last_minute,
            })
        }
    }

    impl Demand {
        fn into_class(self) -> Option<Class> {
            let demand = job::Demand {
                kind: self.executor,
                resources: Resources {
                    cpu_millis: self.cpus.map(|super::Cpus(millis)| millis),
                    memory_mb: self.memory_mb,
                    pids: None,
                    gpus: self.gpus,
                },
                network: self.network,
                labels: self.labels,
                outputs: self.outputs,
            };
            Class::from_key(&serde_json::to_string(&demand).ok()?).ok()
        }
    }
}
