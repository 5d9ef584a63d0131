//! Containers that a job of an owner has used and another of that owner may: only where both said so.

use std::collections::HashMap;
use std::time::Duration;

use crate::container::Container;

/// Those that wait, and since when.
#[derive(Debug, Default)]
pub(super) struct Used {
    /// By whose they are, and by the image's id.
    shelves: HashMap<(String, String), Vec<(Container, Duration)>>,
}

impl Used {
    /// One that is there: the last that was used, so that the others grow old.
    pub(super) fn take(&mut self, scope: &str, image: &str) -> Option<Container> {
        let key = (scope.to_owned(), image.to_owned());
        let shelf = self.shelves.get_mut(&key)?;
        let found = std::iter::from_fn(|| shelf.pop()).map(|(container, _)| container).find(Container::is_alive);
        if shelf.is_empty() {
            self.shelves.remove(&key);
        }
        found
    }

    /// Keeps one for the next; gives it back if there are as many as may be.
    pub(super) fn put(&mut self, scope: String, container: Container, now: Duration, most: usize) -> Option<Container> {
        if self.shelves.values().map(Vec::len).sum::<usize>() >= most {
            return Some(container);
        }
        self.shelves.entry((scope, container.image.id.clone())).or_default().push((container, now));
        None
    }

    /// Those that nobody has wanted for so long.
    pub(super) fn stale(&mut self, now: Duration, idle: Duration) -> Vec<Container> {
        let mut stale = Vec::new();
        for shelf in self.shelves.values_mut() {
            let old = shelf.extract_if(.., |(_, since)| now.saturating_sub(*since) > idle);
            stale.extend(old.map(|(container, _)| container));
        }
        self.shelves.retain(|_, shelf| !shelf.is_empty());
        stale
    }
}
