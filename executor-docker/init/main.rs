//! The first process of a container: a program without a C library that runs a job's commands and sees to their end.
//!
//! It is told what to run by the executor, over a socket that the executor listens at and that is gone by the time anything of
//! the job runs, or over its standard input where a socket can't be had. It starts the commands one after another, says how
//! each ended, and when the last has, ends everything that is left and says so. When the executor is gone so is its
//! descriptor's other end: then it ends everything and itself, and with the first process a container ends.
//!
//! It runs as the job's user and has no more rights than the job. What keeps the job from it: the first process of a container
//! gets no signal that it has no handler for; it is not dumpable, so that its memory and descriptors can't be opened by others
//! of its user; and every descriptor of its own is closed on exec.
#![no_std]
#![no_main]

#[path = "../src/wire.rs"]
mod wire;

mod job;
mod output;
mod sys;
mod tidy;

use job::Job;
use output::Output;

/// What the program starts with: `stack` holds the number of arguments and then the arguments.
///
/// # Safety
/// Called once, by the entry point, with the stack that the kernel made.
unsafe extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: the kernel puts the number of arguments here, and as many pointers to texts behind it.
    let (count, path) = unsafe { (*stack, *stack.add(2) as *const u8) };
    sys::set_dumpable(false);
    sys::set_umask();
    // The one argument is where to connect to; without it, the standard streams are what there is.
    let talk = if count > 1 {
        // SAFETY: an argument ends in NUL.
        let socket = unsafe { sys::connect(path) };
        if socket < 0 {
            sys::exit(71);
        }
        Talk { input: socket, output: socket, is_socket: true }
    } else {
        Talk { input: 0, output: 1, is_socket: false }
    };
    let signals = sys::child_signals();
    talk.say(wire::HELLO, wire::VERSION, sys::user());
    while let Some(job) = Job::receive(&talk) {
        run(&talk, signals, &job);
        job.forget();
    }
    sys::exit(0)
}

/// The way to the executor.
struct Talk {
    input: isize,
    output: isize,
    is_socket: bool,
}

impl Talk {
    /// Says something. An executor that is gone shows when the next thing is read.
    fn say(&self, kind: u8, number: i32, more: u64) {
        let mut record = [0; wire::RECORD];
        record[0] = kind;
        record[4..8].copy_from_slice(&number.to_le_bytes());
        record[8..].copy_from_slice(&more.to_le_bytes());
        sys::write(self.output, &record);
    }

    /// Ends when the executor is gone.
    fn read(&self, into: &mut [u8]) -> usize {
        match usize::try_from(sys::read(self.input, into)) {
            Ok(count) if count > 0 => count,
            _ => leave(),
        }
    }

    fn read_exactly(&self, into: &mut [u8]) {
        let mut filled = 0;
        while filled < into.len() {
            filled += self.read(&mut into[filled..]);
        }
    }
}

/// The executor is gone: nothing of the job is to be left.
fn leave() -> ! {
    sys::signal_all(sys::SIGKILL);
    sys::exit(0)
}

/// Runs a job's commands while they succeed, then ends what they left.
fn run(talk: &Talk, signals: isize, job: &Job) {
    let Some(mut output) = Output::open(talk, job) else { sys::exit(72) };
    let mut is_told = false;
    let mut status = 0;
    let mut flags = 0;
    for step in 0..job.steps() {
        if is_told {
            flags |= wire::CUT;
            break;
        }
        let began = sys::micros();
        let child = match job.start(step, &output) {
            Ok(child) => child,
            Err((error, at)) => {
                talk.say(wire::UNSTARTED, error as i32, at | step as u64);
                break;
            }
        };
        status = attend(talk, signals, child, &mut output, &mut is_told);
        talk.say(wire::STEP, status, sys::micros() - began);
        if status != 0 {
            break;
        }
    }
    // Nothing is left of the job after this. A process that is just being made is killed by the next round.
    loop {
        sys::signal_all(sys::SIGKILL);
        if sys::wait(0).0 < 0 {
            break;
        }
    }
    output.finish(talk);
    flags |= full();
    tidy::remove_ipc();
    talk.say(wire::END, status, flags);
}

/// Which of the places that a job may write to have no space left. Asked while what it wrote is there.
fn full() -> u64 {
    let mut flags = 0;
    for (nth, place) in wire::PLACES.iter().enumerate() {
        if sys::is_full(place) {
            flags |= wire::FULL << nth;
        }
    }
    flags
}

/// Waits for a child's end, while output is carried and the executor is listened to.
fn attend(talk: &Talk, signals: isize, child: isize, output: &mut Output, is_told: &mut bool) -> i32 {
    loop {
        let mut polled = [sys::Polled { fd: -1, events: sys::POLLIN, happened: 0 }; 4];
        let [of_output @ .., of_talk, of_children] = &mut polled;
        of_talk.fd = talk.input as i32;
        of_children.fd = signals as i32;
        output.wants(talk, of_output);
        sys::poll(&mut polled);
        let [of_output @ .., of_talk, of_children] = &polled;
        if of_talk.happened != 0 {
            let mut byte = [0];
            talk.read(&mut byte);
            match byte[0] {
                wire::TERMINATE => {
                    *is_told = true;
                    sys::signal_all(sys::SIGTERM);
                }
                wire::KILL => {
                    *is_told = true;
                    sys::signal_all(sys::SIGKILL);
                }
                _ => leave(),
            }
        }
        output.carry(talk, of_output);
        if of_children.happened != 0 {
            // What it says is only that there is something to reap.
            let mut said = [0; 128];
            sys::read(signals, &mut said);
            loop {
                let (pid, status) = sys::wait(sys::WNOHANG);
                if pid == child {
                    return status;
                }
                if pid <= 0 {
                    break;
                }
            }
        }
    }
}
