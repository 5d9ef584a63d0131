//! What a job sees, and what it does not.

use std::collections::BTreeSet;

use cmdexec_core::executor::{Kind, Limit};
use cmdexec_core::job::{JobSpec, Outcome};

use super::Subject;

/// Names that a job may find without having asked for them: the documented ones, and a shell's or container's own.
const EXPECTED: [&str; 9] = ["PATH", "HOME", "TMPDIR", "LANG", "PWD", "OLDPWD", "SHLVL", "_", "HOSTNAME"];

/// Nothing of the worker's environment is in the job's.
pub async fn the_environment_is_clean(subject: &Subject) {
    // Something must be there that could come through.
    assert!(std::env::vars_os().any(|(name, _)| name.to_str().is_some_and(|n| !EXPECTED.contains(&n))));
    let text = subject.run(JobSpec::argv(["env"])).await.succeeded();
    let names: BTreeSet<&str> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    let unexpected: Vec<_> = names.iter().filter(|name| !EXPECTED.contains(name)).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    for needed in ["PATH", "HOME", "TMPDIR", "LANG"] {
        assert!(names.contains(needed), "{needed} is missing");
    }
}

/// What the job sets is set, also where there is a default.
pub async fn the_jobs_own_variables_win(subject: &Subject) {
    let mut spec = JobSpec::shell("printf '%s|' \"$A\" \"$HOME\" \"$PATH\"");
    spec.env = [("A", "a=b c\n"), ("HOME", "/h"), ("PATH", "/bin:/p")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    assert_eq!(subject.run(spec).await.succeeded(), "a=b c\n|/h|/bin:/p|");
}

/// `HOME` and `TMPDIR` are the attempt's own, and can be written to.
pub async fn home_and_temporary_files_are_inside_the_directory(subject: &Subject) {
    let ended = subject.sh(": > \"$HOME/h\" && : > \"$TMPDIR/t\" && cd \"$TMPDIR\" && test -e t && cd \"$HOME\"").await;
    ended.succeeded();
    assert!(ended.dir.join("h").exists());
}

/// The job starts in the directory, or in the one inside it that it names.
pub async fn the_job_starts_in_its_directory_or_below(subject: &Subject) {
    let fill = |context: &mut cmdexec_core::executor::RunContext| {
        std::fs::create_dir_all(context.dir.join("a/b")).expect("a directory");
        std::fs::write(context.dir.join("a/b/file"), "below").expect("a file");
    };
    assert_eq!(subject.begin_with(JobSpec::shell("cat a/b/file"), fill).end().await.succeeded(), "below");
    let mut below = JobSpec::shell("cat file");
    below.working_directory = Some("a/b".to_owned());
    assert_eq!(subject.begin_with(below, fill).end().await.succeeded(), "below");
}

/// A working directory that is not there, or that a link leads out to, is the fault of the input.
pub async fn a_working_directory_outside_is_refused(subject: &Subject) {
    for wrong in ["..", "link", "missing"] {
        let mut spec = JobSpec::shell("pwd");
        spec.working_directory = Some(wrong.to_owned());
        let trial = subject.begin_with(spec, |context| {
            std::os::unix::fs::symlink("/", context.dir.join("link")).expect("a link");
        });
        let ended = trial.end().await;
        assert!(matches!(ended.outcome, Outcome::InputError { .. }), "{wrong}: {:?}", ended.outcome);
    }
}

/// A job may change and remove the files it was given, and the worker can remove whatever it leaves.
pub async fn the_jobs_files_are_its_own_to_change(subject: &Subject) {
    let trial = subject.begin_with(
        JobSpec::shell("echo new > in/old && rm in/gone && mkdir made && : > made/file"),
        |context| {
            std::fs::create_dir(context.dir.join("in")).expect("a directory");
            std::fs::write(context.dir.join("in/old"), "old").expect("a file");
            std::fs::write(context.dir.join("in/gone"), "gone").expect("a file");
        },
    );
    let ended = trial.end().await;
    ended.succeeded();
    assert_eq!(std::fs::read_to_string(ended.dir.join("in/old")).expect("the file"), "new\n");
    std::fs::remove_dir_all(&ended.dir).expect("everything can be removed");
}

/// A job cannot read, list or change another job's directory, when jobs are users of their own or in containers.
pub async fn another_jobs_files_are_out_of_reach(subject: &Subject) {
    if !subject.claims(Limit::User) && subject.executor.capabilities().kind != Kind::Docker {
        return;
    }
    let mut victim = subject.begin(JobSpec::shell("echo secret > file; chmod 666 file; echo ready; sleep 100"));
    victim.until("ready").await;
    let dir = victim.dir.display();
    let line = format!("cat {dir}/file; ls {dir}; ls {dir}/..; echo changed > {dir}/file; true");
    let ended = subject.sh(&line).await;
    assert_eq!(ended.succeeded(), "");
    assert_eq!(std::fs::read_to_string(victim.dir.join("file")).expect("the file"), "secret\n");
    victim.stop.cancel();
    victim.end().await;
}

/// A job cannot read the environment of the worker's process.
pub async fn the_workers_environment_is_out_of_reach(subject: &Subject) {
    if is_root() && !subject.claims(Limit::User) && subject.executor.capabilities().kind != Kind::Docker {
        // A job that is root reads what it likes.
        return;
    }
    let ended = subject.sh(&format!("cat /proc/{}/environ; true", std::process::id())).await;
    let (read, marker) = (ended.succeeded(), "CARGO_MANIFEST_DIR=");
    assert!(!read.contains(marker), "{read}");
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("this process")) == 0
}
