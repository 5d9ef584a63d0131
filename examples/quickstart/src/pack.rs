//! A directory as a ZIP, uploaded for a job.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cmdexec_core::Error;
use cmdexec_core::files::FileId;
use cmdexec_core::service::JobService;
use futures_util::TryStreamExt;
use tokio_util::io::ReaderStream;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// What no job needs and may be large.
const LEFT_OUT: [&str; 3] = [".git", "target", "node_modules"];

/// What was packed.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) id: FileId,
    files: usize,
    bytes: u64,
}

impl fmt::Display for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files, {} KiB as a ZIP", self.files, self.bytes.div_ceil(1024))
    }
}

/// Packs a directory, by way of a temporary file: it may be larger than memory.
pub(crate) async fn pack(dir: &Path, jobs: &dyn JobService) -> anyhow::Result<Packed> {
    if !dir.is_dir() {
        bail!("{} is no directory; name one with --dir", dir.display());
    }
    let root = dir.to_owned();
    let (archive, count) = tokio::task::spawn_blocking(move || zip_up(&root)).await??;
    let bytes = archive.metadata()?.len();
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(archive), 256 * 1024);
    let stream = stream.map_err(|error| {
        eprintln!("the ZIP could not be read back: {error}");
        Error::Internal
    });
    let name = dir.file_name().map(|name| format!("{}.zip", name.to_string_lossy()));
    let stored = jobs.upload(name.as_deref(), Box::pin(stream)).await.context("uploading the ZIP")?;
    Ok(Packed { id: stored.id, files: count, bytes })
}

/// The ZIP, read from its beginning, and how many files are in it.
fn zip_up(root: &Path) -> anyhow::Result<(File, usize)> {
    let mut zip = ZipWriter::new(tempfile::tempfile()?);
    let mut count = 0;
    let mut waiting = vec![PathBuf::new()];
    while let Some(folder) = waiting.pop() {
        let mut entries: Vec<_> = fs::read_dir(root.join(&folder))?.collect::<Result<_, _>>()?;
        // The same directory gives the same ZIP, and so the same file in the store.
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = folder.join(entry.file_name());
            if LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            add(&mut zip, root, &path).with_context(|| format!("packing {}", path.display()))?;
            if entry.file_type()?.is_dir() {
                waiting.push(path);
            } else {
                count += 1;
            }
        }
    }
    let mut file = zip.finish()?;
    io::Seek::rewind(&mut file)?;
    Ok((file, count))
}

fn add(zip: &mut ZipWriter<File>, root: &Path, path: &Path) -> anyhow::Result<()> {
    let Some(name) = path.to_str() else { bail!("its name is not UTF-8") };
    let name = name.replace('\\', "/");
    let source = root.join(path);
    let metadata = source.symlink_metadata()?;
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let options = options.large_file(metadata.len() >= u64::from(u32::MAX)).unix_permissions(mode(&metadata));
    if metadata.is_dir() {
        zip.add_directory(name, options)?;
    } else if metadata.is_symlink() {
        let target = fs::read_link(&source)?;
        zip.add_symlink(name, target.to_string_lossy(), options)?;
    } else if metadata.is_file() {
        zip.start_file(name, options)?;
        io::copy(&mut File::open(source)?, zip)?;
    }
    // Sockets and pipes mean nothing elsewhere.
    Ok(())
}

#[cfg(unix)]
fn mode(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777
}

#[cfg(not(unix))]
fn mode(metadata: &fs::Metadata) -> u32 {
    if metadata.is_dir() { 0o755 } else { 0o644 }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use cmdexec_core::coordinator::Coordinator;
    use cmdexec_core::files::Files;
    use cmdexec_core::store::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn a_directory_is_packed_the_same_each_time_without_what_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("src/deep")).unwrap();
        fs::create_dir(dir.path().join(".git")).unwrap();
        fs::write(dir.path().join(".git/config"), "x").unwrap();
        fs::write(dir.path().join("src/deep/a.txt"), "hello").unwrap();
        let builder = Coordinator::builder(MemoryStore::new()).files(Files::in_memory());
        let jobs = builder.build().await.unwrap().jobs();
        let first = pack(dir.path(), &*jobs).await.unwrap();
        assert_eq!((first.files, pack(dir.path(), &*jobs).await.unwrap().id), (1, first.id));

        let (archive, _) = zip_up(dir.path()).unwrap();
        let mut archive = zip::ZipArchive::new(archive).unwrap();
        let mut text = String::new();
        archive.by_name("src/deep/a.txt").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(archive.by_name(".git/config").is_err());
    }
}
