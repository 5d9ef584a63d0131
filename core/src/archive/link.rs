//! Where symbolic links lead.

use super::{Limits, name};

/// Whether a link at `path` to `target` ends inside the directory, whatever other links there are.
///
/// `..` may only stand at the front: there it counts from the link's own place, whose parents are real directories. After a name
/// it would count from wherever that name leads, if it is a link itself. So each link of a chain ends inside, and so does the chain.
pub(crate) fn stays_inside(path: &str, target: &str, limits: &Limits) -> bool {
    if target.is_empty() || target.len() > limits.path || target.contains(['\\', '\0']) || target.starts_with('/') {
        return false;
    }
    let mut depth = path.split('/').count().saturating_sub(1);
    let mut named = false;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if !named && depth > 0 => depth -= 1,
            ".." => return false,
            _ => named = true,
        }
    }
    // `..` at the front has been counted; what only looks like it has not.
    target.is_ascii() || !name::looks_like_a_way_out(target.trim_start_matches("../"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_may_lead_about_inside_and_not_out() {
        let inside = |path, target| stays_inside(path, target, &Limits::default());
        for (path, target) in [("a", "b"), ("a/b", "../c"), ("a/b/c", "../../d/e"), ("a", "."), ("a/ü", "../ö")] {
            assert!(inside(path, target), "{path} -> {target}");
        }
        for (path, target) in [
            ("a", ".."),
            ("a", "../b"),
            ("a/b", "../../c"),
            ("a", "/etc"),
            ("a", "b/.."),
            ("a", ""),
            ("a", r"..\b"),
            ("a", "\u{FF0E}\u{FF0E}/b"),
            ("a", "b\0c"),
        ] {
            assert!(!inside(path, target), "{path} -> {target}");
        }
    }
}
