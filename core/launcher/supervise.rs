//! The containment that needs no permission: a supervisor a job, which inherits every orphan of it.
//!
//! The supervisor is a fork of the launcher, so it costs a fork and no exec. As long as one descendant lives, the
//! supervisor has a child: either the descendant's living ancestor or, adopted, the orphan itself. So "no child left"
//! proves that nobody is left.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;

use crate::child::Launch;
use crate::note::{Note, What};
use crate::protocol::Step;
use crate::steps::Steps;
use crate::sys;

/// Tells a supervisor to ask its descendants to end.
pub(crate) const TERMINATE: i32 = sys::SIGUSR1;
/// Tells a supervisor to end its descendants.
pub(crate) const KILL: i32 = sys::SIGUSR2;

/// Runs the commands in turn while they succeed, ends everything that they left, leaves a note and ends.
pub(crate) fn supervise(mut launch: Launch<'_>, mut steps: Option<Steps>) -> ! {
    // Standard input is the launcher's socket: its end must be seen when the launcher dies.
    sys::close_stream(0);
    let prepared = sys::adopt_orphans().and_then(|()| sys::die_with_parent());
    let signals = prepared.and_then(|()| sys::signal_fd(&[sys::SIGCHLD, TERMINATE, KILL]));
    let mut signals = match signals {
        Ok(signals) if sys::parent_pid() == launch.parent => signals,
        Ok(_) => sys::exit_now(Note::EXIT_CODE),
        Err(error) => refuse(&launch, Step::Clone, &error),
    };
    launch.parent = sys::own_pid();

    let mut what = What::Ended(0);
    let mut stopping = false;
    for command in &launch.run.commands {
        if stopping {
            what = What::Cut;
            break;
        }
        steps.iter_mut().for_each(Steps::begin);
        let main = match sys::clone_process(None) {
            Ok(0) => launch.become_command(command),
            Ok(pid) => pid,
            Err(error) => refuse(&launch, Step::Clone, &error),
        };
        loop {
            sys::wait_readable(&[signals.as_raw_fd()], false, None);
            let got = pending(&mut signals);
            if got.contains(&KILL) {
                stopping = true;
                end_descendants();
            } else if got.contains(&TERMINATE) {
                stopping = true;
                for pid in descendants() {
                    let _ = sys::send_signal(pid, sys::SIGTERM);
                }
            }
            let mut ended = None;
            while let Ok(Some(child)) = sys::reap(-1, false) {
                if child.pid == main {
                    ended = Some(child.status);
                }
            }
            if let Some(ended) = ended {
                steps.iter_mut().for_each(|steps| steps.ended(ended));
                what = What::Ended(ended);
                break;
            }
        }
        if what != What::Ended(0) {
            break;
        }
    }
    // Until there is no child left; usually there is none, and nobody need be looked for.
    while let Ok(ended) = sys::reap(-1, false) {
        if ended.is_none() {
            end_descendants();
            let _ = sys::reap(-1, true);
        }
    }
    Note { job: launch.run.id, what }.write(launch.notes);
    sys::exit_now(Note::EXIT_CODE)
}

fn refuse(launch: &Launch<'_>, step: Step, error: &std::io::Error) -> ! {
    Note::refused(launch.run.id, step, sys::errno(error)).write(launch.notes);
    sys::exit_now(Note::EXIT_CODE)
}

/// The signals that have arrived.
fn pending(signals: &mut fs::File) -> Vec<i32> {
    let mut got = Vec::new();
    // signalfd_siginfo: 128 bytes, the signal's number in the first four.
    let mut info = [0_u8; 128];
    while matches!(signals.read(&mut info), Ok(128)) {
        let [a, b, c, d, ..] = info;
        got.push(i32::from_ne_bytes([a, b, c, d]));
    }
    got
}

/// Kills every descendant. They are stopped first, round by round until no new one appears, because a process that
/// was overlooked while it forked would have escaped.
fn end_descendants() {
    let mut stopped = HashSet::new();
    loop {
        let found: Vec<i32> = descendants().into_iter().filter(|pid| !stopped.contains(pid)).collect();
        if found.is_empty() {
            break;
        }
        for pid in found {
            sys::freeze(pid);
            stopped.insert(pid);
        }
    }
    for pid in stopped {
        let _ = sys::send_signal(pid, sys::SIGKILL);
    }
}

/// Every living process below this one.
fn descendants() -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, parent) in processes() {
        children.entry(parent).or_default().push(pid);
    }
    let (mut found, mut next) = (Vec::new(), vec![sys::own_pid()]);
    while let Some(pid) = next.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        found.extend(&below);
        next.extend(below);
    }
    found
}

/// Every process that has not ended yet, with its parent.
pub(crate) fn processes() -> Vec<(i32, i32)> {
    let parse = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
        (!matches!(state, "Z" | "X")).then_some((pid, parent))
    };
    pids().filter_map(parse).collect()
}

/// Whether a process of this user has not ended yet.
pub(crate) fn has_processes(user: u32) -> bool {
    let user = user.to_string();
    pids().any(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        !field("State:").starts_with(['Z', 'X']) && field("Uid:").split_whitespace().any(|id| id == user)
    })
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
