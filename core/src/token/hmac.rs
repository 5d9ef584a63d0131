//! What tokens are signed with: HMAC, the only family that they use.
//!
//! `jsonwebtoken` brings backends for all families together; building one takes longer than building this crate.

use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use sha2::{Sha256, Sha384, Sha512};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| signer(*algorithm, key),
    verifier_factory: |algorithm, key| verifier(*algorithm, key),
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes this what `jsonwebtoken` computes with in this process, unless it has something already.
pub(super) fn install() {
    // Whatever else is there knows HMAC too.
    let _ = PROVIDER.install_default();
}

fn signer(algorithm: Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    if key.family() != AlgorithmFamily::Hmac {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    Ok(code(algorithm, key.as_bytes())?)
}

fn verifier(algorithm: Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if key.family() != AlgorithmFamily::Hmac {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    Ok(code(algorithm, key.try_get_as_bytes()?)?)
}

fn code(algorithm: Algorithm, secret: &[u8]) -> Result<Box<dyn Code>> {
    Ok(match algorithm {
        Algorithm::HS256 => Box::new(Keyed::<Hmac<Sha256>>::new(algorithm, secret)?),
        Algorithm::HS384 => Box::new(Keyed::<Hmac<Sha384>>::new(algorithm, secret)?),
        Algorithm::HS512 => Box::new(Keyed::<Hmac<Sha512>>::new(algorithm, secret)?),
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    })
}

/// What signs and what verifies are the same.
trait Code: JwtSigner + JwtVerifier {}

impl<M: Mac + Clone> Code for Keyed<M> {}

/// A code that has its key, and no message yet.
struct Keyed<M> {
    algorithm: Algorithm,
    mac: M,
}

impl<M: Mac + KeyInit> Keyed<M> {
    fn new(algorithm: Algorithm, secret: &[u8]) -> Result<Self> {
        let mac = <M as KeyInit>::new_from_slice(secret).map_err(|_| ErrorKind::InvalidKeyFormat)?;
        Ok(Self { algorithm, mac })
    }
}

impl<M: Mac + Clone> Signer<Vec<u8>> for Keyed<M> {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, signature::Error> {
        Ok(self.mac.clone().chain_update(message).finalize().into_bytes().to_vec())
    }
}

impl<M: Mac + Clone> Verifier<Vec<u8>> for Keyed<M> {
    /// In a time that does not depend on where the codes differ.
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        let mac = self.mac.clone().chain_update(message);
        mac.verify_slice(signature).map_err(|_| signature::Error::new())
    }
}

impl<M: Mac + Clone> JwtSigner for Keyed<M> {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl<M: Mac + Clone> JwtVerifier for Keyed<M> {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digit(value: u8) -> char {
        char::from_digit(value.into(), 16).unwrap()
    }

    #[test]
    fn the_codes_are_those_of_the_standard() {
        // RFC 4231, test case 2.
        let codes = [
            (Algorithm::HS256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (
                Algorithm::HS384,
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                Algorithm::HS512,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd\
                 caeab1a34d4a6b4b636e070a38bce737",
            ),
        ];
        for (algorithm, code) in codes {
            let message = b"what do ya want for nothing?";
            let signer = signer(algorithm, &EncodingKey::from_secret(b"Jefe")).unwrap();
            let mut signature = signer.sign(message);
            assert_eq!(signature.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect::<String>(), code);
            let verifier = verifier(algorithm, &DecodingKey::from_secret(b"Jefe")).unwrap();
            assert!(verifier.verify(message, &signature).is_ok());
            assert!(verifier.verify(b"what do you want for nothing?", &signature).is_err());
            assert!(verifier.verify(message, &Vec::new()).is_err());
            signature[7] ^= 1;
            assert!(verifier.verify(message, &signature).is_err());
            signature[7] ^= 1;
            signature.push(0);
            assert!(verifier.verify(message, &signature).is_err());
        }
    }

    #[test]
    fn other_keys_and_families_are_refused() {
        assert!(signer(Algorithm::RS256, &EncodingKey::from_secret(b"secret")).is_err());
        assert!(verifier(Algorithm::ES256, &DecodingKey::from_secret(b"secret")).is_err());
        assert!(verifier(Algorithm::HS256, &DecodingKey::from_rsa_raw_components(b"n", b"e")).is_err());
        assert!(signer(Algorithm::HS256, &EncodingKey::from_rsa_der(b"secret")).is_err());
    }
}
