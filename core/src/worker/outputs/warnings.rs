//! What a job's user should know of its outputs, no more of it than can be kept.

/// How many warnings are said; the coordinator keeps no more than 20 of an attempt.
const MOST: usize = 18;

/// How much of a path is said.
const LONGEST: usize = 200;

/// Warnings about outputs.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    texts: Vec<String>,
    /// How many were too many.
    more: u64,
}

impl Warnings {
    /// Something is the matter.
    pub(super) fn note(&mut self, text: &str) {
        if self.texts.len() < MOST {
            self.texts.push(format!("outputs: {text}"));
        } else {
            self.more += 1;
        }
    }

    /// A file, or what is below a directory, is not in the archive.
    pub(super) fn left_out(&mut self, path: &str, why: &str) {
        if self.texts.len() < MOST {
            let path = if path.is_empty() { "." } else { path };
            self.note(&format!("{} was left out: {why}", shown(path)));
        } else {
            self.more += 1;
        }
    }

    pub(super) fn append(&mut self, other: Self) {
        let room = MOST.saturating_sub(self.texts.len());
        self.more += other.more + other.texts.len().saturating_sub(room) as u64;
        self.texts.extend(other.texts.into_iter().take(room));
    }

    pub(super) fn into_texts(mut self) -> Vec<String> {
        if self.more > 0 {
            self.texts.push(format!("outputs: {} more warnings", self.more));
        }
        self.texts
    }
}

/// A path or glob as a text that moves no cursor and fills no screen.
pub(super) fn shown(path: &str) -> String {
    let mut shown = String::from("`");
    for character in path.chars() {
        if shown.len() > LONGEST {
            shown.push('…');
            break;
        }
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown + "`"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_said_and_the_rest_is_counted() {
        let mut warnings = Warnings::default();
        warnings.left_out("a\u{1b}[2J", "it is a socket");
        let mut others = Warnings::default();
        (0..30).for_each(|i| others.note(&i.to_string()));
        warnings.append(others);
        let texts = warnings.into_texts();
        assert_eq!(texts.len(), 19);
        assert_eq!(texts[0], r"outputs: `a\u{1b}[2J` was left out: it is a socket");
        assert_eq!(texts[17], "outputs: 16");
        assert_eq!(texts[18], "outputs: 13 more warnings");
        assert!(shown(&"x".repeat(10_000)).len() < 300);
    }
}
