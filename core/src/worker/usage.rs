//! How busy the machine is: sampled once a beat, which costs two small files.

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::service::{Usage, WorkerStatus};

/// The machine as the last sample left it.
#[derive(Debug)]
pub(super) struct Machine(Option<System>);

/// What the machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hardware {
    pub(super) hostname: String,
    pub(super) cpu_count: u32,
    pub(super) memory_mb: u64,
}

impl Machine {
    pub(super) fn look() -> Self {
        let kinds = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        // On a system that sysinfo does not know the worker works all the same and shows no usage.
        Self(System::new_with_specifics(kinds).ok())
    }

    pub(super) fn hardware(&self) -> Hardware {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Hardware {
            hostname: System::host_name().unwrap_or_else(|_| "unknown".to_owned()),
            cpu_count: u32::try_from(cpus).unwrap_or(u32::MAX),
            memory_mb: self.0.as_ref().map_or(1, |system| (system.total_memory() / (1024 * 1024)).max(1)),
        }
    }

    /// What it did since the last sample.
    pub(super) fn sample(&mut self, status: WorkerStatus) -> Usage {
        let Some(system) = &mut self.0 else { return Usage { status, cpu: 0.0, ram: 0.0 } };
        system.refresh_cpu_usage();
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let ram = system.used_memory() as f64 * 100.0 / system.total_memory().max(1) as f64;
        Usage { status, cpu: f64::from(system.global_cpu_usage()).clamp(0.0, 100.0), ram: ram.clamp(0.0, 100.0) }
    }
}
