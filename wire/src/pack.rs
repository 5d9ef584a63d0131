//! Many items in as few requests as their size allows.

use bytes::Bytes;

/// The bodies of requests that carry lists of items, each body within a bound.
#[derive(Debug)]
pub(crate) struct Packer {
    /// What stands before the items, up to the list's bracket.
    head: Vec<u8>,
    /// How large a body may be.
    most: usize,
    /// How many items it may have.
    most_items: usize,
    bodies: Vec<Packed>,
}

/// A body, and which items are in it.
#[derive(Debug)]
struct Packed {
    body: Vec<u8>,
    items: Vec<usize>,
}

impl Packer {
    pub(crate) fn new(head: Vec<u8>, most: usize, most_items: usize) -> Self {
        Self { head, most, most_items, bodies: Vec::new() }
    }

    /// Adds an item that is JSON by itself. One that is too large alone gets a body of its own: the server says so then.
    pub(crate) fn add(&mut self, item: usize, json: &[u8]) {
        let fits = |packed: &&mut Packed| {
            packed.body.len() + json.len() + 3 <= self.most && packed.items.len() < self.most_items
        };
        match self.bodies.last_mut().filter(fits) {
            Some(packed) => {
                packed.body.push(b',');
                packed.body.extend_from_slice(json);
                packed.items.push(item);
            }
            None => self.bodies.push(Packed { body: [&self.head, json].concat(), items: vec![item] }),
        }
    }

    /// The bodies, in the order of their items, each with which items are in it.
    pub(crate) fn finish(self) -> impl Iterator<Item = (Bytes, Vec<usize>)> {
        self.bodies.into_iter().map(|Packed { mut body, items }| {
            body.extend_from_slice(b"]}");
            (body.into(), items)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_within_the_bound() {
        let mut packer = Packer::new(b"{\"x\":[".to_vec(), 20, 3);
        for i in 0..20 {
            packer.add(i, format!("\"{}\"", "a".repeat(i)).as_bytes());
        }
        let mut seen = Vec::new();
        for (body, items) in packer.finish() {
            assert!(body.len() <= 20 || items.len() == 1, "{body:?}");
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(value["x"].as_array().unwrap().len(), items.len());
            assert!(items.len() <= 3);
            seen.extend(items);
        }
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }
}
