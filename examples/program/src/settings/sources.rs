//! What was given: by flags, by the environment, and by the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::setting::{Declared, Kind};
use super::{Problem, keys};

/// The file that settings may be in, as a variable; as a flag it is `--config`.
pub(super) const CONFIG_FILE: &str = "CONFIG_FILE";

/// Everything that was given.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// False while the table is made.
    pub(super) is_given: bool,
    plain_flags: Vec<String>,
    values: BTreeMap<&'static str, Vec<Given>>,
}

/// A value that was given for a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) text: String,
    /// Where it comes from, for people.
    pub(super) from: String,
    /// A lesser rank beats a greater one.
    rank: u8,
}

impl Sources {
    pub(super) fn gather(
        declared: &[Declared],
        matches: &ArgMatches,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> (Self, Vec<Problem>) {
        let mut sources = Self { is_given: true, ..Self::default() };
        let mut problems = Vec::new();
        let file = read_file(matches, &environment, declared, &mut problems);
        for setting in declared {
            if setting.kind == Kind::Flag {
                if matches.get_flag(setting.name) {
                    sources.plain_flags.push(setting.name.to_owned());
                }
                continue;
            }
            let found = sources.values.entry(setting.name).or_default();
            if matches.value_source(setting.name) == Some(ValueSource::CommandLine)
                && let Some(text) = matches.get_one::<String>(setting.name)
            {
                found.push(Given { text: text.clone(), from: super::flags::flag(setting.name), rank: 0 });
            }
            for name in setting.names() {
                match environment(name).map(OsString::into_string) {
                    Some(Ok(text)) if !text.is_empty() => {
                        found.push(Given { text, from: format!("from the environment's {name}"), rank: 1 });
                    }
                    Some(Err(_)) => problems.push(Problem {
                        setting: setting.name.to_owned(),
                        from: Some(format!("from the environment's {name}")),
                        message: "is not UTF-8".to_owned(),
                    }),
                    _ => {}
                }
            }
            for name in setting.names() {
                if let Some(text) = file.get(&name.to_lowercase()) {
                    let from = format!("from the file's {}", name.to_lowercase());
                    found.push(Given { text: text.clone(), from, rank: 2 });
                }
            }
        }
        (sources, problems)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.plain_flags.iter().any(|flag| flag == name)
    }

    /// Whether anything was given for a setting.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|found| !found.is_empty())
    }

    /// What was given for a setting, from the source that wins; a problem if one source says it twice, by different names.
    pub(super) fn find(&self, declared: &Declared) -> Result<Option<Given>, Problem> {
        let Some((winner, others)) = self.values.get(declared.name).and_then(|found| found.split_first()) else {
            return Ok(None);
        };
        match others.iter().find(|other| other.rank == winner.rank && other.text != winner.text) {
            None => Ok(Some(winner.clone())),
            Some(other) => Err(Problem {
                setting: declared.name.to_owned(),
                from: Some(winner.from.clone()),
                message: format!("contradicts what is given {}; the older name is best left out", other.from),
            }),
        }
    }
}

/// The file's values by key.
fn read_file(
    matches: &ArgMatches,
    environment: &impl Fn(&str) -> Option<OsString>,
    declared: &[Declared],
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, String> {
    let flag = matches.get_one::<String>(CONFIG_FILE).map(OsString::from);
    let Some(path) = flag.or_else(|| environment(CONFIG_FILE).filter(|path| !path.is_empty())) else {
        return BTreeMap::new();
    };
    let path = Path::new(&path);
    let mut problem = |setting: String, message: String| {
        problems.push(Problem { setting, from: None, message });
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problem(CONFIG_FILE.to_owned(), format!("{}: {error}", path.display()));
            return BTreeMap::new();
        }
    };
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            problem(CONFIG_FILE.to_owned(), format!("{} is not TOML: {}", path.display(), error.message()));
            return BTreeMap::new();
        }
    };
    let known = keys(declared);
    let mut values = BTreeMap::new();
    for (key, value) in table {
        if !known.contains(&key) {
            problem(key, format!("there is no such setting (in {})", path.display()));
        } else if let Some(text) = plain(&value) {
            values.insert(key, text);
        } else {
            problem(key, format!("must be a text, number, boolean or list of them (in {})", path.display()));
        }
    }
    values
}

fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(is) => Some(is.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<String>> = items
                .iter()
                .map(|item| if item.is_array() { None } else { plain(item).filter(|item| !item.contains(',')) })
                .collect();
            Some(items?.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}
