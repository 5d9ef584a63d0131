//! The judgement of an archive, before anything of it is written.

use std::io::{Read, Seek};
use std::sync::atomic::{AtomicBool, Ordering};

use zip::System;
use zip::read::Config;
use zip::unstable::read::ZipIterable;

use super::data::Unpacker;
use super::input::Input;
use super::tree::{Tree, What};
use super::{Error, Limits, header, link, name};

const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// An entry as the index lists it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) path: String,
    /// As it must stand in the entry's own header.
    pub(super) raw_name: Box<[u8]>,
    pub(super) kind: Kind,
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) crc: u32,
    pub(super) size: u64,
    /// Its size in the archive.
    pub(super) packed: u64,
    /// Where its own header is.
    pub(super) header: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File { executable: bool },
    Link,
}

/// Where an entry's bytes are, and what is to come out of them.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) path: String,
    pub(super) start: u64,
    pub(super) packed: u64,
    pub(super) size: u64,
    pub(super) crc: u32,
    pub(super) is_deflated: bool,
}

/// An archive that was judged and may be written.
#[derive(Debug)]
pub struct Archive<R> {
    pub(super) input: Input<R>,
    /// Each after the one that it is in.
    pub(super) directories: Vec<String>,
    /// In the order in which the archive has them.
    pub(super) files: Vec<(Data, bool)>,
    /// Path and target.
    pub(super) links: Vec<(String, String)>,
    bytes: u64,
}

impl<R: Read + Seek> Archive<R> {
    /// Judges an archive: all of it is harmless and within the limits, as far as can be seen without unpacking it.
    ///
    /// Blocks. Memory is bounded by the limits and the size of the archive's index.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn check(archive: R, limits: &Limits, cancel: &AtomicBool) -> Result<Self, Error> {
        let mut input = Input::new(archive).map_err(Error::Read)?;
        let len = input.len().map_err(Error::Read)?;
        if len > limits.unpacked {
            return Err(Error::TooLarge { limit: limits.unpacked });
        }
        let (mut listed, tree, index) = list(&mut input, limits, cancel)?;

        let bytes = listed.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.size));
        if bytes > limits.unpacked {
            return Err(Error::TooLarge { limit: limits.unpacked });
        }
        if bytes > Limits::RATIO_FROM && bytes > len.saturating_mul(limits.ratio) {
            return Err(Error::RatioTooHigh { ratio: bytes.div_ceil(len.max(1)), limit: limits.ratio });
        }

        listed.sort_by_key(|entry| entry.header);
        let mut this = Self { input, directories: tree.into_directories(), files: vec![], links: vec![], bytes };
        let mut before: Option<(u64, String)> = None;
        let mut unpacker = Unpacker::default();
        for entry in listed {
            check_cancelled(cancel)?;
            if let Some((end, other)) = before
                && entry.header < end
            {
                return Err(Error::Overlap { entry: entry.path, other });
            }
            let start = header::check(&mut this.input, &entry)?;
            let end = start.checked_add(entry.packed).filter(|end| *end <= index);
            let end = end.ok_or_else(|| Error::OutOfBounds { entry: entry.path.clone() })?;
            before = Some((end, entry.path.clone()));
            this.keep(entry, start, &mut unpacker, limits)?;
        }
        Ok(this)
    }

    /// How many files and links it has.
    pub fn files(&self) -> u64 {
        (self.files.len() + self.links.len()) as u64
    }

    /// How many directories it has, those counted that are only part of a path.
    pub fn directories(&self) -> u64 {
        self.directories.len() as u64
    }

    /// How many bytes are to come out of it; no more ever do.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn keep(&mut self, entry: Listed, start: u64, unpacker: &mut Unpacker, limits: &Limits) -> Result<(), Error> {
        let Listed { path, kind, size, packed, crc, method, .. } = entry;
        let data = Data { path, start, packed, size, crc, is_deflated: method == DEFLATED };
        match kind {
            Kind::Directory => {}
            Kind::File { executable } => self.files.push((data, executable)),
            Kind::Link => {
                let mut target = Vec::new();
                if size <= limits.path as u64 {
                    unpacker.unpack(&mut self.input, &data, &mut target, &AtomicBool::new(false))?;
                }
                let shown = name::shown(&target);
                let target = String::from_utf8(target).ok();
                match target.filter(|target| link::stays_inside(&data.path, target, limits)) {
                    Some(target) => self.links.push((data.path, target)),
                    None => return Err(Error::LinkOut { entry: data.path, target: shown }),
                }
            }
        }
        Ok(())
    }
}

pub(super) fn check_cancelled(cancel: &AtomicBool) -> Result<(), Error> {
    if cancel.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
}

/// Reads the index: what it lists, the tree that this makes, and where it begins.
fn list<R: Read + Seek>(
    input: &mut Input<R>,
    limits: &Limits,
    cancel: &AtomicBool,
) -> Result<(Vec<Listed>, Tree, u64), Error> {
    // Read record by record: nothing is kept of an index that lists more than is bearable, and what is listed twice comes twice.
    let mut index = ZipIterable::try_new(&mut *input, Config::default()).map_err(Error::of_format)?;
    if index.len() as u64 > limits.entries {
        return Err(Error::TooManyEntries { limit: limits.entries });
    }
    let mut listed = Vec::with_capacity(index.len());
    let mut tree = Tree::default();
    let mut begin = u64::MAX;
    let records = index.files().map_err(Error::of_format)?;
    while let Some(record) = records.next() {
        check_cancelled(cancel)?;
        let record = record.map_err(Error::of_format)?;
        begin = begin.min(record.central_header_start());
        let raw_name = header::name_in_index(records.reader_mut(), record.central_header_start());
        let raw_name = raw_name.map_err(|error| Error::of_format(error.into()))?;
        let flags = record.flags().as_u16();
        let inside = name::inside(record.name_raw(), flags & header::UTF8 != 0, limits)?;
        let entry = || inside.path.clone();
        let mode = match record.system() {
            System::Unix | System::OsDarwin => record.external_attributes() >> 16,
            _ => 0,
        };
        let kind = kind(&inside, mode)?;
        if flags & header::ENCRYPTED != 0 {
            return Err(Error::Encrypted { entry: entry() });
        }
        #[expect(
            deprecated,
            reason = "the number is what the headers are compared by, and there is no other way to it"
        )]
        let method = record.compression().to_u16();
        if !matches!(method, STORED | DEFLATED) || flags & header::PATCH != 0 {
            return Err(Error::UnsupportedMethod { entry: entry(), method: method_name(method) });
        }
        let (size, packed) = (record.size(), record.compressed_size());
        if method == STORED && size > packed {
            return Err(Error::SmallerThanDeclared { entry: entry(), declared: size });
        }
        if method == STORED && size < packed {
            return Err(Error::LargerThanDeclared { entry: entry(), declared: size });
        }
        if kind == Kind::Directory && size > 0 {
            return Err(Error::DirectoryWithContent { entry: entry() });
        }
        // `./`, which some programs write for the directory itself.
        if !inside.path.is_empty() {
            let what = match kind {
                Kind::Directory => What::Directory,
                Kind::File { .. } => What::File,
                Kind::Link => What::Link,
            };
            tree.add(&inside.path, what, limits)?;
        }
        listed.push(Listed {
            path: inside.path,
            raw_name: raw_name.into(),
            kind,
            flags,
            method,
            crc: record.crc32(),
            size,
            packed,
            header: record.header_start(),
        });
    }
    Ok((listed, tree, begin))
}

fn kind(inside: &name::Inside, mode: u32) -> Result<Kind, Error> {
    let entry = || inside.path.clone();
    let special = |kind| Err(Error::SpecialFile { entry: entry(), kind });
    let kind = match mode & 0o170_000 {
        // Programs that write a directory as a plain file still end its name as a directory's.
        0 | 0o100_000 if inside.is_directory || inside.path.is_empty() => Kind::Directory,
        0 | 0o100_000 => Kind::File { executable: mode & 0o111 != 0 },
        0o040_000 => Kind::Directory,
        0o120_000 if inside.is_directory || inside.path.is_empty() => {
            return Err(Error::FileAndDirectory { entry: entry() });
        }
        0o120_000 => Kind::Link,
        0o010_000 => return special("named pipe"),
        0o020_000 | 0o060_000 => return special("device"),
        0o140_000 => return special("socket"),
        _ => return special("file of no known kind"),
    };
    // On a directory these bits are common and no danger, and none is taken over.
    let bits = [(0o4000, "setuid"), (0o2000, "setgid"), (0o1000, "sticky")];
    match bits.into_iter().find(|(bit, _)| mode & bit != 0) {
        Some((_, bit)) if kind != Kind::Directory => Err(Error::PrivilegeBit { entry: entry(), bit }),
        _ => Ok(kind),
    }
}

fn method_name(method: u16) -> String {
    let name = match method {
        1 => "shrink",
        6 => "implode",
        9 => "deflate64",
        12 => "bzip2",
        14 => "lzma",
        20 | 93 => "zstd",
        95 => "xz",
        98 => "ppmd",
        99 => "encryption",
        _ => return format!("method {method}"),
    };
    name.to_owned()
}
