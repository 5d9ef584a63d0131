//! One job: from its request until nobody of it is left.

use crate::child::{Launch, Streams};
use crate::group::Group;
use crate::hierarchy;
use crate::note::{Note, What};
use crate::prepare::{Ground, in_child};
use crate::protocol::{Containment, End, Report, Run, Step};
use crate::steps::Steps;
use crate::supervise;
use crate::sys;

/// A job that the launcher has in hand.
pub(crate) struct Job {
    run: Run,
    containment: Containment,
    group: Group,
    /// Needed until the last command has started; kept longer, they would keep the reader from the end of the output.
    streams: Option<Streams>,
    phase: Phase,
    started: usize,
    /// How the commands ended, if that is to be told.
    steps: Option<Steps>,
    stopping: bool,
    cpu_micros: u64,
    max_rss_kib: u64,
}

enum Phase {
    Running {
        pid: i32,
    },
    /// The command is over. What it left behind is being ended, for the so manieth time.
    Ending {
        end: End,
        tries: u32,
    },
}

/// What reporting from a child needs.
pub(crate) struct Desk<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) notes: &'a std::io::PipeWriter,
    pub(crate) pid: i32,
}

impl Job {
    /// Starts a job. One that could not be started is over already, with the reason as its end.
    pub(crate) fn start(desk: &Desk<'_>, run: Run, streams: Streams) -> Self {
        let made = Group::make(&desk.ground.hierarchies, &run);
        let mut job = Self {
            run,
            containment: desk.ground.containment,
            group: Group::default(),
            streams: Some(streams),
            phase: Phase::Ending { end: End::Exited(0), tries: 0 },
            started: 0,
            steps: None,
            stopping: false,
            cpu_micros: 0,
            max_rss_kib: 0,
        };
        // A user for itself is what a job's processes are found by; without one, a supervisor does it.
        if job.containment == Containment::User && job.run.user.is_none() {
            job.containment = Containment::Supervisor;
        }
        match made {
            Ok(group) => job.group = group,
            Err(error) => {
                job.end(End::Failed(Step::Cgroup, sys::errno(&error)));
                return job;
            }
        }
        if job.run.tell_each {
            match Steps::new(job.is_supervised()) {
                Ok(steps) => job.steps = Some(steps),
                Err(error) => {
                    job.end(End::Failed(Step::Streams, sys::errno(&error)));
                    return job;
                }
            }
        }
        job.start_next(desk);
        job
    }

    /// Something to end a user's processes with, as if they were a job.
    pub(crate) fn clear(id: u64, user: u32) -> Self {
        Self {
            run: Run { id, user: Some(user), ..Run::default() },
            containment: Containment::User,
            group: Group::default(),
            streams: None,
            phase: Phase::Ending { end: End::Exited(0), tries: 0 },
            started: 0,
            steps: None,
            stopping: true,
            cpu_micros: 0,
            max_rss_kib: 0,
        }
    }

    /// The process whose end is to be told to [`Job::child_ended`].
    pub(crate) fn pid(&self) -> Option<i32> {
        match self.phase {
            Phase::Running { pid } => Some(pid),
            Phase::Ending { .. } => None,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.run.id
    }

    pub(crate) fn is_supervised(&self) -> bool {
        self.containment == Containment::Supervisor
    }

    fn start_next(&mut self, desk: &Desk<'_>) {
        let (Some(command), Some(streams)) = (self.run.commands.get(self.started), &self.streams) else {
            return self.end(End::Failed(Step::Exec, sys::ENOENT));
        };
        let supervised = self.is_supervised();
        if let Some(steps) = &mut self.steps {
            steps.begin();
        }
        let cloned =
            if supervised { sys::clone_process(None).map(|pid| (pid, false)) } else { self.group.clone_into() };
        let (pid, born_in) = match cloned {
            Ok(cloned) => cloned,
            Err(error) => return self.end(End::Failed(Step::Clone, sys::errno(&error))),
        };
        if pid == 0 {
            let launch = Launch {
                ground: desk.ground,
                run: &self.run,
                streams,
                group: &self.group,
                born_in,
                notes: desk.notes,
                parent: desk.pid,
            };
            if supervised {
                supervise::supervise(launch, self.steps.take());
            }
            launch.become_command(command);
        }
        self.started = if supervised { self.run.commands.len() } else { self.started + 1 };
        if self.started == self.run.commands.len() {
            self.streams = None;
        }
        self.phase = Phase::Running { pid };
    }

    fn end(&mut self, end: End) {
        self.streams = None;
        self.phase = Phase::Ending { end, tries: 0 };
    }

    /// The process of the job has ended: goes on with the next command, or begins to end the job.
    pub(crate) fn child_ended(&mut self, desk: &Desk<'_>, ended: &sys::Ended, note: Option<Note>) {
        self.cpu_micros += ended.cpu_micros;
        self.max_rss_kib = self.max_rss_kib.max(ended.max_rss_kib);
        let status = match note.map(|note| note.what) {
            Some(What::Refused(step, error)) => {
                // A supervisor that can't make a child has seen none end.
                if let (Some(steps), false) = (&mut self.steps, step == Step::Clone) {
                    steps.never_began();
                }
                return self.end(End::Failed(step, error));
            }
            Some(What::Cut) => return self.end(End::Cut),
            Some(What::Ended(status)) => status,
            // A supervisor always leaves a note, unless somebody killed it.
            None if self.is_supervised() => return self.end(End::Failed(Step::Supervisor, 0)),
            None => ended.status,
        };
        if let (Some(steps), false) = (&mut self.steps, self.containment == Containment::Supervisor) {
            steps.ended(status);
        }
        match sys::decode_status(status) {
            Ok(0) if self.started < self.run.commands.len() && self.stopping => self.end(End::Cut),
            Ok(0) if self.started < self.run.commands.len() => self.start_next(desk),
            Ok(code) => self.end(End::Exited(code)),
            Err(signal) => self.end(End::Signaled(signal)),
        }
    }

    /// Asks every process of the job to end.
    pub(crate) fn terminate(&mut self) {
        self.stopping = true;
        let Phase::Running { pid } = self.phase else { return };
        match (self.containment, self.group.unified(), self.run.user) {
            (Containment::Cgroup, Some(dir), _) => hierarchy::signal_members(dir, sys::SIGTERM),
            (Containment::User, _, Some(user)) => signal_user(user, sys::SIGTERM),
            _ => drop(sys::send_signal(pid, supervise::TERMINATE)),
        }
    }

    /// Ends every process of the job.
    pub(crate) fn kill(&mut self) {
        self.stopping = true;
        match (self.containment, self.group.unified(), self.run.user) {
            (Containment::Cgroup, Some(dir), _) => hierarchy::kill_members(dir),
            (Containment::User, _, Some(user)) => signal_user(user, sys::SIGKILL),
            _ => {
                if let Phase::Running { pid } = self.phase {
                    let _ = sys::send_signal(pid, supervise::KILL);
                }
            }
        }
    }

    /// How long to wait before [`Job::try_finish`] is worth another try; `None` while the command runs.
    pub(crate) fn patience_ms(&self) -> Option<i32> {
        match self.phase {
            Phase::Running { .. } => None,
            Phase::Ending { tries, .. } => Some(1 << tries.saturating_sub(1).min(5)),
        }
    }

    /// Once the command is over, ends what it left behind. The report, once nobody is left.
    pub(crate) fn try_finish(&mut self) -> Option<Report> {
        let Phase::Ending { end, tries } = &mut self.phase else { return None };
        *tries += 1;
        let end = *end;
        let out_of_memory = self.group.ran_out_of_memory();
        if let (Containment::User, Some(user)) = (self.containment, self.run.user) {
            // Nobody who was killed forks any more, so whoever is not found now is not there.
            signal_user(user, sys::SIGKILL);
            if supervise::has_processes(user) {
                return None;
            }
        }
        // A group that can be removed is empty: the usual case is one call.
        if self.group.remove().is_err() {
            self.kill();
            return None;
        }
        Some(Report {
            id: self.run.id,
            end,
            commands: self.steps.take().map(Steps::told).unwrap_or_default(),
            out_of_memory,
            cpu_micros: self.cpu_micros,
            max_rss_kib: self.max_rss_kib,
        })
    }
}

/// Sends a signal to every process of a user, by a child that becomes this user: the kernel does it in one stroke,
/// so nobody escapes by forking. The kernel does not say whether there was anybody.
fn signal_user(user: u32, signal: i32) {
    let _ = in_child(|| i32::from(sys::become_user(user).and_then(|()| sys::send_signal(-1, signal)).is_err()));
}
