//! Between what columns hold and what the model has.

use cmdexec_core::executor::Stream;
use cmdexec_core::id::{JobId, WorkerId};
use cmdexec_core::job::Status;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// A count or number of the model's, which SQLite keeps in signed 64 bits.
pub(crate) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A length or limit.
pub(crate) fn length(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(n: i64) -> Result<u64, Error> {
    u64::try_from(n).map_err(|e| Error::row("number", e))
}

pub(crate) fn index(n: i64) -> Result<usize, Error> {
    usize::try_from(n).map_err(|e| Error::row("number", e))
}

pub(crate) fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Error> {
    bytes.try_into().map_err(|e| Error::row("blob", e))
}

pub(crate) fn job_id(bytes: &[u8]) -> Result<JobId, Error> {
    exactly(bytes).map(JobId::from_bytes)
}

pub(crate) fn worker_id(text: &str) -> Result<WorkerId, Error> {
    text.parse().map_err(|e| Error::row("worker id", e))
}

pub(crate) fn json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|e| Error::row(what, e))
}

pub(crate) fn text(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|e| Error::row("text", e))
}

/// Part of the schema: partial indexes name these numbers.
pub(crate) fn status_number(status: Status) -> i64 {
    match status {
        Status::Scheduled => 0,
        Status::Queued => 1,
        Status::Running => 2,
        Status::Cancelling => 3,
        Status::Completed => 4,
        Status::Failed => 5,
        Status::Cancelled => 6,
    }
}

pub(crate) fn status(number: i64) -> Result<Status, Error> {
    let found = Status::ALL.into_iter().find(|status| status_number(*status) == number);
    found.ok_or_else(|| Error::row("status", format!("unknown number {number}")))
}

pub(crate) fn stream_number(stream: Stream) -> i64 {
    match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    }
}

pub(crate) fn stream(number: i64) -> Result<Stream, Error> {
    match number {
        1 => Ok(Stream::Stdout),
        2 => Ok(Stream::Stderr),
        _ => Err(Error::row("stream", format!("unknown number {number}"))),
    }
}

/// Blobs as the JSON array of hexadecimal texts that statements `unhex`.
pub(crate) fn hex<'a>(blobs: impl IntoIterator<Item = &'a [u8]>) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    let mut text = String::from("[");
    for blob in blobs {
        text.push_str(if text.len() > 1 { ",\"" } else { "\"" });
        text.extend(blob.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]));
        text.push('"');
    }
    text.push(']');
    text
}

/// Worker ids as a JSON array. They are visible ASCII, so that SQLite's own end of a text at NUL does not matter.
pub(crate) fn worker_ids<'a>(ids: impl IntoIterator<Item = &'a WorkerId>) -> String {
    let ids: Vec<&str> = ids.into_iter().map(WorkerId::as_str).collect();
    // An array of texts always serialises.
    serde_json::to_string(&ids).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_streams_have_their_numbers() {
        for (number, known) in (0..).zip(Status::ALL) {
            assert_eq!(status_number(known), number);
            assert_eq!(status(number).unwrap(), known);
        }
        assert!(status(7).is_err());
        for known in [Stream::Stdout, Stream::Stderr] {
            assert_eq!(stream(stream_number(known)).unwrap(), known);
        }
        assert!(stream(0).is_err());
    }

    #[test]
    fn blobs_are_hexadecimal() {
        assert_eq!(hex([[0xab, 0x01].as_slice(), &[], &[0xff]]), r#"["ab01","","ff"]"#);
        assert_eq!(hex([]), "[]");
    }
}
