//! Output whose bytes stand behind what is said of them: [`wire::PACKED`](crate::PACKED). Nothing of them is copied.

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::id::WorkerId;
use cmdexec_core::service::{OutputBatch, OutputPieces};
use cmdexec_core::store::Chunk;

use super::output::{MAX_BATCHES, Output, stream};
use super::{Fields, Json, Malformed, Problems};

/// `batches` of numbered pieces. Their lengths and the bytes must come out even.
pub fn packed(body: &Bytes) -> Result<Result<Output, Error>, Malformed> {
    let (document, mut bytes) = split(body).ok_or_else(|| Malformed("the body ends within its document".to_owned()))?;
    let mut problems = Problems::default();
    let mut batches = Vec::new();
    let rest = Json::parse_items(&document, "batches", &mut |i, item| {
        if i < MAX_BATCHES {
            batches.extend(batch(&mut Fields::of_item(item, "batches", i, &mut problems), &mut bytes));
        }
    })?;
    let mut fields = Fields::of_body(rest, &mut problems);
    let worker = fields.parsed::<WorkerId>("workerId");
    match fields.take("batches").map(|value| value.json) {
        Some(Json::Items(0..=MAX_BATCHES)) => {}
        Some(Json::Items(_)) => fields.wrong("batches", format!("must be at most {MAX_BATCHES}")),
        Some(other) => fields.wrong("batches", format!("must be a list, not {}", other.kind())),
        None => fields.wrong("batches", "is required"),
    }
    if problems.is_empty() && !bytes.is_empty() {
        problems.push("body", format!("has {} bytes that belong to no piece", bytes.len()));
    }
    Ok(problems.check(Some(Output { worker, batches, many: true })))
}

/// The document, and what stands behind it.
fn split(body: &Bytes) -> Option<(Bytes, Bytes)> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| *length <= rest.len())?;
    Some((body.slice(4..4 + length), body.slice(4 + length..)))
}

fn batch(fields: &mut Fields<'_, '_>, bytes: &mut Bytes) -> Option<OutputBatch> {
    fields.require("jobId");
    fields.require("chunks");
    let job = fields.parsed("jobId");
    let token = fields.parsed("leaseToken");
    let items = fields.list("chunks").unwrap_or_default();
    let mut chunks = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let mut fields = fields.item(item, "chunks", i);
        fields.require("seq");
        fields.require("length");
        let seq = fields.whole("seq", 0..=i128::from(i64::MAX));
        let stream = stream(&mut fields);
        let length: Option<usize> = fields.whole("length", 0..=i128::from(u32::MAX));
        if length.is_some_and(|length| length > bytes.len()) {
            fields.wrong("length", format!("is more than the {} bytes that are left", bytes.len()));
            break;
        }
        if let (Some(seq), Some(stream), Some(length)) = (seq, stream, length) {
            chunks.push(Chunk { seq, stream, bytes: bytes.split_to(length) });
        }
    }
    Some(OutputBatch { job: job?, token, pieces: OutputPieces::Numbered(chunks) })
}

#[cfg(test)]
mod tests {
    use cmdexec_core::executor::Stream;
    use proptest::prelude::*;

    use super::*;

    const JOB: &str = "01010101-0101-0101-0101-010101010101";

    fn body(document: &str, bytes: &[u8]) -> Bytes {
        let length = u32::try_from(document.len()).unwrap();
        [&length.to_be_bytes()[..], document.as_bytes(), bytes].concat().into()
    }

    fn chunks(chunks: &str) -> String {
        format!(r#"{{"workerId":"w","batches":[{{"jobId":"{JOB}","chunks":[{chunks}]}}]}}"#)
    }

    #[test]
    fn pieces_get_their_bytes_in_their_order() {
        let document = chunks(
            r#"{"seq":3,"stream":"stderr","length":2},{"seq":4,"length":0},{"seq":5,"stream":"stdout","length":3}"#,
        );
        let output = packed(&body(&document, b"\xff\0abc")).unwrap().unwrap();
        let OutputPieces::Numbered(chunks) = &output.batches[0].pieces else { panic!("{output:?}") };
        let chunk = |seq, stream, bytes: &'static [u8]| Chunk { seq, stream, bytes: bytes.into() };
        assert_eq!(
            *chunks,
            [chunk(3, Stream::Stderr, b"\xff\0"), chunk(4, Stream::Stdout, b""), chunk(5, Stream::Stdout, b"abc")]
        );
    }

    #[test]
    fn a_body_that_is_cut_is_malformed() {
        let whole = body(&chunks(""), b"");
        for end in 0..whole.len() {
            assert!(packed(&whole.slice(..end)).is_err(), "{end}");
        }
        assert!(packed(&Bytes::from_static(b"\xff\xff\xff\xff{}")).is_err());
    }

    #[test]
    fn what_does_not_come_out_even_is_named() {
        let field = |chunk: &str, bytes: &[u8]| {
            let Err(Error::Invalid(problems)) = packed(&body(&chunks(chunk), bytes)).unwrap() else {
                panic!("{chunk}")
            };
            problems[0].field.clone()
        };
        assert_eq!(field(r#"{"seq":0,"length":2}"#, b"x"), "batches[0].chunks[0].length");
        assert_eq!(field(r#"{"seq":0,"length":4294967296}"#, b"x"), "batches[0].chunks[0].length");
        assert_eq!(field(r#"{"seq":0,"length":-1}"#, b"x"), "batches[0].chunks[0].length");
        assert_eq!(field(r#"{"seq":0}"#, b""), "batches[0].chunks[0].length");
        assert_eq!(field(r#"{"length":1}"#, b"x"), "batches[0].chunks[0].seq");
        assert_eq!(field(r#"{"seq":0,"length":1,"stream":"stdin"}"#, b"x"), "batches[0].chunks[0].stream");
        assert_eq!(field(r#"{"seq":0,"length":1}"#, b"xy"), "body");
        let Err(Error::Invalid(problems)) = packed(&body("{}", b"")).unwrap() else { panic!("no batches") };
        assert_eq!(problems[0].field, "batches");
    }

    proptest! {
        #[test]
        fn no_bytes_hurt(bytes in prop::collection::vec(any::<u8>(), 0..200), seq in any::<i64>(), length in any::<i64>()) {
            let _ = packed(&bytes.clone().into());
            let document = chunks(&format!(r#"{{"seq":{seq},"length":{length}}}"#));
            let _ = packed(&body(&document, &bytes));
        }
    }
}
