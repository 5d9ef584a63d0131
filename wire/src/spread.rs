//! What a worker has to say, spread over as few requests as their size allows, and the answers gathered again.

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::id::WorkerId;
use cmdexec_core::service::{FinishedAttempt, OutputAck, OutputBatch, OutputPieces};

use crate::{Batch, Packer, Report, ReportAck, body, head, packed};

/// How large requests are.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// How many bytes a body has at most.
    pub bytes: usize,
    /// How many items it has at most.
    pub items: usize,
}

/// Output, as bodies in its order.
#[derive(Debug)]
pub struct SpreadOutput {
    /// Whether the bodies are of the type [`crate::PACKED`], and not JSON.
    pub is_packed: bool,
    /// Whether saying it again does no harm: without numbers it would be more output.
    pub is_repeatable: bool,
    /// Each with which batches are in it.
    pub bodies: Vec<(Bytes, Vec<usize>)>,
}

impl SpreadOutput {
    /// Spreads batches over bodies. From `pack_from` bytes on, output that has numbers travels as it is.
    pub fn new(worker: &WorkerId, batches: &[OutputBatch], sizes: Sizes, pack_from: usize) -> Self {
        let is_repeatable = is_repeatable(batches);
        let (mut is_numbered, mut bytes) = (true, 0);
        for batch in batches {
            match &batch.pieces {
                OutputPieces::Numbered(chunks) => bytes += chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>(),
                OutputPieces::Plain(_) => is_numbered = false,
            }
        }
        if is_numbered && bytes >= pack_from {
            let bodies = packed(worker, batches, sizes.bytes, sizes.items);
            return Self { is_packed: true, is_repeatable, bodies };
        }
        let mut packer = Packer::new(head(worker, "batches"), sizes.bytes, sizes.items);
        for (i, batch) in batches.iter().enumerate() {
            for part in Batch::parts(batch, sizes.bytes / 2) {
                packer.add(i, &body(&part));
            }
        }
        Self { is_packed: false, is_repeatable, bodies: packer.finish().collect() }
    }
}

/// Whether saying it again does no harm: without numbers it would be more output.
pub fn is_repeatable(batches: &[OutputBatch]) -> bool {
    batches.iter().all(|batch| match &batch.pieces {
        OutputPieces::Numbered(_) => true,
        OutputPieces::Plain(chunks) => chunks.is_empty(),
    })
}

/// What became of each batch of output.
#[derive(Debug)]
pub struct OutputAcks(Vec<Result<OutputAck, Error>>);

impl OutputAcks {
    /// For so many batches, of which nothing is known yet.
    pub fn new(batches: usize) -> Self {
        Self(vec![Ok(OutputAck { cancel: false }); batches])
    }

    /// Takes in the answer to a body with these batches. One in several parts is refused if one is, and cancelled if one is.
    ///
    /// # Errors
    /// [`Error::Internal`]: it is no answer to that body.
    pub fn take(&mut self, items: &[usize], answer: crate::OutputAck) -> Result<(), Error> {
        let parts = answer.batches.filter(|parts| parts.len() == items.len()).ok_or(Error::Internal)?;
        for (item, part) in items.iter().zip(parts) {
            if let Some(ack) = self.0.get_mut(*item)
                && let Ok(OutputAck { cancel }) = *ack
            {
                *ack = part.read().map(|()| OutputAck { cancel: cancel || part.cancel });
            }
        }
        Ok(())
    }

    /// The answers, in the order of the batches.
    pub fn all(self) -> Vec<Result<OutputAck, Error>> {
        self.0
    }
}

/// What became of each report.
#[derive(Debug)]
pub struct ReportAcks(Vec<Result<(), Error>>);

impl ReportAcks {
    /// Spreads reports over bodies, each with which of them are in it. One that no worker may make is refused here.
    pub fn spread(worker: &WorkerId, attempts: &[FinishedAttempt], sizes: Sizes) -> (Self, Vec<(Bytes, Vec<usize>)>) {
        let mut packer = Packer::new(head(worker, "results"), sizes.bytes, sizes.items);
        let mut acks = Vec::with_capacity(attempts.len());
        for (i, attempt) in attempts.iter().enumerate() {
            match Report::of(attempt) {
                Some(report) => {
                    packer.add(i, &body(&report));
                    acks.push(Ok(()));
                }
                None => acks.push(Err(Error::invalid("outcome", "only the coordinator says that an attempt is lost"))),
            }
        }
        (Self(acks), packer.finish().collect())
    }

    /// Takes in the answer to a body with these reports.
    ///
    /// # Errors
    /// [`Error::Internal`]: it is no answer to that body.
    pub fn take(&mut self, items: &[usize], answer: ReportAck) -> Result<(), Error> {
        let results = answer.results.filter(|results| results.len() == items.len()).ok_or(Error::Internal)?;
        for (item, result) in items.iter().zip(results) {
            if let Some(ack) = self.0.get_mut(*item) {
                *ack = result.read();
            }
        }
        Ok(())
    }

    /// The answers, in the order of the reports.
    pub fn all(self) -> Vec<Result<(), Error>> {
        self.0
    }
}
