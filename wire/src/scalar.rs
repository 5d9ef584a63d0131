//! Times, durations and processors as they are written.

use std::time::Duration;

use cmdexec_core::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant: RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00.000Z"))]
pub struct Time(pub Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Timestamp::parse_rfc3339(&text).map(Self).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

/// A duration in seconds, with up to three decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = f64, example = 300))]
pub struct Seconds(pub Duration);

impl Seconds {
    /// The duration that a number of seconds is, to the millisecond; `None` if it is negative or beyond 30,000 years.
    pub fn from_f64(seconds: f64) -> Option<Self> {
        (0.0..1e12).contains(&seconds).then(|| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1e15")]
            let millis = (seconds * 1e3).round() as u64;
            Self(Duration::from_millis(millis))
        })
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        thousandths(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), serializer)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Self::from_f64(seconds).ok_or_else(|| serde::de::Error::custom("not a duration in seconds"))
    }
}

/// Processors, with up to three decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = f64, example = 0.5))]
pub struct Cpus(
    /// Thousandths.
    pub u32,
);

impl Cpus {
    /// The processors that a number is, to the thousandth; `None` if there are no so many.
    pub fn from_f64(cpus: f64) -> Option<Self> {
        (0.0..4e6).contains(&cpus).then(|| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 4e9")]
            let millis = (cpus * 1e3).round() as u32;
            Self(millis)
        })
    }
}

impl Serialize for Cpus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        thousandths(u64::from(self.0), serializer)
    }
}

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let cpus = f64::deserialize(deserializer)?;
        Self::from_f64(cpus).ok_or_else(|| serde::de::Error::custom("not a number of processors"))
    }
}

/// Whole numbers stay whole: `300`, not `300.0`.
fn thousandths<S: Serializer>(number: u64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.is_multiple_of(1_000) {
        serializer.serialize_u64(number / 1_000)
    } else {
        serializer.serialize_f64(number as f64 / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_millisecond_survives() {
        for millis in [0, 1, 999, 1_000, 1_001, 86_399_999, 86_400_000] {
            let seconds = Seconds(Duration::from_millis(millis));
            let text = serde_json::to_string(&seconds).unwrap();
            assert_eq!(serde_json::from_str::<Seconds>(&text).unwrap(), seconds, "{text}");
        }
        assert_eq!(serde_json::to_string(&Seconds(Duration::from_secs(300))).unwrap(), "300");
        assert_eq!(serde_json::to_string(&Cpus(500)).unwrap(), "0.5");
        for millis in [1, 333, 1_001, 64_000, 1_024_000] {
            let text = serde_json::to_string(&Cpus(millis)).unwrap();
            assert_eq!(serde_json::from_str::<Cpus>(&text).unwrap(), Cpus(millis), "{text}");
        }
    }
}
