//! Conditional writes of records.

use cmdexec_core::store::{RecordWrite, Written};

use super::facts::RecordFact;
use super::plan::Plan;
use super::script::{Part, Span};
use crate::read::column;

/// What becomes of a record, however often the group writes it.
#[derive(Debug)]
pub(super) struct Put {
    value: Span,
    fact: RecordFact,
}

impl Plan<'_> {
    pub(super) fn put_record(&mut self, kind: &str, write: &RecordWrite) -> Written {
        let now = self.now;
        let name = (kind.to_owned(), write.key.clone());
        let fact = self.facts.records.get(&name);
        let version = match fact.filter(|fact| fact.expires.is_none_or(|end| end > now.as_millis())) {
            Some(fact) => fact.version,
            None if write.version > 0 => return Written::Missing,
            None => 0,
        };
        if version != write.version {
            return Written::Stale;
        }
        let Some(value) = &write.value else {
            self.facts.records.remove(&name);
            self.records.insert(name, None);
            return Written::Yes;
        };
        let fact = RecordFact { version: version + 1, expires: write.ttl.map(|ttl| now.after(ttl).as_millis()) };
        let value = self.script.put(value);
        self.facts.records.insert(name.clone(), fact);
        self.records.insert(name, Some(Put { value, fact }));
        Written::Yes
    }

    pub(super) fn write_records(&mut self) {
        for ((kind, key), put) in std::mem::take(&mut self.records) {
            let kind = self.script.put(kind.as_bytes());
            let key = self.script.put(key.as_bytes());
            let name = [kind.at, kind.len, key.at, key.len];
            match put {
                None => self.script.row(Part::RemoveRecords, &name),
                Some(Put { value, fact }) => {
                    let rest = [value.at, value.len, Some(column::signed(fact.version)), fact.expires];
                    let cells: Vec<Option<i64>> = name.into_iter().chain(rest).collect();
                    self.script.row(Part::PutRecords, &cells);
                }
            }
        }
    }
}
