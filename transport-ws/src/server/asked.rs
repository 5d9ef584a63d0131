//! What a message asks: read from its envelope without doing any of it, so that a fuzzer reads all that a session does, and no session is
//! needed to see what is wrong with a message.

use cmdexec_core::Error;
use cmdexec_wire::read::Malformed;
use serde::Deserialize;

use crate::close::{Closing, Code};
use crate::message::Envelope;

pub(super) mod user;
pub(super) mod work;

/// The id of a message that must have one.
fn id(envelope: &Envelope<'_>) -> Result<u64, Closing> {
    let missing = || Closing::new(Code::Malformed, format!("{:.32} must have an id", envelope.kind));
    envelope.id.ok_or_else(missing)
}

/// The body as a form; the error says what is wrong with it.
fn form<'a, T: Deserialize<'a>>(envelope: &Envelope<'a>) -> Result<T, Error> {
    envelope.parse().map_err(|why| Error::invalid("body", why))
}

/// A body that is shared with HTTP, where one that is none is told from one that is wrong.
fn body<T>(read: Result<Result<T, Error>, Malformed>) -> Result<T, Error> {
    read.unwrap_or_else(|Malformed(why)| Err(Error::invalid("body", why)))
}
