//! Changes of jobs.

use std::sync::Arc;

use cmdexec_core::store::{Change, Written};

use super::document::{signed, statement};
use crate::bell::Told;
use crate::client::Mongo;
use crate::conditional::{self, Item};
use crate::error::Error;
use crate::gather::Work;
use crate::schema;

/// Carries out what several callers want changed.
pub(crate) struct Updates(pub(crate) Arc<Mongo>);

impl Work for Updates {
    type Item = Vec<Change>;
    type Answer = Vec<Written>;

    async fn carry_out(&self, calls: Vec<Vec<Change>>) -> Vec<Result<Vec<Written>, Error>> {
        match self.update(&calls).await {
            Ok(mut written) => calls.iter().map(|changes| Ok(written.drain(..changes.len()).collect())).collect(),
            Err(error) => calls.iter().map(|_| Err(error.told())).collect(),
        }
    }
}

impl Updates {
    async fn update(&self, calls: &[Vec<Change>]) -> Result<Vec<Written>, Error> {
        let mongo = &self.0;
        let now = mongo.now().await?;
        let count = calls.iter().map(Vec::len).sum();
        let mut items = Vec::with_capacity(count);
        let mut statements = Vec::with_capacity(count);
        for changes in calls {
            // Each call its own: two calls may name the same job and version, and only one of them is to hear `Yes`.
            let op = mongo.ops.next();
            for Change { id, version, life, timer } in changes {
                statements.push(statement(*id, *version, life, *timer, now, op)?);
                items.push(Item { id: *id, version: signed(*version), op });
            }
        }
        let written = conditional::update(mongo, schema::JOBS, &items, statements).await?;
        let told = calls.iter().flatten().zip(&written).filter(|(_, written)| **written == Written::Yes);
        mongo.bell.jobs(told.map(|(change, _)| Told {
            id: change.id,
            version: change.version.saturating_add(1),
            status: change.life.status(),
            queued: None,
        }));
        Ok(written)
    }
}
