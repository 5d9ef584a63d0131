//! From a job's specification to what is executed: arguments, environment and where to start.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::executor::RunContext;
use crate::job::Command;

/// What is executed for a job, wherever that is: argument lists, environment and where to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Argument lists to run one after another while they succeed; none is empty.
    pub commands: Vec<Vec<String>>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Where to start. Absolute.
    pub dir: PathBuf,
}

impl Plan {
    /// The plan for an attempt whose job sees its directory where it is, or what is wrong with its specification. `path` is the job's
    /// `PATH` unless it sets its own.
    ///
    /// # Errors
    /// What is wrong with the job: no program, a working directory that leads out of its own.
    pub fn new(context: &RunContext, path: &str) -> Result<Self, String> {
        let home = std::path::absolute(&context.dir).map_err(|e| format!("{}: {e}", context.dir.display()))?;
        let home = home.to_str().ok_or("the attempt's directory is not UTF-8")?;
        Self::seen_at(context, home, [("PATH".to_owned(), path.to_owned())])
    }

    /// The plan for an attempt whose job sees its directory at `home`. `env` is what it has where it comes from, such as an image's
    /// variables: they win over the usual ones (`HOME`, `LANG`, `TMPDIR`), and the job's own win over them.
    ///
    /// # Errors
    /// As for [`Plan::new`].
    pub fn seen_at(
        context: &RunContext,
        home: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, String> {
        let dir = match &context.spec.working_directory {
            None => PathBuf::from(home),
            Some(relative) => {
                let own = context.dir.canonicalize().map_err(|e| format!("{}: {e}", context.dir.display()))?;
                let dir = inside(&own, relative)?;
                Path::new(home).join(dir.strip_prefix(&own).map_err(|e| e.to_string())?)
            }
        };
        let usual = [("HOME", home), ("LANG", "C.UTF-8"), ("TMPDIR", home)];
        let usual = usual.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let all = usual.into_iter().chain(env).chain(context.spec.env.clone());
        let env: BTreeMap<String, String> = all.collect();

        let shell = |line: &String| vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()];
        let commands = match &context.spec.command {
            Command::Shell(line) => vec![shell(line)],
            Command::Argv(argv) => vec![argv.clone()],
            Command::Steps(lines) => lines.iter().map(shell).collect(),
        };
        if commands.is_empty() || commands.iter().any(Vec::is_empty) {
            return Err("there is no command to run".to_owned());
        }
        if commands.iter().flatten().any(|argument| argument.contains('\0')) {
            return Err("the command contains a NUL".to_owned());
        }
        if let Some((name, _)) =
            env.iter().find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
        {
            return Err(format!("no environment can have {name:?}"));
        }
        Ok(Self { commands, env, dir })
    }
}

/// The directory that a job asks to start in: below its own, also after every symbolic link is resolved.
fn inside(home: &Path, relative: &str) -> Result<PathBuf, String> {
    let fail = |why: &dyn std::fmt::Display| format!("working directory {relative:?}: {why}");
    let home = home.canonicalize().map_err(|e| fail(&e))?;
    let dir = home.join(OsStr::from_bytes(relative.as_bytes())).canonicalize().map_err(|e| fail(&e))?;
    if !dir.starts_with(&home) {
        return Err(fail(&"leads out of the job's directory"));
    }
    if !dir.is_dir() {
        return Err(fail(&"not a directory"));
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::executor::{StepLog, output_pipe};
    use crate::id::JobId;
    use crate::job::JobSpec;

    fn context(dir: &Path, spec: JobSpec) -> RunContext {
        RunContext {
            job: JobId::from_uuid(uuid::Uuid::nil()),
            attempt: 1,
            spec: Arc::new(spec),
            scope: None,
            dir: dir.to_owned(),
            slot: 0,
            output: output_pipe(1).0,
            steps: StepLog::default(),
            stop: tokio_util::sync::CancellationToken::new(),
        }
    }

    #[test]
    fn the_job_may_replace_any_variable_but_has_no_others() {
        let mut spec = JobSpec::shell("x");
        spec.env = [("PATH", "/opt"), ("A", "b")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let plan = Plan::new(&context(Path::new("/d"), spec), "/bin").unwrap();
        let env: Vec<_> = plan.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(env, ["A=b", "HOME=/d", "LANG=C.UTF-8", "PATH=/opt", "TMPDIR=/d"]);
        assert_eq!(plan.commands, [["/bin/sh", "-c", "x"]]);
    }

    #[test]
    fn the_working_directory_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("out")).unwrap();
        let plan = |relative: &str| {
            let mut spec = JobSpec::shell("x");
            spec.working_directory = Some(relative.to_owned());
            Plan::new(&context(dir.path(), spec), "/bin").map(|plan| plan.dir)
        };
        assert!(plan("sub").unwrap().ends_with("sub"));
        for wrong in ["..", "/etc", "out", "out/etc", "missing", "file"] {
            assert!(plan(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_no_system_could_run_is_refused() {
        let mut bad_env = JobSpec::shell("x");
        bad_env.env.insert("A=B".to_owned(), String::new());
        let none: [&str; 0] = [];
        for spec in [JobSpec::shell("a\0b"), JobSpec::argv(none), JobSpec::steps(none), bad_env] {
            Plan::new(&context(Path::new("/d"), spec), "/bin").unwrap_err();
        }
    }
}
