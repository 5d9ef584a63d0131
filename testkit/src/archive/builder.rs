//! Writes ZIPs byte by byte. Every field can be made to lie.

use std::io::Write;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// An entry. [`Entry::file`] and the like make honest ones; what is `Some` afterwards is said instead of the truth.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name in the index, and in the entry's own header unless [`Entry::local_name`] is another.
    pub name: Vec<u8>,
    /// The bytes as they stand in the archive.
    pub packed: Vec<u8>,
    /// 0: as they are; 8: deflate.
    pub method: u16,
    /// The flags in both headers. 1: encrypted, 8: sizes follow the data, 0x800: UTF-8.
    pub flags: u16,
    /// Type and permissions, as Unix has them.
    pub mode: u32,
    /// The system in the index; 3 is Unix, 0 DOS.
    pub system: u8,
    /// The checksum.
    pub crc: u32,
    /// How many bytes are to come out.
    pub size: u64,
    /// How many bytes the index says that there are in the archive.
    pub packed_size: Option<u64>,
    /// The name in the entry's own header.
    pub local_name: Option<Vec<u8>>,
    /// The size in the entry's own header.
    pub local_size: Option<u32>,
    /// The method in the entry's own header.
    pub local_method: Option<u16>,
    /// The checksum in the entry's own header.
    pub local_crc: Option<u32>,
    /// The flags in the entry's own header.
    pub local_flags: Option<u16>,
    /// Extra fields in the entry's own header.
    pub local_extra: Vec<u8>,
    /// Extra fields in the index.
    pub extra: Vec<u8>,
    /// Where the index says that the entry's own header is; then none is written.
    pub header_at: Option<u64>,
}

/// What deflate makes of bytes.
pub fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}

impl Entry {
    /// A file of these bytes, deflated.
    pub fn file(name: impl Into<Vec<u8>>, bytes: &[u8]) -> Self {
        Self { packed: deflate(bytes), method: 8, ..Self::stored(name, bytes) }
    }

    /// A file of these bytes as they are.
    pub fn stored(name: impl Into<Vec<u8>>, bytes: &[u8]) -> Self {
        let mut crc = Crc::new();
        crc.update(bytes);
        Self {
            name: name.into(),
            packed: bytes.to_vec(),
            method: 0,
            flags: 0x800,
            mode: 0o100_644,
            system: 3,
            crc: crc.sum(),
            size: bytes.len() as u64,
            packed_size: None,
            local_name: None,
            local_size: None,
            local_method: None,
            local_crc: None,
            local_flags: None,
            local_extra: vec![],
            extra: vec![],
            header_at: None,
        }
    }

    /// A directory. Its name ends with a slash.
    pub fn directory(name: &str) -> Self {
        Self::stored(name, b"").mode(0o040_755)
    }

    /// A symbolic link.
    pub fn link(name: &str, target: impl AsRef<[u8]>) -> Self {
        Self::stored(name, target.as_ref()).mode(0o120_777)
    }

    /// Another type or other permissions.
    #[must_use]
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// Changes something, in place.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// A ZIP of entries.
#[derive(Debug, Clone, Default)]
pub struct Zip {
    entries: Vec<Entry>,
    /// What stands before the first entry.
    pub before: Vec<u8>,
    /// The archive's comment.
    pub comment: Vec<u8>,
    /// How many entries it says that it has.
    pub count: Option<u16>,
    /// Where it says that its index is.
    pub index_at: Option<u32>,
}

impl Zip {
    /// A ZIP of these entries, otherwise honest.
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        Self { entries: entries.into_iter().collect(), ..Self::default() }
    }

    /// The archive.
    #[expect(clippy::cast_possible_truncation, reason = "the format's fields are small, and a lie may be any number")]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.before.clone();
        let mut index = Vec::new();
        for entry in &self.entries {
            let at = entry.header_at.unwrap_or(out.len() as u64);
            if entry.header_at.is_none() {
                local_header(entry, &mut out);
            }
            let packed = entry.packed_size.unwrap_or(entry.packed.len() as u64);
            let mut put = |bytes: &[u8]| index.extend_from_slice(bytes);
            put(b"PK\x01\x02");
            put(&[20, entry.system, 20, 0]);
            put(&entry.flags.to_le_bytes());
            put(&entry.method.to_le_bytes());
            put(&[0; 4]);
            put(&entry.crc.to_le_bytes());
            put(&(packed.min(u64::from(u32::MAX)) as u32).to_le_bytes());
            put(&(entry.size.min(u64::from(u32::MAX)) as u32).to_le_bytes());
            put(&(entry.name.len() as u16).to_le_bytes());
            put(&(entry.extra.len() as u16).to_le_bytes());
            // No comment, the first disk, no internal attributes.
            put(&[0; 6]);
            put(&(entry.mode << 16).to_le_bytes());
            put(&(at as u32).to_le_bytes());
            put(&entry.name);
            put(&entry.extra);
        }
        let index_at = self.index_at.unwrap_or(out.len() as u32);
        let count = self.count.unwrap_or(self.entries.len().min(0xFFFF) as u16);
        let index_len = index.len() as u32;
        out.extend(index);
        let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
        put(b"PK\x05\x06\0\0\0\0");
        put(&count.to_le_bytes());
        put(&count.to_le_bytes());
        put(&index_len.to_le_bytes());
        put(&index_at.to_le_bytes());
        put(&(self.comment.len() as u16).to_le_bytes());
        put(&self.comment);
        out
    }
}

#[expect(clippy::cast_possible_truncation, reason = "as above")]
fn local_header(entry: &Entry, out: &mut Vec<u8>) {
    let name = entry.local_name.as_ref().unwrap_or(&entry.name);
    let size = entry.local_size.unwrap_or(entry.size.min(u64::from(u32::MAX)) as u32);
    let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
    put(b"PK\x03\x04");
    put(&[20, 0]);
    put(&entry.local_flags.unwrap_or(entry.flags).to_le_bytes());
    put(&entry.local_method.unwrap_or(entry.method).to_le_bytes());
    put(&[0; 4]);
    put(&entry.local_crc.unwrap_or(entry.crc).to_le_bytes());
    put(&(entry.packed.len() as u32).to_le_bytes());
    put(&size.to_le_bytes());
    put(&(name.len() as u16).to_le_bytes());
    put(&(entry.local_extra.len() as u16).to_le_bytes());
    put(name);
    put(&entry.local_extra);
    put(&entry.packed);
}
