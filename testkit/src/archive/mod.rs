//! Hostile archives: a writer of ZIPs that says anything at all, and what must hold whatever an archive says.

mod builder;
mod holds;

pub use builder::{Entry, Zip, deflate};
pub use holds::{Attempted, limits, unpack_in_jail};
