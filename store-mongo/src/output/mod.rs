//! What attempts wrote.
//!
//! Each job with output has one document, its **head**: counts, the newest pieces, and a list of the **segments** that have
//! the older ones. A segment is written once, before the head names it; so one conditional write of one document is all
//! that an addition is, whole or not at all, whoever else adds to the same job. What no head names is not there, and
//! goes with its job.

mod append;
mod head;
mod read;
mod segment;

pub(crate) use append::Appends;
pub(crate) use read::{extent, index, read, since, tail, times};
