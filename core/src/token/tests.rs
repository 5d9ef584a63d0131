use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const USER: &str = "user-secret-user-secret-user-secret";
const WORKER: &str = "worker-secret-worker-secret-worker";
const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

fn keys() -> Keys {
    Keys::new(USER, WORKER).unwrap()
}

fn seconds(after_now: i64) -> i64 {
    NOW.as_millis() / 1_000 + after_now
}

fn signed_with(secret: &str, alg: Algorithm, claims: &Value) -> String {
    super::hmac::install();
    jsonwebtoken::encode(&Header::new(alg), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// A token as another program would make it.
fn user_token(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = json!({"sub": "ada", "email": "ada@example.org", "role": "user", "exp": seconds(60)});
    change(&mut claims);
    signed_with(USER, Algorithm::HS256, &claims)
}

fn worker_token(claims: &Value) -> String {
    signed_with(WORKER, Algorithm::HS256, claims)
}

/// URL-safe base64 without padding, for tokens that no library would make.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for i in 0..=three.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63]));
        }
    }
    text
}

#[test]
fn what_is_minted_is_accepted() {
    let keys = keys();
    let claims = UserClaims {
        email: Some("ada@example.org".to_owned()),
        ..UserClaims::new("ada".parse().unwrap(), Role::Admin, NOW)
    };
    assert_eq!(keys.verify_user(&keys.mint_user(&claims), NOW), Ok(claims.clone()));
    assert_eq!(claims.expires.since(NOW), DEFAULT_TTL);
    assert_eq!(UserPrincipal::from(claims), UserPrincipal { owner: "ada".parse().unwrap(), role: Role::Admin });

    for worker in [None, Some("w-1".parse::<WorkerId>().unwrap())] {
        let claims = WorkerClaims::new(worker.clone(), NOW);
        assert_eq!(keys.verify_worker(&keys.mint_worker(&claims), NOW), Ok(claims.clone()));
        let alone = WorkerKey::new(WORKER).unwrap();
        assert_eq!(keys.verify_worker(&alone.mint(&claims), NOW), Ok(claims.clone()));
        let principal = WorkerPrincipal::from(claims);
        assert_eq!(principal, worker.map_or(WorkerPrincipal::Any, WorkerPrincipal::Bound));
    }
}

#[test]
fn tokens_of_other_programs_are_accepted() {
    let claims = keys().verify_user(&user_token(|_| ()), NOW).unwrap();
    assert_eq!((claims.owner.as_str(), claims.role, claims.issued), ("ada", Role::User, None));
    let id = |claims: Value| keys().verify_worker(&worker_token(&claims), NOW).unwrap().worker;
    assert_eq!(id(json!({"exp": seconds(1)})), None);
    assert_eq!(id(json!({"exp": seconds(1), "sub": "w"})), Some("w".parse().unwrap()));
    assert_eq!(id(json!({"exp": seconds(1), "sub": "x", "workerId": "w"})), Some("w".parse().unwrap()));
    assert_eq!(id(json!({"exp": 2e9, "iat": 1.5})), None);
}

#[test]
fn a_token_expires_after_the_leeway_by_the_time_given() {
    let token = user_token(|claims| claims["exp"] = json!(seconds(0)));
    assert!(keys().verify_user(&token, NOW.after(LEEWAY).before(Duration::from_millis(1))).is_ok());
    assert_eq!(keys().verify_user(&token, NOW.after(LEEWAY)), Err(Error::Expired));
}

#[test]
fn a_token_that_begins_later_is_invalid_until_the_leeway_before() {
    let token = user_token(|claims| claims["nbf"] = json!(seconds(31)));
    assert_eq!(keys().verify_user(&token, NOW), Err(Error::Invalid));
    assert!(keys().verify_user(&token, NOW.after(Duration::from_secs(1))).is_ok());
}

#[test]
fn exp_is_required_and_a_number() {
    let missing = user_token(|claims| drop(claims.as_object_mut().unwrap().remove("exp")));
    assert_eq!(keys().verify_user(&missing, NOW), Err(Error::Invalid));
    for wrong in [json!(null), json!("2026-01-01"), json!(-1), json!(1e300), json!([seconds(60)])] {
        let token = user_token(|claims| claims["exp"] = wrong.clone());
        assert_eq!(keys().verify_user(&token, NOW), Err(Error::Invalid), "{wrong}");
    }
}

#[test]
fn subject_and_role_are_required() {
    for field in ["sub", "role"] {
        for wrong in [json!(null), json!(""), json!("root user"), json!(7)] {
            let token = user_token(|claims| claims[field] = wrong.clone());
            assert_eq!(keys().verify_user(&token, NOW), Err(Error::Invalid), "{field}: {wrong}");
        }
    }
    for wrong in [json!(""), json!("a b"), json!(7)] {
        let token = worker_token(&json!({"workerId": wrong, "exp": seconds(60)}));
        assert_eq!(keys().verify_worker(&token, NOW), Err(Error::Invalid), "{wrong}");
    }
}

#[test]
fn one_kind_is_never_the_other() {
    let keys = keys();
    let user = keys.mint_user(&UserClaims::new(Owner::local(), Role::Admin, NOW));
    let worker = keys.mint_worker(&WorkerClaims::new(None, NOW));
    assert_eq!(keys.verify_worker(&user, NOW), Err(Error::Invalid));
    assert_eq!(keys.verify_user(&worker, NOW), Err(Error::Invalid));
    // Signed with the users' secret, but for the workers' audience.
    let crossed = user_token(|claims| claims["aud"] = json!("cmdexec-worker"));
    assert_eq!(keys.verify_user(&crossed, NOW), Err(Error::Invalid));
}

#[test]
fn issuer_and_audience_must_match_where_present() {
    for (field, value, fits) in [
        ("iss", json!("cmdexec"), true),
        ("iss", json!("somebody"), false),
        ("iss", json!(7), false),
        ("aud", json!("cmdexec-user"), true),
        ("aud", json!(["x", "cmdexec-user"]), true),
        ("aud", json!(["x"]), false),
        ("aud", json!([]), false),
        ("aud", json!({"a": 1}), false),
    ] {
        let token = user_token(|claims| claims[field] = value.clone());
        assert_eq!(keys().verify_user(&token, NOW).is_ok(), fits, "{field}: {value}");
    }
    let ours = keys().with_issuer("us").with_user_audience("app").unwrap();
    assert!(ours.verify_user(&user_token(|c| (c["iss"], c["aud"]) = (json!("us"), json!("app"))), NOW).is_ok());
    assert_eq!(ours.verify_user(&user_token(|c| c["iss"] = json!("cmdexec")), NOW), Err(Error::Invalid));
    assert!(keys().with_user_audience("cmdexec-worker").is_err());
}

#[test]
fn another_algorithm_is_invalid() {
    let claims = json!({"sub": "ada", "role": "admin", "exp": seconds(60)});
    for alg in [Algorithm::HS384, Algorithm::HS512] {
        assert_eq!(keys().verify_user(&signed_with(USER, alg, &claims), NOW), Err(Error::Invalid));
    }
    let good = signed_with(USER, Algorithm::HS256, &claims);
    let (_, good_signature) = good.rsplit_once('.').unwrap();
    for alg in ["none", "None", "", "RS256", "ES256", "EdDSA", "PS256", "HS257"] {
        let header = base64(json!({"alg": alg, "typ": "JWT"}).to_string().as_bytes());
        for signature in ["", good_signature] {
            let token = format!("{header}.{}.{signature}", base64(claims.to_string().as_bytes()));
            assert_eq!(keys().verify_user(&token, NOW), Err(Error::Invalid), "{alg}");
        }
    }
}

#[test]
fn a_changed_token_is_invalid() {
    let token = user_token(|_| ());
    assert!(keys().verify_user(&token, NOW).is_ok());
    for place in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert_eq!(keys().verify_user(&changed, NOW), Err(Error::Invalid), "at {place}");
    }
    let other = Keys::new("another-secret-another-secret-another", WORKER).unwrap();
    assert_eq!(other.verify_user(&token, NOW), Err(Error::Invalid));
}

#[test]
fn nonsense_is_invalid_whatever_its_size() {
    let token = user_token(|_| ());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let huge = user_token(|claims| claims["email"] = json!("x".repeat(MAX_TOKEN)));
    let nested = format!("{}.{}.x", base64(br#"{"alg":"HS256"}"#), base64(&[b'['; 5_000]));
    for wrong in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "é.é.é",
        message,
        &format!("{message}."),
        &format!("{token}.{signature}"),
        &format!(" {token}"),
        &huge,
        &nested,
        &".".repeat(MAX_TOKEN),
        &"a".repeat(10_000_000),
    ] {
        assert_eq!(keys().verify_user(wrong, NOW), Err(Error::Invalid), "{wrong:.40}");
    }
}

#[test]
fn a_claim_given_twice_or_a_critical_extension_is_invalid() {
    let (keys, key) = (keys(), EncodingKey::from_secret(USER.as_bytes()));
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["b64".to_owned()]);
    let claims = json!({"sub": "ada", "role": "user", "exp": seconds(60)});
    let critical = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    assert_eq!(keys.verify_user(&critical, NOW), Err(Error::Invalid));

    let claims = format!(r#"{{"sub":"ada","role":"user","role":"admin","exp":{}}}"#, seconds(60));
    let message = format!("{}.{}", base64(br#"{"alg":"HS256"}"#), base64(claims.as_bytes()));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    assert_eq!(keys.verify_user(&format!("{message}.{signature}"), NOW), Err(Error::Invalid));
}

#[test]
fn secrets_are_checked_together_and_never_shown() {
    let Err(Error::Secrets(problems)) = Keys::new("short", "short") else { panic!("accepted") };
    assert_eq!(problems.matches("at least 32").count(), 2);
    assert!(problems.contains("must differ"));
    assert!(Keys::new(USER, USER).is_err());
    assert!(WorkerKey::new("short").is_err());
    let shown = format!("{:?} {:?}", keys(), WorkerKey::new(WORKER).unwrap());
    assert!(!shown.contains("secret"), "{shown}");
}
