//! An entry's own header, which stands before its data and must say what the index says.

use std::io::{self, Read, Seek, SeekFrom};

use super::Error;
use super::check::Listed;
use super::input::Input;

const SIGNATURE: u32 = 0x0403_4b50;
const LEN: usize = 30;

/// Extra fields: sizes of more than 32 bits; and those of old Unix programs, where what follows 12 bytes is a link's target.
const ZIP64: u16 = 0x0001;
const UNIX: u16 = 0x000d;
const UNIX_FIXED: usize = 12;

/// Flags: encrypted, sizes follow the data, patch data, strong encryption, UTF-8, masked header.
pub(super) const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
pub(super) const SIZES_FOLLOW: u16 = 1 << 3;
pub(super) const PATCH: u16 = 1 << 5;
pub(super) const UTF8: u16 = 1 << 11;

/// Reads the header at `listed.header`, compares it with the index, and says where the data begins.
pub(super) fn check<R: Read + Seek>(input: &mut Input<R>, listed: &Listed) -> Result<u64, Error> {
    let entry = || listed.path.clone();
    let differs = |what| Error::HeadersDiffer { entry: entry(), what };
    let short = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::OutOfBounds { entry: entry() },
        _ => Error::Read(error),
    };
    input.seek(SeekFrom::Start(listed.header)).map_err(Error::Read)?;
    let mut fixed = [0; LEN];
    input.read_exact(&mut fixed).map_err(short)?;
    let fixed = Fixed(fixed);
    if fixed.u32(0) != SIGNATURE {
        return Err(differs("signature"));
    }
    let (name_len, extra_len) = (fixed.u16(26), fixed.u16(28));
    let mut rest = vec![0; usize::from(name_len) + usize::from(extra_len)];
    input.read_exact(&mut rest).map_err(short)?;
    let (name, extra) = rest.split_at(usize::from(name_len));

    let flags = fixed.u16(6);
    if (flags ^ listed.flags) & (ENCRYPTED | SIZES_FOLLOW | UTF8) != 0 {
        return Err(differs("flags"));
    }
    if fixed.u16(8) != listed.method {
        return Err(differs("method"));
    }
    if name != &*listed.raw_name {
        return Err(differs("name"));
    }
    if unix_link(extra) {
        return Err(Error::HardLink { entry: entry() });
    }
    // Zeros stand for what follows the data. Some programs write what they know all the same.
    let is_declared = |here: u64, index: u64| here == index || flags & SIZES_FOLLOW != 0 && here == 0;
    let (mut size, mut packed) = (u64::from(fixed.u32(22)), u64::from(fixed.u32(18)));
    let mut large = field(extra, ZIP64).unwrap_or_default();
    for value in [&mut size, &mut packed] {
        if *value == u64::from(u32::MAX)
            && let Some((first, rest)) = large.split_first_chunk()
        {
            *value = u64::from_le_bytes(*first);
            large = rest;
        }
    }
    if !is_declared(size, listed.size) || !is_declared(packed, listed.packed) {
        return Err(differs("size"));
    }
    if !is_declared(u64::from(fixed.u32(14)), u64::from(listed.crc)) {
        return Err(differs("checksum"));
    }
    Ok(listed.header + LEN as u64 + rest.len() as u64)
}

/// The name in an entry's record of the index as it stands there; another may have been given by an extra field.
pub(super) fn name_in_index<R: Read + Seek>(input: &mut Input<R>, record: u64) -> io::Result<Vec<u8>> {
    const LEN: u64 = 46;
    let mut len = [0; 2];
    input.seek(SeekFrom::Start(record + 28))?;
    input.read_exact(&mut len)?;
    let mut name = vec![0; usize::from(u16::from_le_bytes(len))];
    input.seek(SeekFrom::Start(record + LEN))?;
    input.read_exact(&mut name)?;
    Ok(name)
}

struct Fixed([u8; LEN]);

impl Fixed {
    fn u16(&self, at: usize) -> u16 {
        self.0.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u16::from_le_bytes(*bytes))
    }

    fn u32(&self, at: usize) -> u32 {
        self.0.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
}

/// The first extra field of a kind.
fn field(mut extra: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let (head, rest) = extra.split_first_chunk::<4>()?;
        let len = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let data = rest.get(..len)?;
        if u16::from_le_bytes([head[0], head[1]]) == kind {
            return Some(data);
        }
        extra = rest.get(len..)?;
    }
}

/// Whether an old Unix program says that the entry is a link to another.
fn unix_link(extra: &[u8]) -> bool {
    field(extra, UNIX).is_some_and(|data| data.len() > UNIX_FIXED)
}
