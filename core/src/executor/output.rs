//! The way of output out of an executor: a bounded pipe, so that a fast writer is slowed down.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Which of a command's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The stream as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Bytes that a command wrote to one of its streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// Which stream.
    pub stream: Stream,
    /// What it wrote: bytes, not necessarily UTF-8, not necessarily whole lines.
    pub bytes: Bytes,
}

/// The writing end of an attempt's output.
#[derive(Debug, Clone)]
pub struct OutputSink(mpsc::Sender<OutputChunk>);

impl OutputSink {
    /// Hands on what a stream wrote; waits while the reader is behind. What is written after the reader has gone
    /// is dropped. Cancellation safe: either the whole chunk is handed on or none of it.
    pub async fn write(&self, stream: Stream, bytes: Bytes) {
        if !bytes.is_empty() {
            // A reader that has gone is the end of the attempt; nobody is left to tell.
            let _ = self.0.send(OutputChunk { stream, bytes }).await;
        }
    }
}

/// The reading end of an attempt's output.
#[derive(Debug)]
pub struct OutputSource(mpsc::Receiver<OutputChunk>);

impl OutputSource {
    /// The next chunk, or `None` once every sink is gone and nothing is left. Cancellation safe.
    pub async fn next(&mut self) -> Option<OutputChunk> {
        self.0.recv().await
    }
}

/// A pipe for an attempt's output that holds at most `chunks` chunks; a sink waits when it is full.
pub fn output_pipe(chunks: usize) -> (OutputSink, OutputSource) {
    let (sender, receiver) = mpsc::channel(chunks);
    (OutputSink(sender), OutputSource(receiver))
}
