//! What is asked of the database, on connections of their own beside the writer's.

pub(crate) mod column;
pub(crate) mod job;
pub(crate) mod key;
pub(crate) mod list;
pub(crate) mod output;
pub(crate) mod queue;
pub(crate) mod record;
pub(crate) mod worker;
