//! Writing what was judged.
//!
//! Nothing is written outside of the directory, because every path was judged as text (no `..`, not absolute), every directory
//! on its way is made here before (and only links that lead out of nothing are made, after everything else), and nobody else
//! writes in the directory meanwhile: it is new, and private to this process until the job starts. So no path leads through a
//! link, and there is nothing to race with. Beside that, files are only ever made, never opened: what is there is an error.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::check::{Archive, check_cancelled};
use super::data::Unpacker;
use super::{Error, Unpacked};

impl<R: Read + Seek> Archive<R> {
    /// Writes everything into `into`: an empty directory that exists, in which nobody else writes meanwhile.
    ///
    /// Blocks. Ends soon after `cancel` is set. After an error some of it is there.
    ///
    /// # Errors
    /// What came out is not what was declared, or it could not be written: see [`Error`].
    pub fn write(mut self, into: &Path, cancel: &AtomicBool) -> Result<Unpacked, Error> {
        let failed = |entry: &str| {
            let entry = entry.to_owned();
            move |error: io::Error| Error::Write { entry, error }
        };
        for directory in &self.directories {
            check_cancelled(cancel)?;
            fs::create_dir(into.join(directory)).map_err(failed(directory))?;
        }
        let mut unpacker = Unpacker::default();
        for (data, executable) in &self.files {
            check_cancelled(cancel)?;
            let file = make_file(&into.join(&data.path), *executable).map_err(failed(&data.path))?;
            unpacker.unpack(&mut self.input, data, file, cancel)?;
        }
        for (path, target) in &self.links {
            make_link(path, target, &into.join(path))?;
        }
        Ok(Unpacked { files: self.files(), bytes: self.bytes() })
    }
}

fn make_file(path: &Path, executable: bool) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if executable { 0o755 } else { 0o644 });
    #[cfg(not(unix))]
    let _ = executable;
    options.open(path)
}

#[cfg(unix)]
fn make_link(entry: &str, target: &str, path: &Path) -> Result<(), Error> {
    std::os::unix::fs::symlink(target, path).map_err(|error| Error::Write { entry: entry.to_owned(), error })
}

#[cfg(not(unix))]
fn make_link(entry: &str, _: &str, _: &Path) -> Result<(), Error> {
    Err(Error::NoLinksHere { entry: entry.to_owned() })
}
