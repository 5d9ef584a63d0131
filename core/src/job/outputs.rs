//! Which files a job's `outputs` name.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// The most globs that a job may have.
pub(super) const MOST: usize = 100;

/// How long one may be.
pub(super) const LONGEST: usize = 1_024;

/// Compiled globs. Paths are relative, with `/` between names.
///
/// `*` and `?` stay within a name, `**` crosses directories; `{a,b}`, `[a-z]` and `\` are as in most shells. A glob that names a
/// directory means everything below it; `.` means all there is.
#[derive(Debug)]
pub(crate) struct Outputs {
    set: GlobSet,
    reaches: Vec<Reach>,
}

/// Where what a glob names may be, so that whole trees need not be looked at.
#[derive(Debug)]
struct Reach {
    /// The directories that it begins with, without their wild cards.
    prefix: String,
    /// How many names its paths have, where that is plain.
    names: Option<usize>,
}

impl Outputs {
    /// The globs of a spec.
    ///
    /// # Errors
    /// What keeps them from being used. [`check`] finds all but a want of room.
    pub(crate) fn new(globs: &[String]) -> Result<Self, String> {
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            set.add(compile(glob)?);
        }
        let set = set.build().map_err(|error| error.to_string())?;
        Ok(Self { set, reaches: globs.iter().map(|glob| Reach::of(&plain(glob))).collect() })
    }

    /// How many globs there are.
    pub(crate) fn count(&self) -> usize {
        self.reaches.len()
    }

    /// The places of the globs that name this path.
    pub(crate) fn naming(&self, path: &str) -> Vec<usize> {
        self.set.matches(path)
    }

    /// Whether a path below this directory may be named.
    pub(crate) fn may_name_below(&self, directory: &str) -> bool {
        self.reaches.iter().any(|reach| reach.may_be_below(directory))
    }
}

impl Reach {
    fn of(glob: &str) -> Self {
        let is_wild = |name: &&str| name.contains(['*', '?', '[', ']', '{', '}', '\\']);
        let names = glob.split('/');
        // The last name is what it names, and not on the way.
        let way = glob.rsplit_once('/').map_or("", |(way, _)| way);
        let plain: Vec<_> = way.split('/').take_while(|name| !name.is_empty() && !is_wild(name)).collect();
        // Within brackets and braces a `/` may be something else, and may be there once or twice.
        let is_plain = !glob.contains("**") && !glob.contains(['[', '{', '\\']);
        Self { prefix: plain.join("/"), names: is_plain.then(|| names.count()) }
    }

    fn may_be_below(&self, directory: &str) -> bool {
        let begins = |whole: &str, part: &str| {
            whole.strip_prefix(part).is_some_and(|rest| rest.is_empty() || part.is_empty() || rest.starts_with('/'))
        };
        let is_on_the_way = begins(&self.prefix, directory) || begins(directory, &self.prefix);
        is_on_the_way && self.names.is_none_or(|names| directory.split('/').count() < names)
    }
}

/// What is wrong with a glob.
pub(super) fn check(glob: &str) -> Option<String> {
    if glob.is_empty() {
        return Some("must not be empty".to_owned());
    }
    if glob.len() > LONGEST {
        return Some(format!("must be at most {LONGEST} bytes"));
    }
    if glob.contains('\0') {
        return Some("must not contain NUL".to_owned());
    }
    if glob.starts_with('/') || glob.split(['/', ',', '{', '}']).any(|name| name == "..") {
        return Some("must be relative to the working directory, without `..`".to_owned());
    }
    compile(glob).err()
}

fn compile(glob: &str) -> Result<globset::Glob, String> {
    let plain = plain(glob);
    let built = GlobBuilder::new(&plain).literal_separator(true).backslash_escape(true).build();
    built.map_err(|error| format!("is no glob: {}", error.kind()))
}

/// The glob without the names that mean nothing.
fn plain(glob: &str) -> String {
    let names: Vec<_> = glob.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    if names.is_empty() { "**".to_owned() } else { names.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(globs: &[&str]) -> Outputs {
        Outputs::new(&globs.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn globs_name_what_shells_would() {
        for (glob, path, named) in [
            ("a", "a", true),
            ("a", "b/a", false),
            ("./a/", "a", true),
            (".", "a/b", true),
            ("*", "a", true),
            ("*", ".hidden", true),
            ("*", "a/b", false),
            ("*.log", "x.log", true),
            ("*.log", "d/x.log", false),
            ("**/*.log", "x.log", true),
            ("**/*.log", "d/e/x.log", true),
            ("dist/**", "dist/a/b", true),
            ("dist/**", "dist", false),
            ("dist/**", "other/dist/a", false),
            ("d?st", "dist", true),
            ("a?b", "a/b", false),
            ("{a,b}/c", "b/c", true),
            ("[ab]", "b", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("a//./b", "a/b", true),
        ] {
            assert_eq!(outputs(&[glob]).naming(path) == [0], named, "{glob} {path}");
        }
        assert_eq!(outputs(&["a*", "x", "*b"]).naming("ab"), [0, 2]);
    }

    #[test]
    fn only_directories_on_a_way_are_looked_into() {
        for (glob, directory, expected) in [
            ("dist/**", "dist", true),
            ("dist/**", "dist/a/b", true),
            ("dist/**", "distant", false),
            ("dist/**", "src", false),
            ("a/b/c", "a", true),
            ("a/b/c", "a/b", true),
            ("a/b/c", "a/b/c", false),
            ("*.log", "a", false),
            ("*/x.log", "a", true),
            ("*/x.log", "a/b", false),
            ("**/x.log", "a/b", true),
            ("{a,b/c}/d", "b", true),
            ("{a,b/c}/d", "b/c", true),
            (".", "a", true),
            ("a/*/c", "a/x", true),
            ("a/*/c", "b", false),
        ] {
            assert_eq!(outputs(&[glob]).may_name_below(directory), expected, "{glob} {directory}");
        }
        assert!(outputs(&["x", "a/**"]).may_name_below("a"));
    }

    #[test]
    fn what_is_no_glob_or_leads_out_is_said() {
        for fine in ["a", "**", "./a", "a/**/b", "a..b", "..."] {
            assert_eq!(check(fine), None, "{fine}");
        }
        for wrong in ["", "/a", "..", "a/../b", "{a,..}/b", "../a", "a/..", "[a", "{a", "a\0", &"x".repeat(1_025)] {
            assert!(check(wrong).is_some(), "{wrong}");
        }
    }

    #[test]
    fn as_many_and_as_long_as_there_may_be_can_be_used() {
        for glob in ["*a".repeat(512), "[a-z]?".repeat(170), "{a,b}".repeat(204), "**/".repeat(341)] {
            assert_eq!(check(&glob), None);
            let globs: Vec<String> = (0..MOST).map(|i| glob.replacen('a', &i.to_string(), 1)).collect();
            let long = |glob: &String| glob.len() <= LONGEST + 2;
            assert!(globs.iter().all(long));
            let outputs = Outputs::new(&globs).unwrap();
            assert_eq!(
                outputs.naming("b/c/nothing"),
                if glob.starts_with("**") { (0..MOST).collect() } else { vec![] }
            );
        }
    }
}
