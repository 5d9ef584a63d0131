//! One setting while it is named and read.

use std::fmt::Display;

use super::Settings;

/// What a program's table says of a setting.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    pub(super) name: &'static str,
    pub(super) older: Vec<&'static str>,
    pub(super) help: &'static str,
    pub(super) default: Option<String>,
    pub(super) kind: Kind,
    pub(super) is_secret: bool,
    pub(super) is_hidden: bool,
}

/// How a setting is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// With a value.
    Value,
    /// With a value; as a flag without one it is true.
    Switch,
    /// As a flag alone, which has no value.
    Flag,
}

impl Declared {
    pub(super) fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, older: Vec::new(), help, default: None, kind: Kind::Value, is_secret: false, is_hidden: false }
    }

    /// Its name and its older spellings.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.older.iter().copied())
    }
}

/// A setting that is being named; one of the last methods reads it.
#[derive(Debug)]
#[must_use]
pub struct Setting<'a> {
    settings: &'a mut Settings,
    declared: Declared,
}

impl<'a> Setting<'a> {
    pub(super) fn new(settings: &'a mut Settings, name: &'static str, help: &'static str) -> Self {
        Self { settings, declared: Declared::new(name, help) }
    }

    /// An older spelling of its name.
    pub fn older(mut self, name: &'static str) -> Self {
        self.declared.older.push(name);
        self
    }

    /// Its value is never shown.
    pub fn secret(mut self) -> Self {
        self.declared.is_secret = true;
        self
    }

    /// The help does not mention it.
    pub fn hidden(mut self) -> Self {
        self.declared.is_hidden = true;
        self
    }

    /// Its default in words, for one that [`Setting::optional`] reads.
    pub fn by_default(mut self, words: impl Into<String>) -> Self {
        self.declared.default = Some(words.into());
        self
    }

    /// Reads it; absent or wrong, it is the default.
    pub fn or<T: Display>(mut self, default: T, parse: impl Fn(&str) -> Result<T, String>) -> T {
        self.declared.default = Some(default.to_string());
        self.optional(parse).unwrap_or(default)
    }

    /// Reads it, if it is there and right.
    pub fn optional<T>(self, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let given = self.settings.declare(&self.declared)?;
        match parse(&given.text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.settings.reject(&self.declared, &given, message);
                None
            }
        }
    }

    /// Reads one that must be there; `None` (only) if it is a problem.
    pub fn required<T>(self, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let Some(given) = self.settings.declare(&self.declared) else {
            self.settings.one_of(&[self.declared.name]);
            return None;
        };
        parse(&given.text).map_err(|message| self.settings.reject(&self.declared, &given, message)).ok()
    }

    /// Reads one that is true or false; as a flag alone it is true.
    pub fn switch(mut self, default: bool) -> bool {
        self.declared.kind = Kind::Switch;
        self.or(default, super::parse::boolean)
    }

    /// Reads one that may only have values that change nothing.
    pub(super) fn refuse(self, judge: impl Fn(&str) -> Result<(), String>) {
        let Some(given) = self.settings.declare(&self.declared) else { return };
        if let Err(message) = judge(&given.text) {
            let from = Some(given.from);
            let setting = self.declared.name.to_owned();
            self.settings.problems.push(super::Problem { setting, from, message });
        }
    }

    /// Reads a switch that can only be off yet.
    pub fn only_off(mut self, what: &str) {
        self.declared.kind = Kind::Switch;
        self.declared.is_hidden = true;
        self.refuse(|text| {
            if super::parse::boolean(text)? {
                return Err(format!("{what} is not built yet: leave it out or set it to false"));
            }
            Ok(())
        });
    }
}
