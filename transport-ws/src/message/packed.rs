//! The binary messages: output as the bytes that it is, on its way to the server and from it.

use bytes::Bytes;
#[cfg(feature = "server")]
use cmdexec_wire as wire;
use tokio_tungstenite::tungstenite::Message;

#[cfg(feature = "server")]
use super::What;
use super::{Event, Events};

/// Output as a binary message: its id in 8 bytes, the highest first, and a body of the type [`cmdexec_wire::PACKED`].
#[cfg(feature = "client")]
pub(crate) fn binary(id: u64, packed: &[u8]) -> Message {
    Message::binary([&id.to_be_bytes()[..], packed].concat())
}

/// The id of a binary message, and what stands behind it: of a worker's, output of the type [`cmdexec_wire::PACKED`].
pub(crate) fn split_binary(message: &Bytes) -> Option<(u64, Bytes)> {
    let (id, _) = message.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*id), message.slice(8..)))
}

/// Events as a binary message: the subscription's id in 8 bytes and the length of a document in 4, the highest first; the document, which is
/// the body of `event` with a `length` in the place of each event's data; and the bytes of all events, end to end.
#[cfg(feature = "server")]
pub(crate) fn packed_events(id: u64, mut events: Vec<(Event, Bytes)>) -> Message {
    for (event, bytes) in &mut events {
        if event.event == What::Output {
            event.length = Some(bytes.len());
        }
    }
    let (events, bytes): (Vec<_>, Vec<_>) = events.into_iter().unzip();
    let document = wire::body(&Events { events });
    let length = u32::try_from(document.len()).unwrap_or(u32::MAX);
    let size = 12 + document.len() + bytes.iter().map(Bytes::len).sum::<usize>();
    let mut message = Vec::with_capacity(size);
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&document);
    bytes.iter().for_each(|bytes| message.extend_from_slice(bytes));
    Message::binary(message)
}

/// The events of a binary message, each with its bytes; `None` if it does not come out even.
#[cfg(feature = "client")]
pub(crate) fn unpacked_events(packed: &Bytes) -> Option<Vec<(Event, Bytes)>> {
    let (length, rest) = packed.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| *length <= rest.len())?;
    let Events { events } = serde_json::from_slice(packed.get(4..4 + length)?).ok()?;
    let mut bytes = packed.slice(4 + length..);
    let with_bytes = |event: Event| {
        let length = event.length.unwrap_or(0);
        (length <= bytes.len()).then(|| (event, bytes.split_to(length)))
    };
    let events: Vec<_> = events.into_iter().map(with_bytes).collect::<Option<_>>()?;
    bytes.is_empty().then_some(events)
}
