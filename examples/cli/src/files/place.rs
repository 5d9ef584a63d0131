//! Putting a tree of new files over one that is there, without following anybody's links.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;

/// Moves what is in `from` into `into`. Directories are merged; whatever else is there under a name is replaced, a link itself and
/// not what it points to. A directory that is in the way of a file is an error.
pub(super) fn merge(from: &Path, into: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = into.join(entry.file_name());
        let is_directory = entry.file_type()?.is_dir();
        put(&entry.path(), &target, is_directory).with_context(|| target.display().to_string())?;
    }
    Ok(())
}

fn put(source: &Path, target: &Path, is_directory: bool) -> anyhow::Result<()> {
    let there = match target.symlink_metadata() {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    match there {
        Some(there) if is_directory && there.is_dir() => return merge(source, target),
        // Renaming a directory over anything else is refused by the system.
        Some(_) if is_directory => fs::remove_file(target)?,
        _ => {}
    }
    Ok(fs::rename(source, target)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn new_files_replace_old_ones_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for (path, text) in [("new/a/one", "1"), ("new/a/two", "2"), ("new/b/three", "3"), ("into/a/one", "old")] {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
        }
        fs::create_dir(at("elsewhere")).unwrap();
        symlink(at("elsewhere"), at("into/b")).unwrap();
        fs::write(at("into/kept"), "k").unwrap();

        merge(&at("new"), &at("into")).unwrap();
        let read = |path: &str| fs::read_to_string(at(path)).unwrap();
        assert_eq!((read("into/a/one"), read("into/a/two"), read("into/kept")), ("1".into(), "2".into(), "k".into()));
        assert_eq!(read("into/b/three"), "3");
        assert_eq!(fs::read_dir(at("elsewhere")).unwrap().count(), 0);

        fs::create_dir_all(at("into/file")).unwrap();
        fs::write(at("new/file"), "f").unwrap();
        let error = format!("{:#}", merge(&at("new"), &at("into")).unwrap_err());
        assert!(error.contains("into/file"), "{error}");
    }
}
