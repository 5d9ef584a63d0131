//! What the worker has room for: the last word on what it takes.

use crate::job::Resources;

/// How much of the worker is taken.
#[derive(Debug)]
pub(super) struct Room {
    /// Which slots are taken, by index.
    slots: Vec<bool>,
    free_slots: usize,
    free_cpu_millis: u64,
    free_memory_mb: u64,
    free_gpus: u32,
}

/// What one attempt takes. Goes back by [`Room::release`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// No two attempts have the same at one time.
    pub(super) slot: usize,
    cpu_millis: u64,
    memory_mb: u64,
    gpus: u32,
}

impl Room {
    pub(super) fn new(slots: usize, cpu_millis: u64, memory_mb: u64, gpus: u32) -> Self {
        Self {
            slots: vec![false; slots],
            free_slots: slots,
            free_cpu_millis: cpu_millis,
            free_memory_mb: memory_mb,
            free_gpus: gpus,
        }
    }

    pub(super) fn free_slots(&self) -> usize {
        self.free_slots
    }

    /// Takes the lowest free slot and what the job asks for, if there is so much.
    pub(super) fn take(&mut self, wanted: &Resources) -> Option<Place> {
        let cpu_millis = wanted.cpu_millis.map_or(0, u64::from);
        let memory_mb = wanted.memory_mb.unwrap_or(0);
        let gpus = wanted.gpus.unwrap_or(0);
        if cpu_millis > self.free_cpu_millis || memory_mb > self.free_memory_mb || gpus > self.free_gpus {
            return None;
        }
        let (slot, taken) = self.slots.iter_mut().enumerate().find(|(_, taken)| !**taken)?;
        *taken = true;
        self.free_slots -= 1;
        self.free_cpu_millis -= cpu_millis;
        self.free_memory_mb -= memory_mb;
        self.free_gpus -= gpus;
        Some(Place { slot, cpu_millis, memory_mb, gpus })
    }

    #[expect(clippy::needless_pass_by_value, reason = "a place is given back once")]
    pub(super) fn release(&mut self, place: Place) {
        if let Some(taken) = self.slots.get_mut(place.slot) {
            *taken = false;
            self.free_slots += 1;
            self.free_cpu_millis += place.cpu_millis;
            self.free_memory_mb += place.memory_mb;
            self.free_gpus += place.gpus;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(cpu_millis: u32, memory_mb: u64) -> Resources {
        Resources { cpu_millis: Some(cpu_millis), memory_mb: Some(memory_mb), ..Resources::default() }
    }

    #[test]
    fn slots_are_unique_and_come_back() {
        let mut room = Room::new(2, 0, 0, 0);
        let none = Resources::default();
        let first = room.take(&none).unwrap();
        let second = room.take(&none).unwrap();
        assert_eq!((first.slot, second.slot, room.free_slots()), (0, 1, 0));
        assert_eq!(room.take(&none), None);
        room.release(first);
        assert_eq!(room.take(&none).unwrap().slot, 0);
    }

    #[test]
    fn every_resource_bounds() {
        let mut room = Room::new(8, 2_000, 1_024, 1);
        assert_eq!(room.take(&wants(2_001, 1)), None);
        assert_eq!(room.take(&wants(1, 1_025)), None);
        let place = room.take(&wants(1_500, 1_024)).unwrap();
        assert_eq!(room.take(&wants(501, 0)), None);
        assert_eq!(room.take(&wants(500, 1)), None);
        assert!(room.take(&wants(500, 0)).is_some());
        assert!(room.take(&Resources::default()).is_some(), "a job that names none reserves none");
        let gpu = Resources { gpus: Some(1), ..Resources::default() };
        let with_gpu = room.take(&gpu).unwrap();
        assert_eq!(room.take(&gpu), None);
        room.release(with_gpu);
        assert!(room.take(&gpu).is_some());
        room.release(place);
        assert!(room.take(&wants(1_500, 1_024)).is_some());
    }
}
