//! The push channel: how fast jobs go through it, what idle workers cost at it, and how soon changes are known.

pub(crate) mod idle;
pub(crate) mod noop;
pub(crate) mod updates;
