//! Streams for readers: a job's output, and changes of jobs.
//!
//! Whoever reads output reads the store for itself (`reader`) until it is where the newest output is. From there on all
//! that follow the same job share what one of them reads (`live`).

mod live;
mod output;
mod reader;
mod start;
mod subject;
mod watch;

pub(super) use live::Followed;
pub(super) use output::output;
pub(super) use watch::{watch_all, watch_job};
