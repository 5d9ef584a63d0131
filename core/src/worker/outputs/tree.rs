//! Looking through what a job has left, which is hostile: nothing is opened by its path, but each name by its directory, and no
//! link is followed. So whatever is swapped for what, even while this reads, nothing outside is read.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::{Found, OutputLimits};
use crate::archive::pack::{Error, Packer};
use crate::archive::{Limits, stays_inside};
use crate::job::Outputs;

/// How many bytes of names are in memory at once. More are in one directory, or in those around it, only to be a nuisance.
const MOST_NAMES: usize = 64 << 20;

/// Packs what is named below `start`, a directory below `top`. An error is what kept it from being finished.
pub(super) fn pack(
    top: &Path,
    start: &Path,
    outputs: &Outputs,
    limits: OutputLimits,
    archive: File,
    given_up: &AtomicBool,
) -> Result<Found, String> {
    let mut tree = Tree {
        outputs,
        limits,
        // As much as a job may bring, so that what one leaves can be brought to another.
        paths: Limits::default(),
        given_up,
        packer: Packer::new(archive).at_most(limits.packed),
        owner: 0,
        bytes: 0,
        names: 0,
        is_full: false,
        found: Found { named: vec![false; outputs.count()], ..Found::default() },
    };
    match tree.open(top, start) {
        Ok(directory) => tree.look_through(directory, &mut String::new(), false).map_err(|Broken(message)| message)?,
        Err(error) => tree.found.warnings.note(&format!("the directory that the command started in: {}", text(error))),
    }
    let Tree { packer, found, .. } = tree;
    packer.finish().map_err(|error| error.to_string())?;
    Ok(found)
}

struct Tree<'a> {
    outputs: &'a Outputs,
    limits: OutputLimits,
    paths: Limits,
    given_up: &'a AtomicBool,
    packer: Packer,
    /// Whose the attempt's directory is.
    owner: u32,
    /// How many bytes of files were packed.
    bytes: u64,
    /// How many bytes of names are in memory.
    names: usize,
    /// No further entry is taken.
    is_full: bool,
    found: Found,
}

/// Nothing more can be packed.
struct Broken(String);

impl Tree<'_> {
    fn open(&mut self, top: &Path, start: &Path) -> Result<Dir, Errno> {
        let mut directory = Dir::open(top, FOLDER, Mode::empty())?;
        self.owner = fstat(directory.as_fd())?.st_uid;
        for part in start.components() {
            let Component::Normal(name) = part else { return Err(Errno::EINVAL) };
            directory = Dir::openat(directory.as_fd(), name, FOLDER, Mode::empty())?;
        }
        Ok(directory)
    }

    /// Packs what is named in a directory and below. `inside`: a glob named it, or one that it is in.
    fn look_through(&mut self, mut directory: Dir, path: &mut String, inside: bool) -> Result<(), Broken> {
        let names = self.list(&mut directory, path)?;
        let held: usize = names.iter().map(|(name, _)| in_memory(name)).sum();
        for (name, kind) in names {
            self.go_on()?;
            if self.is_full {
                break;
            }
            let len = path.len();
            if len > 0 {
                path.push('/');
            }
            path.push_str(&name.to_string_lossy());
            self.look_at(&directory, &name, kind, path, inside)?;
            path.truncate(len);
        }
        self.names -= held;
        Ok(())
    }

    /// What is in a directory, in an order that does not depend on the file system.
    fn list(&mut self, directory: &mut Dir, path: &str) -> Result<Vec<(CString, Option<Type>)>, Broken> {
        let mut names = Vec::new();
        for entry in directory.iter() {
            self.go_on()?;
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.found.warnings.left_out(path, &text(error));
                    break;
                }
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.names + in_memory(name) > MOST_NAMES {
                self.found.warnings.left_out(path, "some of it, because there are too many names in it");
                break;
            }
            self.names += in_memory(name);
            names.push((name.to_owned(), entry.file_type()));
        }
        names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(names)
    }

    fn go_on(&self) -> Result<(), Broken> {
        if self.given_up.load(Ordering::Relaxed) { Err(Broken("it was given up".to_owned())) } else { Ok(()) }
    }

    fn look_at(
        &mut self,
        directory: &Dir,
        name: &CStr,
        kind: Option<Type>,
        path: &mut String,
        inside: bool,
    ) -> Result<(), Broken> {
        let naming = self.outputs.naming(path);
        for glob in &naming {
            if let Some(named) = self.found.named.get_mut(*glob) {
                *named = true;
            }
        }
        let is_named = inside || !naming.is_empty();
        let is_on_the_way = || matches!(kind, None | Some(Type::Directory)) && self.outputs.may_name_below(path);
        if !(is_named || is_on_the_way()) {
            return Ok(());
        }
        let why = if name.to_str().is_err() {
            Some("its name is not UTF-8".to_owned())
        } else if path.len() > self.paths.path {
            Some(format!("its path has more than {} bytes", self.paths.path))
        } else if path.split('/').count() > self.paths.levels {
            Some(format!("it is more than {} levels deep", self.paths.levels))
        } else {
            None
        };
        if let Some(why) = why {
            self.found.warnings.left_out(path, &why);
            return Ok(());
        }
        let stat = match fstatat(directory.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(error) => {
                self.found.warnings.left_out(path, &text(error));
                return Ok(());
            }
        };
        match format_of(&stat) {
            SFlag::S_IFDIR => {
                let below = match Dir::openat(directory.as_fd(), name, FOLDER, Mode::empty()) {
                    Ok(below) => below,
                    Err(error) => {
                        self.found.warnings.left_out(path, &text(error));
                        return Ok(());
                    }
                };
                if is_named {
                    self.add(path, |packer| packer.directory(path, stat.st_mode))?;
                }
                self.look_through(below, path, is_named)
            }
            _ if !is_named => Ok(()),
            SFlag::S_IFREG => self.file(directory, name, path),
            SFlag::S_IFLNK => self.link(directory, name, path),
            other => {
                let what = match other {
                    SFlag::S_IFIFO => "it is a named pipe",
                    SFlag::S_IFSOCK => "it is a socket",
                    _ => "it is a device",
                };
                self.found.warnings.left_out(path, what);
                Ok(())
            }
        }
    }

    fn file(&mut self, directory: &Dir, name: &CStr, path: &str) -> Result<(), Broken> {
        // Should it have become a pipe just now, opening it must not wait for a writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let opened = openat(directory.as_fd(), name, flags, Mode::empty());
        let opened = opened.and_then(|file| fstat(file.as_fd()).map(|stat| (File::from(file), stat)));
        let (file, stat) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.found.warnings.left_out(path, &text(error));
                return Ok(());
            }
        };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let left = self.limits.unpacked.saturating_sub(self.bytes);
        let why = if format_of(&stat) != SFlag::S_IFREG {
            Some("it changed while it was read".to_owned())
        } else if stat.st_nlink > 1 && stat.st_uid != self.owner {
            // A job may be able to link what it can't read.
            Some("it is a hard link to a file of another user".to_owned())
        } else if size > left {
            let most = self.limits.unpacked;
            Some(format!("with its {size} bytes there would be more than {most}"))
        } else {
            None
        };
        if let Some(why) = why {
            self.found.warnings.left_out(path, &why);
            return Ok(());
        }
        let reading = Reading { file: &file, given_up: self.given_up };
        let taken = self.add(path, |packer| packer.file(path, stat.st_mode, size, reading))?;
        if let Some(taken) = taken {
            self.bytes += taken;
            let after = fstat(file.as_fd()).map_or(size, |stat| u64::try_from(stat.st_size).unwrap_or(0));
            if taken != size || after != size {
                self.found.warnings.note(&format!("{} changed while it was read", super::warnings::shown(path)));
            }
        }
        Ok(())
    }

    fn link(&mut self, directory: &Dir, name: &CStr, path: &str) -> Result<(), Broken> {
        let target = match readlinkat(directory.as_fd(), name) {
            Ok(target) => target,
            Err(error) => {
                self.found.warnings.left_out(path, &text(error));
                return Ok(());
            }
        };
        match std::str::from_utf8(target.as_bytes()) {
            Ok(target) if stays_inside(path, target, &self.paths) => {
                self.add(path, |packer| packer.symlink(path, target)).map(drop)
            }
            _ => {
                self.found.warnings.left_out(path, "the link leads out of the directory");
                Ok(())
            }
        }
    }

    /// Adds an entry, if there may be another one. `None`: it is left out.
    fn add<T>(&mut self, path: &str, add: impl FnOnce(&mut Packer) -> Result<T, Error>) -> Result<Option<T>, Broken> {
        if self.found.entries >= self.limits.entries {
            self.is_full = true;
            let most = self.limits.entries;
            let why = format!("so was all after it, because there are more than {most} of them");
            self.found.warnings.left_out(path, &why);
            // Nobody knows any more what is not there.
            self.found.named.fill(true);
            return Ok(None);
        }
        let error = match add(&mut self.packer) {
            Ok(added) => {
                self.found.entries += 1;
                return Ok(Some(added));
            }
            Err(error) => error,
        };
        match error {
            Error::Write(_) => return Err(Broken(error.to_string())),
            Error::Read(_) if self.given_up.load(Ordering::Relaxed) => {}
            Error::TooLarge { most } => {
                self.found.warnings.left_out(path, &format!("with it their ZIP would have more than {most} bytes"));
            }
            Error::Name | Error::Read(_) => self.found.warnings.left_out(path, &error.to_string()),
        }
        Ok(None)
    }
}

const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

fn format_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// How much of the memory a name takes.
fn in_memory(name: &CStr) -> usize {
    name.count_bytes() + 48
}

fn text(error: Errno) -> String {
    match error {
        Errno::ELOOP | Errno::ENOTDIR => "it changed while it was read".to_owned(),
        error => error.desc().to_lowercase(),
    }
}

/// A file, for as long as somebody waits for it.
struct Reading<'a> {
    file: &'a File,
    given_up: &'a AtomicBool,
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err(io::Error::other("it was given up"));
        }
        self.file.read(buffer)
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
