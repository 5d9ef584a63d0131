//! What a job has left: a ZIP that is somebody else's work, and looked at as such.

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use cmdexec_core::archive::{self, Limits};
use zip::ZipArchive;

use super::place;

/// One file in a ZIP.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) size: u64,
}

/// What is in a ZIP, directories left out.
pub(crate) fn list(zip: &File) -> anyhow::Result<Vec<Listed>> {
    let mut zip = ZipArchive::new(zip.try_clone()?)?;
    let mut files = Vec::with_capacity(zip.len());
    for index in 0..zip.len() {
        let entry = zip.by_index_raw(index)?;
        if !entry.is_dir() {
            files.push(Listed { name: entry.name()?.into_owned(), size: entry.size() });
        }
    }
    Ok(files)
}

/// Writes a ZIP as it is to a file, or to standard output for `-`.
pub(crate) fn save(mut zip: File, path: &Path) -> anyhow::Result<()> {
    // Whoever listed it has read in it.
    zip.rewind()?;
    if path == Path::new("-") {
        let mut out = io::stdout().lock();
        io::copy(&mut zip, &mut out)?;
        return Ok(out.flush()?);
    }
    // Whole or not at all.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder).with_context(|| folder.display().to_string())?;
    io::copy(&mut zip, &mut new)?;
    new.persist(path).with_context(|| path.display().to_string())?;
    Ok(())
}

/// Unpacks a ZIP into a directory, over what is there. The answer is how many files came.
pub(crate) fn unpack(zip: File, into: &Path) -> anyhow::Result<u64> {
    fs::create_dir_all(into).with_context(|| into.display().to_string())?;
    // First to the side, where nothing of ours can be hit; beside its place, so that moving is only renaming.
    let side =
        tempfile::Builder::new().prefix(".cmdexec-").tempdir_in(into).with_context(|| into.display().to_string())?;
    // What a job makes may well be repetitive; the bound on what comes out of it stands.
    let mut limits = Limits::default();
    limits.ratio = u64::MAX;
    let unpacked = archive::unpack(zip, side.path(), &limits, &AtomicBool::new(false));
    let unpacked = unpacked.context("unpacking what the job left")?;
    place::merge(side.path(), into)?;
    Ok(unpacked.files)
}
