//! Packing ZIPs.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// What is read and packed at a time.
const CHUNK: usize = 64 * 1024;

/// What the compressor may have taken in and not given out yet. It holds a window of 32 KiB, a block, and a buffer.
const IN_FLIGHT: u64 = 256 * 1024;

/// What stands before an entry's bytes beside its name, at most.
const HEADER: u64 = 64;

/// What the index has of an entry beside its name, at most.
const INDEXED: u64 = 96;

/// What stands behind the index, at most.
const CLOSING: u64 = 128;

/// Writes a ZIP into a file, entry by entry. The same entries in the same order give the same bytes: times are not kept.
///
/// Only writes: which files there are, and in which order, is decided by whoever calls. Blocks.
///
/// ```
/// use cmdexec_core::archive::pack::Packer;
///
/// let mut packer = Packer::new(tempfile::tempfile()?);
/// packer.file("bin/tool", 0o755, u64::MAX, &b"#!/bin/sh\n"[..])?;
/// packer.symlink("tool", "bin/tool")?;
/// let zip = packer.finish()?;
/// assert!(zip.metadata()?.len() > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Packer {
    zip: ZipWriter<Target>,
    place: Place,
    /// Where the entries so far end at the latest: the last one's bytes may still be on their way.
    worst: u64,
    /// How many bytes the index at the end takes so far.
    index: u64,
    most: u64,
    buffer: Vec<u8>,
}

/// Why an entry is not in the archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A ZIP can't have an entry of this name, or has it already. The archive goes on without it.
    #[error("no entry of a ZIP can be called so, or one is")]
    Name,
    /// With it the archive would be larger than it may. It goes on without it.
    #[error("the archive would have more than {most} bytes")]
    TooLarge {
        /// The most that it may have.
        most: u64,
    },
    /// What was to be packed could not be read. The archive goes on without it.
    #[error("it could not be read: {0}")]
    Read(#[source] io::Error),
    /// The archive could not be written, and can't be finished.
    #[error("the archive could not be written: {0}")]
    Write(#[source] io::Error),
}

impl Packer {
    /// The most that `file` may take of a reader: what fits a signed 64-bit size.
    const MOST_BYTES: u64 = i64::MAX as u64;

    /// An archive without entries in an empty file.
    pub fn new(file: File) -> Self {
        let place = Place::default();
        let zip = ZipWriter::new(Target { file, place: place.clone() });
        Self { zip, place, worst: 0, index: 0, most: Self::MOST_BYTES, buffer: vec![0; CHUNK] }
    }

    /// Keeps the archive to so many bytes, its index included: an entry that would make it larger is refused and not in it.
    #[must_use]
    pub fn at_most(mut self, bytes: u64) -> Self {
        self.most = bytes;
        self
    }

    /// Adds a file with what `reader` gives, but no more than `most` bytes of it; says how many that were. `path` is relative, with
    /// `/` between names and none of them `..`; of `mode` the permissions count.
    ///
    /// `most` may be more than there is; from 4 GiB on the entry has the form that some old programs can't read.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn file(&mut self, path: &str, mode: u32, most: u64, reader: impl Read) -> Result<u64, Error> {
        let most = most.min(Self::MOST_BYTES);
        let options = options(mode).large_file(most >= u64::from(u32::MAX));
        self.make_room(path, 0)?;
        self.zip.start_file(path, options).map_err(refused)?;
        let start = self.place.lock().at;
        let mut reader = reader.take(most);
        let mut taken = 0;
        loop {
            let count = match reader.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.give_up(Error::Read(error)),
            };
            let chunk = self.buffer.get(..count).unwrap_or_default();
            self.zip.write_all(chunk).map_err(Error::Write)?;
            taken += count as u64;
            // What can't be packed grows by a few bytes a block.
            self.worst = (start + taken + taken / 500 + 64).min(self.place.lock().at + IN_FLIGHT);
            if !self.fits(self.worst, path) {
                return self.give_up(Error::TooLarge { most: self.most });
            }
        }
        self.index += in_index(path);
        Ok(taken)
    }

    /// Adds a directory; needed only for one that is empty, or for its permissions.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<(), Error> {
        self.make_room(path, 0)?;
        self.zip.add_directory(path, options(mode)).map_err(refused)?;
        self.index += in_index(path);
        Ok(())
    }

    /// Adds a symbolic link. Where it leads is not looked at.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), Error> {
        self.make_room(path, target.len() as u64)?;
        self.zip.add_symlink(path, target, options(0o777)).map_err(refused)?;
        self.index += in_index(path);
        Ok(())
    }

    /// Ends the archive, and gives back the file, which has nothing else in it. Its position is undefined.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn finish(self) -> Result<File, Error> {
        let Target { file, place } = self.zip.finish().map_err(|error| Error::Write(error.into()))?;
        let place = place.lock();
        if place.broken {
            return Err(Error::Write(io::Error::other("a part of it could not be")));
        }
        // An entry that was given up may have reached further.
        file.set_len(place.end).map_err(Error::Write)?;
        drop(place);
        Ok(file)
    }

    /// Whether there is room for a next entry of this name and so many bytes; from now on it is taken.
    fn make_room(&mut self, path: &str, bytes: u64) -> Result<(), Error> {
        if !is_name(path) {
            return Err(Error::Name);
        }
        let end = self.worst.max(self.place.lock().at) + HEADER + path.len() as u64 + bytes;
        if !self.fits(end, path) {
            return Err(Error::TooLarge { most: self.most });
        }
        self.worst = end;
        Ok(())
    }

    /// Whether the archive with entries up to `end`, this one the last, is no larger than it may be.
    fn fits(&self, end: u64, path: &str) -> bool {
        end.saturating_add(self.index + in_index(path) + CLOSING) <= self.most
    }

    /// Takes back the entry that is being written.
    fn give_up<T>(&mut self, why: Error) -> Result<T, Error> {
        self.zip.abort_file().map_err(|error| Error::Write(error.into()))?;
        let mut place = self.place.lock();
        place.end = place.at;
        self.worst = place.at;
        drop(place);
        Err(why)
    }
}

/// How many bytes of the index an entry takes at most.
fn in_index(path: &str) -> u64 {
    INDEXED + path.len() as u64
}

fn options(mode: u32) -> SimpleFileOptions {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    options.last_modified_time(DateTime::default()).unix_permissions(mode & 0o777)
}

/// Nothing of an entry is written before its name is known to be good.
fn refused(error: zip::result::ZipError) -> Error {
    match error {
        zip::result::ZipError::Io(error) => Error::Write(error),
        _ => Error::Name,
    }
}

/// Whether every reader takes this for the path of a file below it. As long as a path may be in most systems.
fn is_name(path: &str) -> bool {
    path.len() <= 4_096 && !path.contains(['\\', '\0']) && path.split('/').all(|name| !matches!(name, "" | "." | ".."))
}

/// Where the archive is written, and how far it goes.
#[derive(Debug, Clone, Default)]
struct Place(Arc<Mutex<Bounds>>);

#[derive(Debug, Default)]
struct Bounds {
    /// Where the next byte goes.
    at: u64,
    /// Where the archive ends, though there may be bytes behind it of an entry that was given up. The writer would move its
    /// index behind them.
    end: u64,
    /// A write failed. The rest goes nowhere, so that the writer can be dropped, which closes the archive, without a complaint on
    /// standard error.
    broken: bool,
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, Bounds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file as the writer sees it.
#[derive(Debug)]
struct Target {
    file: File,
    place: Place,
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut place = self.place.lock();
        if place.broken {
            return Ok(bytes.len());
        }
        let count = self.file.write(bytes).inspect_err(|error| {
            place.broken = error.kind() != io::ErrorKind::Interrupted;
        })?;
        place.at += count as u64;
        place.end = place.end.max(place.at);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Target {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut place = self.place.lock();
        let to = match to {
            SeekFrom::Start(to) => Some(to),
            SeekFrom::End(by) => place.end.checked_add_signed(by),
            // Asked before every entry.
            SeekFrom::Current(0) => return Ok(place.at),
            SeekFrom::Current(by) => place.at.checked_add_signed(by),
        };
        let to = to.ok_or(io::ErrorKind::InvalidInput)?;
        place.at = if place.broken { to } else { self.file.seek(SeekFrom::Start(to))? };
        Ok(place.at)
    }
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
