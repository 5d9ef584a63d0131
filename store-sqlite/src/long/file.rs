//! A job's file.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::path::Path;

use bytes::Bytes;

use super::Extent;

/// Whether a part of a file can be given back to the disk here.
pub(super) const CAN_PUNCH: bool = cfg!(target_os = "linux");

/// What disks give back is whole blocks, so that pieces begin at one. File systems with larger blocks give back less.
const BLOCK: u64 = 4096;

/// A job's file, open for writing at its end.
#[derive(Debug)]
pub(super) struct Writing {
    file: File,
    /// Nothing is at or after this.
    end: u64,
}

impl Writing {
    /// Opens it, or makes it; the answer says whether it was made.
    pub(super) fn open(path: &Path) -> Result<(Self, bool)> {
        let mut options = OpenOptions::new();
        options.write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(path) {
            Ok(file) => {
                let end = file.metadata()?.len();
                Ok((Self { file, end }, false))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let file = options.create_new(true).open(path)?;
                Ok((Self { file, end: 0 }, true))
            }
            Err(error) => Err(error),
        }
    }

    /// Where the end is.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// What was written after this place is to be written over.
    pub(super) fn back_to(&mut self, end: u64) {
        self.end = end;
    }

    /// Writes a piece behind the others. Not durable before [`Writing::sync`]; after an error the end is where it was.
    pub(super) fn add(&mut self, bytes: &Bytes) -> Result<Extent> {
        let place = self.end.next_multiple_of(BLOCK);
        self.file.seek(SeekFrom::Start(place))?;
        self.file.write_all(bytes)?;
        let length = bytes.len() as u64;
        self.end = place + length;
        Ok(Extent { place, length })
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data()
    }

    /// Gives extents back to the disk. They read as zeros, if they are read.
    pub(super) fn punch(&self, extents: &[Extent]) -> Result<()> {
        let mut hole: Option<(u64, u64)> = None;
        for extent in extents {
            let (start, end) = (extent.place, (extent.place + extent.length).next_multiple_of(BLOCK));
            hole = match hole {
                Some((first, last)) if last == start => Some((first, end)),
                Some(other) => {
                    punch(&self.file, other)?;
                    Some((start, end))
                }
                None => Some((start, end)),
            };
        }
        hole.map_or(Ok(()), |hole| punch(&self.file, hole))
    }
}

#[cfg(target_os = "linux")]
fn punch(file: &File, (start, end): (u64, u64)) -> Result<()> {
    use nix::fcntl::{FallocateFlags, fallocate};
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let signed = |n: u64| i64::try_from(n).map_err(|_| ErrorKind::FileTooLarge);
    Ok(fallocate(file, flags, signed(start)?, signed(end - start)?)?)
}

#[cfg(not(target_os = "linux"))]
fn punch(_: &File, _: (u64, u64)) -> Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Whether files of this folder can be punched: file systems differ.
pub(super) fn can_punch(folder: &Path) -> Result<bool> {
    let path = folder.join("probe");
    let (mut open, _) = Writing::open(&path)?;
    let can = open.add(&Bytes::from_static(b"probe")).and_then(|extent| open.punch(&[extent]));
    drop(open);
    std::fs::remove_file(&path)?;
    match can {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads extents; `None`: the file is not there, or ends before.
pub(super) fn read(path: &Path, extents: &[Extent]) -> Result<Option<Vec<Bytes>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let mut pieces = Vec::with_capacity(extents.len());
    for extent in extents {
        // Also keeps a damaged row from asking for more memory than there is a file.
        if extent.place.checked_add(extent.length).is_none_or(|end| end > length) {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(extent.place))?;
        let mut bytes = Vec::with_capacity(usize::try_from(extent.length).map_err(|_| ErrorKind::FileTooLarge)?);
        (&file).take(extent.length).read_to_end(&mut bytes)?;
        pieces.push(Bytes::from(bytes));
    }
    Ok(Some(pieces))
}
