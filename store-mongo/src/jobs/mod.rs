//! Jobs: how they are kept, written, and found.

mod count;
mod document;
mod insert;
mod keys;
mod list;
mod queue;
mod read;
mod update;

pub(crate) use count::Counted;
pub(crate) use document::{Decoder, date, id_of, priority, rank, signed, timestamp};
pub(crate) use insert::{Insertion, Singles, insert};
pub(crate) use keys::{forget_keys, list_keys, put_keys};
pub(crate) use list::list;
pub(crate) use queue::{classes, due, expired, leased, next_due, ready};
pub(crate) use read::{among, each, get};
pub(crate) use update::Updates;
