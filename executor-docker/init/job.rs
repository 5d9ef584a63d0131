//! A job as it was received, and the start of its commands.

use crate::output::Output;
use crate::{Talk, sys, wire};

/// A job: its texts, and the lists of pointers to them that starting a program takes.
pub(crate) struct Job {
    texts: &'static mut [u8],
    pointers: &'static mut [u8],
    steps: usize,
    /// The descriptors of its streams, where they came along; else negative.
    pub(crate) fds: [isize; 2],
}

impl Job {
    /// Waits for one; `None` if there will be none.
    pub(crate) fn receive(talk: &Talk) -> Option<Self> {
        let mut fds = [-1; 2];
        let mut head = [0; 5];
        // What asks a job to end that has ended is of no interest.
        loop {
            let count = if talk.is_socket {
                sys::receive(talk.input, &mut head[..1], &mut fds)
            } else {
                sys::read(talk.input, &mut head[..1])
            };
            match head[0] {
                _ if count <= 0 => return None,
                wire::JOB => break,
                wire::TERMINATE | wire::KILL => {}
                _ => return None,
            }
        }
        talk.read_exactly(&mut head[1..]);
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if !(16..=wire::MAX_JOB).contains(&length) {
            return None;
        }
        let texts = sys::map(length)?;
        talk.read_exactly(texts);
        Self::parse(texts, fds)
    }

    fn parse(texts: &'static mut [u8], fds: [isize; 2]) -> Option<Self> {
        let number = |texts: &[u8], at: usize| -> Option<usize> {
            Some(u32::from_le_bytes(texts.get(at * 4..at * 4 + 4)?.try_into().ok()?) as usize)
        };
        let (steps, variables) = (number(texts, 0)?, number(texts, 1)?);
        // Of each command its arguments and a null; of the environment the same; and the directory. A table of where each list
        // begins comes first.
        let mut slots = steps.checked_add(2)?.checked_add(variables)?.checked_add(1)?;
        for step in 0..steps {
            slots = slots.checked_add(number(texts, 2 + step)?.checked_add(1)?)?;
        }
        if steps == 0 || slots > wire::MAX_JOB || *texts.last()? != 0 {
            return None;
        }
        let mut job = Self { pointers: sys::map(slots * size_of::<usize>())?, texts, steps, fds };
        let mut at = (2 + steps) * 4;
        let mut slot = steps + 1;
        let directory = job.text(&mut at)?;
        job.put(0, directory);
        for step in 0..steps {
            let arguments = number(job.texts, 2 + step)?;
            if arguments == 0 {
                return None;
            }
            job.put(1 + step, slot);
            for _ in 0..arguments {
                let text = job.text(&mut at)?;
                job.put(slot, text);
                slot += 1;
            }
            job.put(slot, 0);
            slot += 1;
        }
        // The environment is last, and its null is what the memory began as.
        for _ in 0..variables {
            let text = job.text(&mut at)?;
            job.put(slot, text);
            slot += 1;
        }
        Some(job)
    }

    /// The address of the next text.
    fn text(&self, at: &mut usize) -> Option<usize> {
        let rest = self.texts.get(*at..)?;
        let address = rest.as_ptr() as usize;
        *at += rest.iter().position(|byte| *byte == 0)? + 1;
        Some(address)
    }

    fn put(&mut self, slot: usize, value: usize) {
        let word = size_of::<usize>();
        if let Some(place) = self.pointers.get_mut(slot * word..(slot + 1) * word) {
            place.copy_from_slice(&value.to_ne_bytes());
        }
    }

    fn slot(&self, slot: usize) -> usize {
        let word = size_of::<usize>();
        let place = self.pointers.get(slot * word..(slot + 1) * word).and_then(|place| place.try_into().ok());
        usize::from_ne_bytes(place.unwrap_or_default())
    }

    fn list(&self, slot: usize) -> *const *const u8 {
        self.pointers.as_ptr().wrapping_add(slot * size_of::<usize>()).cast()
    }

    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// Where the environment begins: behind the last command's null.
    fn environment(&self) -> usize {
        let mut slot = self.slot(self.steps);
        while self.slot(slot) != 0 {
            slot += 1;
        }
        slot + 1
    }

    pub(crate) fn forget(self) {
        sys::unmap(self.texts);
        sys::unmap(self.pointers);
    }

    /// Starts a command: its process, or an error's number and what failed.
    pub(crate) fn start(&self, step: usize, output: &Output) -> Result<isize, (isize, u64)> {
        let Some([reader, writer]) = sys::pipe() else { return Err((24, wire::AT_FORK)) };
        let child = sys::fork();
        if child == 0 {
            let (error, at) = self.become_command(step, output, writer);
            let mut word = [0; 16];
            word[..8].copy_from_slice(&(error as u64).to_le_bytes());
            word[8..].copy_from_slice(&at.to_le_bytes());
            sys::write(3, &word);
            sys::exit(127);
        }
        sys::close(writer);
        if child < 0 {
            sys::close(reader);
            return Err((-child, wire::AT_FORK));
        }
        // Closed by the exec, or written to.
        let mut word = [0; 16];
        let count = sys::read(reader, &mut word);
        sys::close(reader);
        if count != 16 {
            return Ok(child);
        }
        let [error, at] = [&word[..8], &word[8..]].map(|half| u64::from_le_bytes(half.try_into().unwrap_or_default()));
        Err((error as isize, at))
    }

    /// In the child: never comes back but with what went wrong. The pipe's end is then 3.
    fn become_command(&self, step: usize, output: &Output, writer: isize) -> (isize, u64) {
        sys::new_session();
        let [out, err] = output.fds();
        let null = sys::open(b"/dev/null\0", sys::O_RDWR);
        // None of these is 3 or lower: the first descriptors are the init's own, and stay open.
        sys::duplicate(null, 0, 0);
        sys::duplicate(out, 1, 0);
        sys::duplicate(err, 2, 0);
        sys::duplicate(writer, 3, sys::O_CLOEXEC);
        sys::close_from(4);
        // A process that may not be looked into may not change this of itself either.
        sys::set_dumpable(true);
        let adjust = sys::open(b"/proc/self/oom_score_adj\0", sys::O_RDWR);
        if adjust >= 0 {
            sys::write(adjust, b"1000");
            sys::close(adjust);
        }
        sys::reset_signals();
        // SAFETY: the texts end in NUL and the lists in null: `parse` has seen to it.
        unsafe {
            let entered = sys::enter(self.slot(0) as *const u8);
            if entered < 0 {
                return (-entered, wire::AT_DIRECTORY);
            }
            (self.exec(self.list(self.slot(1 + step)), self.list(self.environment())), 0)
        }
    }

    /// # Safety
    /// Both lists end in null, and every text in NUL.
    unsafe fn exec(&self, arguments: *const *const u8, environment: *const *const u8) -> isize {
        // SAFETY: a command has a first argument.
        let program = unsafe { text(*arguments) };
        if program.contains(&b'/') || program.is_empty() {
            // SAFETY: the caller's.
            return unsafe { -sys::exec(program.as_ptr(), arguments, environment) };
        }
        let mut error = sys::ENOENT;
        let mut candidate = [0_u8; 4096];
        // SAFETY: the caller's.
        for directory in unsafe { path(environment) }.split(|byte| *byte == b':') {
            let directory = if directory.is_empty() { b"." } else { directory };
            let length = directory.len() + 1 + program.len();
            let Some(place) = candidate.get_mut(..=length) else { continue };
            place[..directory.len()].copy_from_slice(directory);
            place[directory.len()] = b'/';
            place[directory.len() + 1..length].copy_from_slice(program);
            place[length] = 0;
            // SAFETY: it ends in NUL; the lists are the caller's.
            match unsafe { -sys::exec(place.as_ptr(), arguments, environment) } {
                sys::ENOENT | sys::ENOTDIR => {}
                sys::EACCES => error = sys::EACCES,
                other => return other,
            }
        }
        error
    }
}

/// # Safety
/// `at` is good up to a NUL, for as long as the job is.
unsafe fn text(at: *const u8) -> &'static [u8] {
    let mut length = 0;
    // Volatile, lest the compiler calls a library's function for it.
    // SAFETY: every byte before was not the NUL.
    unsafe {
        while at.add(length).read_volatile() != 0 {
            length += 1;
        }
        core::slice::from_raw_parts(at, length)
    }
}

/// The value of `PATH`.
///
/// # Safety
/// The list ends in null, and every text in NUL.
unsafe fn path(mut environment: *const *const u8) -> &'static [u8] {
    // SAFETY: the caller's.
    unsafe {
        while !(*environment).is_null() {
            if let Some(value) = text(*environment).strip_prefix(b"PATH=") {
                return value;
            }
            environment = environment.add(1);
        }
    }
    b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}
