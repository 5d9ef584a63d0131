//! How a container is made: everything that isolates a job stands here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, ResourcesUlimits,
};
use cmdexec_core::job::{Network, Resources};

use crate::cgroup::with_init;
use crate::options::Options;

/// Where the job sees its directory.
pub(crate) const WORK: &str = "/work";
/// Where the init and its socket are.
pub(crate) const HOME: &str = "/.cmdexec";
/// The init's name there.
pub(crate) const INIT: &str = "init";
/// The socket's name there, until the init has connected.
pub(crate) const SOCKET: &str = "socket";

/// Says which directory of an executor a container belongs to, by which the next process of the worker finds it.
pub(crate) const LABEL_DIR: &str = "cmdexec.dir";
/// Says which worker it belongs to, for people.
pub(crate) const LABEL_WORKER: &str = "cmdexec.worker";
/// Says which job it was made for, if for one.
pub(crate) const LABEL_JOB: &str = "cmdexec.job";
/// And which attempt of it.
pub(crate) const LABEL_ATTEMPT: &str = "cmdexec.attempt";

/// What is asked of one container beyond what all of an executor have in common.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// The image's id.
    pub(crate) image: String,
    /// `uid:gid`; `None`: the image's own.
    pub(crate) user: Option<String>,
    pub(crate) network: Network,
    pub(crate) limits: Resources,
    /// Which graphics processors.
    pub(crate) gpus: Vec<usize>,
    /// The job's directory, where it is known already.
    pub(crate) work: Option<PathBuf>,
    /// The job and the attempt, where they are.
    pub(crate) attempt: Option<(String, u32)>,
    /// Whether the init is talked to by its standard streams.
    pub(crate) is_attached: bool,
}

/// The container, as the daemon is to make it. `home` is the directory with the init and the socket.
pub(crate) fn body(options: &Options, order: &Order, home: &Path, is_podman: bool) -> ContainerCreateBody {
    let mut entrypoint = vec![format!("{HOME}/{INIT}")];
    if !order.is_attached {
        entrypoint.push(format!("{HOME}/{SOCKET}"));
    }
    ContainerCreateBody {
        image: Some(order.image.clone()),
        entrypoint: Some(entrypoint),
        // An empty one is the image's own with some daemons.
        cmd: Some(Vec::new()),
        user: order.user.clone(),
        working_dir: Some(WORK.to_owned()),
        // A name that says nothing of the machine.
        hostname: Some("job".to_owned()),
        domainname: Some(String::new()),
        // Two re-executions of the daemon fewer than `none` alone, and the same empty network.
        network_disabled: Some(order.network == Network::None),
        labels: Some(labels(options, order)),
        attach_stdin: Some(order.is_attached),
        attach_stdout: Some(order.is_attached),
        attach_stderr: Some(false),
        open_stdin: Some(order.is_attached),
        stdin_once: Some(order.is_attached),
        tty: Some(false),
        // The daemon would run what the image says beside the job, and after it.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        // The init ignores whatever else it could be sent, and the executor is who asks jobs politely.
        stop_signal: Some("SIGKILL".to_owned()),
        host_config: Some(host_config(options, order, home, is_podman)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(options: &Options, order: &Order, home: &Path, is_podman: bool) -> HostConfig {
    let memory = order.limits.memory_mb.and_then(|mb| i64::try_from(mb.saturating_mul(1 << 20)).ok());
    let mut mounts = vec![bind(home, HOME, true)];
    mounts.extend(order.work.as_deref().map(|work| bind(work, WORK, false)));
    let is_networked = order.network == Network::Bridge;
    HostConfig {
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        privileged: Some(false),
        readonly_rootfs: Some(options.read_only_root),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), tmpfs(options, order, is_podman))])),
        memory,
        // Memory and swap together: no swap.
        memory_swap: memory,
        nano_cpus: order.limits.cpu_millis.map(|millis| i64::from(millis) * 1_000_000),
        pids_limit: order.limits.pids.map(|pids| i64::from(with_init(pids))),
        ulimits: Some(vec![ulimit("core", 0, 0), ulimit("nofile", 1_024, 4_096)]),
        network_mode: Some(if is_networked { network_name(options) } else { "none".to_owned() }),
        // Else the machine's own search domains and options are copied in.
        dns_search: Some(vec![".".to_owned()]),
        dns_options: Some(Vec::new()),
        // The machine's name servers are what a job with a network needs, and what one without has no business knowing.
        dns: Some(if is_networked { Vec::new() } else { vec!["127.0.0.1".to_owned()] }),
        ipc_mode: Some("private".to_owned()),
        mounts: Some(mounts),
        device_requests: (!order.gpus.is_empty()).then(|| vec![gpus(&order.gpus)]),
        runtime: options.runtime.clone(),
        userns_mode: options.userns.clone(),
        // What jobs write is the executor's to read, and is kept nowhere else.
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        oom_kill_disable: None,
        init: Some(false),
        ..HostConfig::default()
    }
}

fn tmpfs(options: &Options, order: &Order, is_podman: bool) -> String {
    // With Docker its mode becomes the one that the image's directory has, if it has one; the job's user can write to what is its own.
    // Podman knows no owner, and leaves the mode.
    let owner = order.user.as_deref().filter(|_| !is_podman).and_then(|user| user.split_once(':'));
    let owner = owner.map(|(user, group)| format!(",uid={user},gid={group}")).unwrap_or_default();
    format!("rw,nosuid,nodev,mode=1777,size={}m{owner}", options.tmp_mb)
}

fn labels(options: &Options, order: &Order) -> HashMap<String, String> {
    let mut labels = HashMap::from([
        (LABEL_DIR.to_owned(), options.dir.display().to_string()),
        (LABEL_WORKER.to_owned(), options.worker.clone()),
    ]);
    if let Some((job, attempt)) = &order.attempt {
        labels.insert(LABEL_JOB.to_owned(), job.clone());
        labels.insert(LABEL_ATTEMPT.to_owned(), attempt.to_string());
    }
    labels
}

/// The network of this executor's jobs that have one.
pub(crate) fn network_name(options: &Options) -> String {
    // One for each executor of a machine: names are shared, and so is what sweeps them.
    let hash = options
        .dir
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("cmdexec-{hash:016x}")
}

pub(crate) fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

fn ulimit(name: &str, soft: i64, hard: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) }
}

fn gpus(indices: &[usize]) -> DeviceRequest {
    DeviceRequest {
        device_ids: Some(indices.iter().map(ToString::to_string).collect()),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    }
}
