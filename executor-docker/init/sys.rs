//! The system calls that the init needs, without a C library: it must run in any image.

use core::arch::asm;

pub(crate) const AT_FDCWD: isize = -100;
pub(crate) const EACCES: isize = 13;
pub(crate) const EINTR: isize = 4;
pub(crate) const ENOENT: isize = 2;
pub(crate) const ENOTDIR: isize = 20;
pub(crate) const SIGKILL: isize = 9;
pub(crate) const SIGTERM: isize = 15;
pub(crate) const SIGCHLD: isize = 17;
pub(crate) const WNOHANG: isize = 1;
pub(crate) const O_RDWR: isize = 2;
pub(crate) const O_CLOEXEC: isize = 0o2_000_000;
pub(crate) const POLLIN: i16 = 1;
pub(crate) const POLLOUT: i16 = 4;

#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const READ: usize = 0;
    pub(super) const WRITE: usize = 1;
    pub(super) const CLOSE: usize = 3;
    pub(super) const MMAP: usize = 9;
    pub(super) const MUNMAP: usize = 11;
    pub(super) const SIGACTION: usize = 13;
    pub(super) const SIGPROCMASK: usize = 14;
    pub(super) const SOCKET: usize = 41;
    pub(super) const CONNECT: usize = 42;
    pub(super) const RECVMSG: usize = 47;
    pub(super) const CLONE: usize = 56;
    pub(super) const EXECVE: usize = 59;
    pub(super) const WAIT4: usize = 61;
    pub(super) const KILL: usize = 62;
    pub(super) const CHDIR: usize = 80;
    pub(super) const UMASK: usize = 95;
    pub(super) const GETUID: usize = 102;
    pub(super) const STATFS: usize = 137;
    pub(super) const SETSID: usize = 112;
    pub(super) const PRCTL: usize = 157;
    pub(super) const CLOCK_GETTIME: usize = 228;
    pub(super) const EXIT_GROUP: usize = 231;
    pub(super) const OPENAT: usize = 257;
    pub(super) const PPOLL: usize = 271;
    pub(super) const SIGNALFD4: usize = 289;
    pub(super) const DUP3: usize = 292;
    pub(super) const PIPE2: usize = 293;
    pub(super) const CLOSE_RANGE: usize = 436;
    pub(super) const SHMCTL: usize = 31;
    pub(super) const SEMCTL: usize = 66;
    pub(super) const MSGCTL: usize = 71;
}

// One table for the architectures that came after the calls were tidied up.
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
mod number {
    pub(super) const READ: usize = 63;
    pub(super) const WRITE: usize = 64;
    pub(super) const CLOSE: usize = 57;
    pub(super) const MMAP: usize = 222;
    pub(super) const MUNMAP: usize = 215;
    pub(super) const SIGACTION: usize = 134;
    pub(super) const SIGPROCMASK: usize = 135;
    pub(super) const SOCKET: usize = 198;
    pub(super) const CONNECT: usize = 203;
    pub(super) const RECVMSG: usize = 212;
    pub(super) const CLONE: usize = 220;
    pub(super) const EXECVE: usize = 221;
    pub(super) const WAIT4: usize = 260;
    pub(super) const KILL: usize = 129;
    pub(super) const CHDIR: usize = 49;
    pub(super) const UMASK: usize = 166;
    pub(super) const GETUID: usize = 174;
    pub(super) const STATFS: usize = 43;
    pub(super) const SETSID: usize = 157;
    pub(super) const PRCTL: usize = 167;
    pub(super) const CLOCK_GETTIME: usize = 113;
    pub(super) const EXIT_GROUP: usize = 94;
    pub(super) const OPENAT: usize = 56;
    pub(super) const PPOLL: usize = 73;
    pub(super) const SIGNALFD4: usize = 74;
    pub(super) const DUP3: usize = 24;
    pub(super) const PIPE2: usize = 59;
    pub(super) const CLOSE_RANGE: usize = 436;
    pub(super) const SHMCTL: usize = 195;
    pub(super) const SEMCTL: usize = 191;
    pub(super) const MSGCTL: usize = 187;
}

/// One call of the kernel: what it gives back, or an error's number as a negative one.
///
/// # Safety
/// The arguments are what the call takes, and every pointer is good for what it does with it.
unsafe fn call(n: usize, a: [isize; 6]) -> isize {
    let mut result: isize;
    // SAFETY: the caller's; the registers are the ABI's.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("syscall", inlateout("rax") n as isize => result, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
             in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
        #[cfg(target_arch = "aarch64")]
        asm!("svc 0", in("x8") n, inlateout("x0") a[0] => result, in("x1") a[1], in("x2") a[2], in("x3") a[3],
             in("x4") a[4], in("x5") a[5], options(nostack));
        #[cfg(target_arch = "riscv64")]
        asm!("ecall", in("a7") n, inlateout("a0") a[0] => result, in("a1") a[1], in("a2") a[2], in("a3") a[3],
             in("a4") a[4], in("a5") a[5], options(nostack));
    }
    result
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start", "_start:", "xor %ebp, %ebp", "mov %rsp, %rdi", "and $-16, %rsp", "call {main}", "ud2",
    main = sym crate::start, options(att_syntax)
);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start", "_start:", "mov x29, #0", "mov x30, #0", "mov x0, sp", "bl {main}", "brk #1",
    main = sym crate::start
);
#[cfg(target_arch = "riscv64")]
core::arch::global_asm!(
    ".globl _start", "_start:", ".option push", ".option norelax", "la gp, __global_pointer$", ".option pop",
    "mv a0, sp", "andi sp, sp, -16", "call {main}", "unimp",
    main = sym crate::start
);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(70)
}

/// The core library was built to unwind and asks for this by name; nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

// The compiler calls these by name. A loop over plain bytes would be turned into a call of itself.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    for i in 0..count {
        // SAFETY: the caller's: both are good for `count` bytes.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    for i in 0..count {
        // SAFETY: the caller's: it is good for `count` bytes.
        unsafe { to.add(i).write_volatile(byte.to_le_bytes()[0]) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    for i in 0..count {
        // SAFETY: the caller's: both are good for `count` bytes.
        let (a, b) = unsafe { (one.add(i).read_volatile(), other.add(i).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    // SAFETY: the same promise.
    unsafe { memcmp(one, other, count) }
}

pub(crate) fn exit(code: isize) -> ! {
    loop {
        // SAFETY: no memory is involved.
        unsafe { call(number::EXIT_GROUP, [code, 0, 0, 0, 0, 0]) };
    }
}

pub(crate) fn read(fd: isize, into: &mut [u8]) -> isize {
    loop {
        // SAFETY: the buffer is live and as long as is said.
        let count = unsafe { call(number::READ, [fd, into.as_mut_ptr() as isize, into.len() as isize, 0, 0, 0]) };
        if count != -EINTR {
            return count;
        }
    }
}

/// Writes all of it; false if the other side is gone.
pub(crate) fn write(fd: isize, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        // SAFETY: the buffer is live and as long as is said.
        let count = unsafe { call(number::WRITE, [fd, bytes.as_ptr() as isize, bytes.len() as isize, 0, 0, 0]) };
        match usize::try_from(count) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(_) if count == -EINTR => {}
            Err(_) => return false,
        }
    }
    true
}

pub(crate) fn close(fd: isize) {
    // SAFETY: no memory is involved.
    unsafe { call(number::CLOSE, [fd, 0, 0, 0, 0, 0]) };
}

pub(crate) fn close_from(first: isize) {
    // SAFETY: no memory is involved.
    unsafe { call(number::CLOSE_RANGE, [first, 0x7fff_ffff, 0, 0, 0, 0]) };
}

/// Memory of its own, zeroed.
pub(crate) fn map(bytes: usize) -> Option<&'static mut [u8]> {
    // PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS.
    // SAFETY: a new mapping, wherever the kernel likes.
    let at = unsafe { call(number::MMAP, [0, bytes as isize, 3, 0x22, -1, 0]) };
    // SAFETY: it is `bytes` long and nobody else's.
    (at > 0).then(|| unsafe { core::slice::from_raw_parts_mut(at as *mut u8, bytes) })
}

pub(crate) fn unmap(memory: &'static mut [u8]) {
    // SAFETY: it came from `map`, and this was the one reference to it.
    unsafe { call(number::MUNMAP, [memory.as_mut_ptr() as isize, memory.len() as isize, 0, 0, 0, 0]) };
}

/// A stream socket that is connected to the path, which ends in NUL.
///
/// # Safety
/// `path` points to a text that ends in NUL.
pub(crate) unsafe fn connect(path: *const u8) -> isize {
    let mut address = [0_u8; 110];
    address[0] = 1; // AF_UNIX
    for i in 2..109 {
        // SAFETY: every byte before was not the NUL.
        let byte = unsafe { path.add(i - 2).read() };
        if byte == 0 {
            break;
        }
        address[i] = byte;
    }
    // AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC.
    // SAFETY: the address is live, and as long as is said.
    unsafe {
        let socket = call(number::SOCKET, [1, 1 | O_CLOEXEC, 0, 0, 0, 0]);
        if socket < 0 {
            return socket;
        }
        let done = call(number::CONNECT, [socket, address.as_ptr() as isize, address.len() as isize, 0, 0, 0]);
        if done < 0 { done } else { socket }
    }
}

/// Reads a byte or more, and up to two descriptors that come with them.
pub(crate) fn receive(socket: isize, into: &mut [u8], fds: &mut [isize; 2]) -> isize {
    #[repr(C)]
    struct Message {
        name: usize,
        name_len: usize,
        iov: *const [usize; 2],
        iov_len: usize,
        control: *mut u64,
        control_len: usize,
        flags: usize,
    }
    let mut control = [0_u64; 4];
    let iov = [into.as_mut_ptr() as usize, into.len()];
    let mut message = Message {
        name: 0,
        name_len: 0,
        iov: &raw const iov,
        iov_len: 1,
        control: control.as_mut_ptr(),
        control_len: size_of_val(&control),
        flags: 0,
    };
    let count = loop {
        // SAFETY: every pointer is to a live buffer of the length given. MSG_CMSG_CLOEXEC.
        let count = unsafe { call(number::RECVMSG, [socket, &raw mut message as isize, 0x4000_0000, 0, 0, 0]) };
        if count != -EINTR {
            break count;
        }
    };
    // A header of 16 bytes with two descriptors: SOL_SOCKET, SCM_RIGHTS.
    if count > 0 && control[0] == 24 && control[1] == 1 | 1 << 32 {
        *fds = [(control[2] & 0xffff_ffff) as isize, (control[2] >> 32) as isize];
    }
    count
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Polled {
    pub(crate) fd: i32,
    pub(crate) events: i16,
    pub(crate) happened: i16,
}

pub(crate) fn poll(fds: &mut [Polled]) {
    // SAFETY: the array is live and has as many entries as are said. No time, no signals.
    unsafe { call(number::PPOLL, [fds.as_mut_ptr() as isize, fds.len() as isize, 0, 0, 8, 0]) };
}

/// The same without waiting.
pub(crate) fn poll_now(fds: &mut [Polled]) {
    let no_time = [0_u64; 2];
    let (fds, count) = (fds.as_mut_ptr() as isize, fds.len() as isize);
    // SAFETY: as above, and the time is live.
    unsafe { call(number::PPOLL, [fds, count, no_time.as_ptr() as isize, 0, 8, 0]) };
}

/// Blocks the signal of a child's end, and makes a descriptor that is readable when there was one.
pub(crate) fn child_signals() -> isize {
    let set = 1_u64 << (SIGCHLD - 1);
    // SAFETY: the set is live and 8 bytes long. SIG_BLOCK; SFD_CLOEXEC | SFD_NONBLOCK.
    unsafe {
        call(number::SIGPROCMASK, [0, &raw const set as isize, 0, 8, 0, 0]);
        call(number::SIGNALFD4, [-1, &raw const set as isize, 8, O_CLOEXEC | 0o4000, 0, 0])
    }
}

/// Every signal does what it does by default, and none is blocked.
pub(crate) fn reset_signals() {
    let nothing = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: a zeroed action is the default one. Fails where it can't be another.
        unsafe { call(number::SIGACTION, [signal, nothing.as_ptr() as isize, 0, 8, 0, 0]) };
    }
    // SAFETY: the set is live and 8 bytes long. SIG_SETMASK.
    unsafe { call(number::SIGPROCMASK, [2, nothing.as_ptr() as isize, 0, 8, 0, 0]) };
}

/// A copy of this process: its id, 0 in the copy.
pub(crate) fn fork() -> isize {
    // SAFETY: one thread, and no memory is shared.
    unsafe { call(number::CLONE, [SIGCHLD, 0, 0, 0, 0, 0]) }
}

/// A child that has ended, and its wait status.
pub(crate) fn wait(options: isize) -> (isize, i32) {
    let mut status = 0_i32;
    loop {
        // SAFETY: the status is live.
        let pid = unsafe { call(number::WAIT4, [-1, &raw mut status as isize, options, 0, 0, 0]) };
        if pid != -EINTR {
            return (pid, status);
        }
    }
}

/// Sends a signal to every process here but this one.
pub(crate) fn signal_all(signal: isize) {
    // SAFETY: no memory is involved.
    unsafe { call(number::KILL, [-1, signal, 0, 0, 0, 0]) };
}

/// # Safety
/// `path` ends in NUL, and the lists of texts end in null.
pub(crate) unsafe fn exec(path: *const u8, arguments: *const *const u8, environment: *const *const u8) -> isize {
    // SAFETY: the caller's.
    unsafe { call(number::EXECVE, [path as isize, arguments as isize, environment as isize, 0, 0, 0]) }
}

/// # Safety
/// `path` ends in NUL.
pub(crate) unsafe fn enter(path: *const u8) -> isize {
    // SAFETY: the caller's.
    unsafe { call(number::CHDIR, [path as isize, 0, 0, 0, 0, 0]) }
}

/// Opens what is at `path`, which ends in NUL.
pub(crate) fn open(path: &[u8], flags: isize) -> isize {
    debug_assert!(path.ends_with(b"\0"));
    // SAFETY: it ends in NUL.
    unsafe { call(number::OPENAT, [AT_FDCWD, path.as_ptr() as isize, flags | O_CLOEXEC, 0, 0, 0]) }
}

/// Whether the file system at `path`, which ends in NUL, takes no more: what is left is less than most write at once, or there
/// can be no further file.
pub(crate) fn is_full(path: &[u8]) -> bool {
    debug_assert!(path.ends_with(b"\0"));
    let mut seen = [0_u64; 15];
    // SAFETY: the path ends in NUL, and what is answered has 120 bytes.
    let answer = unsafe { call(number::STATFS, [path.as_ptr() as isize, seen.as_mut_ptr() as isize, 0, 0, 0, 0]) };
    let [_, size, blocks, _, available, files, free_files, ..] = seen;
    // One that counts nothing says 0 of everything.
    answer == 0 && (blocks > 0 && available.saturating_mul(size) < 1 << 16 || files > 0 && free_files == 0)
}

/// Makes `to` the same as `from`; it outlives an exec unless it is another's `flags`.
pub(crate) fn duplicate(from: isize, to: isize, flags: isize) {
    // SAFETY: no memory is involved.
    unsafe { call(number::DUP3, [from, to, flags, 0, 0, 0]) };
}

pub(crate) fn pipe() -> Option<[isize; 2]> {
    let mut fds = [0_i32; 2];
    // SAFETY: there is room for two.
    let made = unsafe { call(number::PIPE2, [fds.as_mut_ptr() as isize, O_CLOEXEC, 0, 0, 0, 0]) };
    (made == 0).then_some([fds[0] as isize, fds[1] as isize])
}

pub(crate) fn new_session() {
    // SAFETY: no memory is involved.
    unsafe { call(number::SETSID, [0, 0, 0, 0, 0, 0]) };
}

pub(crate) fn set_umask() {
    // SAFETY: no memory is involved.
    unsafe { call(number::UMASK, [0o022, 0, 0, 0, 0, 0]) };
}

/// Who this process is.
pub(crate) fn user() -> u64 {
    // SAFETY: no memory is involved.
    unsafe { call(number::GETUID, [0; 6]) as u64 }
}

/// Whether others of the same user may look into this process.
pub(crate) fn set_dumpable(may: bool) {
    // SAFETY: PR_SET_DUMPABLE takes a number.
    unsafe { call(number::PRCTL, [4, may as isize, 0, 0, 0, 0]) };
}

/// Microseconds of a clock that only goes forwards.
pub(crate) fn micros() -> u64 {
    let mut time = [0_u64; 2];
    // SAFETY: there is room for the two numbers. CLOCK_MONOTONIC.
    unsafe { call(number::CLOCK_GETTIME, [1, time.as_mut_ptr() as isize, 0, 0, 0, 0]) };
    time[0] * 1_000_000 + time[1] / 1_000
}

/// Removes a System V object: shared memory, a set of semaphores or a queue. IPC_RMID is 0.
pub(crate) fn remove_ipc(kind: Ipc, id: isize) {
    // SAFETY: removing takes no memory.
    unsafe {
        match kind {
            Ipc::Memory => call(number::SHMCTL, [id, 0, 0, 0, 0, 0]),
            Ipc::Semaphores => call(number::SEMCTL, [id, 0, 0, 0, 0, 0]),
            Ipc::Queue => call(number::MSGCTL, [id, 0, 0, 0, 0, 0]),
        };
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Ipc {
    Memory,
    Semaphores,
    Queue,
}
