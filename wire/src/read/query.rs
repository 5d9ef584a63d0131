//! Query parameters: those that are known are judged, all at once; others are ignored.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use cmdexec_core::Error;
use cmdexec_core::id::JobId;
use cmdexec_core::time::Timestamp;

use super::Problems;

/// A request's query parameters.
#[derive(Debug)]
pub struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    problems: Problems,
}

impl<'a> Query<'a> {
    pub fn of(uri: &'a http::Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        Self { pairs: form_urlencoded::parse(query.as_bytes()).collect(), problems: Problems::default() }
    }

    /// Says that something is wrong with a parameter.
    pub fn wrong(&mut self, name: &str, message: impl Into<String>) {
        self.problems.push(name, message);
    }

    /// Says that a parameter that must be there is not.
    pub fn missing(&mut self, name: &str) {
        // Whoever gave a wrong one knows that already.
        if self.problems.is_empty() {
            self.wrong(name, "is required");
        }
    }

    pub fn time(&mut self, name: &str) -> Option<Timestamp> {
        let text = self.text(name)?;
        let time = Timestamp::parse_rfc3339(&text);
        if time.is_none() {
            self.wrong(name, "must be an RFC 3339 time such as 2026-11-20T12:00:00Z");
        }
        time
    }

    /// A cursor of a list: opaque to clients, the last id of the page before to us.
    pub fn cursor(&mut self, name: &str) -> Option<JobId> {
        let text = self.text(name)?;
        text.parse().map_err(|_| self.wrong(name, "not a cursor that this service gave out")).ok()
    }

    /// A parameter; an empty one is as good as none. Given twice it is wrong.
    pub fn text(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let mut values = self.pairs.iter().filter(|(n, value)| n == name && !value.is_empty());
        let value = values.next().map(|(_, value)| value.clone());
        if values.next().is_some() {
            self.wrong(name, "is given twice");
        }
        value
    }

    /// Every value of a parameter that may be given several times.
    pub fn all<T: FromStr<Err: Display>>(&mut self, name: &str) -> Vec<T> {
        let mut all = Vec::new();
        for (_, value) in self.pairs.iter().filter(|(n, _)| n == name) {
            match value.parse() {
                Ok(value) => all.push(value),
                Err(error) => self.problems.push(name, T::Err::to_string(&error)),
            }
        }
        all
    }

    pub fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        text.parse().map_err(|error| self.wrong(name, T::Err::to_string(&error))).ok()
    }

    pub fn required<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        if !self.pairs.iter().any(|(n, value)| n == name && !value.is_empty()) {
            self.wrong(name, "is required");
        }
        self.parsed(name)
    }

    pub fn whole<T: TryFrom<i128>>(&mut self, name: &str, bounds: RangeInclusive<i128>) -> Option<T> {
        let text = self.text(name)?;
        let whole = text.parse::<i128>().ok().filter(|whole| bounds.contains(whole));
        let fits = whole.and_then(|whole| T::try_from(whole).ok());
        if fits.is_none() {
            self.wrong(name, format!("must be a whole number from {} to {}", bounds.start(), bounds.end()));
        }
        fits
    }

    /// A number of seconds within bounds, with a fraction if need be.
    pub fn seconds(&mut self, name: &str, most: f64) -> Option<f64> {
        let text = self.text(name)?;
        let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=most).contains(seconds));
        if seconds.is_none() {
            self.wrong(name, format!("must be a number of seconds from 0 to {most}"));
        }
        seconds
    }

    pub fn flag(&mut self, name: &str) -> bool {
        match self.text(name).as_deref() {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(_) => {
                self.wrong(name, "must be true or false");
                false
            }
        }
    }

    /// What was read, if nothing is wrong.
    pub fn check<T>(self, value: Option<T>) -> Result<T, Error> {
        self.problems.check(value)
    }
}
