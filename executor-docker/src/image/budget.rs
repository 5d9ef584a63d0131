//! How much room the images take that were fetched for jobs, and which are to go first.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use cmdexec_core::time::{Clock, SystemClock};
use serde::{Deserialize, Serialize};

use super::lock;

/// The images that this executor has fetched, kept in a file, so that they are still known to be its own after a restart.
#[derive(Debug)]
pub(super) struct Budget {
    path: PathBuf,
    most: u64,
    images: Mutex<BTreeMap<String, Fetched>>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Fetched {
    bytes: u64,
    /// Milliseconds since the epoch.
    used: i64,
}

impl Budget {
    /// What can't be read is forgotten: those images are nobody's to remove then.
    pub(super) fn open(path: PathBuf, most: u64) -> Self {
        let kept = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { path, most, images: Mutex::new(kept.unwrap_or_default()) }
    }

    pub(super) fn fetched(&self, name: &str, bytes: u64) {
        let mut images = lock(&self.images);
        images.insert(name.to_owned(), Fetched { bytes, used: SystemClock.now().as_millis() });
        self.keep(&images);
    }

    /// An image is used; of those that this executor did not fetch nothing is kept. Said at most every few seconds of each.
    pub(super) fn used(&self, name: &str) {
        let mut images = lock(&self.images);
        if let Some(image) = images.get_mut(name) {
            image.used = SystemClock.now().as_millis();
            self.keep(&images);
        }
    }

    pub(super) fn removed(&self, name: &str) {
        let mut images = lock(&self.images);
        images.remove(name);
        self.keep(&images);
    }

    /// What is to go so that the rest fits, longest unused first; not this one.
    pub(super) fn beyond(&self, but: &str) -> Vec<String> {
        let images = lock(&self.images);
        let mut total: u64 = images.values().map(|image| image.bytes).sum();
        let mut by_use: Vec<_> = images.iter().filter(|(name, _)| *name != but).collect();
        by_use.sort_by_key(|(_, image)| image.used);
        let mut beyond = Vec::new();
        for (name, image) in by_use {
            if total <= self.most {
                break;
            }
            total -= image.bytes;
            beyond.push(name.clone());
        }
        beyond
    }

    fn keep(&self, images: &BTreeMap<String, Fetched>) {
        let Ok(bytes) = serde_json::to_vec(images) else { return };
        let unfinished = self.path.with_extension("new");
        let kept = fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, &self.path));
        if let Err(error) = kept {
            tracing::warn!(path = %self.path.display(), %error, "which images were fetched could not be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.json");
        let budget = Budget::open(path.clone(), 100);
        for name in ["a", "b", "c"] {
            budget.fetched(name, 50);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert_eq!(budget.beyond("c"), ["a"]);
        budget.used("a");
        assert_eq!(budget.beyond("c"), ["b"]);
        assert_eq!(budget.beyond("b"), ["c"], "what is being fetched stays");
        budget.removed("b");
        assert_eq!(budget.beyond("c"), [""; 0]);
        budget.used("not fetched here");
        assert_eq!(Budget::open(path, 10).beyond("c"), ["a"], "kept over a restart");
    }
}
