//! The worker's cache of unpacked inputs: whole trees by their file's digest, no more of them than fit.
//!
//! A tree is there as a whole or not at all: it is made under another name, and gets its own by one rename. What is in use is not
//! removed; what then does not fit is not kept.

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::super::directory::{make_private, remove_tree};
use super::download::Download;
use crate::archive::{Archive, Limits};
use crate::files::FileId;

/// What a file, link or directory takes beside its bytes, and what is lost of its last block.
const ENTRY_BYTES: u64 = 4_096;

/// In a cached file's directory: the unpacked tree, and how much of the cache it takes.
const TREE: &str = "tree";
const SIZE: &str = "size";
/// In the cache's directory: under what circumstances its content can be believed.
const MARK: &str = "mark";

#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    most: u64,
    state: Mutex<State>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    kept: HashMap<FileId, Kept>,
    /// What is kept and what is reserved, together.
    used: u64,
    /// Counts uses, to tell which was longest ago.
    uses: u64,
    flights: HashMap<FileId, Weak<tokio::sync::Mutex<Download>>>,
}

#[derive(Debug)]
struct Kept {
    tree: Arc<Tree>,
    bytes: u64,
    used: u64,
}

/// An unpacked input, which nobody may change. Stays as long as this is held.
#[derive(Debug)]
pub(super) struct Tree(PathBuf);

impl Tree {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

/// Room in the cache, and a directory to unpack into. Both are given back when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    cache: Arc<Cache>,
    dir: PathBuf,
    tree: PathBuf,
    bytes: u64,
    is_kept: bool,
}

impl Cache {
    /// Opens the cache in `dir`. What an earlier worker unpacked is kept if it can be believed; all else there is removed.
    pub(super) fn open(dir: PathBuf, most: u64, limits: &Limits) -> io::Result<Self> {
        match fs::symlink_metadata(&dir) {
            Ok(found) if !found.is_dir() => fs::remove_file(&dir)?,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if !dir.exists() {
            make_private(&dir)?;
        }
        let cache = Self { dir, most, state: Mutex::default(), next: AtomicU64::new(0) };
        let mark = mark(limits);
        let mark_path = cache.dir.join(MARK);
        let believed = mark.is_some() && fs::read_to_string(&mark_path).ok() == mark;
        for entry in fs::read_dir(&cache.dir)? {
            let path = entry?.path();
            if path == mark_path || (believed && cache.take_over(&path)) {
                continue;
            }
            remove(&path)?;
        }
        // Last, so that the mark never stands beside what it does not speak of.
        match mark {
            Some(mark) => fs::write(&mark_path, mark)?,
            None => drop(fs::remove_file(&mark_path)),
        }
        Ok(cache)
    }

    /// Takes over what an earlier worker unpacked, if it fits.
    fn take_over(&self, path: &Path) -> bool {
        let file = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<FileId>().ok());
        let bytes = fs::read_to_string(path.join(SIZE)).ok().and_then(|size| size.trim().parse::<u64>().ok());
        let (Some(file), Some(bytes)) = (file, bytes) else { return false };
        let mut state = self.state();
        if state.used.saturating_add(bytes) > self.most {
            return false;
        }
        state.used += bytes;
        state.kept.insert(file, Kept { tree: Arc::new(Tree(path.join(TREE))), bytes, used: 0 });
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name in the cache's directory that nobody has.
    pub(super) fn new_path(&self) -> PathBuf {
        self.dir.join(format!("new-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// The unpacked file, if it is here.
    pub(super) fn find(&self, file: FileId) -> Option<Arc<Tree>> {
        let mut state = self.state();
        state.uses += 1;
        let now = state.uses;
        let kept = state.kept.get_mut(&file)?;
        kept.used = now;
        Some(Arc::clone(&kept.tree))
    }

    /// What all who fetch a file share.
    pub(super) fn flight(&self, file: FileId) -> Arc<tokio::sync::Mutex<Download>> {
        let mut state = self.state();
        if let Some(flight) = state.flights.get(&file).and_then(Weak::upgrade) {
            return flight;
        }
        state.flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::default();
        state.flights.insert(file, Arc::downgrade(&flight));
        flight
    }

    /// Makes room for an archive's content, at the cost of what was used longest ago and is not in use. Blocks.
    pub(super) fn reserve(self: &Arc<Self>, archive: &Archive<fs::File>) -> Option<Place> {
        let entries = archive.files().saturating_add(archive.directories()).saturating_add(1);
        let bytes = archive.bytes().saturating_add(entries.saturating_mul(ENTRY_BYTES));
        if !self.make_room(bytes) {
            return None;
        }
        let dir = self.new_path();
        let place = Place { cache: Arc::clone(self), tree: dir.join(TREE), dir, bytes, is_kept: false };
        let made = make_private(&place.dir).and_then(|()| make_private(&place.tree));
        made.inspect_err(|error| tracing::warn!(%error, "the cache of inputs can't be written")).ok()?;
        Some(place)
    }

    /// Reserves room; false if there can't be enough now.
    fn make_room(&self, bytes: u64) -> bool {
        loop {
            let mut state = self.state();
            // Nothing is removed for what will not fit anyway.
            let idle = |kept: &Kept| Arc::strong_count(&kept.tree) == 1;
            let removable: u64 = state.kept.values().filter(|kept| idle(kept)).map(|kept| kept.bytes).sum();
            if (state.used - removable).saturating_add(bytes) > self.most {
                return false;
            }
            if state.used + bytes <= self.most {
                state.used += bytes;
                return true;
            }
            let oldest = state.kept.iter().filter(|(_, kept)| idle(kept)).min_by_key(|(_, kept)| kept.used);
            let Some(file) = oldest.map(|(file, _)| *file) else { return false };
            let Some(kept) = state.kept.remove(&file) else { return false };
            // By another name first, so that a crash leaves no half of it under its own.
            let (from, gone) = (self.dir.join(file.to_string()), self.new_path());
            let renamed = fs::rename(&from, &gone);
            drop(state);
            let removed = renamed.and_then(|()| remove(&gone));
            // What can't be removed takes room; the next start tries again.
            match removed {
                Ok(()) => self.state().used -= kept.bytes,
                Err(error) => tracing::warn!(%error, "a cached input can't be removed"),
            }
        }
    }
}

impl Place {
    /// The directory to unpack into: empty, and private.
    pub(super) fn path(&self) -> &Path {
        &self.tree
    }

    /// Keeps what was unpacked.
    pub(super) fn keep(mut self, file: FileId) -> io::Result<Arc<Tree>> {
        fs::write(self.dir.join(SIZE), self.bytes.to_string())?;
        let path = self.cache.dir.join(file.to_string());
        let mut state = self.cache.state();
        // Where it could not be removed before.
        if !state.kept.contains_key(&file) && path.exists() {
            remove(&path)?;
        }
        fs::rename(&self.dir, &path)?;
        let tree = Arc::new(Tree(path.join(TREE)));
        state.uses += 1;
        let used = state.uses;
        state.kept.insert(file, Kept { tree: Arc::clone(&tree), bytes: self.bytes, used });
        drop(state);
        self.is_kept = true;
        Ok(tree)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        match remove(&self.dir) {
            Ok(()) => self.cache.state().used -= self.bytes,
            Err(error) => tracing::warn!(%error, "what was unpacked in part can't be removed"),
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => remove_tree(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What must be as it was for a tree to be believed: the system has not been started since (files are not synced, so that a loss of power may
/// leave them empty), the same user made it, and it was judged by the same limits. `None` where this can't be told.
fn mark(limits: &Limits) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("1 {} {} {limits:?}\n", boot.trim(), user()))
}

#[cfg(unix)]
fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[cfg(not(unix))]
fn user() -> u32 {
    0
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::AtomicBool;

    use zip::write::SimpleFileOptions;

    use super::*;

    static GO: AtomicBool = AtomicBool::new(false);

    fn archive(len: usize) -> Archive<fs::File> {
        let mut zip = zip::ZipWriter::new(tempfile::tempfile().unwrap());
        let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file("file", stored).unwrap();
        zip.write_all(&vec![0; len]).unwrap();
        Archive::check(zip.finish().unwrap(), &Limits::default(), &GO).unwrap()
    }

    fn file(number: u8) -> FileId {
        FileId::from_sha256([number; 32])
    }

    fn open(dir: &Path, most: u64) -> Arc<Cache> {
        Arc::new(Cache::open(dir.join("inputs"), most, &Limits::default()).unwrap())
    }

    fn keep(cache: &Arc<Cache>, number: u8, len: usize) -> Option<Arc<Tree>> {
        let archive = archive(len);
        let place = cache.reserve(&archive)?;
        archive.write(place.path(), &GO).unwrap();
        Some(place.keep(file(number)).unwrap())
    }

    fn kept(cache: &Cache) -> Vec<u8> {
        (0..10).filter(|number| cache.state().kept.contains_key(&file(*number))).collect()
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_what_is_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path(), 350_000);
        let first = keep(&cache, 1, 100_000).unwrap();
        for number in 2..=3 {
            keep(&cache, number, 100_000).unwrap();
        }
        cache.find(file(2)).unwrap();
        keep(&cache, 4, 100_000).unwrap();
        assert_eq!(kept(&cache), [1, 2, 4]);
        // In use, however long ago it was asked for.
        keep(&cache, 5, 200_000).unwrap();
        assert_eq!(kept(&cache), [1, 5]);
        assert!(keep(&cache, 6, 300_000).is_none());
        assert_eq!(kept(&cache), [1, 5], "nothing goes for what will not fit");
        assert_eq!(fs::read(first.path().join("file")).unwrap().len(), 100_000);
        drop(first);
        keep(&cache, 6, 300_000).unwrap();
        assert_eq!(kept(&cache), [6]);
        assert!(keep(&cache, 7, 350_000).is_none());
        let left = fs::read_dir(&cache.dir).unwrap().count();
        assert_eq!(left, 2, "one input and the mark");
        assert!(cache.state().used <= 350_000);
    }

    #[test]
    fn what_is_not_kept_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path(), 350_000);
        let archive = archive(300_000);
        let place = cache.reserve(&archive).unwrap();
        assert!(cache.reserve(&archive).is_none());
        drop(place);
        assert_eq!(cache.state().used, 0);
        assert!(cache.reserve(&archive).is_some());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_earlier_workers_trees_are_believed_only_under_its_mark() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path(), 1_000_000);
        keep(&cache, 1, 1_000).unwrap();
        keep(&cache, 2, 1_000).unwrap();
        fs::remove_file(cache.dir.join(file(2).to_string()).join(SIZE)).unwrap();
        fs::create_dir_all(cache.dir.join("new-3/tree")).unwrap();
        let used = cache.state().used;
        drop(cache);

        let cache = open(dir.path(), 1_000_000);
        assert_eq!(kept(&cache), [1]);
        assert_eq!(cache.state().used, used / 2);
        assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), 2);
        // Of a size that it had not then.
        assert_eq!(kept(&open(dir.path(), 1_000)), [0; 0]);
        keep(&cache, 1, 1_000).unwrap();
        fs::write(cache.dir.join(MARK), "of another time").unwrap();
        assert_eq!(kept(&open(dir.path(), 1_000_000)), [0; 0]);
    }
}
