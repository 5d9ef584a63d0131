//! Names of images: written short by people, and whole for comparing.

use std::fmt;

/// An image's name, whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Reference {
    /// Such as `docker.io`.
    pub(crate) registry: String,
    /// Such as `library/debian`.
    pub(crate) repository: String,
    /// A tag, or a digest with its algorithm.
    pub(crate) version: Version,
}

/// Which of the images of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Version {
    Tag(String),
    Digest(String),
}

/// What Docker's own registry is called.
const DOCKER: &str = "docker.io";

impl Reference {
    /// Reads a name as Docker does: without a registry it is Docker's, without a version the tag `latest`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{text:?} is no image's name: {what}");
        let (name, version) = match text.split_once('@') {
            Some((name, digest)) => {
                let is_digest = digest.split_once(':').is_some_and(|(algorithm, hex)| {
                    !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
                });
                if !is_digest {
                    return Err(wrong("what follows `@` must be a digest"));
                }
                // A tag beside a digest says nothing: the digest decides.
                let name = split_tag(name).map_or(name, |(name, _)| name);
                (name, Version::Digest(digest.to_owned()))
            }
            None => match split_tag(text) {
                Some((name, tag)) => {
                    let is_tag = (1..=128).contains(&tag.len())
                        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
                    if !is_tag {
                        return Err(wrong("its tag"));
                    }
                    (name, Version::Tag(tag.to_owned()))
                }
                None => (text, Version::Tag("latest".to_owned())),
            },
        };
        let (registry, repository) = whole_name(name);
        let is_part = |part: &str| {
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            part.bytes().all(|b| fits(b) || b"._-".contains(&b))
                && part.bytes().next().is_some_and(fits)
                && part.bytes().last().is_some_and(fits)
        };
        if !repository.split('/').all(is_part) {
            return Err(wrong("lower-case letters, digits, dots, dashes and underscores between slashes"));
        }
        Ok(Self { registry, repository, version })
    }

    /// Registry and repository.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(f, "{}/{}:{tag}", self.registry, self.repository),
            Version::Digest(digest) => write!(f, "{}/{}@{digest}", self.registry, self.repository),
        }
    }
}

/// The tag of a name that has one: a colon before the last slash is a port's.
fn split_tag(name: &str) -> Option<(&str, &str)> {
    let (before, tag) = name.rsplit_once(':')?;
    (!tag.contains('/')).then_some((before, tag))
}

/// Registry and repository of a name, or of a pattern of names.
pub(crate) fn whole_name(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DOCKER, name),
    };
    let registry = if registry == "index.docker.io" { DOCKER } else { registry };
    if registry == DOCKER && !repository.contains('/') {
        return (registry.to_owned(), format!("library/{repository}"));
    }
    (registry.to_owned(), repository.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        for (short, whole) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("me/tool", "docker.io/me/tool:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
            ("index.docker.io/x", "docker.io/library/x:latest"),
        ] {
            assert_eq!(Reference::parse(short).unwrap().to_string(), whole);
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in [format!("x@{digest}"), format!("x:1@{digest}")] {
            assert_eq!(Reference::parse(&text).unwrap().to_string(), format!("docker.io/library/x@{digest}"));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in ["", "Upper", "a//b", "a/../b", "x:", "x:a b", "x@sha256:short", "a/", "/a", "x@nothing"] {
            assert!(Reference::parse(wrong).is_err(), "{wrong}");
        }
    }
}
