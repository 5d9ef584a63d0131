//! What can be typed. Few enough things that a library for it would cost more time to compile than to do without.

use std::path::{Path, PathBuf};

use cmdexec_core::files::FileId;
use cmdexec_core::job::JobSpec;

pub(crate) const HELP: &str = "\
Runs a real job in a coordinator and worker of its own, then serves the API until Ctrl-C.

Usage: quickstart [OPTIONS] [--dir PATH -- COMMAND...]

  --dir PATH    Pack this directory and run COMMAND in it [default: a small project that comes along]
  --port PORT   Serve on 127.0.0.1:PORT; 0 takes a free one [default: 3000]
  --data PATH   Keep jobs and secrets in this directory [default: data]
  --once        End after the job, with its exit code
  --help        This

COMMAND is a line for /bin/sh if it is one argument, else a program and its arguments.

Examples:
  quickstart
  quickstart --dir . -- make test
  quickstart --dir ../site --once -- 'ls -l && wc -l *.html'
";

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) struct Args {
    pub(crate) dir: PathBuf,
    pub(crate) command: Command,
    pub(crate) port: u16,
    pub(crate) data: PathBuf,
    pub(crate) once: bool,
}

/// What to run.
#[derive(Debug, PartialEq)]
pub(crate) struct Command(Vec<String>);

impl Command {
    pub(crate) fn to_spec(&self, input: FileId) -> JobSpec {
        let mut spec = match self.0.as_slice() {
            [line] => JobSpec::shell(line),
            argv => JobSpec::argv(argv.iter().cloned()),
        };
        spec.name = Some("quickstart".to_owned());
        spec.input = Some(input);
        spec
    }
}

#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    Help,
    Run(Args),
}

pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut args = args;
    let (mut dir, mut command, mut port, mut data, mut once) = (None, Vec::new(), 3000, PathBuf::from("data"), false);
    while let Some(arg) = args.next() {
        let mut value = |name: &str| args.next().ok_or_else(|| format!("{name} needs a value"));
        match arg.as_str() {
            "--help" | "-h" => return Ok(Asked::Help),
            "--once" => once = true,
            "--dir" => dir = Some(PathBuf::from(value("--dir")?)),
            "--data" => data = PathBuf::from(value("--data")?),
            "--port" => port = value("--port")?.parse().map_err(|_| "--port must be a number from 0 to 65535")?,
            "--" => command.extend(args.by_ref()),
            other => return Err(format!("what is {other}? A command stands after --")),
        }
    }
    let (dir, command) = match (dir, command) {
        (None, command) if command.is_empty() => {
            let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("project");
            (project, vec!["sh".to_owned(), "test.sh".to_owned()])
        }
        (Some(_), command) if command.is_empty() => {
            return Err("what is to run in that directory? Say -- COMMAND".into());
        }
        (dir, command) => (dir.unwrap_or_else(|| PathBuf::from(".")), command),
    };
    Ok(Asked::Run(Args { dir, command: Command(command), port, data, once }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(args: &[&str]) -> Result<Asked, String> {
        parse(args.iter().map(|arg| (*arg).to_owned()))
    }

    #[test]
    fn what_can_be_typed() {
        let Ok(Asked::Run(args)) = typed(&[]) else { panic!() };
        assert!(args.dir.join("test.sh").is_file() && args.port == 3000 && !args.once);
        let Ok(Asked::Run(args)) = typed(&["--dir", "x", "--port", "0", "--", "make", "--dir"]) else { panic!() };
        assert_eq!((args.dir, args.command.0.len(), args.port), ("x".into(), 2, 0));
        assert_eq!(typed(&["--once", "-h"]), Ok(Asked::Help));
        for wrong in [&["--dir", "x"][..], &["--dir"], &["--port", "many"], &["make"]] {
            assert!(typed(wrong).is_err(), "{wrong:?}");
        }
    }
}
