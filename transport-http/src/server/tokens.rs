//! Who calls: tokens are judged once and then known until they expire.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cmdexec_core::time::{Clock, Timestamp};
use cmdexec_core::token::{self, Keys, LEEWAY, UserClaims, WorkerClaims};

/// How many tokens are known at once. Beyond, the ones that were not seen lately are judged again.
const KNOWN: usize = 8_192;

/// Judges tokens. The signature of each is computed once; after that, finding it again costs a hash over its text,
/// keyed at random so that nobody can choose tokens that collide.
#[derive(Debug)]
pub(super) struct Tokens {
    keys: Keys,
    clock: Arc<dyn Clock>,
    users: Known<UserClaims>,
    workers: Known<WorkerClaims>,
}

impl Tokens {
    pub(super) fn new(keys: Keys, clock: Arc<dyn Clock>) -> Self {
        Self { keys, clock, users: Known::default(), workers: Known::default() }
    }

    pub(super) fn user(&self, token: &str) -> Result<Arc<UserClaims>, token::Error> {
        let now = self.clock.now();
        self.users.get(token, now, |claims| claims.expires, || self.keys.verify_user(token, now))
    }

    pub(super) fn worker(&self, token: &str) -> Result<Arc<WorkerClaims>, token::Error> {
        let now = self.clock.now();
        self.workers.get(token, now, |claims| claims.expires, || self.keys.verify_worker(token, now))
    }
}

/// Tokens that are good, in two generations: when the young one is full it becomes the old one, and what is found there
/// is young again.
struct Known<C>(Mutex<Generations<C>>);

struct Generations<C> {
    young: HashMap<Box<str>, Arc<C>>,
    old: HashMap<Box<str>, Arc<C>>,
}

impl<C> Known<C> {
    fn get(
        &self,
        token: &str,
        now: Timestamp,
        expires: impl Fn(&C) -> Timestamp,
        judge: impl FnOnce() -> Result<C, token::Error>,
    ) -> Result<Arc<C>, token::Error> {
        if let Some(claims) = self.find(token) {
            return if now < expires(&claims).after(LEEWAY) { Ok(claims) } else { Err(token::Error::Expired) };
        }
        // Only good tokens are kept: bad ones would push them out.
        let claims = Arc::new(judge()?);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(token.into(), Arc::clone(&claims));
        Ok(claims)
    }

    fn find(&self, token: &str) -> Option<Arc<C>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claims) = known.young.get(token) {
            return Some(Arc::clone(claims));
        }
        let (token, claims) = known.old.remove_entry(token)?;
        known.insert(token, Arc::clone(&claims));
        Some(claims)
    }
}

impl<C> Generations<C> {
    fn insert(&mut self, token: Box<str>, claims: Arc<C>) {
        if self.young.len() >= KNOWN / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, claims);
    }
}

impl<C> Default for Known<C> {
    fn default() -> Self {
        Self(Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }))
    }
}

/// Shows how many, and nothing of them.
impl<C> std::fmt::Debug for Known<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "{} tokens", known.young.len() + known.old.len())
    }
}
