//! Typed values out of an object, and everything that is wrong with it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use cmdexec_core::Error;
use cmdexec_core::job::Problem;
use cmdexec_core::time::Timestamp;

use super::{Json, Number};

/// How many problems an answer lists: enough for anybody to see what is wrong.
const MAX_PROBLEMS: usize = 100;

/// What is wrong with a request.
#[derive(Debug, Default)]
pub struct Problems {
    all: Vec<Problem>,
    more: usize,
}

impl Problems {
    pub fn push(&mut self, field: impl Into<String>, message: impl Into<String>) {
        if self.all.len() < MAX_PROBLEMS {
            let mut message = message.into();
            // A message may quote what was sent.
            if message.len() > 300 {
                message.truncate(message.floor_char_boundary(300));
                message.push('…');
            }
            self.all.push(Problem::new(field, message));
        } else {
            self.more += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What was read, if nothing is wrong.
    pub fn check<T>(mut self, value: Option<T>) -> Result<T, Error> {
        if self.more > 0 {
            self.all.push(Problem::new("…", format!("and {} more", self.more)));
        }
        match value {
            Some(value) if self.all.is_empty() => Ok(value),
            // Whoever has no value has said why.
            _ => Err(Error::Invalid(self.all)),
        }
    }
}

/// A field as it was sent.
#[derive(Debug)]
pub struct Value<'a> {
    /// The name that the code knows.
    name: Cow<'a, str>,
    pub json: Json<'a>,
}

/// An object whose fields are taken one by one. What is left at the end is unknown, and ignored.
#[derive(Debug)]
pub struct Fields<'a, 'p> {
    values: Vec<Value<'a>>,
    /// What stands before each name: nothing, or such as `jobs[3].`.
    prefix: String,
    /// What [`Fields::rename`] has renamed: name and older name.
    renamed: Vec<(&'static str, &'static str)>,
    problems: &'p mut Problems,
}

impl<'a, 'p> Fields<'a, 'p> {
    /// The fields of a body; a body that is no object is the field `body`.
    pub fn of_body(json: Json<'a>, problems: &'p mut Problems) -> Self {
        Self::at(json, "body", String::new(), problems)
    }

    /// The fields of an item of a list.
    pub fn of_item(json: Json<'a>, list: &str, place: usize, problems: &'p mut Problems) -> Self {
        let name = format!("{list}[{place}]");
        let prefix = format!("{name}.");
        Self::at(json, &name, prefix, problems)
    }

    fn at(json: Json<'a>, name: &str, prefix: String, problems: &'p mut Problems) -> Self {
        let values = match json {
            Json::Object(entries) => entries.into_iter().map(|(name, json)| Value { name, json }).collect(),
            other => {
                problems.push(name, format!("must be an object, not {}", other.kind()));
                Vec::new()
            }
        };
        Self { values, prefix, renamed: Vec::new(), problems }
    }

    /// Whether a field is there, and not null.
    pub fn has(&self, name: &str) -> bool {
        self.values.iter().any(|value| value.name == name && value.json != Json::Null)
    }

    /// Takes a field under another name from now on, unless that is there too; `convert` puts its value into the other's unit.
    pub fn rename(
        &mut self,
        older: &'static str,
        name: &'static str,
        convert: impl FnOnce(Json<'a>) -> Result<Json<'a>, String>,
    ) {
        if !self.has(older) || self.has(name) {
            return;
        }
        let Some(json) = self.take(older) else { return };
        match convert(json.json) {
            Ok(json) => {
                self.values.retain(|value| value.name != name);
                self.values.push(Value { name: Cow::Borrowed(name), json });
                self.renamed.push((name, older));
            }
            Err(message) => self.wrong(older, message),
        }
    }

    /// Puts something else in a field's place, if it is there.
    pub fn replace(&mut self, name: &'static str, convert: impl FnOnce(Json<'a>) -> Result<Json<'a>, String>) {
        let Some(mut value) = self.take(name) else { return };
        match convert(value.json) {
            Ok(json) => {
                value.json = json;
                self.values.push(value);
            }
            Err(message) => self.wrong(name, message),
        }
    }

    /// Sets a field that is not there.
    pub fn set(&mut self, name: &'static str, json: Json<'a>) {
        self.values.retain(|value| value.name != name);
        self.values.push(Value { name: Cow::Borrowed(name), json });
    }

    /// Sets a field that is not there to what another has.
    pub fn copy(&mut self, from: &str, to: &'static str) {
        if let Some(value) = self.values.iter().find(|value| value.name == from) {
            let json = value.json.clone();
            self.set(to, json);
        }
    }

    /// Adds a text to the object in the field `metadata`, unless it is there already.
    pub fn set_in_metadata(&mut self, name: &'static str, text: String) {
        let mut metadata = match self.take("metadata") {
            None => Vec::new(),
            Some(Value { json: Json::Object(entries), .. }) => entries,
            // What is wrong with it is said by whoever reads it.
            Some(other) => return self.values.push(other),
        };
        if !metadata.iter().any(|(known, _)| known == name) {
            metadata.push((Cow::Borrowed(name), Json::Text(Cow::Owned(text))));
        }
        self.set("metadata", Json::Object(metadata));
    }

    /// Takes a field; null is as good as none.
    pub fn take(&mut self, name: &str) -> Option<Value<'a>> {
        let place = self.values.iter().position(|value| value.name == name)?;
        Some(self.values.swap_remove(place)).filter(|value| value.json != Json::Null)
    }

    /// Says that something is wrong with a field.
    pub fn wrong(&mut self, name: &str, message: impl Into<String>) {
        let field = format!("{}{name}", self.prefix);
        self.problems.push(field, message);
    }

    /// Says what is wrong with a field, under the name by which it was sent.
    fn mistyped(&mut self, value: &Value<'_>, expected: &str) {
        let name = self.older_name(&value.name).unwrap_or(&value.name);
        self.wrong(name, format!("must be {expected}, not {}", value.json.kind()));
    }

    /// Says that a field that must be there is not.
    pub fn require(&mut self, name: &str) {
        if !self.has(name) {
            self.wrong(name, "is required");
        }
    }

    /// Refuses a field that is known and not supported yet, unless it asks for nothing.
    pub fn unsupported(&mut self, name: &str) {
        let Some(value) = self.take(name) else { return };
        let asks_nothing = match &value.json {
            Json::Bool(on) => !on,
            Json::Number(number) => matches!(number, Number::Whole(0)),
            Json::List(items) => items.is_empty(),
            _ => false,
        };
        if !asks_nothing {
            self.wrong(name, "is not supported yet");
        }
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        let value = self.take(name)?;
        match value.json {
            Json::Text(text) => Some(text.into_owned()),
            _ => {
                self.mistyped(&value, "a string");
                None
            }
        }
    }

    /// A text that is something else's written form.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        text.parse().map_err(|error| self.wrong(name, T::Err::to_string(&error))).ok()
    }

    pub fn time(&mut self, name: &str) -> Option<Timestamp> {
        let text = self.text(name)?;
        let time = Timestamp::parse_rfc3339(&text);
        if time.is_none() {
            self.wrong(name, "must be an RFC 3339 time such as 2026-11-20T12:00:00Z");
        }
        time
    }

    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.take(name)?;
        if let Json::Bool(flag) = value.json {
            return Some(flag);
        }
        self.mistyped(&value, "true or false");
        None
    }

    pub fn number(&mut self, name: &str) -> Option<f64> {
        let value = self.take(name)?;
        match value.json {
            Json::Number(Number::Whole(whole)) => Some(whole as f64),
            Json::Number(Number::Float(float)) => Some(float),
            _ => {
                self.mistyped(&value, "a number");
                None
            }
        }
    }

    /// A number, left where it is: what is wrong with it is said by whoever takes it.
    pub fn peek(&self, name: &str) -> Option<f64> {
        match self.values.iter().find(|value| value.name == name)?.json {
            Json::Number(Number::Whole(whole)) => Some(whole as f64),
            Json::Number(Number::Float(float)) => Some(float),
            _ => None,
        }
    }

    /// A whole number within bounds, which are those of `T` at most.
    pub fn whole<T: TryFrom<i128>>(&mut self, name: &str, bounds: RangeInclusive<i128>) -> Option<T> {
        let value = self.take(name)?;
        let whole = match value.json {
            Json::Number(Number::Whole(whole)) => Some(whole),
            #[expect(clippy::cast_possible_truncation, reason = "a whole number within ±2^53")]
            Json::Number(Number::Float(f)) if f.fract() == 0.0 && f.abs() < 9e15 => Some(f as i128),
            Json::Number(Number::Float(_)) => None,
            _ => {
                self.mistyped(&value, "a whole number");
                return None;
            }
        };
        let fits = whole.filter(|whole| bounds.contains(whole)).and_then(|whole| T::try_from(whole).ok());
        if fits.is_none() {
            let name = self.older_name(name).unwrap_or(name);
            let expected = match (*bounds.start(), *bounds.end()) {
                (i128::MIN, i128::MAX) => "must be a whole number".to_owned(),
                (least, most) => format!("must be a whole number from {least} to {most}"),
            };
            self.wrong(name, expected);
        }
        fits
    }

    /// A whole number, or the one of `least..=most` nearest to it: for a field whose bounds lie within those and are judged
    /// later, together with the others.
    pub fn nearest<T: TryFrom<i128> + Into<i128>>(&mut self, name: &str, least: T, most: T) -> Option<T> {
        let whole = self.whole(name, i128::MIN..=i128::MAX)?;
        T::try_from(i128::clamp(whole, least.into(), most.into())).ok()
    }

    pub fn list(&mut self, name: &str) -> Option<Vec<Json<'a>>> {
        let value = self.take(name)?;
        match value.json {
            Json::List(items) => Some(items),
            _ => {
                self.mistyped(&value, "a list");
                None
            }
        }
    }

    /// A list of texts; every item that is none is named.
    pub fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let items = self.list(name)?;
        let mut texts = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            match item {
                Json::Text(text) => texts.push(text.into_owned()),
                other => self.wrong(&format!("{name}[{i}]"), format!("must be a string, not {}", other.kind())),
            }
        }
        Some(texts)
    }

    /// An object whose values are all texts; every one that is none is named.
    pub fn text_map(&mut self, name: &str) -> Option<BTreeMap<String, String>> {
        let value = self.take(name)?;
        let Json::Object(entries) = value.json else {
            self.mistyped(&value, "an object");
            return None;
        };
        let mut map = BTreeMap::new();
        for (key, json) in entries {
            match json {
                Json::Text(text) => drop(map.insert(key.into_owned(), text.into_owned())),
                other => {
                    self.wrong(&format!("{name}.{key:.64}"), format!("must be a string, not {}", other.kind()));
                }
            }
        }
        Some(map)
    }

    /// The fields of an object in a field.
    pub fn object(&mut self, name: &str) -> Option<Fields<'a, '_>> {
        let value = self.take(name)?;
        if !matches!(value.json, Json::Object(_)) {
            self.mistyped(&value, "an object");
            return None;
        }
        let prefix = format!("{}{name}.", self.prefix);
        Some(Fields::at(value.json, name, prefix, self.problems))
    }

    /// The fields of an item of a list in this object.
    pub fn item(&mut self, json: Json<'a>, list: &str, place: usize) -> Fields<'a, '_> {
        let name = format!("{}{list}[{place}]", self.prefix);
        let prefix = format!("{name}.");
        Fields::at(json, &name, prefix, self.problems)
    }

    /// The older name that a field was sent by.
    pub fn older_name(&self, name: &str) -> Option<&'static str> {
        self.renamed.iter().find(|(known, _)| *known == name).map(|(_, older)| *older)
    }
}
