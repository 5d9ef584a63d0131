//! The names of things: jobs, workers, owners, and the token that fences an attempt.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use rand::Rng;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// A job's identity: a version 7 UUID, so that ids sort in the order in which their coordinator made them.
///
/// The queue's order within a priority is the order of ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// The id as its 16 bytes, for stores that keep it so. Byte order is id order.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id that these bytes are, as [`JobId::as_bytes`] gave them.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The id as a UUID.
    pub fn as_uuid(&self) -> Uuid {
        self.0
    }

    /// When the id was made, by its coordinator's clock.
    pub fn made_at(&self) -> Timestamp {
        let (high, _) = self.0.as_u64_pair();
        Timestamp::from_millis(i64::try_from(high >> 16).unwrap_or(i64::MAX))
    }

    /// The id that this UUID is.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text was not the id that it should have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(&'static str);

impl FromStr for JobId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Uuid::try_parse(text).map(Self).map_err(|_| ParseError("not a job id: expected a UUID"))
    }
}

/// Makes job ids that never go backwards within one process, even if its clock does.
#[derive(Debug)]
pub(crate) struct JobIds {
    /// Milliseconds and counter of the newest id.
    last: Mutex<(u64, u16)>,
}

impl JobIds {
    /// Ids from here on sort after `newest`.
    pub(crate) fn after(newest: Option<JobId>) -> Self {
        let last = newest.map_or((0, 0), |id| {
            let (high, _) = id.0.as_u64_pair();
            (high >> 16, (high & 0xfff) as u16)
        });
        Self { last: Mutex::new(last) }
    }

    pub(crate) fn next(&self, now: Timestamp, random: &mut impl Rng) -> JobId {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        let (millis, counter) = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = match *last {
                (then, _) if millis > then => (millis, 0),
                (then, 0xfff) => (then + 1, 0),
                (then, counter) => (then, counter + 1),
            };
            *last
        };
        // RFC 9562 §5.7, with the 12 bits of rand_a as a counter (§6.2, method 1).
        let high = (millis << 16) | 0x7000 | u64::from(counter);
        let low = (random.next_u64() >> 2) | (0b10 << 62);
        JobId(Uuid::from_u64_pair(high, low))
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// 1 to 128 bytes of visible ASCII.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as it is written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseError;

            fn try_from(text: String) -> Result<Self, ParseError> {
                text.parse()
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                if text.is_empty() || text.len() > 128 || !text.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err(ParseError(concat!("not a ", $what, ": expected 1 to 128 bytes of visible ASCII")));
                }
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// Which worker. Chosen by the worker, or made by the coordinator when it registers without one.
    WorkerId, "worker id"
}
name! {
    /// Whose job: the `sub` of a user's token, or [`Owner::local`].
    Owner, "user id"
}

impl WorkerId {
    /// The worker inside the coordinator's own process.
    pub fn local() -> Self {
        Self("local".into())
    }

    /// A fresh name for a worker that brought none.
    pub(crate) fn random(random: &mut impl Rng) -> Self {
        Self(format!("worker-{:016x}", random.next_u64()).into())
    }
}

impl Owner {
    /// Who submits through [`crate::coordinator::Coordinator::jobs`].
    pub fn local() -> Self {
        Self("local".into())
    }
}

/// The fencing token of one attempt: 128 random bits. Every message about the attempt carries it,
/// and a wrong or old one changes nothing. A secret between the coordinator and the worker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseToken(u128);

impl LeaseToken {
    pub(crate) fn random(random: &mut impl Rng) -> Self {
        Self((u128::from(random.next_u64()) << 64) | u128::from(random.next_u64()))
    }

    /// A token with these bits, for tests of stores and transports.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The token as it travels: 32 hexadecimal digits.
    pub fn reveal(&self) -> String {
        format!("{:032x}", self.0)
    }
}

impl fmt::Debug for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseToken(…)")
    }
}

impl FromStr for LeaseToken {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const WRONG: ParseError = ParseError("not a lease token: expected 32 hexadecimal digits");
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(WRONG);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| WRONG)
    }
}

impl Serialize for LeaseToken {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.reveal())
    }
}

impl<'de> Deserialize<'de> for LeaseToken {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn job_ids_never_go_backwards() {
        let mut random = StdRng::seed_from_u64(1);
        let ids = JobIds::after(None);
        let mut last = ids.next(Timestamp::from_millis(1_000), &mut random);
        for i in 0..10_000 {
            // The clock stands still, and then runs backwards.
            let next = ids.next(Timestamp::from_millis(1_000 - i), &mut random);
            assert!(next > last);
            last = next;
        }
        let resumed = JobIds::after(Some(last));
        assert!(resumed.next(Timestamp::from_millis(5), &mut random) > last);
    }

    #[test]
    fn job_ids_are_version_7() {
        let id = JobIds::after(None).next(Timestamp::from_millis(7), &mut StdRng::seed_from_u64(1));
        assert_eq!(id.0.get_version_num(), 7);
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn names_are_visible_ascii() {
        assert!("w-1".parse::<WorkerId>().is_ok());
        for wrong in ["", "a b", "ü", "a\n", &"x".repeat(129)] {
            assert!(wrong.parse::<WorkerId>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_lease_token_does_not_show_itself() {
        let token = LeaseToken::from_bits(0xfeed);
        assert!(!format!("{token:?}").contains("feed"));
        assert_eq!(token.reveal().parse(), Ok(token));
    }
}
