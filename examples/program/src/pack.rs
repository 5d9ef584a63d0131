//! A directory as a ZIP, for a job to bring.
//!
//! What a `.gitignore` or `.cmdexecignore` leaves out is left out, and so is `.git` itself. The same files give the same bytes, so
//! that what was uploaded before need not be uploaded again.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use cmdexec_core::archive::pack::Packer;
use cmdexec_core::files::FileId;
use ignore::WalkBuilder;
use sha2::{Digest, Sha256};

/// The file that says what to leave out, beside `.gitignore` and in its language.
pub const IGNORE_FILE: &str = ".cmdexecignore";

/// A ZIP.
#[derive(Debug)]
pub struct Packed {
    /// The ZIP, read from its beginning. A directory's is a temporary file that goes away with this.
    pub file: File,
    /// The digest of its bytes.
    pub id: FileId,
    /// How many bytes it has.
    pub size: u64,
    /// How many files and links were packed.
    pub files: usize,
    /// What is in the directory and not in the ZIP because it is neither file, link nor directory.
    pub left_out: Vec<PathBuf>,
}

/// Why a directory can't be packed: what is the matter, and with which path.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}", path = .path.display())]
pub struct Error {
    path: PathBuf,
    what: String,
}

impl Error {
    fn new(path: &Path, what: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), what: what.to_string() }
    }
}

/// Packs a directory, by way of a temporary file: it may be larger than memory. Blocks.
///
/// # Errors
/// Something can't be read; a name is not UTF-8, which not every worker could write; there is no room for the temporary file.
pub fn pack(root: &Path) -> Result<Packed, Error> {
    let metadata = fs::metadata(root).map_err(|error| Error::new(root, error))?;
    if !metadata.is_dir() {
        return Err(Error::new(root, "it is no directory"));
    }
    let temporary = tempfile::tempfile().map_err(|error| Error::new(&std::env::temp_dir(), error))?;
    let mut zip = Packer::new(temporary);
    let (mut files, mut left_out) = (0, Vec::new());
    for entry in walk(root) {
        let entry = entry.map_err(|error| Error::new(root, error))?;
        let Ok(name) = entry.path().strip_prefix(root) else { continue };
        if name.as_os_str().is_empty() {
            continue;
        }
        match add(&mut zip, entry.path(), name).map_err(|error| Error::new(entry.path(), error))? {
            Added::File => files += 1,
            Added::Directory => {}
            Added::Nothing => left_out.push(name.to_owned()),
        }
    }
    let broken = |error: &dyn fmt::Display| Error::new(&std::env::temp_dir(), error);
    let file = zip.finish().map_err(|error| broken(&error))?;
    let (file, id, size) = digest(file).map_err(|error| broken(&error))?;
    Ok(Packed { file, id, size, files, left_out })
}

/// Takes a ZIP that is there already. Blocks.
///
/// # Errors
/// It can't be read.
pub fn take(path: &Path) -> Result<Packed, Error> {
    let opened =
        File::open(path).and_then(|file| if file.metadata()?.is_file() { digest(file) } else { Err(no_file()) });
    let (file, id, size) = opened.map_err(|error| Error::new(path, error))?;
    Ok(Packed { file, id, size, files: 0, left_out: Vec::new() })
}

fn no_file() -> io::Error {
    io::Error::other("it is no file")
}

/// Everything below a directory but what is to be left out, each directory before what is in it, in the order of names.
fn walk(root: &Path) -> ignore::Walk {
    WalkBuilder::new(root)
        .hidden(false)
        // A directory is packed alike wherever it is, and by whomever.
        .parents(false)
        .git_global(false)
        .git_exclude(false)
        .require_git(false)
        .ignore(false)
        .add_custom_ignore_filename(IGNORE_FILE)
        .filter_entry(|entry| entry.file_name() != ".git")
        .sort_by_file_name(std::ffi::OsStr::cmp)
        .build()
}

enum Added {
    File,
    Directory,
    Nothing,
}

fn add(zip: &mut Packer, source: &Path, name: &Path) -> Result<Added, String> {
    let says = |error: &dyn fmt::Display| error.to_string();
    let name = name.to_str().ok_or("its name is not UTF-8")?.replace('\\', "/");
    let metadata = source.symlink_metadata().map_err(|error| says(&error))?;
    if metadata.is_dir() {
        zip.directory(&name, mode(&metadata)).map_err(|error| says(&error))?;
        return Ok(Added::Directory);
    }
    if metadata.is_symlink() {
        let target = fs::read_link(source).map_err(|error| says(&error))?;
        let target = target.to_str().ok_or("what it points to is not UTF-8")?;
        zip.symlink(&name, target).map_err(|error| says(&error))?;
        return Ok(Added::File);
    }
    if !metadata.is_file() {
        return Ok(Added::Nothing);
    }
    let file = File::open(source).map_err(|error| says(&error))?;
    // What is appended meanwhile does not count.
    zip.file(&name, mode(&metadata), metadata.len(), file).map_err(|error| says(&error))?;
    Ok(Added::File)
}

/// The file from its beginning, the digest of its bytes, and how many there are.
fn digest(mut file: File) -> io::Result<(File, FileId, u64)> {
    file.rewind()?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0;
    loop {
        let len = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..len).filter(|bytes| !bytes.is_empty()) else { break };
        digest.update(bytes);
        size += len as u64;
    }
    file.rewind()?;
    Ok((file, FileId::from_sha256(digest.finalize().into()), size))
}

#[cfg(unix)]
fn mode(metadata: &Metadata) -> u32 {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
    // Only what a worker keeps: umasks of different people are not to give different bytes.
    if metadata.is_dir() || mode & 0o100 != 0 { 0o755 } else { 0o644 }
}

#[cfg(not(unix))]
fn mode(metadata: &Metadata) -> u32 {
    if metadata.is_dir() { 0o755 } else { 0o644 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn contents(packed: &Packed) -> BTreeMap<String, (Option<u32>, String)> {
        let mut zip = zip::ZipArchive::new(packed.file.try_clone().unwrap()).unwrap();
        let entries = (0..zip.len()).map(|index| {
            let mut entry = zip.by_index(index).unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.name().unwrap().into_owned(), (entry.unix_mode(), text))
        });
        entries.collect()
    }

    #[test]
    fn what_is_ignored_is_left_out() {
        let dir = written(&[
            (".gitignore", "target\n*.log\n!keep.log\n"),
            (".cmdexecignore", "secret\n"),
            (".git/config", "x"),
            (".cargo/config.toml", "x"),
            ("src/main.rs", "fn main() {}"),
            ("src/.gitignore", "generated.rs"),
            ("src/generated.rs", "x"),
            ("target/debug/x", "x"),
            ("a.log", "x"),
            ("keep.log", "x"),
            ("secret", "x"),
        ]);
        let packed = pack(dir.path()).unwrap();
        let names: Vec<_> = contents(&packed).into_keys().filter(|name| !name.ends_with('/')).collect();
        let kept = [".cargo/config.toml", ".cmdexecignore", ".gitignore", "keep.log", "src/.gitignore", "src/main.rs"];
        assert_eq!(names, kept);
        assert_eq!(packed.files, kept.len());
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let one = written(&[("b", "2"), ("a/c", "1")]);
        let other = written(&[("a/c", "1"), ("b", "2")]);
        let (one, other) = (pack(one.path()).unwrap(), pack(other.path()).unwrap());
        assert_eq!((one.id, one.size), (other.id, other.size));
        assert_ne!(pack(written(&[("b", "2")]).path()).unwrap().id, one.id);
    }

    #[cfg(unix)]
    #[test]
    fn modes_and_links_are_kept_and_sockets_left_out() {
        use std::os::unix::fs::PermissionsExt;

        let dir = written(&[("run.sh", "#!/bin/sh"), ("plain", "x")]);
        fs::set_permissions(dir.path().join("run.sh"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("plain", dir.path().join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let packed = pack(dir.path()).unwrap();
        let kept = contents(&packed);
        assert_eq!(kept["run.sh"].0, Some(0o100_755));
        assert_eq!(kept["plain"].0, Some(0o100_644));
        assert_eq!(kept["link"], (Some(0o120_777), "plain".to_owned()));
        assert_eq!(packed.left_out, [PathBuf::from("socket")]);
    }

    #[test]
    fn what_can_not_be_packed_is_named() {
        let dir = written(&[("a", "x")]);
        let missing = pack(&dir.path().join("b")).unwrap_err().to_string();
        assert!(missing.contains("/b: "), "{missing}");
        assert!(pack(&dir.path().join("a")).unwrap_err().to_string().ends_with("it is no directory"));
    }
}
