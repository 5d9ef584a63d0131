//! Settings from flags, the environment and a TOML file: a flag beats the environment, which beats the file.
//!
//! A program has one function that takes [`Settings`] and names each setting as it reads it. That function is the table:
//! it runs once over nothing, which gives the flags and the help, and once over what was given. Everything that is wrong
//! is collected on the way and said at once.
//!
//! A setting `LEASE_MS` is the flag `--lease-ms`, the variable `LEASE_MS` and the key `lease_ms`. An empty variable counts
//! as none.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;

use clap::Command;

mod flags;
pub mod parse;
mod setting;
mod sources;
#[cfg(test)]
mod tests;

pub use setting::Setting;

use setting::{Declared, Kind};
use sources::{Given, Sources};

/// Where a program's settings are named and read.
#[derive(Debug, Default)]
pub struct Settings {
    declared: Vec<Declared>,
    sources: Sources,
    problems: Vec<Problem>,
}

/// A setting that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    setting: String,
    from: Option<String>,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.setting)?;
        if let Some(from) = &self.from {
            write!(f, " ({from})")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Why a program does not start.
#[derive(Debug)]
pub enum Failure {
    /// The flags themselves make no sense, or help was asked for.
    Flags(clap::Error),
    /// Settings are wrong: all of them.
    Settings(Vec<Problem>),
}

impl Failure {
    /// Says why, and ends the process: with 0 after help, else with 2.
    pub fn exit(self, program: &str) -> ! {
        match self {
            Self::Flags(error) => error.exit(),
            Self::Settings(problems) => {
                let (count, verb) = match problems.len() {
                    1 => ("1 setting".to_owned(), "is"),
                    n => (format!("{n} settings"), "are"),
                };
                eprintln!("{program} can't start: {count} {verb} wrong.");
                for problem in problems {
                    eprintln!("  {problem}");
                }
                std::process::exit(2)
            }
        }
    }
}

/// Reads the settings that `declare` names.
///
/// # Errors
/// [`Failure`].
pub fn read<T>(
    command: Command,
    declare: impl Fn(&mut Settings) -> T,
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<T, Failure> {
    let mut table = Settings::default();
    declare(&mut table);
    debug_assert!(table.problems.is_empty(), "defaults must be valid: {:?}", table.problems);

    let matches = flags::add(command, &table.declared).try_get_matches_from(args).map_err(Failure::Flags)?;
    let (sources, problems) = Sources::gather(&table.declared, &matches, environment);
    let mut settings = Settings { declared: Vec::new(), sources, problems };
    let read = declare(&mut settings);
    if settings.problems.is_empty() { Ok(read) } else { Err(Failure::Settings(settings.problems)) }
}

/// The settings of this process; ends it if they are wrong.
pub fn read_or_exit<T>(command: Command, declare: impl Fn(&mut Settings) -> T) -> T {
    let program = command.get_name().to_owned();
    read(command, declare, std::env::args_os(), |name| std::env::var_os(name)).unwrap_or_else(|f| f.exit(&program))
}

impl Settings {
    /// Names a setting by its variable, such as `LEASE_MS`.
    pub fn setting(&mut self, name: &'static str, help: &'static str) -> Setting<'_> {
        Setting::new(self, name, help)
    }

    /// Names a plain flag, such as `dev`, that is neither in the environment nor in the file.
    pub fn flag(&mut self, name: &'static str, help: &'static str) -> bool {
        self.declared.push(Declared { kind: Kind::Flag, ..Declared::new(name, help) });
        self.sources.flag(name)
    }

    /// Names settings that the contract knows and this program does not have yet: giving one is a problem, so that
    /// nobody believes that it works.
    pub fn not_yet(&mut self, what: &str, names: &[&'static str]) {
        for name in names {
            self.setting(name, "").hidden().refuse(|_| Err(format!("{what} is not built yet: leave it out")));
        }
    }

    /// Says that something is wrong that one setting alone does not show.
    pub fn problem(&mut self, setting: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { setting: setting.into(), from: None, message: message.into() });
    }

    /// Says that one of these settings must be given, if none is, right or wrong.
    pub fn one_of(&mut self, names: &[&'static str]) {
        // While the table is made, nothing is there.
        if self.sources.is_given && !names.iter().any(|name| self.sources.has(name)) {
            self.problem(names.join(" or "), "must be set");
        }
    }

    fn declare(&mut self, declared: &Declared) -> Option<Given> {
        self.declared.push(declared.clone());
        match self.sources.find(declared) {
            Ok(given) => given,
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    fn reject(&mut self, declared: &Declared, given: &Given, message: String) {
        // What was given is shown, unless it is a secret.
        let message = if declared.is_secret { message } else { format!("{message} (it is {:?})", given.text) };
        let from = Some(given.from.clone());
        self.problems.push(Problem { setting: declared.name.to_owned(), from, message });
    }
}

/// Every name that a program's table knows, as keys of its file.
fn keys(declared: &[Declared]) -> BTreeSet<String> {
    declared.iter().filter(|d| d.kind != Kind::Flag).flat_map(Declared::names).map(str::to_lowercase).collect()
}
