//! The flags and the help, made from a program's table.

use clap::{Arg, ArgAction, Command};

use super::setting::{Declared, Kind};
use super::sources::CONFIG_FILE;

/// The flag of a setting: `--lease-ms` of `LEASE_MS`.
pub(super) fn flag(name: &str) -> String {
    format!("--{}", long(name))
}

fn long(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

/// Adds a table's flags to a command.
pub(super) fn add(command: Command, declared: &[Declared]) -> Command {
    let config = Arg::new(CONFIG_FILE)
        .long("config")
        .value_name("FILE")
        .help("A TOML file with settings: the variables' names in lower case are its keys [CONFIG_FILE]");
    command.arg(config).args(declared.iter().map(arg)).after_help(
        "Each setting is a flag, an environment variable and a key of the file; \
         a flag beats the environment, which beats the file.",
    )
}

fn arg(setting: &Declared) -> Arg {
    let arg = Arg::new(setting.name).long(long(setting.name)).hide(setting.is_hidden);
    if setting.kind == Kind::Flag {
        return arg.action(ArgAction::SetTrue).help(setting.help);
    }
    let default = setting.default.as_ref().map(|default| format!(", default: {default}")).unwrap_or_default();
    let arg = arg
        .aliases(setting.older.iter().map(|older| long(older)))
        .help(format!("{} [{}{default}]", setting.help, setting.name))
        .allow_hyphen_values(true)
        .hide_possible_values(true);
    if setting.kind == Kind::Switch {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL")
    } else {
        arg.value_name("VALUE")
    }
}
