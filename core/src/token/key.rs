//! One secret: signing with it, and judging what claims to be signed with it.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, TokenData, Validation};

use super::wire::{Claims, OneOrMany};
use super::{Error, LEEWAY, MAX_TOKEN, MIN_SECRET, WorkerClaims, hmac};
use crate::time::Timestamp;

#[derive(Clone)]
pub(super) struct Key {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    pub(super) issuer: String,
    pub(super) audience: String,
}

impl Key {
    pub(super) fn new(secret: &str, audience: &str) -> Self {
        hmac::install();
        let mut validation = Validation::new(Algorithm::HS256);
        // The library judges times by the system clock, and lets pass an `aud` or `iss` that it can't read.
        // Only the signature and the algorithm are its business here; the claims are judged below.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self {
            encoding: EncodingKey::from_secret(secret.as_bytes()),
            decoding: DecodingKey::from_secret(secret.as_bytes()),
            validation,
            issuer: "cmdexec".to_owned(),
            audience: audience.to_owned(),
        }
    }

    pub(super) fn sign(&self, mut claims: Claims) -> String {
        claims.iss = Some(OneOrMany::One(self.issuer.clone()));
        claims.aud = Some(OneOrMany::One(self.audience.clone()));
        // HMAC over a struct of strings and numbers: neither signing nor writing it as JSON can fail. Were it to, an
        // empty text is a token that nobody accepts.
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding).unwrap_or_default()
    }

    /// The claims of a token that is signed with this key, meant for this audience, and not past its time.
    ///
    /// Time is judged last, so that only the holder of a token that was good learns that it has expired.
    pub(super) fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, Error> {
        if token.len() > MAX_TOKEN {
            return Err(Error::Invalid);
        }
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation);
        let TokenData { header, claims, .. } = decoded.map_err(|_| Error::Invalid)?;
        let names = |names: &Option<OneOrMany>, own: &str| names.as_ref().is_none_or(|names| names.contains(own));
        // RFC 7515 §4.1.11: extensions that must be understood and are not make a token invalid.
        if header.crit.is_some() || !names(&claims.iss, &self.issuer) || !names(&claims.aud, &self.audience) {
            return Err(Error::Invalid);
        }
        if claims.nbf.is_some_and(|not_before| now.after(LEEWAY) < not_before.0) {
            return Err(Error::Invalid);
        }
        if now >= claims.exp.0.after(LEEWAY) {
            return Err(Error::Expired);
        }
        Ok(claims)
    }
}

/// The workers' secret alone: what a worker that was given it makes its own token with.
#[derive(Clone)]
pub struct WorkerKey(pub(super) Key);

impl WorkerKey {
    /// A key from the workers' secret, of [`MIN_SECRET`] characters at least. As [`super::Keys::new`], it may set what
    /// `jsonwebtoken` computes with.
    ///
    /// # Errors
    /// [`Error::Secrets`]: it is too short.
    pub fn new(secret: &str) -> Result<Self, Error> {
        if secret.chars().count() < MIN_SECRET {
            let what = format!("the worker token secret must have at least {MIN_SECRET} characters");
            return Err(Error::Secrets(what));
        }
        Ok(Self(Key::new(secret, "cmdexec-worker")))
    }

    /// A worker's token with these claims.
    pub fn mint(&self, claims: &WorkerClaims) -> String {
        self.0.sign(Claims::from(claims))
    }

    /// What a worker's token says, if it is one.
    ///
    /// # Errors
    /// [`Error::Expired`], [`Error::Invalid`].
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<WorkerClaims, Error> {
        self.0.verify(token, now)?.try_into()
    }
}

impl fmt::Debug for WorkerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerKey").finish_non_exhaustive()
    }
}
