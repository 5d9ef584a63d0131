//! The processes that are measured: this very program, started again as a server or a worker.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A process that is measured; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pid: u32,
}

/// What a process has used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// Processor time.
    pub(crate) cpu: Duration,
    /// Memory that is resident now, in bytes.
    pub(crate) memory: u64,
    /// The most memory that was ever resident, in bytes.
    pub(crate) peak: u64,
}

/// Starts a server over a database, and gives it with its URL once it listens.
pub(crate) async fn server(database: &Path) -> Result<(Process, String)> {
    let (process, line) = start(Command::new(std::env::current_exe()?).arg("serve").arg(database)).await?;
    Ok((process, line))
}

/// The same, keeping so many MiB of each job's output.
pub(crate) async fn server_with_cap(database: &Path, mib: u64) -> Result<(Process, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    start(command.arg("serve").arg(database).arg("--output-cap").arg(mib.to_string())).await
}

/// Starts a worker, and gives it once it has registered.
pub(crate) async fn worker(url: &str, slots: usize) -> Result<Process> {
    let (process, _) =
        start(Command::new(std::env::current_exe()?).arg("work").arg(url).arg(slots.to_string())).await?;
    Ok(process)
}

/// Starts a program and waits for its first line.
async fn start(command: &mut Command) -> Result<(Process, String)> {
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let output = child.stdout.take().context("no pipe")?;
    let mut lines = BufReader::new(output).lines();
    let line = lines.next_line().await?.context("the program ended before it said that it is ready")?;
    let pid = child.id().context("the program has ended")?;
    Ok((Process { child, pid }, line))
}

impl Process {
    /// What it has used so far.
    pub(crate) fn used(&self) -> Result<Used> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The name may contain spaces; what follows it does not. Fields 14 and 15 (proc_pid_stat(5)) are the
        // processor time in clock ticks of 10 ms.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1_024)
        };
        let memory = field("VmRSS:").context("VmRSS")?;
        Ok(Used { cpu: Duration::from_millis(ticks * 10), memory, peak: field("VmHWM:").context("VmHWM")? })
    }

    /// Kills it.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child.kill().await?;
        Ok(())
    }
}
