//! Claims as they stand in a token.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Error, UserClaims, WorkerClaims};
use crate::service::Role;
use crate::time::Timestamp;

/// Every claim that is made or read. One struct for both kinds of token, because secret and audience tell them apart,
/// and so that a claim given twice is refused in either.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Claims {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) iss: Option<OneOrMany>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) aud: Option<OneOrMany>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<NumericDate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nbf: Option<NumericDate>,
    /// Required; by its absence the token says too little.
    pub(super) exp: NumericDate,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|one| one == name),
        }
    }
}

/// Seconds since 1970, which RFC 7519 allows to have a fraction.
#[derive(Clone, Copy)]
pub(super) struct NumericDate(pub(super) Timestamp);

impl Default for NumericDate {
    fn default() -> Self {
        Self(Timestamp::from_millis(0))
    }
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if !(0.0..1e12).contains(&seconds) {
            return Err(serde::de::Error::custom("not a date"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "1e15 ms are far within an i64")]
        let millis = (seconds * 1e3) as i64;
        Ok(Self(Timestamp::from_millis(millis)))
    }
}

impl Serialize for NumericDate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0.as_millis().div_euclid(1_000))
    }
}

impl From<&UserClaims> for Claims {
    fn from(claims: &UserClaims) -> Self {
        let role = match claims.role {
            Role::Admin => "admin",
            Role::User => "user",
            Role::Viewer => "viewer",
        };
        Self {
            sub: Some(claims.owner.to_string()),
            email: claims.email.clone(),
            role: Some(role.to_owned()),
            iat: claims.issued.map(NumericDate),
            exp: NumericDate(claims.expires),
            ..Self::default()
        }
    }
}

impl TryFrom<Claims> for UserClaims {
    type Error = Error;

    fn try_from(claims: Claims) -> Result<Self, Error> {
        let role = match claims.role.as_deref() {
            Some("admin") => Role::Admin,
            Some("user") => Role::User,
            Some("viewer") => Role::Viewer,
            // Guessing a role would be giving one away.
            _ => return Err(Error::Invalid),
        };
        Ok(Self {
            owner: claims.sub.and_then(|sub| sub.parse().ok()).ok_or(Error::Invalid)?,
            email: claims.email,
            role,
            issued: claims.iat.map(|date| date.0),
            expires: claims.exp.0,
        })
    }
}

impl From<&WorkerClaims> for Claims {
    fn from(claims: &WorkerClaims) -> Self {
        Self {
            worker_id: claims.worker.as_ref().map(ToString::to_string),
            iat: claims.issued.map(NumericDate),
            exp: NumericDate(claims.expires),
            ..Self::default()
        }
    }
}

impl TryFrom<Claims> for WorkerClaims {
    type Error = Error;

    fn try_from(claims: Claims) -> Result<Self, Error> {
        // A name that can't be one must not widen the token to any worker.
        let worker = claims.worker_id.or(claims.sub).map(|id| id.parse()).transpose().map_err(|_| Error::Invalid)?;
        Ok(Self { worker, issued: claims.iat.map(|date| date.0), expires: claims.exp.0 })
    }
}
