//! Names of entries: what path one means, if it is one inside the directory.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use super::{Error, Limits};

/// What file systems take at most.
const LONGEST_NAME: usize = 255;

/// A path inside the directory: names with `/` between them, no name empty, `.` or `..`. Empty for the directory itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) path: String,
    /// It ends as only directories do.
    pub(super) is_directory: bool,
}

/// A name for a message.
pub(super) fn shown(name: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(name.get(..MOST).unwrap_or(name));
    if name.len() > MOST { format!("{text}…") } else { text.into_owned() }
}

/// The path that an entry's name means.
pub(super) fn inside(raw: &[u8], says_utf8: bool, limits: &Limits) -> Result<Inside, Error> {
    let entry = || shown(raw);
    if raw.len() > limits.path {
        return Err(Error::PathTooLong { entry: entry(), limit: limits.path });
    }
    let name = decode(raw, says_utf8)?;
    let entry = || shown(name.as_bytes());
    if name.contains('\0') {
        return Err(Error::Nul { entry: entry() });
    }
    if has_drive(&name) {
        return Err(Error::DriveLetter { entry: entry() });
    }
    if name.starts_with(r"\\") {
        return Err(Error::NetworkShare { entry: entry() });
    }
    if name.contains('\\') {
        return Err(Error::Backslash { entry: entry() });
    }
    if name.starts_with('/') {
        return Err(Error::AbsolutePath { entry: entry() });
    }
    let mut path = String::with_capacity(name.len());
    let mut levels = 0;
    for part in name.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            return Err(Error::ParentDirectory { entry: entry() });
        }
        if part.len() > LONGEST_NAME {
            return Err(Error::NameTooLong { entry: entry() });
        }
        levels += 1;
        if levels > limits.levels {
            return Err(Error::TooDeep { entry: entry(), limit: limits.levels });
        }
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(part);
    }
    if looks_like_a_way_out(&name) {
        return Err(Error::LookalikePath { entry: entry() });
    }
    // `./` is the directory itself, which some programs write; an empty name is nothing.
    if path.is_empty() && !name.starts_with('.') {
        return Err(Error::NoName { entry: entry() });
    }
    Ok(Inside { path, is_directory: name.ends_with('/') || name.ends_with("/.") || name == "." })
}

/// A name's text. Without the mark for UTF-8 it is in the code page of the first IBM PC by the format's letter; in practice it is
/// UTF-8 wherever it can be, because programs of macOS and Linux leave the mark out.
fn decode(raw: &[u8], says_utf8: bool) -> Result<Cow<'_, str>, Error> {
    match std::str::from_utf8(raw) {
        Ok(text) => Ok(Cow::Borrowed(text)),
        Err(_) if has_overlong_ascii(raw) => Err(Error::OverlongUtf8 { entry: shown(raw) }),
        Err(_) if says_utf8 => Err(Error::NotUtf8 { entry: shown(raw) }),
        Err(_) => Ok(Cow::Owned(raw.iter().map(|byte| of_code_page(*byte)).collect())),
    }
}

/// Whether an ASCII character is spelled in more bytes than it needs, by which careless programs can be given a `/` or `.`.
/// Read as code page 437 it would be a box's corner before an accented capital or a currency sign, which nobody names files by.
fn has_overlong_ascii(raw: &[u8]) -> bool {
    let continues = |byte: u8| byte & 0xC0 == 0x80;
    raw.windows(2).any(|pair| matches!(pair, [0xC0 | 0xC1, next] if continues(*next)))
        || raw.windows(3).any(|bytes| matches!(bytes, [0xE0, 0x80 | 0x81, last] if continues(*last)))
        || raw.windows(4).any(|bytes| matches!(bytes, [0xF0, 0x80, 0x80 | 0x81, last] if continues(*last)))
}

fn of_code_page(byte: u8) -> char {
    const UPPER: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
    match byte.checked_sub(0x80) {
        None => char::from(byte),
        Some(place) => UPPER.chars().nth(usize::from(place)).unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

fn has_drive(name: &str) -> bool {
    matches!(name.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic())
}

/// Whether a name becomes a path out of the directory where look-alikes are taken for what they look like.
pub(super) fn looks_like_a_way_out(name: &str) -> bool {
    if name.is_ascii() {
        return false;
    }
    let plain: String = name.nfkc().map(plain).collect();
    plain.starts_with('/') || has_drive(&plain) || plain.split('/').any(|part| part == "..")
}

/// What a character passes for. Compatibility normalization does most; these are the slashes that it leaves alone.
fn plain(character: char) -> char {
    match character {
        '\\' | '\u{2044}' | '\u{2215}' | '\u{2216}' | '\u{29F5}' | '\u{29F8}' | '\u{29F9}' => '/',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> Result<String, Error> {
        inside(name.as_bytes(), true, &Limits::default()).map(|inside| inside.path)
    }

    #[test]
    fn harmless_names_are_taken() {
        for (name, expected) in [
            ("a", "a"),
            ("a/b/", "a/b"),
            ("./a//b/./c", "a/b/c"),
            ("./", ""),
            ("...", "..."),
            ("..a/b..", "..a/b.."),
            ("12:30.log", "12:30.log"),
            ("日本語/ファイル：一", "日本語/ファイル：一"),
            ("a…b", "a…b"),
            ("new\nline", "new\nline"),
        ] {
            assert_eq!(path(name).unwrap(), expected, "{name}");
        }
        assert_eq!(inside(b"gr\x81n", false, &Limits::default()).unwrap().path, "grün");
        assert_eq!(inside("grün".as_bytes(), false, &Limits::default()).unwrap().path, "grün");
        assert_eq!((of_code_page(0x80), of_code_page(0xFF), of_code_page(b'a')), ('Ç', '\u{a0}', 'a'));
    }
}
