//! Unpacking a ZIP that somebody else made, into a directory that nobody else uses.
//!
//! Everything is judged before anything is written: names that lead out of the directory, names given twice, special files, links
//! that point out of it, and more than is bearable. What is declared and what comes out must agree.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use zip::ZipArchive;
use zip::read::{Config, ZipFile};

/// How many entries a ZIP may have.
const MOST_ENTRIES: usize = 100_000;

/// How many bytes may come out of it, and how many it may have itself.
pub(super) const MOST_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// How long a path in it may be, and what a link points to.
const LONGEST_PATH: usize = 1_024;

/// Why a ZIP was not unpacked.
#[derive(Debug)]
pub(super) enum Error {
    /// Something is wrong with it; said for its owner.
    Archive(String),
    /// Something is wrong with this machine.
    Io(io::Error),
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::Archive(message)
    }
}

/// What an entry is to become.
enum What {
    Directory,
    File { executable: bool },
    Link,
}

struct Entry {
    index: usize,
    name: String,
    path: PathBuf,
    size: u64,
    what: What,
}

/// Unpacks `archive` into the empty directory `into`. Gives up soon after `given_up` is set.
pub(super) fn unpack(archive: &Path, into: &Path, given_up: &AtomicBool) -> Result<(), Error> {
    let mut file = BufReader::new(File::open(archive).map_err(Error::Io)?);
    // Counted before the index of it is built, which takes memory for each entry.
    let count = zip::unstable::read::ZipIterable::try_new(&mut file, Config::default()).map_err(broken)?.len();
    if count > MOST_ENTRIES {
        return Err(format!("it has {count} entries; at most {MOST_ENTRIES} are allowed").into());
    }
    let mut archive = ZipArchive::new(file).map_err(broken)?;
    let entries = judge(&mut archive)?;
    // Links last, so that nothing is ever written through one.
    let (links, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| matches!(entry.what, What::Link));
    for entry in others.iter().chain(&links) {
        if given_up.load(Ordering::Relaxed) {
            return Err("it was given up".to_owned().into());
        }
        let path = into.join(&entry.path);
        let mut file = archive.by_index(entry.index).map_err(broken)?;
        match entry.what {
            What::Directory => fs::create_dir_all(&path).map_err(|error| unwritable(entry, error))?,
            What::File { executable } => write_file(&mut file, entry, &path, executable, given_up)?,
            What::Link => write_link(&mut file, entry, &path)?,
        }
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn broken(error: zip::result::ZipError) -> Error {
    Error::Archive(error.to_string())
}

/// A name that the file system does not take, or that is a file and a directory at once, is the archive's fault.
fn unwritable(entry: &Entry, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::PermissionDenied => Error::Io(error),
        _ => Error::Archive(format!("{:?} can't be written: {error}", entry.name)),
    }
}

/// What is to be written, if all of it may be.
fn judge<R: Read + Seek>(archive: &mut ZipArchive<R>) -> Result<Vec<Entry>, Error> {
    if archive.has_duplicate_names() {
        return Err("it has a name twice".to_owned().into());
    }
    let mut entries = Vec::with_capacity(archive.len());
    let mut names = HashSet::new();
    let mut links = HashSet::new();
    let mut total = 0_u64;
    for index in 0..archive.len() {
        // Raw: without decompressing, so that an entry in a method that we don't know is named.
        let file = archive.by_index_raw(index).map_err(broken)?;
        let name = file.name().map_err(broken)?.into_owned();
        let path = inside(&name).map_err(|why| format!("{name:?} {why}"))?;
        if file.encrypted() {
            return Err(format!("{name:?} is encrypted").into());
        }
        total = total.saturating_add(file.size());
        if total > MOST_BYTES {
            return Err(format!("more than {MOST_BYTES} bytes would come out of it").into());
        }
        let what = what(&file).map_err(|why| format!("{name:?} {why}"))?;
        // `./`, which some programs write for the directory itself.
        if path.as_os_str().is_empty() {
            continue;
        }
        if !names.insert(path.clone()) && !matches!(what, What::Directory) {
            return Err(format!("it has {name:?} twice").into());
        }
        if matches!(what, What::Link) {
            links.insert(path.clone());
        }
        entries.push(Entry { index, name, path, size: file.size(), what });
    }
    let through = entries.iter().find(|entry| entry.path.ancestors().skip(1).any(|parent| links.contains(parent)));
    match through {
        Some(entry) => Err(format!("{:?} leads through a link", entry.name).into()),
        None => Ok(entries),
    }
}

/// The path that a name in a ZIP means, without what does not change it.
fn inside(name: &str) -> Result<PathBuf, &'static str> {
    if name.len() > LONGEST_PATH {
        return Err("is longer than 1024 bytes");
    }
    if name.contains(['\\', '\0']) {
        return Err("has a backslash or NUL in its name");
    }
    let mut path = PathBuf::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err("leads out of the directory by `..`"),
            Component::RootDir | Component::Prefix(_) => return Err("is an absolute path"),
        }
    }
    if path.as_os_str().is_empty() && !name.starts_with('.') {
        return Err("is no name");
    }
    Ok(path)
}

fn what<R: Read>(file: &ZipFile<'_, R>) -> Result<What, &'static str> {
    const TYPE: u32 = 0o170_000;
    if file.is_dir() {
        return Ok(What::Directory);
    }
    let mode = file.unix_mode().unwrap_or(0);
    match mode & TYPE {
        0o120_000 => Ok(What::Link),
        0 | 0o100_000 => Ok(What::File { executable: mode & 0o111 != 0 }),
        0o040_000 => Ok(What::Directory),
        _ => Err("is a device, pipe or socket"),
    }
}

fn write_file<R: Read>(
    file: &mut ZipFile<'_, R>,
    entry: &Entry,
    path: &Path,
    executable: bool,
    given_up: &AtomicBool,
) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| unwritable(entry, error))?;
    }
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if executable { 0o755 } else { 0o644 });
    #[cfg(not(unix))]
    let _ = executable;
    let mut out = options.open(path).map_err(|error| unwritable(entry, error))?;
    let mut buffer = vec![0; 64 * 1024];
    let mut left = entry.size;
    loop {
        if given_up.load(Ordering::Relaxed) {
            return Err("it was given up".to_owned().into());
        }
        let len = file.read(&mut buffer).map_err(|error| format!("{:?} is damaged: {error}", entry.name))?;
        // What is declared was added up against the bound, so no more may come.
        left = left.checked_sub(len as u64).ok_or_else(|| format!("{:?} is larger than it says", entry.name))?;
        let Some(bytes) = buffer.get(..len).filter(|bytes| !bytes.is_empty()) else { break };
        out.write_all(bytes).map_err(Error::Io)?;
    }
    if left > 0 {
        return Err(format!("{:?} is smaller than it says", entry.name).into());
    }
    Ok(())
}

fn write_link<R: Read>(file: &mut ZipFile<'_, R>, entry: &Entry, path: &Path) -> Result<(), Error> {
    let mut target = String::new();
    let read = file.take(LONGEST_PATH as u64 + 1).read_to_string(&mut target);
    read.map_err(|error| format!("the link {:?} is damaged: {error}", entry.name))?;
    if !stays_inside(&entry.path, &target) {
        return Err(format!("the link {:?} points out of the directory", entry.name).into());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| unwritable(entry, error))?;
    }
    #[cfg(unix)]
    return std::os::unix::fs::symlink(target, path).map_err(|error| unwritable(entry, error));
    #[cfg(not(unix))]
    Err(format!("{:?} is a link, which this worker's system does not have", entry.name).into())
}

/// Whether a link at `path` to `target` ends inside the directory, whatever other links there are.
///
/// `..` may only stand at the front: there it counts from the link's own place, whose parents are real directories. After a name
/// it would count from wherever that name leads, if it is a link itself.
fn stays_inside(path: &Path, target: &str) -> bool {
    if target.is_empty() || target.len() > LONGEST_PATH || target.contains(['\\', '\0']) {
        return false;
    }
    let mut depth = path.components().count().saturating_sub(1);
    let mut named = false;
    for component in Path::new(target).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(_) => named = true,
            Component::ParentDir if !named && depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
