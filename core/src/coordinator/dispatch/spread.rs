//! How far coordinators that claim from one queue keep out of each other's way.
//!
//! Alone, a coordinator claims from the head on. Two that do so over one store want the same jobs, and one of them always
//! comes for nothing. Whoever loses claims takes its own part of the window first, by the jobs' ids; of what is the others', it
//! begins somewhere behind the head, further with each loss. It comes back as losses cease. It stays within its window, and reads
//! another only when that is empty: so no job is overtaken by more than a window of its own priority.

use rand::Rng;

/// The furthest that claims are spread, in claims.
const WIDEST: usize = 32;

/// More than one lost in so many is contention.
const LOST: usize = 8;

#[derive(Debug)]
pub(super) struct Spread {
    /// Over how many claims' worth of the head.
    width: usize,
}

impl Default for Spread {
    fn default() -> Self {
        Self { width: 1 }
    }
}

impl Spread {
    /// How many of the others' jobs a claim of `jobs` leaves out; `None`: it is from the head on, whoever's they are.
    pub(super) fn skip(&self, jobs: usize, random: &mut impl Rng) -> Option<usize> {
        (self.width > 1).then(|| random.next_u32() as usize % self.width * jobs.max(1))
    }

    /// Notes how many of those claimed were lost to others.
    pub(super) fn note(&mut self, claimed: usize, lost: usize) {
        if lost * LOST > claimed {
            self.width = (self.width * 2).min(WIDEST);
        } else if lost == 0 {
            self.width = (self.width - 1).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn alone_the_head_is_claimed_and_losses_lead_away_from_it() {
        let mut random = StdRng::seed_from_u64(1);
        let mut spread = Spread::default();
        assert_eq!(spread.skip(10, &mut random), None);
        (0..9).for_each(|_| spread.note(10, 10));
        assert_eq!(spread.width, WIDEST);
        let skips: Vec<usize> = (0..99).filter_map(|_| spread.skip(10, &mut random)).collect();
        assert_eq!(skips.len(), 99);
        assert!(skips.iter().all(|skip| skip % 10 == 0 && *skip < 320) && skips.iter().any(|skip| *skip > 0));
        spread.note(10, 1);
        assert_eq!(spread.width, WIDEST, "a few losses are ordinary");
        (0..40).for_each(|_| spread.note(10, 0));
        assert_eq!(spread.skip(10, &mut random), None);
    }
}
