//! How far a pull is, in few words.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::CreateImageInfo;

/// How often something is said at most.
const EVERY: Duration = Duration::from_secs(1);
/// How many layers are counted; an image has fewer.
const LAYERS: usize = 1_024;

/// What was heard so far.
#[derive(Debug)]
pub(super) struct Progress {
    layers: HashMap<String, Layer>,
    said: Duration,
}

#[derive(Debug, Default, Clone, Copy)]
struct Layer {
    got: u64,
    of: u64,
    is_done: bool,
}

impl Progress {
    pub(super) fn new(now: Duration) -> Self {
        Self { layers: HashMap::new(), said: now }
    }

    /// Takes a message in; what is to be said now, if something is.
    pub(super) fn take(&mut self, step: &CreateImageInfo, now: Duration) -> Option<String> {
        let (status, id) = (step.status.as_deref().unwrap_or_default(), step.id.as_ref()?);
        // What is said of a tag is no layer's.
        if status.starts_with("Pulling from") || (self.layers.len() >= LAYERS && !self.layers.contains_key(id)) {
            return None;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        let number = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        if let Some(detail) = &step.progress_detail
            && status == "Downloading"
        {
            layer.got = number(detail.current).unwrap_or(layer.got);
            layer.of = number(detail.total).unwrap_or(layer.of);
        }
        if matches!(status, "Pull complete" | "Already exists") {
            (layer.is_done, layer.got) = (true, layer.of);
        }
        if now.saturating_sub(self.said) < EVERY {
            return None;
        }
        self.said = now;
        let done = self.layers.values().filter(|layer| layer.is_done).count();
        let (got, of) = self.layers.values().fold((0, 0), |(got, of), layer| (got + layer.got, of + layer.of));
        let mib = |bytes: u64| bytes >> 20;
        Some(format!("{done} of {} layers, {} of {} MiB", self.layers.len(), mib(got), mib(of)))
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    fn step(id: &str, status: &str, current: i64, total: i64) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        }
    }

    #[test]
    fn layers_are_counted_and_little_is_said() {
        let at = Duration::from_millis;
        let mut progress = Progress::new(at(0));
        assert_eq!(progress.take(&step("latest", "Pulling from x", 0, 0), at(0)), None);
        assert_eq!(progress.take(&step("a", "Downloading", 1 << 20, 3 << 20), at(10)), None);
        assert_eq!(progress.take(&step("b", "Already exists", 0, 0), at(20)), None);
        let said = progress.take(&step("a", "Downloading", 2 << 20, 3 << 20), at(1_001));
        assert_eq!(said.as_deref(), Some("1 of 2 layers, 2 of 3 MiB"));
        let said = progress.take(&step("a", "Pull complete", 0, 0), at(2_500));
        assert_eq!(said.as_deref(), Some("2 of 2 layers, 3 of 3 MiB"));
    }
}
