//! The system calls that the standard library does not offer: the only `unsafe` code of the launcher.
//!
//! The launcher has the standard library only, so the C library's functions are declared here. Layouts are those of
//! 64-bit Linux, little-endian, with glibc or musl; the build script builds the launcher for nothing else.
//! The process has one thread, so what is true of a forked process is true of the whole program: the child may
//! allocate, and no lock is held by a thread that is not there.
#![expect(unsafe_code, reason = "raw system calls; every block says why it is sound")]

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

pub(crate) const SIGKILL: c_int = 9;
pub(crate) const SIGUSR1: c_int = 10;
pub(crate) const SIGUSR2: c_int = 12;
pub(crate) const SIGTERM: c_int = 15;
pub(crate) const SIGCHLD: c_int = 17;
const SIGSTOP: c_int = 19;

pub(crate) const EPERM: i32 = 1;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const EACCES: i32 = 13;
pub(crate) const ENOTDIR: i32 = 20;
pub(crate) const ENOSYS: i32 = 38;

pub(crate) const RLIMIT_CORE: c_int = 4;
pub(crate) const RLIMIT_NPROC: c_int = 6;
pub(crate) const RLIMIT_AS: c_int = 9;

pub(crate) const CLONE_NEWNS: c_int = 0x0002_0000;
pub(crate) const CLONE_NEWUSER: c_int = 0x1000_0000;
pub(crate) const CLONE_NEWNET: c_int = 0x4000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

pub(crate) const MS_RDONLY: c_ulong = 1;
pub(crate) const MS_NOSUID: c_ulong = 2;
pub(crate) const MS_NODEV: c_ulong = 4;
pub(crate) const MS_NOEXEC: c_ulong = 8;
pub(crate) const MS_REC: c_ulong = 1 << 14;
pub(crate) const MS_SLAVE: c_ulong = 1 << 19;

// These two have one number on every architecture.
const SYS_CLONE3: c_long = 435;
const SYS_CLOSE_RANGE: c_long = 436;

#[repr(C)]
struct SigSet([u64; 16]);

#[repr(C)]
struct PollFd {
    fd: c_int,
    events: i16,
    revents: i16,
}

#[repr(C)]
struct IoVec {
    base: *mut c_void,
    len: usize,
}

#[repr(C)]
struct MsgHdr {
    name: *mut c_void,
    name_len: u32,
    iov: *mut IoVec,
    iov_len: usize,
    control: *mut c_void,
    control_len: usize,
    flags: c_int,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

#[repr(C)]
struct RLimit {
    soft: u64,
    hard: u64,
}

#[repr(C)]
#[derive(Default)]
struct RUsage {
    user: [i64; 2],
    system: [i64; 2],
    max_rss: i64,
    rest: [i64; 13],
    // musl reserves sixteen more words.
    reserved: [i64; 16],
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn fork() -> c_int;
    fn poll(fds: *mut PollFd, count: c_ulong, timeout: c_int) -> c_int;
    fn sendmsg(fd: c_int, message: *const MsgHdr, flags: c_int) -> isize;
    fn recvmsg(fd: c_int, message: *mut MsgHdr, flags: c_int) -> isize;
    fn wait4(pid: c_int, status: *mut c_int, options: c_int, usage: *mut RUsage) -> c_int;
    fn signalfd(fd: c_int, mask: *const SigSet, flags: c_int) -> c_int;
    fn sigprocmask(how: c_int, set: *const SigSet, old: *mut SigSet) -> c_int;
    fn signal(signal: c_int, handler: usize) -> usize;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn setsid() -> c_int;
    fn getpid() -> c_int;
    fn getppid() -> c_int;
    fn getuid() -> c_uint;
    fn getgid() -> c_uint;
    fn prctl(option: c_int, ...) -> c_int;
    fn dup2(old: c_int, new: c_int) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn setns(fd: c_int, kind: c_int) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn setrlimit(resource: c_int, limit: *const RLimit) -> c_int;
    fn getrlimit(resource: c_int, limit: *mut RLimit) -> c_int;
    fn setgroups(count: usize, groups: *const c_uint) -> c_int;
    fn setresgid(real: c_uint, effective: c_uint, saved: c_uint) -> c_int;
    fn setresuid(real: c_uint, effective: c_uint, saved: c_uint) -> c_int;
    fn umask(mask: c_uint) -> c_uint;
    fn chdir(path: *const c_char) -> c_int;
    fn execve(path: *const c_char, argv: *const *const c_char, env: *const *const c_char) -> c_int;
    fn flock(fd: c_int, operation: c_int) -> c_int;
    fn memfd_create(name: *const c_char, flags: c_uint) -> c_int;
    fn _exit(code: c_int) -> !;
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The error number behind an error.
pub(crate) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// The socket to the worker, which it passes as standard input.
pub(crate) fn worker_socket() -> OwnedFd {
    // SAFETY: called once, and nothing here reads standard input.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// Closes every descriptor from `first` on: whatever the program that embeds the worker left open.
pub(crate) fn close_from(first: RawFd) {
    // SAFETY: called before this program opens anything, so nobody owns what is closed.
    unsafe {
        if syscall(SYS_CLOSE_RANGE, c_long::from(first), c_long::from(u32::MAX), 0) == 0 {
            return;
        }
        // Before Linux 5.9. More than anyone has open by accident.
        for fd in first..4096 {
            close(fd);
        }
    }
}

/// Gives every signal its default action and blocks all of them; a child starts with none blocked.
pub(crate) fn block_signals() {
    for number in 1..=64 {
        // SAFETY: the default action needs no handler. Fails for SIGKILL and SIGSTOP, which always have it.
        unsafe { signal(number, 0) };
    }
    let all = SigSet([u64::MAX; 16]);
    // SAFETY: the set outlives the call, and null is allowed for the old one. 2 is SIG_SETMASK.
    unsafe { sigprocmask(2, &raw const all, ptr::null_mut()) };
}

/// Lets every signal through again.
pub(crate) fn unblock_signals() {
    let none = SigSet([0; 16]);
    // SAFETY: as above.
    unsafe { sigprocmask(2, &raw const none, ptr::null_mut()) };
}

/// A descriptor that is readable while one of the (blocked) signals is pending.
pub(crate) fn signal_fd(signals: &[c_int]) -> io::Result<File> {
    let mut set = SigSet([0; 16]);
    if let Some(word) = set.0.first_mut() {
        *word = signals.iter().fold(0, |word, signal| word | 1 << (signal - 1));
    }
    // SAFETY: the set outlives the call; the flags are SFD_CLOEXEC | SFD_NONBLOCK; the new descriptor is ours.
    unsafe { Ok(File::from_raw_fd(check(signalfd(-1, &raw const set, 0x80000 | 0x800))?)) }
}

/// Waits until one of the descriptors can be read (or the first one written, if so asked), at most `timeout_ms`.
pub(crate) fn wait_readable(fds: &[RawFd], first_writable: bool, timeout_ms: Option<c_int>) {
    let mut polled: Vec<PollFd> = fds.iter().map(|fd| PollFd { fd: *fd, events: 1, revents: 0 }).collect();
    if let (true, Some(first)) = (first_writable, polled.first_mut()) {
        first.events |= 4;
    }
    // SAFETY: the array outlives the call and has as many entries as are said.
    unsafe { poll(polled.as_mut_ptr(), polled.len() as c_ulong, timeout_ms.unwrap_or(-1)) };
}

/// Whether something can be read at once.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut polled = PollFd { fd: fd.as_raw_fd(), events: 1, revents: 0 };
    // SAFETY: one live entry.
    unsafe { poll(&raw mut polled, 1, 0) == 1 }
}

/// Takes one packet and the descriptors that came with it; `None` when the other side is gone.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
    // Aligned as a control message header must be; room for eight descriptors.
    let mut control = [0_u64; 8];
    let mut iov = IoVec { base: buffer.as_mut_ptr().cast(), len: buffer.len() };
    let mut message = MsgHdr {
        name: ptr::null_mut(),
        name_len: 0,
        iov: &raw mut iov,
        iov_len: 1,
        control: control.as_mut_ptr().cast(),
        control_len: size_of_val(&control),
        flags: 0,
    };
    // SAFETY: every pointer is to a live buffer of the length given. MSG_CMSG_CLOEXEC | MSG_DONTWAIT.
    let received = unsafe { recvmsg(socket.as_raw_fd(), &raw mut message, 0x4000_0000 | 0x40) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let mut fds = Vec::new();
    // One header: length (with the header), then level SOL_SOCKET and type SCM_RIGHTS as two 32-bit words.
    let [length, kind, rest @ ..] = &control;
    if message.control_len >= 16 && *kind == (1 | 1 << 32) {
        let count = (usize::try_from(*length).unwrap_or(0).min(size_of_val(&control)).saturating_sub(16)) / 4;
        for index in 0..count {
            let word = rest.get(index / 2).copied().unwrap_or(0);
            let fd = if index % 2 == 0 { word & u64::from(u32::MAX) } else { word >> 32 };
            let Ok(fd) = RawFd::try_from(fd) else { continue };
            // SAFETY: the kernel has just put this descriptor into our table for us.
            fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    Ok(if received == 0 { None } else { Some((received, fds)) })
}

/// Sends one packet without waiting.
pub(crate) fn send(socket: BorrowedFd<'_>, packet: &[u8]) -> io::Result<()> {
    let mut iov = IoVec { base: packet.as_ptr().cast_mut().cast(), len: packet.len() };
    let message = MsgHdr {
        name: ptr::null_mut(),
        name_len: 0,
        iov: &raw mut iov,
        iov_len: 1,
        control: ptr::null_mut(),
        control_len: 0,
        flags: 0,
    };
    // SAFETY: the buffer is only read and outlives the call. MSG_NOSIGNAL | MSG_DONTWAIT.
    let sent = unsafe { sendmsg(socket.as_raw_fd(), &raw const message, 0x4000 | 0x40) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a copy of this process: its id in the parent, 0 in the child. With a group, the child is born in it.
pub(crate) fn clone_process(cgroup: Option<BorrowedFd<'_>>) -> io::Result<c_int> {
    let Some(cgroup) = cgroup else {
        // SAFETY: one thread, so the copy is a whole program.
        return unsafe { check(fork()) };
    };
    let args = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: SIGCHLD as u64,
        cgroup: u64::from(cgroup.as_raw_fd().cast_unsigned()),
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM this is a fork: the child goes on with a copy of this stack. The C library does not
    // learn of it, which matters to its thread functions only, and the child uses none.
    let result = unsafe { syscall(SYS_CLONE3, &raw const args, size_of::<CloneArgs>()) };
    c_int::try_from(result).map_err(io::Error::other).and_then(check)
}

/// A child that has ended.
pub(crate) struct Ended {
    pub(crate) pid: c_int,
    pub(crate) status: c_int,
    pub(crate) cpu_micros: u64,
    pub(crate) max_rss_kib: u64,
}

/// Reaps a child that has ended; `None` when no child has, an error when there is no child at all.
pub(crate) fn reap(pid: c_int, wait: bool) -> io::Result<Option<Ended>> {
    let (mut status, mut usage) = (0, RUsage::default());
    // SAFETY: both are live and large enough. 1 is WNOHANG.
    let pid = check(unsafe { wait4(pid, &raw mut status, c_int::from(!wait), &raw mut usage) })?;
    let micros = |[seconds, micros]: [i64; 2]| (seconds * 1_000_000 + micros).cast_unsigned();
    Ok((pid != 0).then(|| Ended {
        pid,
        status,
        cpu_micros: micros(usage.user) + micros(usage.system),
        max_rss_kib: usage.max_rss.cast_unsigned(),
    }))
}

/// The exit code in a wait status, or else the signal.
pub(crate) fn decode_status(status: c_int) -> Result<c_int, c_int> {
    match status & 0x7f {
        0 => Ok(status >> 8 & 0xff),
        signal => Err(signal),
    }
}

pub(crate) fn send_signal(pid: c_int, signal: c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { kill(pid, signal) }).map(drop)
}

/// Keeps a process from running on, so that it cannot fork while its kind is looked for.
pub(crate) fn freeze(pid: c_int) {
    // A process that is gone needs no freezing.
    let _ = send_signal(pid, SIGSTOP);
}

pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { setsid() }).map(drop)
}

pub(crate) fn own_pid() -> c_int {
    // SAFETY: no memory is involved.
    unsafe { getpid() }
}

pub(crate) fn parent_pid() -> c_int {
    // SAFETY: no memory is involved.
    unsafe { getppid() }
}

/// This process's user and group.
pub(crate) fn own_ids() -> (u32, u32) {
    // SAFETY: no memory is involved.
    unsafe { (getuid(), getgid()) }
}

fn control(option: c_int, value: c_ulong) -> io::Result<()> {
    // SAFETY: the options used below take numbers only.
    check(unsafe { prctl(option, value, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) }).map(drop)
}

/// Dies when the parent dies. A change of user undoes it, so it comes after that.
pub(crate) fn die_with_parent() -> io::Result<()> {
    control(1, SIGKILL as c_ulong)
}

/// Keeps this process's memory and `/proc` entries from others of the same user.
pub(crate) fn make_undumpable() -> io::Result<()> {
    control(4, 0)
}

/// Becomes the parent of every orphan below this process.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    control(36, 1)
}

/// From here on no program can raise its privileges, and none that the worker's service hands down goes further.
pub(crate) fn no_new_privileges() -> io::Result<()> {
    // PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL. A kernel without them has none to hand down.
    let _ = control(47, 4);
    control(38, 1)
}

/// Leaves the worker's kernel keyring, which children would possess whatever their user.
pub(crate) fn leave_keyring() {
    #[cfg(target_arch = "x86_64")]
    const SYS_KEYCTL: c_long = 250;
    #[cfg(not(target_arch = "x86_64"))]
    const SYS_KEYCTL: c_long = 219;
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING without a name. A kernel without keyrings refuses, and needs nothing.
    unsafe { syscall(SYS_KEYCTL, 1 as c_long, ptr::null::<c_char>()) };
}

pub(crate) fn replace(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: 0, 1 and 2 are nobody's property in a child that is about to run another program.
    check(unsafe { dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Closes a standard stream.
pub(crate) fn close_stream(number: RawFd) {
    // SAFETY: as above.
    unsafe { close(number) };
}

pub(crate) fn enter_namespace(fd: BorrowedFd<'_>, kind: c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { setns(fd.as_raw_fd(), kind) }).map(drop)
}

pub(crate) fn leave_namespace(kind: c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { unshare(kind) }).map(drop)
}

pub(crate) fn mount_at(target: &CStr, kind: &CStr, flags: c_ulong, data: &CStr) -> io::Result<()> {
    // SAFETY: four strings that end in NUL and outlive the call.
    check(unsafe { mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) }).map(drop)
}

/// Lowers a limit; one that is lower already stays.
pub(crate) fn limit(resource: c_int, value: u64) -> io::Result<()> {
    let mut now = RLimit { soft: 0, hard: 0 };
    // SAFETY: live memory of the right layout, in both calls.
    check(unsafe { getrlimit(resource, &raw mut now) })?;
    let hard = value.min(now.hard);
    let lowered = RLimit { soft: hard, hard };
    // SAFETY: as above.
    check(unsafe { setrlimit(resource, &raw const lowered) }).map(drop)
}

/// Becomes this user, with the group of the same number and no other.
pub(crate) fn become_user(user: u32) -> io::Result<()> {
    // SAFETY: no groups, so the pointer is not read; the others take numbers.
    unsafe {
        check(setgroups(0, ptr::null()))?;
        check(setresgid(user, user, user))?;
        check(setresuid(user, user, user)).map(drop)
    }
}

pub(crate) fn set_umask(mask: c_uint) {
    // SAFETY: no memory is involved.
    unsafe { umask(mask) };
}

pub(crate) fn enter_directory(path: &CStr) -> io::Result<()> {
    // SAFETY: a string that ends in NUL.
    check(unsafe { chdir(path.as_ptr()) }).map(drop)
}

/// Runs another program in this process; comes back only with the error.
pub(crate) fn exec(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
    };
    // SAFETY: arrays of strings that end in NUL, themselves ended by null, all alive during the call.
    unsafe { execve(program.as_ptr(), pointers(argv).as_ptr(), pointers(env).as_ptr()) };
    io::Error::last_os_error()
}

/// Takes a lock on an open file without waiting. It lasts as long as the file is open.
pub(crate) fn try_lock(file: &File) -> io::Result<()> {
    // SAFETY: no memory is involved. LOCK_EX | LOCK_NB.
    check(unsafe { flock(file.as_raw_fd(), 2 | 4) }).map(drop)
}

/// A file that exists only in memory, and that no program sees that this one turns into.
pub(crate) fn memory_file() -> io::Result<File> {
    // SAFETY: a string that ends in NUL; 1 is MFD_CLOEXEC; the new descriptor is ours.
    unsafe { Ok(File::from_raw_fd(check(memfd_create(c"cmdexec-steps".as_ptr(), 1))?)) }
}

/// Ends this process at once, running no destructor: in a forked child they would be the parent's.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: ends the process.
    unsafe { _exit(code) }
}
