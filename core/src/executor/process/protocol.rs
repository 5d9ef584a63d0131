//! What the worker and its launcher say to each other, one message a packet.
//!
//! This file is compiled twice: into the library, and into the launcher program, which has the standard library only.
//! Both are built from one source, so the format may change with every version.

/// The longest message that travels as a packet; a longer request travels in an anonymous file.
pub(crate) const MAX_PACKET: usize = 48 * 1024;

/// The first message to the launcher: what it is to prepare.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    /// How the processes of a job are held together; `None`: the first way that works.
    pub(crate) containment: Option<Containment>,
    /// Whether control groups may be used at all.
    pub(crate) cgroups: bool,
    /// The version 2 group below which the launcher's own is made, instead of the one it runs in.
    pub(crate) cgroup_root: Option<Vec<u8>>,
    /// A user that jobs are to run as, to be tried out.
    pub(crate) user: Option<u32>,
    /// Directories that jobs must not see.
    pub(crate) hidden: Vec<Vec<u8>>,
}

/// The launcher's answer to [`Setup`]: what it can do here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an answer of its own")]
pub(crate) struct Hello {
    pub(crate) containment: Containment,
    /// Jobs can run as the user that was to be tried out.
    pub(crate) user: bool,
    pub(crate) memory: bool,
    pub(crate) cpu: bool,
    pub(crate) pids: bool,
    pub(crate) no_network: bool,
    /// The directories are hidden.
    pub(crate) hidden: bool,
    /// Jobs see only their own user's processes.
    pub(crate) private_proc: bool,
}

/// How the processes of a job are held together, so that none escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Containment {
    /// A version 2 control group.
    Cgroup = 1,
    /// A user of its own.
    User = 2,
    /// A supervising process that inherits every orphan.
    Supervisor = 3,
}

/// What the worker asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Start a job. Its standard output and error come with the packet.
    Run(Box<Run>),
    /// Ask every process of a job to end.
    Terminate { id: u64 },
    /// End every process of a job.
    Kill { id: u64 },
    /// End every process of a user, as if it were a job; answered by [`Report`].
    Clear { id: u64, user: u32 },
    /// The request is in the file that comes with the packet, before the other descriptors.
    InFile,
}

/// A job to start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) id: u64,
    /// A name for its control groups, unique among those of one launcher.
    pub(crate) name: Vec<u8>,
    /// Commands to run one after another while they succeed. None contains a NUL.
    pub(crate) commands: Vec<Vec<Vec<u8>>>,
    /// Whether the report is to say how each of them ended.
    pub(crate) tell_each: bool,
    /// `NAME=value`, without NUL.
    pub(crate) env: Vec<Vec<u8>>,
    /// The value of `PATH` in `env`.
    pub(crate) path: Vec<u8>,
    /// Where to start.
    pub(crate) dir: Vec<u8>,
    /// The user and group to run as.
    pub(crate) user: Option<u32>,
    pub(crate) no_network: bool,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) cpu_millis: Option<u32>,
    pub(crate) pids: Option<u32>,
}

/// The most commands that a report tells of; a spec has fewer. A report of so many still travels as one packet.
pub(crate) const MOST_TOLD: usize = 3_000;

/// How one of a job's commands ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommandEnd {
    /// Its exit code; 128 + the number for a signal.
    pub(crate) code: i32,
    /// How long it ran.
    pub(crate) micros: u64,
}

/// A job is over, and every process of it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) id: u64,
    pub(crate) end: End,
    /// How each of its commands ended that was begun, in order, where the request asked for it.
    pub(crate) commands: Vec<CommandEnd>,
    /// The kernel killed a process of the job for want of memory.
    pub(crate) out_of_memory: bool,
    /// Processor time of the commands and the children they waited for, in microseconds.
    pub(crate) cpu_micros: u64,
    /// The largest resident size of one of them, in KiB.
    pub(crate) max_rss_kib: u64,
}

/// How a job's last command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Exited(i32),
    Signaled(i32),
    /// It was never started: the system refused a step, with this error number.
    Failed(Step, i32),
    /// It was never started: the job was told to end while an earlier one ran, which exited with 0.
    Cut,
}

/// What is done between the request and the command's first instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Clone = 1,
    Cgroup = 2,
    Session = 3,
    Network = 4,
    Streams = 5,
    Limits = 6,
    User = 7,
    Privileges = 8,
    Directory = 9,
    Exec = 10,
    /// The job's supervisor was killed from outside.
    Supervisor = 11,
}

impl Step {
    const ALL: [Self; 11] = [
        Self::Clone,
        Self::Cgroup,
        Self::Session,
        Self::Network,
        Self::Streams,
        Self::Limits,
        Self::User,
        Self::Privileges,
        Self::Directory,
        Self::Exec,
        Self::Supervisor,
    ];

    /// The step with this number.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|s| *s as u32 == number)
    }

    /// What could not be done.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Clone => "making a process",
            Self::Cgroup => "making or joining its control group",
            Self::Session => "making a session",
            Self::Network => "entering the empty network",
            Self::Streams => "connecting its streams",
            Self::Limits => "setting its limits",
            Self::User => "changing to its user",
            Self::Privileges => "giving up privileges",
            Self::Directory => "entering its directory",
            Self::Exec => "starting the program",
            Self::Supervisor => "keeping its supervisor alive",
        }
    }
}

impl Setup {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u32(self.containment.map_or(0, |c| c as u32));
        w.bool(self.cgroups);
        w.option(self.cgroup_root.as_ref(), |w, path| w.bytes(path));
        w.option(self.user.as_ref(), |w, user| w.u32(*user));
        w.list(&self.hidden);
        w.0
    }

    pub(crate) fn decode(packet: &[u8]) -> Option<Self> {
        let mut r = Reader(packet);
        let containment = match r.u32()? {
            0 => None,
            n => Some(Containment::from_number(n)?),
        };
        Some(Self {
            containment,
            cgroups: r.bool()?,
            cgroup_root: r.option(Reader::bytes)?,
            user: r.option(Reader::u32)?,
            hidden: r.list()?,
        })
    }
}

impl Containment {
    fn from_number(number: u32) -> Option<Self> {
        [Self::Cgroup, Self::User, Self::Supervisor].into_iter().find(|c| *c as u32 == number)
    }
}

impl Hello {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u32(self.containment as u32);
        for flag in [self.user, self.memory, self.cpu, self.pids, self.no_network, self.hidden, self.private_proc] {
            w.bool(flag);
        }
        w.0
    }

    pub(crate) fn decode(packet: &[u8]) -> Option<Self> {
        let mut r = Reader(packet);
        Some(Self {
            containment: Containment::from_number(r.u32()?)?,
            user: r.bool()?,
            memory: r.bool()?,
            cpu: r.bool()?,
            pids: r.bool()?,
            no_network: r.bool()?,
            hidden: r.bool()?,
            private_proc: r.bool()?,
        })
    }
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        match self {
            Self::Run(run) => {
                w.u32(1);
                run.encode(&mut w);
            }
            Self::Terminate { id } => {
                w.u32(2);
                w.u64(*id);
            }
            Self::Kill { id } => {
                w.u32(3);
                w.u64(*id);
            }
            Self::Clear { id, user } => {
                w.u32(4);
                w.u64(*id);
                w.u32(*user);
            }
            Self::InFile => w.u32(5),
        }
        w.0
    }

    pub(crate) fn decode(packet: &[u8]) -> Option<Self> {
        let mut r = Reader(packet);
        Some(match r.u32()? {
            1 => Self::Run(Box::new(Run::decode(&mut r)?)),
            2 => Self::Terminate { id: r.u64()? },
            3 => Self::Kill { id: r.u64()? },
            4 => Self::Clear { id: r.u64()?, user: r.u32()? },
            5 => Self::InFile,
            _ => return None,
        })
    }
}

impl Run {
    fn encode(&self, w: &mut Writer) {
        w.u64(self.id);
        w.bytes(&self.name);
        w.u32(count(self.commands.len()));
        for command in &self.commands {
            w.list(command);
        }
        w.bool(self.tell_each);
        w.list(&self.env);
        w.bytes(&self.path);
        w.bytes(&self.dir);
        w.option(self.user.as_ref(), |w, v| w.u32(*v));
        w.bool(self.no_network);
        w.option(self.memory_bytes.as_ref(), |w, v| w.u64(*v));
        w.option(self.cpu_millis.as_ref(), |w, v| w.u32(*v));
        w.option(self.pids.as_ref(), |w, v| w.u32(*v));
    }

    fn decode(r: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            id: r.u64()?,
            name: r.bytes()?,
            commands: (0..r.u32()?).map(|_| r.list()).collect::<Option<_>>()?,
            tell_each: r.bool()?,
            env: r.list()?,
            path: r.bytes()?,
            dir: r.bytes()?,
            user: r.option(Reader::u32)?,
            no_network: r.bool()?,
            memory_bytes: r.option(Reader::u64)?,
            cpu_millis: r.option(Reader::u32)?,
            pids: r.option(Reader::u32)?,
        })
    }
}

impl Report {
    /// Writes several into one packet.
    pub(crate) fn encode_all<'a>(reports: impl IntoIterator<Item = &'a Self>) -> Vec<u8> {
        let mut w = Writer::default();
        for report in reports {
            let (kind, value, step) = match report.end {
                End::Exited(code) => (1, code, 0),
                End::Signaled(signal) => (2, signal, 0),
                End::Failed(step, error) => (3, error, step as u32),
                End::Cut => (4, 0, 0),
            };
            w.u64(report.id);
            w.u32(kind);
            w.u32(value.cast_unsigned());
            w.u32(step);
            w.bool(report.out_of_memory);
            w.u64(report.cpu_micros);
            w.u64(report.max_rss_kib);
            w.bytes(&CommandEnd::encode_all(&report.commands));
        }
        w.0
    }

    /// How many bytes of a packet it takes.
    pub(crate) fn packet_len(&self) -> usize {
        41 + self.commands.len() * CommandEnd::LEN
    }

    pub(crate) fn decode_all(packet: &[u8]) -> Option<Vec<Self>> {
        let mut r = Reader(packet);
        let mut reports = Vec::new();
        while !r.0.is_empty() {
            let (id, kind, value, step) = (r.u64()?, r.u32()?, r.u32()?.cast_signed(), r.u32()?);
            let end = match kind {
                1 => End::Exited(value),
                2 => End::Signaled(value),
                3 => End::Failed(Step::from_number(step)?, value),
                4 => End::Cut,
                _ => return None,
            };
            reports.push(Self {
                id,
                end,
                out_of_memory: r.bool()?,
                cpu_micros: r.u64()?,
                max_rss_kib: r.u64()?,
                commands: CommandEnd::decode_all(&r.bytes()?)?,
            });
        }
        Some(reports)
    }
}

impl CommandEnd {
    /// How many bytes one takes.
    pub(crate) const LEN: usize = 12;

    /// Writes several behind each other.
    pub(crate) fn encode_all(ends: &[Self]) -> Vec<u8> {
        let mut w = Writer::default();
        for end in ends {
            w.u32(end.code.cast_unsigned());
            w.u64(end.micros);
        }
        w.0
    }

    pub(crate) fn decode_all(bytes: &[u8]) -> Option<Vec<Self>> {
        let mut r = Reader(bytes);
        let mut ends = Vec::new();
        while !r.0.is_empty() {
            ends.push(Self { code: r.u32()?.cast_signed(), micros: r.u64()? });
        }
        Some(ends)
    }
}

/// Lengths travel as 32 bits: whoever could fill more than that was refused by the system long before.
fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    fn bool(&mut self, value: bool) {
        self.0.push(u8::from(value));
    }

    fn bytes(&mut self, value: &[u8]) {
        self.u32(count(value.len()));
        self.0.extend_from_slice(value);
    }

    fn list(&mut self, values: &[Vec<u8>]) {
        self.u32(count(values.len()));
        for value in values {
            self.bytes(value);
        }
    }

    fn option<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_ne_bytes)
    }

    fn bool(&mut self) -> Option<bool> {
        self.take(1).map(|b| b != [0])
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.take(len).map(<[u8]>::to_vec)
    }

    fn list(&mut self) -> Option<Vec<Vec<u8>>> {
        (0..self.u32()?).map(|_| self.bytes()).collect()
    }

    #[expect(clippy::option_option, reason = "whether it could be read, and whether it was there")]
    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.bool()? { read(self).map(Some) } else { Some(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_wire() {
        let run = Run {
            id: 7,
            name: b"a-1".to_vec(),
            commands: vec![vec![b"/bin/true".to_vec()], vec![b"echo".to_vec(), b"\xff".to_vec()]],
            tell_each: true,
            env: vec![b"A=b".to_vec()],
            path: b"/bin".to_vec(),
            dir: b"/tmp".to_vec(),
            user: Some(60_001),
            no_network: true,
            memory_bytes: Some(1 << 40),
            cpu_millis: None,
            pids: Some(3),
        };
        for request in [
            Request::Run(Box::new(run)),
            Request::Terminate { id: 1 },
            Request::Kill { id: 2 },
            Request::Clear { id: 3, user: 4 },
            Request::InFile,
        ] {
            let packet = request.encode();
            assert_eq!(Request::decode(&packet), Some(request));
            for cut in 0..packet.len() {
                assert_eq!(Request::decode(&packet[..cut]), None, "cut at {cut}");
            }
        }
        let reports = [End::Exited(3), End::Signaled(9), End::Failed(Step::Exec, 2), End::Cut].map(|end| Report {
            id: 9,
            end,
            out_of_memory: true,
            cpu_micros: 5,
            max_rss_kib: 6,
            commands: vec![CommandEnd { code: 0, micros: 1 << 40 }, CommandEnd { code: -1, micros: 0 }],
        });
        assert_eq!(Report::decode_all(&Report::encode_all(&reports)), Some(reports.to_vec()));
        let longest = Report { commands: vec![CommandEnd { code: 1, micros: 2 }; MOST_TOLD], ..reports[0].clone() };
        let packet = Report::encode_all([&longest]);
        assert_eq!(packet.len(), longest.packet_len());
        assert!(packet.len() <= MAX_PACKET);
        let setup = Setup {
            containment: Some(Containment::User),
            cgroups: true,
            cgroup_root: Some(b"/x".to_vec()),
            user: Some(5),
            hidden: vec![b"/y".to_vec()],
        };
        assert_eq!(Setup::decode(&setup.encode()), Some(setup));
        let hello = Hello {
            containment: Containment::Supervisor,
            user: true,
            memory: false,
            cpu: true,
            pids: false,
            no_network: true,
            hidden: false,
            private_proc: true,
        };
        assert_eq!(Hello::decode(&hello.encode()), Some(hello));
    }

    #[test]
    fn every_step_has_its_number() {
        for step in Step::ALL {
            assert_eq!(Step::from_number(step as u32), Some(step));
            assert!(!step.as_str().is_empty());
        }
    }
}
