//! What answers say of the request limits.

use cmdexec_core::limiter::{Decision, Limit};
use cmdexec_core::time::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Says in the answer how many requests are left: by the standard's names, and by the older ones.
pub(super) fn stamp(headers: &mut HeaderMap, left: Option<&(Limit, Decision)>, now: Timestamp) {
    const NAMES: [[HeaderName; 2]; 3] = [
        [HeaderName::from_static("ratelimit-limit"), HeaderName::from_static("x-ratelimit-limit")],
        [HeaderName::from_static("ratelimit-remaining"), HeaderName::from_static("x-ratelimit-remaining")],
        [HeaderName::from_static("ratelimit-reset"), HeaderName::from_static("x-ratelimit-reset")],
    ];
    let Some((Limit { max, window, .. }, decision)) = left else { return };
    let [limit, remaining, reset] = NAMES;
    let reset_after = u64::try_from(decision.reset.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX);
    for name in limit {
        headers.insert(name, HeaderValue::from(*max));
    }
    for name in remaining {
        headers.insert(name, HeaderValue::from(decision.remaining));
    }
    // The standard counts seconds from now, the older header names the second.
    let [reset, older_reset] = reset;
    headers.insert(reset, HeaderValue::from(reset_after));
    let at = now.as_millis().div_euclid(1_000).saturating_add_unsigned(reset_after);
    headers.insert(older_reset, HeaderValue::from(at));
    if let Ok(policy) = HeaderValue::try_from(format!("{max};w={}", window.as_secs().max(1))) {
        headers.insert(HeaderName::from_static("ratelimit-policy"), policy);
    }
}
