use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write;

use clap::Command;

use super::parse::{Span, boolean, list, number, own, text};
use super::{Failure, Settings, read};

#[derive(Debug, PartialEq)]
struct Options {
    port: u16,
    secret: Option<String>,
    parallel: Option<u32>,
    start: bool,
    name: Option<String>,
    dev: bool,
}

fn options(settings: &mut Settings) -> Options {
    settings.not_yet("MongoDB", &["MONGODB_URI"]);
    settings.setting("ALLOW_SIGNUP", "").only_off("signing up");
    Options {
        dev: settings.flag("dev", "Try it"),
        port: settings.setting("PORT", "Port to listen on").or(3000, number(0..=65_535)),
        secret: settings
            .setting("SECRET", "A secret")
            .secret()
            .optional(|value| if value.len() < 5 { Err("is too short".to_owned()) } else { text(value) }),
        parallel: settings.setting("SLOTS", "Slots").older("MAX_PARALLEL_JOBS").optional(number(1..=100)),
        start: settings.setting("AUTO_START", "Start").switch(true),
        name: settings.setting("NAME", "Name").required(text),
    }
}

fn given(args: &[&str], environment: &[(&str, &str)]) -> Result<Options, String> {
    let environment: HashMap<_, _> = environment.iter().map(|(k, v)| ((*k).to_owned(), OsString::from(v))).collect();
    let args = ["program"].iter().chain(args).map(OsString::from);
    match read(Command::new("program"), options, args, |name| environment.get(name).cloned()) {
        Ok(options) => Ok(options),
        Err(Failure::Flags(error)) => Err(error.to_string()),
        Err(Failure::Settings(problems)) => {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            Err(lines.join("\n") + "\n")
        }
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let file = file("port = 1\nslots = 1\nname = \"file\"\nauto_start = false\n");
    let path = file.path().to_str().unwrap();
    let environment = [("PORT", "2"), ("MAX_PARALLEL_JOBS", "2"), ("CONFIG_FILE", path), ("NAME", "")];
    let read = given(&["--port", "3"], &environment).unwrap();
    let expected =
        Options { port: 3, secret: None, parallel: Some(2), start: false, name: Some("file".into()), dev: false };
    assert_eq!(read, expected);
}

#[test]
fn everything_wrong_is_said_at_once_and_no_secret() {
    let file = file("slots = 1.5\ncolour = \"red\"\n");
    let args = ["--config", file.path().to_str().unwrap(), "--port", "70000", "--secret", "psst", "--auto-start=maybe"];
    let problems = given(&args, &[("MONGODB_URI", "mongodb://here"), ("ALLOW_SIGNUP", "yes")]).unwrap_err();
    for part in [
        "colour: there is no such setting",
        "MONGODB_URI (from the environment's MONGODB_URI): MongoDB is not built yet",
        "ALLOW_SIGNUP (from the environment's ALLOW_SIGNUP): signing up is not built yet",
        "PORT (--port): must be a number from 0 to 65535 (it is \"70000\")",
        "SECRET (--secret): is too short\n",
        "SLOTS (from the file's slots): must be a number from 1 to 100",
        "AUTO_START (--auto-start): must be true or false",
        "NAME: must be set",
    ] {
        assert!(problems.contains(part), "{part} is missing in:\n{problems}");
    }
    assert_eq!(problems.lines().count(), 8, "{problems}");
    assert!(!problems.contains("psst"));
}

#[test]
fn the_older_name_may_repeat_but_not_contradict() {
    let both = |older| given(&["--name", "x"], &[("SLOTS", "4"), ("MAX_PARALLEL_JOBS", older)]);
    assert_eq!(both("4").unwrap().parallel, Some(4));
    assert!(both("5").unwrap_err().contains("contradicts"));
    assert_eq!(given(&["--name", "x", "--max-parallel-jobs", "7"], &[("SLOTS", "4")]).unwrap().parallel, Some(7));
}

#[test]
fn switches_need_no_value_as_flags() {
    let start = |args: &[&str]| given(&[&["--name", "x"], args].concat(), &[]).unwrap().start;
    assert!(start(&["--auto-start"]));
    assert!(!start(&["--auto-start=false"]));
    assert!(given(&["--name", "x", "--dev"], &[]).unwrap().dev);
}

#[test]
fn help_is_made_from_the_table() {
    let help = given(&["--help"], &[("SECRET", "do not show")]).unwrap_err();
    for part in ["--port <VALUE>", "Port to listen on [PORT, default: 3000]", "--auto-start[=<BOOL>]", "--config"] {
        assert!(help.contains(part), "{part} is missing in:\n{help}");
    }
    assert!(!help.contains("do not show") && !help.contains("mongodb"), "{help}");
}

#[test]
fn values() {
    for (text, millis) in [("90", 90_000), ("15m", 900_000), ("24h", 86_400_000), ("2d", 172_800_000), ("5ms", 5)] {
        assert_eq!(own::<Span>(text).unwrap().0.as_millis(), millis);
    }
    for wrong in ["", "h", "-1s", "1.5h", "99999999999999999999d", "1w"] {
        assert!(own::<Span>(wrong).is_err(), "{wrong}");
    }
    assert_eq!(own::<Span>("24h").unwrap().to_string(), "24h");
    assert_eq!(own::<Span>("90s").unwrap().to_string(), "90s");
    assert_eq!(boolean("Off"), Ok(false));
    assert_eq!(list(" a, b,,", text), Ok(vec!["a".to_owned(), "b".to_owned()]));
}
