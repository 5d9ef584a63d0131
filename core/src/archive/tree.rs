//! What is to stand where: every file, link and directory once, whatever the file system takes for one name.

use std::collections::HashMap;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::{Error, Limits};

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Said to be one, or on the way to something.
    Directory,
    File,
    Link,
}

/// A node's number; nodes are numbered from 1, below the directory itself.
type Place = u32;
const TOP: Place = 0;

#[derive(Debug)]
struct Node {
    name: Box<str>,
    place: Place,
    what: What,
}

/// The tree that an archive describes.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// By where they stand and their name as the most forgiving file system compares it.
    nodes: HashMap<(Place, Box<str>), Node>,
    /// Every directory, each after the one that it is in.
    directories: Vec<String>,
}

impl Tree {
    /// Adds what stands at a path, with the directories on the way.
    pub(super) fn add(&mut self, path: &str, what: What, limits: &Limits) -> Result<(), Error> {
        let mut above = TOP;
        let mut end = 0;
        for name in path.split('/') {
            end += name.len() + usize::from(end > 0);
            let upto = path.get(..end).unwrap_or(path);
            let is_last = upto.len() == path.len();
            let here = if is_last { what } else { What::Directory };
            let key = (above, folded(name));
            let Some(node) = self.nodes.get(&key) else {
                if self.nodes.len() as u64 >= limits.entries {
                    return Err(Error::TooManyEntries { limit: limits.entries });
                }
                let place = Place::try_from(self.nodes.len() + 1)
                    .map_err(|_| Error::TooManyEntries { limit: limits.entries })?;
                if here == What::Directory {
                    self.directories.push(upto.to_owned());
                }
                self.nodes.insert(key, Node { name: name.into(), place, what: here });
                above = place;
                continue;
            };
            if *node.name != *name {
                return Err(collision(path, upto, node));
            }
            match (node.what, here) {
                (What::Directory, What::Directory) => {}
                (What::Link, What::Directory) => {
                    return Err(Error::ThroughLink { entry: path.to_owned(), link: upto.to_owned() });
                }
                (What::Directory, What::Link) => {
                    return Err(Error::ThroughLink { entry: format!("{path}/…"), link: path.to_owned() });
                }
                (What::File, What::Directory) | (What::Directory, What::File) => {
                    return Err(Error::FileAndDirectory { entry: upto.to_owned() });
                }
                (What::File | What::Link, What::File | What::Link) => {
                    return Err(Error::Duplicate { entry: path.to_owned() });
                }
            }
            above = node.place;
        }
        Ok(())
    }

    /// Every directory, each after the one that it is in.
    pub(super) fn into_directories(self) -> Vec<String> {
        self.directories
    }
}

fn collision(path: &str, upto: &str, node: &Node) -> Error {
    let parent = upto.rsplit_once('/').map_or(String::new(), |(parent, _)| format!("{parent}/"));
    let (entry, other) = (path.to_owned(), format!("{parent}{}", node.name));
    if composed(upto) == composed(&other) {
        Error::UnicodeCollision { entry, other }
    } else {
        Error::CaseCollision { entry, other }
    }
}

fn composed(text: &str) -> String {
    text.nfc().collect()
}

/// A name as a file system compares it that knows neither case nor the ways in which Unicode spells one character.
fn folded(name: &str) -> Box<str> {
    if name.is_ascii() {
        return name.to_ascii_lowercase().into();
    }
    // To upper case first, because `ß` and `ſ` have no lower case to meet `ss` and `s` in.
    let composed = if is_nfc(name) { name.to_uppercase() } else { name.nfc().collect::<String>().to_uppercase() };
    composed.to_lowercase().nfc().collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_may_be_named_as_often_as_one_likes_and_comes_before_what_is_in_it() {
        let mut tree = Tree::default();
        for (path, what) in [
            ("a/b/c", What::File),
            ("a", What::Directory),
            ("a/b", What::Directory),
            ("a/b", What::Directory),
            ("z", What::Link),
        ] {
            tree.add(path, what, &Limits::default()).unwrap();
        }
        assert_eq!(tree.into_directories(), ["a", "a/b"]);
    }

    #[test]
    fn names_are_compared_as_the_most_forgiving_file_system_does() {
        for (one, other) in [("Straße", "STRASSE"), ("é", "e\u{301}"), ("É", "e\u{301}"), ("README", "readme")] {
            assert_eq!(folded(one), folded(other));
        }
        assert_ne!(folded("a"), folded("ä"));
    }
}
