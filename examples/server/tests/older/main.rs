//! The workers and users of earlier protocol versions, against the server as it is started: an agent and a user that know
//! nothing of this project's client, written from the forms in which they always spoke.
#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests fail as tests do")]

mod agent;
mod files;
mod http;
mod jobs;
mod output;
mod site;
mod user;
mod zips;
