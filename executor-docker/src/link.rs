//! Talking to an init: handing it a job, and reading what it says.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};

use cmdexec_core::executor::Plan;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::container::Line;
use crate::wire;

/// What an init says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: u8,
    pub(crate) number: i32,
    pub(crate) more: u64,
}

/// A job as an init takes it.
pub(crate) fn encode(plan: &Plan) -> io::Result<Vec<u8>> {
    let too_long = |_| io::Error::other("the job is too long");
    let mut job = Vec::new();
    let mut number = |count: usize| -> io::Result<()> {
        job.extend_from_slice(&u32::try_from(count).map_err(too_long)?.to_le_bytes());
        Ok(())
    };
    number(plan.commands.len())?;
    number(plan.env.len())?;
    for command in &plan.commands {
        number(command.len())?;
    }
    let mut text = |text: &[u8]| {
        job.extend_from_slice(text);
        job.push(0);
    };
    text(plan.dir.as_os_str().as_encoded_bytes());
    plan.commands.iter().flatten().for_each(|argument| text(argument.as_bytes()));
    for (name, value) in &plan.env {
        text(format!("{name}={value}").as_bytes());
    }
    if job.len() > wire::MAX_JOB {
        return Err(io::Error::other("the job is too long"));
    }
    let length = u32::try_from(job.len()).map_err(too_long)?;
    Ok([&[wire::JOB][..], &length.to_le_bytes(), &job].concat())
}

impl Line {
    /// Hands over a job. On a socket `streams` go with it.
    pub(crate) async fn send_job(&mut self, job: &[u8], streams: [BorrowedFd<'_>; 2]) -> io::Result<()> {
        match self {
            Self::Socket(socket) => {
                let sent = send_with(socket, job, streams).await?;
                socket.write_all(job.get(sent..).unwrap_or_default()).await
            }
            Self::Attached { input, .. } => {
                input.write_all(job).await?;
                input.flush().await
            }
        }
    }

    /// Sends a message of one byte.
    pub(crate) async fn say(&mut self, message: u8) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.write_all(&[message]).await,
            Self::Attached { input, .. } => {
                input.write_all(&[message]).await?;
                input.flush().await
            }
        }
    }

    /// Reads some of what the init says. Cancellation safe.
    pub(crate) async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.read(into).await,
            Self::Attached { output, .. } => output.read(into).await,
        }
    }
}

async fn send_with(socket: &UnixStream, bytes: &[u8], streams: [BorrowedFd<'_>; 2]) -> io::Result<usize> {
    let fds = streams.map(|fd| fd.as_raw_fd());
    let send = || {
        let iov = [IoSlice::new(bytes)];
        let rights = [ControlMessage::ScmRights(&fds)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(socket.as_raw_fd(), &iov, &rights, flags, None).map_err(io::Error::from)
    };
    loop {
        socket.writable().await?;
        match socket.try_io(Interest::WRITABLE, send) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// What was read of a record so far.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    bytes: [u8; wire::RECORD],
    filled: usize,
}

impl Partial {
    /// The next record; an error if the init is gone. Cancellation safe.
    pub(crate) async fn next(&mut self, line: &mut Line) -> io::Result<Record> {
        while let Some(rest) = self.bytes.get_mut(self.filled..).filter(|rest| !rest.is_empty()) {
            match line.read(rest).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.filled += count,
            }
        }
        self.filled = 0;
        let [kind, _, _, _, number @ .., _, _, _, _, _, _, _, _] = self.bytes;
        let more = self.bytes.last_chunk().copied().unwrap_or_default();
        Ok(Record { kind, number: i32::from_le_bytes(number), more: u64::from_le_bytes(more) })
    }
}
