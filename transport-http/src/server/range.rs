//! Conditional and partial requests for things whose bytes never change (RFC 9110, sections 13 and 14).

use cmdexec_core::files::GetRange;
use http::HeaderMap;
use http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};

/// Whether the client has what it asks for.
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    // A weak tag of the same name is as good here.
    tags.flat_map(|line| line.split(',')).map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// The part that is asked for. `None`: all of it, also where the header is none, asks for several parts, or is for a part of
/// something else.
pub(super) fn asked(headers: &HeaderMap, etag: &str) -> Option<GetRange> {
    if headers.get(IF_RANGE).is_some_and(|tag| tag.to_str().ok().map(str::trim) != Some(etag)) {
        return None;
    }
    let mut lines = headers.get_all(RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let (unit, range) = line.to_str().ok()?.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    // `parse` takes a sign.
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    match (first.trim(), last.trim()) {
        ("", last) => number(last).map(GetRange::Suffix),
        (first, "") => number(first).map(GetRange::Offset),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| GetRange::Bounded(first..last.saturating_add(1)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn one_part_is_understood_and_everything_else_asks_for_all() {
        for (range, expected) in [
            ("bytes=0-9", Some(GetRange::Bounded(0..10))),
            ("Bytes = 5-5", Some(GetRange::Bounded(5..6))),
            ("bytes=7-", Some(GetRange::Offset(7))),
            ("bytes=-7", Some(GetRange::Suffix(7))),
            ("bytes=0-18446744073709551615", Some(GetRange::Bounded(0..u64::MAX))),
            ("bytes=9-0", None),
            ("bytes=0-1,3-4", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("bytes=a-b", None),
            ("bytes=99999999999999999999-", None),
            ("items=0-1", None),
            ("bytes", None),
        ] {
            assert_eq!(asked(&headers(&[("range", range)]), "\"x\""), expected, "{range}");
        }
        assert_eq!(asked(&headers(&[]), "\"x\""), None);
        let mut two = headers(&[("range", "bytes=0-1")]);
        two.append(RANGE, "bytes=2-3".parse().unwrap());
        assert_eq!(asked(&two, "\"x\""), None);
    }

    #[test]
    fn a_part_of_something_else_is_not_given() {
        for (tag, given) in
            [("\"x\"", true), ("\"y\"", false), ("W/\"x\"", false), ("Fri, 20 Nov 2026 00:00:00 GMT", false)]
        {
            assert_eq!(
                asked(&headers(&[("range", "bytes=0-1"), ("if-range", tag)]), "\"x\"").is_some(),
                given,
                "{tag}"
            );
        }
    }

    #[test]
    fn what_is_known_is_known_by_its_tag() {
        for (tags, known) in [("\"x\"", true), ("\"a\", W/\"x\"", true), ("*", true), ("\"y\"", false), ("x", false)] {
            assert_eq!(is_known(&headers(&[("if-none-match", tags)]), "\"x\""), known, "{tags}");
        }
        assert!(!is_known(&headers(&[]), "\"x\""));
    }
}
