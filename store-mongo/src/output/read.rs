//! What attempts wrote, for readers.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::{Bytes, BytesMut};
use cmdexec_core::executor::Stream;
use cmdexec_core::id::JobId;
use cmdexec_core::store::{Chunk, Extent};
use cmdexec_core::time::Timestamp;
use mongodb::bson::{Document, RawDocument, doc};

use super::head::{Head, View};
use super::segment::{self, Piece, Shape, unsigned};
use crate::client::{Mongo, Op, binary, bounded};
use crate::error::Error;
use crate::jobs::{among, each};
use crate::schema;

/// How many bytes of segments are read at once at the most, beyond one.
const AT_ONCE: u64 = 1 << 20;

/// How often a segment may go while it is looked for.
const TRIES: u32 = 20;

/// The order in which segments are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Up,
    Down,
}

pub(crate) async fn extent(mongo: &Mongo, job: JobId, attempt: u32) -> Result<Extent, Error> {
    let logs = mongo.collection(schema::LOGS);
    let fields = doc! { "attempt": 1, "next": 1, "bytes": 1, "dropped": 1, "trimmed": 1 };
    let find = logs.find_one(among(&[job])).projection(fields);
    let Some(row) = bounded(async { Ok(find.await?) }).await? else { return Ok(Extent::default()) };
    let number = |field: &str| unsigned(row.get_i64(field).map_err(|error| Error::row("a job's output", error))?);
    if number("attempt")? != u64::from(attempt) {
        return Ok(Extent::default());
    }
    Ok(Extent {
        next: number("next")?,
        bytes: number("bytes")?,
        dropped: number("dropped")?,
        trimmed: number("trimmed")?,
    })
}

pub(crate) async fn read(
    mongo: &Mongo,
    job: JobId,
    attempt: u32,
    from: u64,
    max_bytes: usize,
) -> Result<Vec<Chunk>, Error> {
    let is_wanted = |view: &View| view.last >= from;
    let is_enough = |pieces: &BTreeMap<u64, Piece>, below: u64| {
        let ready = pieces.range(from..below.max(from)).map(|(_, piece)| piece.chunk.bytes.len());
        ready.fold(0, usize::saturating_add) >= max_bytes.max(1)
    };
    let found = gather(mongo, job, attempt, Order::Up, segment::pieces, is_wanted, is_enough).await?;
    let mut page = Vec::new();
    let mut room = max_bytes;
    for Piece { chunk, .. } in found.into_values().filter(|piece| piece.chunk.seq >= from) {
        if chunk.bytes.len() > room && !page.is_empty() {
            break;
        }
        room = room.saturating_sub(chunk.bytes.len());
        page.push(chunk);
    }
    Ok(page)
}

pub(crate) async fn tail(
    mongo: &Mongo,
    job: JobId,
    attempt: u32,
    stream: Stream,
    max_bytes: usize,
) -> Result<Bytes, Error> {
    if max_bytes == 0 {
        return Ok(Bytes::new());
    }
    let is_enough = |pieces: &BTreeMap<u64, Piece>, above: u64| {
        let ready = pieces.range(above..).map(|(_, piece)| &piece.chunk).filter(|chunk| chunk.stream == stream);
        ready.map(|chunk| chunk.bytes.len()).fold(0, usize::saturating_add) >= max_bytes
    };
    let found = gather(mongo, job, attempt, Order::Down, segment::pieces, |_| true, is_enough).await?;
    let mut cuts = Vec::new();
    let mut room = max_bytes;
    for bytes in found.into_values().rev().map(|piece| piece.chunk).filter(|c| c.stream == stream).map(|c| c.bytes) {
        if room == 0 {
            break;
        }
        let cut = bytes.slice(bytes.len().saturating_sub(room)..);
        room -= cut.len();
        cuts.push(cut);
    }
    let mut tail = BytesMut::with_capacity(max_bytes - room);
    cuts.iter().rev().for_each(|cut| tail.extend_from_slice(cut));
    Ok(tail.freeze())
}

pub(crate) async fn index(
    mongo: &Mongo,
    job: JobId,
    attempt: u32,
    from: u64,
    limit: usize,
) -> Result<Vec<(u64, u64)>, Error> {
    let found = shapes(mongo, job, attempt, from, limit).await?;
    Ok(found.map(|shape| (shape.seq, shape.len)).collect())
}

/// What is known of pieces without their bytes, from `from` on, at most `limit`.
async fn shapes(
    mongo: &Mongo,
    job: JobId,
    attempt: u32,
    from: u64,
    limit: usize,
) -> Result<impl Iterator<Item = Shape>, Error> {
    let is_wanted = |view: &View| view.last >= from;
    let is_enough = |shapes: &BTreeMap<u64, Shape>, below: u64| shapes.range(from..below.max(from)).count() >= limit;
    let found = gather(mongo, job, attempt, Order::Up, segment::shapes, is_wanted, is_enough).await?;
    Ok(found.into_values().filter(move |shape| shape.seq >= from).take(limit))
}

pub(crate) async fn times(
    mongo: &Mongo,
    job: JobId,
    attempt: u32,
    from: u64,
    limit: usize,
) -> Result<Vec<(u64, Timestamp)>, Error> {
    let found = shapes(mongo, job, attempt, from, limit).await?;
    Ok(found.map(|shape| (shape.seq, shape.at)).collect())
}

pub(crate) async fn since(mongo: &Mongo, job: JobId, attempt: u32, time: Timestamp) -> Result<Option<u64>, Error> {
    let is_wanted = |view: &View| view.at >= time;
    let is_enough =
        |shapes: &BTreeMap<u64, Shape>, below: u64| shapes.range(..below).any(|(_, shape)| shape.at >= time);
    let found = gather(mongo, job, attempt, Order::Up, segment::shapes, is_wanted, is_enough).await?;
    Ok(found.into_values().find(|shape| shape.at >= time).map(|shape| shape.seq))
}

/// What a piece is read as: with its bytes or without.
trait Part: Clone {
    const FIELDS: fn() -> Document;
    fn of(piece: Piece) -> Self;
    fn seq(&self) -> u64;
}

impl Part for Piece {
    const FIELDS: fn() -> Document = Document::new;

    fn of(piece: Piece) -> Self {
        piece
    }

    fn seq(&self) -> u64 {
        self.chunk.seq
    }
}

impl Part for Shape {
    const FIELDS: fn() -> Document = || doc! { "bytes": 0 };

    fn of(piece: Piece) -> Self {
        piece.shape()
    }

    fn seq(&self) -> u64 {
        self.seq
    }
}

/// Reads the head, and then segment after segment until there is enough.
///
/// `is_enough` is asked with what is there and the number before (or from) which nothing can be missing any more.
async fn gather<P: Part>(
    mongo: &Mongo,
    job: JobId,
    attempt: u32,
    order: Order,
    decode: fn(&RawDocument) -> Result<Vec<P>, Error>,
    is_wanted: impl Fn(&View) -> bool,
    is_enough: impl Fn(&BTreeMap<u64, P>, u64) -> bool,
) -> Result<BTreeMap<u64, P>, Error> {
    for _ in 0..TRIES {
        let logs = mongo.collection(schema::LOGS);
        let Some(row) = bounded(async { Ok(logs.find_one(among(&[job])).await?) }).await? else { break };
        let head = Head::read(&row)?;
        if head.attempt != attempt {
            break;
        }
        let mut views: Vec<View> = head.views.iter().copied().filter(&is_wanted).collect();
        match order {
            Order::Up => views.sort_by_key(|view| view.first),
            Order::Down => views.sort_by_key(|view| std::cmp::Reverse(view.last)),
        }
        let mut found: BTreeMap<u64, P> =
            head.newest.into_values().map(|piece| (piece.chunk.seq, P::of(piece))).collect();
        let mut left = views.as_slice();
        let is_whole = loop {
            let border = match (order, left.first()) {
                (Order::Up, Some(next)) => next.first,
                (Order::Down, Some(next)) => next.last.saturating_add(1),
                (_, None) => break true,
            };
            if is_enough(&found, border) {
                // What lies beyond may have neighbours that were not read.
                match order {
                    Order::Up => drop(found.split_off(&border)),
                    Order::Down => found = found.split_off(&border),
                }
                break true;
            }
            let mut bytes = 0;
            let some = left.iter().take_while(|view| {
                let fits = bytes < AT_ONCE;
                bytes += view.bytes;
                fits
            });
            let (now, later) = left.split_at(some.count().min(left.len()));
            left = later;
            let parts = load(mongo, now, decode).await?;
            if now.iter().any(|view| !parts.contains_key(&view.segment)) {
                break false;
            }
            for view in now {
                for part in parts.get(&view.segment).into_iter().flatten() {
                    if view.shows(part.seq()) {
                        // Two views may show parts of one segment.
                        found.insert(part.seq(), part.clone());
                    }
                }
            }
        };
        if is_whole {
            return Ok(found);
        }
        // A segment went with what it had, since the head was read: what has come in its place is in the head now.
    }
    Ok(BTreeMap::new())
}

async fn load<P: Part>(
    mongo: &Mongo,
    views: &[View],
    decode: fn(&RawDocument) -> Result<Vec<P>, Error>,
) -> Result<HashMap<Op, Vec<P>>, Error> {
    let ids: HashSet<Op> = views.iter().map(|view| view.segment).collect();
    let ids: Vec<_> = ids.into_iter().map(binary).collect();
    let segments = mongo.collection(schema::SEGMENTS);
    let find = segments.find(doc! { "_id": { "$in": ids } }).projection((P::FIELDS)());
    let mut found = HashMap::with_capacity(views.len());
    each(bounded(async { Ok(find.await?) }).await?, |document| {
        let id = document.get_binary("_id").map_err(|error| Error::row("a segment's id", error))?;
        let id = id.bytes.try_into().map_err(|error| Error::row("a segment's id", error))?;
        found.insert(id, decode(document)?);
        Ok(())
    })
    .await?;
    Ok(found)
}
