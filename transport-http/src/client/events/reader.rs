//! Bytes to events, as the HTML standard's event streams are read.

use std::collections::VecDeque;

/// The longest line that is read. A piece of output is at most a few hundred KiB as JSON.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// An event as it came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) id: Option<String>,
    pub(super) data: String,
}

/// Takes bytes as they come and gives events.
#[derive(Debug, Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    /// The byte before was a carriage return: a line feed now belongs to it.
    after_return: bool,
    event: Event,
    events: VecDeque<Event>,
}

impl Reader {
    /// The next event that is whole.
    pub(super) fn next(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, rest) = bytes.split_at(end);
            self.take(line)?;
            let after_return = std::mem::take(&mut self.after_return);
            let terminator = rest.first().copied();
            bytes = rest.get(1..).unwrap_or_default();
            if terminator == Some(b'\n') && after_return && self.line.is_empty() && line.is_empty() {
                continue;
            }
            self.after_return = terminator == Some(b'\r');
            let line = std::mem::take(&mut self.line);
            self.line(&line);
        }
        if !bytes.is_empty() {
            self.after_return = false;
        }
        self.take(bytes)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.line.len() + bytes.len() > MAX_LINE {
            return Err("an event is too large".to_owned());
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if !event.name.is_empty() || !event.data.is_empty() {
                self.events.push_back(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments, and what is not known here.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_the_bytes_are_cut() {
        let text =
            b": hi\r\nid: 1.2\nevent: output\ndata: {\"a\":1}\n\nretry: 5\rdata: x\r\ndata: y\r\n\r\nevent: half\n";
        let expected = [
            Event { name: "output".into(), id: Some("1.2".into()), data: "{\"a\":1}".into() },
            Event { name: String::new(), id: None, data: "x\ny".into() },
        ];
        for size in 1..=text.len() {
            let mut reader = Reader::default();
            for piece in text.chunks(size) {
                reader.push(piece).unwrap();
            }
            assert_eq!(reader.events, expected, "in pieces of {size}");
        }
    }
}
