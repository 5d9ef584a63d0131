//! What must hold whatever an archive says: run by the corpus, by random damage, and by the fuzzer.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use cmdexec_core::archive::{Error, Limits, Unpacked, unpack};

/// What came of an attempt to unpack something.
#[derive(Debug)]
pub struct Attempted {
    /// What the unpacking said.
    pub result: Result<Unpacked, Error>,
    /// The directory that it was given, with what it wrote.
    pub into: PathBuf,
    _jail: tempfile::TempDir,
}

/// Limits small enough for any number of attempts.
pub fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.entries = 1_000;
    limits.unpacked = 16 << 20;
    limits
}

/// Unpacks these bytes into a directory with something beside it.
///
/// # Panics
/// If anything outside of the directory was made, changed or removed, if a link in it leads out of it, if anything but files,
/// directories and links stands in it, or more than was allowed; and if the unpacking panics.
#[expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
pub fn unpack_in_jail(bytes: &[u8], limits: &Limits) -> Attempted {
    let jail = tempfile::tempdir().expect("a directory");
    // Deep enough that a path out of the directory ends in the jail.
    let above = jail.path().join("1/2/3");
    let into = above.join("into");
    fs::create_dir_all(&into).expect("a directory");
    fs::write(above.join("beside"), "beside").expect("a file");
    let outside = || everything(jail.path(), Some(&into));
    let before = outside();

    let result = unpack(Cursor::new(bytes), &into, limits, &AtomicBool::new(false));

    assert_eq!(before, outside(), "something outside of the directory has changed");
    let inside = everything(&into, None);
    assert!(inside.len() as u64 <= limits.entries, "too much was made: {}", inside.len());
    let size: u64 = inside.values().map(|what| if let What::File { size, .. } = what { *size } else { 0 }).sum();
    assert!(size <= limits.unpacked, "{size} bytes were written");
    for (path, what) in &inside {
        match what {
            What::Link(target) => assert!(!leads_out(&into, path, target), "{} leads out", path.display()),
            What::Other => panic!("{} is something else", path.display()),
            What::File { mode, .. } => assert_eq!(mode & 0o7000, 0, "{} has {mode:o}", path.display()),
            What::Directory => {}
        }
    }
    if let Ok(unpacked) = &result {
        let files = inside.values().filter(|what| **what != What::Directory).count() as u64;
        assert_eq!(files, unpacked.files);
    }
    Attempted { result, into, _jail: jail }
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Directory,
    File { size: u64, mode: u32, bytes: Option<Vec<u8>> },
    Link(PathBuf),
    Other,
}

/// Everything below a directory, without what is to be left out.
#[expect(clippy::expect_used, reason = "a test fails by panicking")]
fn everything(top: &Path, without: Option<&Path>) -> BTreeMap<PathBuf, What> {
    let mut found = BTreeMap::new();
    let mut open = vec![top.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            let what = if metadata.is_dir() {
                if without != Some(&*path) {
                    open.push(path.clone());
                }
                What::Directory
            } else if metadata.is_symlink() {
                What::Link(fs::read_link(&path).expect("a link"))
            } else if metadata.is_file() {
                let bytes = without.is_some().then(|| fs::read(&path).expect("a file"));
                What::File { size: metadata.len(), mode: mode(&metadata), bytes }
            } else {
                What::Other
            };
            found.insert(path, what);
        }
    }
    found
}

#[cfg(unix)]
fn mode(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(metadata)
}

#[cfg(not(unix))]
fn mode(_: &fs::Metadata) -> u32 {
    0
}

/// Whether the system follows a link out of the directory: as far as it leads anywhere.
#[expect(clippy::expect_used, reason = "a test fails by panicking")]
fn leads_out(into: &Path, link: &Path, target: &Path) -> bool {
    let into = into.canonicalize().expect("a directory");
    // Where the end of it is not there, what counts is the last part of the way that is.
    let mut way = link.parent().unwrap_or(&into).join(target);
    loop {
        match way.canonicalize() {
            Ok(end) => return !end.starts_with(&into),
            Err(_) => match way.parent() {
                Some(parent) => way = parent.to_owned(),
                None => return true,
            },
        }
    }
}
