//! Graphics processors: how many there are, and which of them a job has.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use bollard::models::SystemInfo;

/// Those of this machine. Docker gives the first ones to everybody who asks for a number, so which ones a job gets is chosen here.
#[derive(Debug)]
pub(crate) struct Gpus(Mutex<Vec<bool>>);

/// Some of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    gpus: Arc<Gpus>,
    pub(crate) indices: Vec<usize>,
}

impl Gpus {
    pub(crate) fn new(count: u32) -> Arc<Self> {
        Arc::new(Self(Mutex::new(vec![false; usize::try_from(count).unwrap_or(0)])))
    }

    /// As many, if there are so many that nobody has.
    pub(crate) fn take(self: &Arc<Self>, count: u32) -> Option<Taken> {
        let count = usize::try_from(count).ok()?;
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = taken.iter().enumerate().filter(|(_, taken)| !**taken).map(|(index, _)| index);
        let indices: Vec<usize> = free.take(count).collect();
        if indices.len() < count {
            return None;
        }
        taken.iter_mut().enumerate().filter(|(index, _)| indices.contains(index)).for_each(|(_, taken)| *taken = true);
        Some(Taken { gpus: Arc::clone(self), indices })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut taken = self.gpus.0.lock().unwrap_or_else(PoisonError::into_inner);
        for index in &self.indices {
            if let Some(taken) = taken.get_mut(*index) {
                *taken = false;
            }
        }
    }
}

/// How many the daemon can give to containers: those of NVIDIA's, where it has their runtime. It does not say how many, but they
/// are devices of this machine.
pub(crate) fn count(info: &SystemInfo) -> u32 {
    if !info.runtimes.as_ref().is_some_and(|runtimes| runtimes.contains_key("nvidia")) {
        return 0;
    }
    let names = fs::read_dir("/dev").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let is_one = |name: &str| name.strip_prefix("nvidia").is_some_and(|number| number.parse::<u32>().is_ok());
    u32::try_from(names.filter(|name| name.to_str().is_some_and(is_one)).count()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_jobs_have_the_same() {
        let gpus = Gpus::new(3);
        let one = gpus.take(1).unwrap();
        let two = gpus.take(2).unwrap();
        assert_eq!((&*one.indices, &*two.indices), (&[0][..], &[1, 2][..]));
        assert!(gpus.take(1).is_none());
        drop(one);
        assert_eq!(gpus.take(1).unwrap().indices, [0]);
        assert!(gpus.take(2).is_none() && Gpus::new(0).take(1).is_none());
    }
}
