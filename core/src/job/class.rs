//! Classes: jobs that demand the same of a worker, so that matching costs classes × workers.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{JobSpec, Network, Resources};
use crate::executor::Kind;

/// What a job demands of a worker. Jobs of one class are interchangeable to the scheduler, and queue together.
///
/// Cheap to clone. Its text form ([`Class::key`]) is canonical: the same demand is the same text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(Arc<str>, Arc<Demand>);

/// What jobs of a class demand.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Demand {
    /// What the jobs run in.
    pub kind: Kind,
    /// What each of them reserves. `pids` bounds a job but is not reserved, so it is not here.
    #[serde(flatten)]
    pub resources: Resources,
    /// The network they ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Labels that the worker must have.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<String>,
    /// They have outputs to collect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outputs: bool,
}

impl Class {
    /// The class of jobs with this spec.
    pub fn of(spec: &JobSpec) -> Self {
        Self::from_demand(Demand {
            kind: if spec.container_image.is_some() { Kind::Docker } else { Kind::Process },
            resources: Resources { pids: None, ..spec.resources },
            network: spec.network,
            labels: spec.labels.clone(),
            outputs: !spec.outputs.is_empty(),
        })
    }

    fn from_demand(demand: Demand) -> Self {
        // A struct of strings, numbers and plain enums always serialises.
        let key = serde_json::to_string(&demand).unwrap_or_default();
        Self(key.into(), Arc::new(demand))
    }

    /// The class as text: compact JSON with keys and labels in a fixed order.
    pub fn key(&self) -> &str {
        &self.0
    }

    /// The class that [`Class::key`] gave this text for.
    ///
    /// # Errors
    /// The text is not a class's key.
    pub fn from_key(key: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(key).map(Self::from_demand)
    }

    /// What its jobs demand.
    pub fn demand(&self) -> &Demand {
        &self.1
    }
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_demand_is_the_same_text() {
        let mut one = JobSpec::shell("a");
        one.labels = ["b".to_owned(), "a".to_owned()].into();
        one.resources.cpu_millis = Some(500);
        let mut two = JobSpec::shell("b");
        two.labels = ["a".to_owned(), "b".to_owned()].into();
        two.resources = Resources { cpu_millis: Some(500), pids: Some(9), ..Resources::default() };
        assert_eq!(Class::of(&one), Class::of(&two));
        assert_eq!(Class::of(&one).key(), r#"{"kind":"process","cpuMillis":500,"labels":["a","b"]}"#);
        assert_eq!(Class::from_key(Class::of(&one).key()).unwrap(), Class::of(&one));
        assert_eq!(Class::of(&JobSpec::shell("x")).key(), r#"{"kind":"process"}"#);
        let mut keeps = JobSpec::shell("x");
        keeps.outputs.push("*.log".to_owned());
        assert_eq!(Class::of(&keeps).key(), r#"{"kind":"process","outputs":true}"#);
        assert_eq!(Class::from_key(Class::of(&keeps).key()).unwrap(), Class::of(&keeps));
    }
}
