//! The worker's half of the launcher: starting the program that the library carries, and talking to it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, send, sendmsg, setsockopt, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::protocol::{self, Hello, Report, Request, Run, Setup};

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launcher"));

/// How long the launcher has to prepare. Sweeping up after a crashed one is what may take time.
const START_SECONDS: i64 = 20;

/// The launcher: a handle that starts the program again when it has died.
#[derive(Debug)]
pub(super) struct Launcher {
    setup: Setup,
    state: Mutex<State>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Started, and not yet used in a runtime.
    idle: Option<Process>,
    live: Option<Arc<Connection>>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    socket: OwnedFd,
}

/// A launcher that this process talks to, until it dies or the handle is dropped.
#[derive(Debug)]
struct Connection {
    line: Arc<Line>,
    child: Mutex<Child>,
    /// Ends with the connection.
    _reader: AbortOnDropHandle<()>,
}

/// What the reader and the jobs share of a connection.
#[derive(Debug)]
struct Line {
    socket: AsyncFd<OwnedFd>,
    /// Who waits for which report; `None` once no report will come any more.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Report>>>>,
}

/// The launcher has died, or cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("the launcher of jobs is gone: {0}")]
pub(super) struct Gone(String);

/// A job that the launcher has been asked to run. Dropped before its report, it is killed.
#[derive(Debug)]
pub(super) struct Running {
    line: Arc<Line>,
    id: u64,
    report: oneshot::Receiver<Report>,
    over: bool,
}

impl Launcher {
    /// Starts the program and hears what it can do. Takes a few milliseconds and needs no runtime.
    pub(super) fn start(setup: Setup) -> io::Result<(Self, Hello)> {
        let (process, hello) = Process::start(&setup)?;
        let state = State { idle: Some(process), live: None };
        Ok((Self { setup, state: Mutex::new(state), next: AtomicU64::new(1) }, hello))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection; a launcher that has died is replaced, and the new one sweeps up after it.
    ///
    /// Blocks for as long as a start takes, which happens once and then only after a crash.
    fn connection(&self) -> io::Result<Arc<Connection>> {
        let mut state = self.state();
        if let Some(live) = &state.live
            && live.line.is_up()
        {
            return Ok(Arc::clone(live));
        }
        if let Some(dead) = state.live.take() {
            tracing::warn!("the launcher of jobs has died; starting another");
            dead.reap();
        }
        let process = match state.idle.take() {
            Some(process) => process,
            None => Process::start(&self.setup)?.0,
        };
        let connection = Arc::new(Connection::new(process)?);
        state.live = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Asks for a job to be run with these output streams.
    pub(super) async fn run(&self, mut run: Run, out: OwnedFd, err: OwnedFd) -> Result<Running, Gone> {
        run.id = self.next.fetch_add(1, Ordering::Relaxed);
        run.name.extend(format!("-{}", run.id).bytes());
        let id = run.id;
        self.ask(id, &Request::Run(Box::new(run)), &[out.as_fd().as_raw_fd(), err.as_fd().as_raw_fd()]).await
    }

    /// Ends every process of a user.
    pub(super) async fn clear(&self, user: u32) -> Result<(), Gone> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut running = self.ask(id, &Request::Clear { id, user }, &[]).await?;
        running.ended().await.map(drop)
    }

    async fn ask(&self, id: u64, request: &Request, fds: &[RawFd]) -> Result<Running, Gone> {
        let connection = self.connection().map_err(|e| Gone(e.to_string()))?;
        let line = Arc::clone(&connection.line);
        let report = line.expect(id)?;
        // From here on the job may be running, so from here on dropping kills it.
        let running = Running { line, id, report, over: false };
        running.line.send(request, fds).await?;
        Ok(running)
    }

    /// Makes sure that a launcher runs, so that what a dead one left behind has been swept up. One that has had nothing to do
    /// yet is replaced: shared mounts that were made since it started would not reach it.
    pub(super) fn renew(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.live.as_ref().is_some_and(|live| live.line.is_up()) {
            return Ok(());
        }
        if let Some(Process { mut child, socket }) = state.idle.take() {
            drop(socket);
            child.wait()?;
        }
        state.idle = Some(Process::start(&self.setup)?.0);
        Ok(())
    }

    /// Ends the launcher and waits until it has. It ends what it still runs.
    pub(super) async fn stop(&self) {
        for mut child in self.hang_up() {
            let wait = tokio::task::spawn_blocking(move || child.wait());
            let _ = wait.await;
        }
    }

    /// Lets the launcher know that nobody will ask it any more, and gives it up to be waited for.
    fn hang_up(&self) -> Vec<Child> {
        let State { idle, live } = std::mem::take(&mut *self.state());
        // Taking the child drops the socket.
        let idle = idle.map(|process| process.child);
        let live = live.and_then(|live| {
            live.line.hang_up();
            Arc::into_inner(live).and_then(|live| live.child.into_inner().ok())
        });
        idle.into_iter().chain(live).collect()
    }
}

impl Drop for Launcher {
    /// Ends the launcher without waiting for more than a moment. [`Launcher::stop`] is the proper way.
    fn drop(&mut self) {
        for mut child in self.hang_up() {
            for _ in 0..20 {
                if !matches!(child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Process {
    fn start(setup: &Setup) -> io::Result<(Self, Hello)> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let program = program()?;
        let mut child = spawn(&program, |command| command.stdin(theirs.try_clone()?).spawn())?;
        drop(theirs);
        match greet(&ours, setup) {
            Ok(hello) => Ok((Self { child, socket: ours }, hello)),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }
}

/// Starts the program, with nothing of this process but what is added to the command.
fn spawn(program: &File, add: impl Fn(&mut Command) -> io::Result<Child>) -> io::Result<Child> {
    let start = || {
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        command.arg0("cmdexec-launcher").env_clear().current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        add(&mut command)
    };
    let mut child = start();
    // A fork elsewhere in this process may have copied the descriptor that the program was written through.
    for _ in 0..50 {
        if !matches!(&child, Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy) {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
        child = start();
    }
    child
}

/// A user namespace in which `user` of this machine is its root, which files that belong to root can be shown through as that
/// user's. Nobody is in it.
pub(crate) fn user_namespace(user: u32) -> io::Result<File> {
    // A process with threads can't make one for itself; the launcher's program can, and does nothing else when asked so.
    let add =
        |command: &mut Command| command.arg("user-namespace").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = spawn(&program()?, add)?;
    let made = (|| {
        let mut byte = [0];
        child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?.read_exact(&mut byte)?;
        let of_child = |name: &str| format!("/proc/{}/{name}", child.id());
        let map = format!("0 {user} 1");
        std::fs::write(of_child("uid_map"), &map)?;
        std::fs::write(of_child("gid_map"), &map)?;
        File::open(of_child("ns/user"))
    })();
    // The end of its standard input ends it.
    drop(child.stdin.take());
    child.wait()?;
    made
}

/// The program as a file that exists only in memory, open for reading only: the kernel runs no file that is open
/// for writing.
fn program() -> io::Result<File> {
    let mut written = File::from(memfd_create(c"cmdexec-launcher", MFdFlags::MFD_CLOEXEC)?);
    written.write_all(PROGRAM)?;
    File::open(format!("/proc/self/fd/{}", written.as_raw_fd()))
}

fn greet(socket: &OwnedFd, setup: &Setup) -> io::Result<Hello> {
    setsockopt(socket, sockopt::ReceiveTimeout, &TimeVal::seconds(START_SECONDS))?;
    send(socket.as_raw_fd(), &setup.encode(), MsgFlags::MSG_NOSIGNAL)?;
    let mut packet = [0; 256];
    let length = recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty())?;
    packet.get(..length).and_then(Hello::decode).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl Connection {
    fn new(Process { child, socket }: Process) -> io::Result<Self> {
        #[expect(deprecated, reason = "unsound only for types that lie about their descriptor; OwnedFd does not")]
        let socket = AsyncFd::new(socket)?;
        let line = Arc::new(Line { socket, waiting: Mutex::new(Some(HashMap::new())) });
        let reader = AbortOnDropHandle::new(tokio::spawn(read(Reading(Arc::clone(&line)))));
        Ok(Self { line, child: Mutex::new(child), _reader: reader })
    }

    /// Takes the dead launcher's exit status, so that no zombie stays.
    fn reap(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // It may merely be out of reach, because the runtime that read from it has ended.
        self.line.hang_up();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Hangs up when reading ends, however it ends: also when the runtime goes away around it.
struct Reading(Arc<Line>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}

async fn read(reading: Reading) {
    let line = &reading.0;
    let mut packet = vec![0; 64 * 1024];
    loop {
        let receive = |socket: &OwnedFd| Ok(recv(socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT)?);
        let length = match line.socket.async_io(Interest::READABLE, receive).await {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        let Some(reports) = packet.get(..length).and_then(Report::decode_all) else { return };
        let mut waiting = line.waiting();
        let Some(waiting) = waiting.as_mut() else { return };
        for report in reports {
            if let Some(waiter) = waiting.remove(&report.id) {
                // Whoever waited may have been dropped.
                let _ = waiter.send(report);
            }
        }
    }
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Report>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_up(&self) -> bool {
        self.waiting().is_some()
    }

    /// Lets everybody who waits know that nothing will come, and the launcher that nobody listens.
    fn hang_up(&self) {
        *self.waiting() = None;
        let _ = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }

    fn expect(&self, id: u64) -> Result<oneshot::Receiver<Report>, Gone> {
        let (sender, receiver) = oneshot::channel();
        match self.waiting().as_mut() {
            Some(waiting) => drop(waiting.insert(id, sender)),
            None => return Err(Gone("it has died".to_owned())),
        }
        Ok(receiver)
    }

    async fn send(&self, request: &Request, fds: &[RawFd]) -> Result<(), Gone> {
        let gone = |error: io::Error| Gone(error.to_string());
        let packet = request.encode();
        if packet.len() <= protocol::MAX_PACKET {
            return self.send_packet(&packet, fds).await.map_err(gone);
        }
        let in_file = || {
            let mut file = File::from(memfd_create(c"cmdexec-request", MFdFlags::MFD_CLOEXEC)?);
            file.write_all(&packet)?;
            file.rewind()?;
            Ok(file)
        };
        let file = in_file().map_err(gone)?;
        let fds: Vec<RawFd> = [file.as_raw_fd()].into_iter().chain(fds.iter().copied()).collect();
        self.send_packet(&Request::InFile.encode(), &fds).await.map_err(gone)
    }

    async fn send_packet(&self, packet: &[u8], fds: &[RawFd]) -> io::Result<()> {
        match self.try_send(packet, fds) {
            // The launcher is behind; it takes requests before anything else.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.socket.async_io(Interest::WRITABLE, |_| self.try_send(packet, fds)).await
            }
            result => result,
        }
    }

    fn try_send(&self, packet: &[u8], fds: &[RawFd]) -> io::Result<()> {
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(packet)], rights, flags, None)?;
        Ok(())
    }
}

impl Running {
    /// Waits until every process of the job is gone. Cancellation safe.
    pub(super) async fn ended(&mut self) -> Result<Report, Gone> {
        let report = (&mut self.report).await.map_err(|_| Gone("it has died".to_owned()));
        self.over = true;
        report
    }

    /// Asks every process of the job to end.
    pub(super) async fn terminate(&self) {
        // A launcher that is gone ends the wait for the report, which says so.
        let _ = self.line.send(&Request::Terminate { id: self.id }, &[]).await;
    }

    /// Ends every process of the job.
    pub(super) async fn kill(&self) {
        let _ = self.line.send(&Request::Kill { id: self.id }, &[]).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        if let Some(waiting) = self.line.waiting().as_mut() {
            waiting.remove(&self.id);
        }
        let packet = Request::Kill { id: self.id }.encode();
        while let Err(error) = self.line.try_send(&packet, &[]) {
            if error.kind() != io::ErrorKind::WouldBlock {
                break;
            }
            // The launcher is behind by hundreds of requests. It takes one in microseconds, and a kill must not
            // get lost.
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}
