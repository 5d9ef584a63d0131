//! Bytes to a tree, in one pass and borrowing what it can. Stricter than `serde_json::Value`: a field that is given twice is
//! refused, and so is a tree that is much larger in memory than its text.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

/// How many values a tree may have. A spec of 1 MiB has far fewer unless it is all `[[],[],…]`; the largest lists that
/// mean something (output, results) are read item by item.
const MAX_VALUES: usize = 256 * 1024;

/// A JSON value that borrows its strings from the text where they have no escapes.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
    /// The list whose items went to [`Json::parse_items`]'s closure: how many there were.
    Items(usize),
}

/// A number as it was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Whole(i128),
    Float(f64),
}

/// Bytes that are not JSON, or not JSON that anybody should have to read.
#[derive(Debug)]
pub struct Malformed(pub String);

/// Gets the items of a list, each with its place.
type OnItem<'f, 'a> = &'f mut dyn FnMut(usize, Json<'a>);

impl<'a> Json<'a> {
    /// The tree that a text is.
    pub fn parse(text: &'a [u8]) -> Result<Self, Malformed> {
        Self::run(text, None)
    }

    /// The tree that a text is, but for the items of the list in the field `list`, which are handed on one by one so that
    /// only one is in memory as a tree.
    pub fn parse_items(text: &'a [u8], list: &str, on_item: OnItem<'_, 'a>) -> Result<Self, Malformed> {
        Self::run(text, Some((list, on_item)))
    }

    fn run(text: &'a [u8], items: Option<(&str, OnItem<'_, 'a>)>) -> Result<Self, Malformed> {
        if text.is_empty() {
            return Err(Malformed("the body is empty; expected a JSON object".to_owned()));
        }
        // serde_json goes at most 128 levels deep.
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let values = Cell::new(MAX_VALUES);
        let tree = Tree { values: &values, items, top: true }.deserialize(&mut deserializer);
        tree.and_then(|tree| deserializer.end().map(|()| tree)).map_err(|error| Malformed(error.to_string()))
    }

    /// What kind of value this is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) | Self::Items(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

struct Tree<'c, 's, 'f, 'a> {
    values: &'c Cell<usize>,
    items: Option<(&'s str, OnItem<'f, 'a>)>,
    top: bool,
}

impl<'c> Tree<'c, '_, '_, '_> {
    /// A value within, that is no list to be handed on.
    fn inner(values: &'c Cell<usize>) -> Self {
        Tree { values, items: None, top: false }
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_, '_, '_, 'de> {
    type Value = Json<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        let left = self.values.get();
        if left == 0 {
            return Err(D::Error::custom("too many values"));
        }
        self.values.set(left - 1);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_, '_, '_, 'de> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(Number::Whole(value.into())))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(Number::Whole(value.into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Number(Number::Float(value)))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json<'de>, A::Error> {
        // Here `items` is set only for the list that was asked for.
        let Some((_, on_item)) = self.items.filter(|_| !self.top) else {
            let mut items = Vec::new();
            while let Some(item) = list.next_element_seed(Tree::inner(self.values))? {
                items.push(item);
            }
            return Ok(Json::List(items));
        };
        let mut count = 0;
        loop {
            let values = Cell::new(MAX_VALUES);
            let Some(item) = list.next_element_seed(Tree::inner(&values))? else {
                return Ok(Json::Items(count));
            };
            on_item(count, item);
            count += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut entries: Vec<(Cow<'de, str>, Json<'de>)> = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            let is_list = self.top && self.items.as_ref().is_some_and(|(list, _)| *list == name);
            let value = if is_list {
                // Taken: the field again is refused below, and its items go nowhere.
                map.next_value_seed(Tree { values: self.values, items: self.items.take(), top: false })?
            } else {
                map.next_value_seed(Tree::inner(self.values))?
            };
            entries.push((name, value));
        }
        match twice(&entries) {
            Some(name) => Err(A::Error::custom(format_args!("the field {name:.64?} is given twice"))),
            None => Ok(Json::Object(entries)),
        }
    }
}

/// A field that is there more than once.
fn twice<'e>(entries: &'e [(Cow<'_, str>, Json<'_>)]) -> Option<&'e str> {
    if entries.len() <= 16 {
        let again = |(i, (name, _)): &(usize, &(Cow<'_, str>, Json<'_>))| {
            entries.iter().take(*i).any(|(earlier, _)| earlier == name)
        };
        return entries.iter().enumerate().find(again).map(|(_, (name, _))| &**name);
    }
    let mut names: Vec<&str> = entries.iter().map(|(name, _)| &**name).collect();
    names.sort_unstable();
    names.windows(2).find_map(|pair| match pair {
        [one, two] if one == two => Some(*one),
        _ => None,
    })
}

/// A field's name, borrowed where it can be: `Cow`'s own `Deserialize` always copies.
struct Name<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_texts_are_refused() {
        let deep = "[".repeat(200_000);
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        let wrong: [&[u8]; 12] = [
            b"",
            b"{",
            b"{\"a\":1",
            b"{\"a\":1}x",
            b"{\"a\":1,\"a\":2}",
            b"{\"b\":{\"a\":1,\"\\u0061\":2}}",
            b"\xff",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":\"\\ud800\"}",
            b"{\"a\":NaN}",
            deep.as_bytes(),
            many.as_bytes(),
        ];
        for text in wrong {
            assert!(Json::parse(text).is_err(), "{:.40?}", String::from_utf8_lossy(text));
        }
        let fields = (0..40).map(|i| format!("\"f{i}\":0,")).collect::<Vec<_>>().concat();
        assert!(Json::parse(format!("{{{fields}\"x\":0}}").as_bytes()).is_ok());
        assert!(Json::parse(format!("{{{fields}\"f7\":0}}").as_bytes()).is_err());
    }

    #[test]
    fn items_are_handed_on() {
        let mut seen = Vec::new();
        let text = br#"{"a":[1],"jobs":[1,"x"],"b":{"jobs":[2]}}"#;
        let tree = Json::parse_items(text, "jobs", &mut |i, item| seen.push((i, item))).unwrap();
        assert_eq!(seen, [(0, Json::Number(Number::Whole(1))), (1, Json::Text("x".into()))]);
        let Json::Object(entries) = tree else { panic!("{tree:?}") };
        assert_eq!(entries[1].1, Json::Items(2));
        assert!(Json::parse_items(br#"{"jobs":[],"jobs":[]}"#, "jobs", &mut |_, _| {}).is_err());
        let mut count = 0;
        assert!(Json::parse_items(b"[[1],[2]]", "jobs", &mut |_, _| count += 1).is_ok());
        assert_eq!(count, 0);
    }
}
