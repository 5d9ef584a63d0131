//! The embedded default: everything in this process's memory.

use std::sync::Arc;

use crate::time::Clock;

/// Keeps everything in memory, for as long as it lives.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
}
