//! Conditional updates of many documents in one command, and finding out which were applied: the command's reply only
//! counts, and of a command that had to be sent twice not even that.

use std::collections::{HashMap, HashSet};

use cmdexec_core::id::JobId;
use cmdexec_core::store::Written;
use mongodb::bson::{Binary, RawDocumentBuf, doc};

use crate::client::{Mongo, Op, binary, bounded};
use crate::error::Error;
use crate::jobs::{among, each, id_of};

/// A document that is to be written if its version is still this one; then its version is one more, and its `op` this.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    pub(crate) id: JobId,
    pub(crate) version: i64,
    pub(crate) op: Op,
}

/// Where an item's document stands after the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// This operation wrote it last.
    Applied,
    /// It was not written by this operation.
    Stale,
    /// It was written more than once since, so that the document no longer tells whether once by this operation.
    Unclear,
    Missing,
}

/// Sends one statement for each item, and says what became of it. Two round trips at the most, whatever the number.
pub(crate) async fn update(
    mongo: &Mongo,
    collection: &str,
    items: &[Item],
    statements: Vec<RawDocumentBuf>,
) -> Result<Vec<Written>, Error> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let count = mongo.update_many(collection, statements).await?;
    if count == items.len() as u64 {
        return Ok(vec![Written::Yes; items.len()]);
    }
    Ok(judge(&look(mongo, collection, items).await?, count))
}

/// What became of each item, from the documents.
async fn look(mongo: &Mongo, collection: &str, items: &[Item]) -> Result<Vec<Found>, Error> {
    let ids: HashSet<JobId> = items.iter().map(|item| item.id).collect();
    let ids: Vec<JobId> = ids.into_iter().collect();
    let collection = mongo.collection(collection);
    let find = collection.find(among(&ids)).projection(doc! { "version": 1, "op": 1 });
    let cursor = bounded(async { Ok(find.await?) }).await?;
    let mut now = HashMap::with_capacity(ids.len());
    each(cursor, |document| {
        let op = document.get_binary("op").map_err(|error| Error::row("op", error))?;
        let version = document.get_i64("version").map_err(|error| Error::row("version", error))?;
        now.insert(id_of(document, "_id")?, (version, binary(op.bytes)));
        Ok(())
    })
    .await?;
    Ok(items.iter().map(|item| item.judge(now.get(&item.id))).collect())
}

impl Item {
    fn judge(&self, now: Option<&(i64, Binary)>) -> Found {
        let Some((version, op)) = now else { return Found::Missing };
        match version.saturating_sub(self.version) {
            1 if op.bytes == self.op => Found::Applied,
            2.. => Found::Unclear,
            _ => Found::Stale,
        }
    }
}

/// The answers. `count` is how many the last try of the command has applied: it decides about what is unclear, unless
/// some of that was and some was not. Then all of it counts as stale: who reads again and decides again finds out.
fn judge(found: &[Found], count: u64) -> Vec<Written> {
    let how_many = |what| found.iter().filter(|found| **found == what).count() as u64;
    let unclear_were_applied = count == how_many(Found::Applied) + how_many(Found::Unclear);
    let answer = |found: &Found| match found {
        Found::Applied => Written::Yes,
        Found::Unclear if unclear_were_applied => Written::Yes,
        Found::Unclear | Found::Stale => Written::Stale,
        Found::Missing => Written::Missing,
    };
    found.iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unclear_is_decided_by_the_count() {
        use Found::{Applied, Missing, Stale, Unclear};
        use Written::Yes;
        let found = [Applied, Unclear, Stale, Missing];
        assert_eq!(judge(&found, 2), [Yes, Yes, Written::Stale, Written::Missing]);
        assert_eq!(judge(&found, 1), [Yes, Written::Stale, Written::Stale, Written::Missing]);
        // Of two one: nobody knows which. And a repetition of what was applied by the first try counts nothing.
        assert_eq!(judge(&[Unclear, Unclear], 1), [Written::Stale; 2]);
        assert_eq!(judge(&[Applied, Unclear], 0), [Yes, Written::Stale]);
    }

    #[test]
    fn a_document_tells_who_wrote_it() {
        let item = Item { id: JobId::from_bytes([1; 16]), version: 4, op: [7; 16] };
        let now = |version, op: [u8; 16]| item.judge(Some(&(version, binary(op))));
        assert_eq!(now(5, [7; 16]), Found::Applied);
        assert_eq!((now(5, [8; 16]), now(4, [8; 16]), now(3, [8; 16])), (Found::Stale, Found::Stale, Found::Stale));
        assert_eq!((now(6, [8; 16]), item.judge(None)), (Found::Unclear, Found::Missing));
    }
}
