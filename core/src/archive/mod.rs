//! Unpacking ZIPs that somebody else made, and packing our own ([`pack`]).
//!
//! Everything is judged before anything is written: [`Archive::check`] reads the whole index, every entry's own header and every
//! link, and refuses the archive as a whole for one bad entry, with an [`Error`] that says which and why. [`Archive::write`] then
//! writes, and holds what comes out against what was declared.
//!
//! What is refused: names that lead out of the directory in any spelling, links that do, hard links, devices, setuid bits, names
//! that are one name to some file system, encryption, entries that overlap or whose two headers differ, and more than the
//! [`Limits`]. Archives inside of archives are files like any other; nobody unpacks them here. Data before the archive (a
//! self-extracting one) and comments of any length are fine.
//!
//! What is kept of an entry beside its bytes is whether it is executable. Modes, owners and times are not taken from strangers.
//!
//! ```
//! use std::io::Cursor;
//! use std::sync::atomic::AtomicBool;
//!
//! use cmdexec_core::archive::{Error, Limits, unpack};
//!
//! # let into = tempfile::tempdir()?;
//! let empty = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
//! let unpacked = unpack(Cursor::new(empty), into.path(), &Limits::default(), &AtomicBool::new(false))?;
//! assert_eq!(unpacked.files, 0);
//!
//! let refused = unpack(Cursor::new("no ZIP"), into.path(), &Limits::default(), &AtomicBool::new(false));
//! assert!(matches!(refused, Err(Error::NotAnArchive { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod check;
mod data;
mod error;
mod header;
mod input;
mod limits;
mod link;
mod name;
pub mod pack;
mod tree;
mod write;

use std::io::{Read, Seek};
use std::path::Path;
use std::sync::atomic::AtomicBool;

pub use check::Archive;
pub use error::Error;
pub use limits::Limits;
pub(crate) use link::stays_inside;

/// What came out of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// How many files and links.
    pub files: u64,
    /// How many bytes they have together.
    pub bytes: u64,
}

/// Checks an archive and unpacks it into `into`: an empty directory that exists, and in which nobody else writes meanwhile.
///
/// Blocks. Ends soon after `cancel` is set. After an error the directory may have been filled in part; if the error came from the
/// check, it is untouched. Nothing is written outside of it, whatever the archive holds.
///
/// # Errors
/// See [`Error`]; [`Error::is_the_archives`] tells the archive's faults from this machine's.
pub fn unpack(archive: impl Read + Seek, into: &Path, limits: &Limits, cancel: &AtomicBool) -> Result<Unpacked, Error> {
    Archive::check(archive, limits, cancel)?.write(into, cancel)
}
