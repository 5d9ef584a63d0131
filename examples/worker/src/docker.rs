//! Running jobs in containers: its settings, and the executor that they make.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use cmdexec_core::job::Network;
use cmdexec_executor_docker::{Credentials, DockerExecutor, Options, Pull};
use cmdexec_program::settings::Settings;
use cmdexec_program::settings::parse::{Span, boolean, list, number, own, text};

use crate::settings::cpu_millis;

/// What the worker was told of containers.
#[derive(Debug)]
pub(crate) struct Docker {
    /// Whether jobs may run in them; `None`: if a daemon answers.
    pub(crate) is_enabled: Option<bool>,
    options: Options,
}

/// Where the daemon is if nobody said.
const USUAL: &str = "unix:///var/run/docker.sock";

/// How long a daemon may take to answer when nobody said that there is one.
const LOOK: Duration = Duration::from_secs(5);

pub(crate) fn declare(s: &mut Settings, work_dir: &Path, allow_network: bool) -> Docker {
    let enabled = s.setting("ENABLE_DOCKER", "Run jobs in containers").by_default("if a daemon answers");
    let is_enabled = enabled.optional(boolean);
    let mut options = Options::new(work_dir.join("containers"));
    let host = s.setting("DOCKER_HOST", "Where the container daemon listens, such as unix:///var/run/docker.sock");
    options.host = host.or(options.host, address);
    let images =
        s.setting("DOCKER_IMAGES", "Patterns of images that jobs may use, with commas: debian, ghcr.io/our/**");
    options.policy.images = images.by_default("any").optional(|value| list(value, text)).unwrap_or_default();
    let registries = s.setting("DOCKER_REGISTRIES", "Registries that images may come from, with commas: docker.io");
    options.policy.registries = registries.by_default("any").optional(|value| list(value, text)).unwrap_or_default();
    let image_user = s.setting("DOCKER_IMAGE_USER", "Run jobs as the user that their image names, which may be root");
    options.policy.image_user = image_user.switch(false);
    options.policy.network = allow_network;

    let limits = &mut options.limits;
    let cpus = s.setting("DOCKER_CPU_LIMIT", "How many processors a job gets in a container that does not say");
    limits.cpu_millis = cpus.by_default("all").optional(cpu_millis);
    let memory =
        s.setting("DOCKER_MEMORY_LIMIT", "How much memory such a job gets: MiB, or with a unit such as 512m or 2g");
    limits.memory_mb = memory.by_default("all").optional(memory_mb);
    let pids = s.setting("DOCKER_PIDS_LIMIT", "How many processes such a job may have at once");
    limits.pids = Some(pids.or(limits.pids.unwrap_or(1_024), number(1..=4_194_304)));
    let most = &mut options.policy.most;
    let cpus = s.setting("DOCKER_MAX_CPUS", "The most processors that a job may ask for in a container");
    most.cpu_millis = cpus.by_default("any").optional(cpu_millis);
    let memory = s.setting("DOCKER_MAX_MEMORY", "The most memory that it may ask for").by_default("any");
    most.memory_mb = memory.optional(memory_mb);
    let pids = s.setting("DOCKER_MAX_PIDS", "The most processes that it may ask for").by_default("any");
    most.pids = pids.optional(number(1..=4_194_304));
    let network =
        s.setting("DOCKER_NETWORK_MODE", "The network of a job in a container that does not say: none or bridge");
    options.network = network.by_default("none").optional(network_mode).unwrap_or(options.network);
    let timeout = s.setting("DOCKER_TIMEOUT", "The longest that a job in a container may run, whatever it asks for");
    options.most_time = timeout.by_default("what it asks for").optional(own::<Span>).map(|span| span.0);

    options.read_only_root =
        !s.setting("DOCKER_WRITABLE_ROOT", "Let jobs write to their image's file system").switch(false);
    options.tmp_mb = s.setting("DOCKER_TMP_MB", "How much /tmp holds, in MiB").or(options.tmp_mb, number(1..=1 << 20));
    let runtime = s.setting("DOCKER_RUNTIME", "What runs containers, as the daemon knows it, such as runsc");
    options.runtime = runtime.by_default("the daemon's default").optional(text);
    let userns = s.setting("DOCKER_USERNS", "The user namespaces of containers, in the daemon's words");
    options.userns = userns.by_default("the daemon's default").optional(text);
    let gpus =
        s.setting("DOCKER_GPUS", "How many graphics processors jobs may have").by_default("those that the daemon has");
    options.gpus = gpus.optional(number(0..=64));
    let pull =
        s.setting("DOCKER_PULL", "When images are fetched: if-missing, always or never").by_default("if-missing");
    options.pull = pull.optional(pull_policy).unwrap_or(options.pull);
    let pull_timeout = s.setting("DOCKER_PULL_TIMEOUT", "How long fetching an image may take");
    options.pull_timeout = pull_timeout.or(Span(options.pull_timeout), own).0;
    let credentials =
        s.setting("DOCKER_CREDENTIALS", "registry=user:password for private registries, with commas").secret();
    options.credentials = credentials.optional(|value| list(value, credential)).unwrap_or_default();
    let images =
        s.setting("DOCKER_IMAGES_MB", "How much the images may take that it fetched, in MiB").by_default("no limit");
    options.images_mb = images.optional(number(1..=1 << 40));
    let pool = s.setting("DOCKER_POOL", "How many containers wait for jobs at most; 0: none");
    options.pool.most = pool.or(options.pool.most, number(0..=1_024));
    let idle = s.setting("DOCKER_POOL_IDLE", "How long after an image's last job containers of it are kept ready");
    options.pool.idle = idle.or(Span(options.pool.idle), own).0;

    if is_enabled != Some(false)
        && let Err(error) = options.validate()
    {
        s.problem("DOCKER_…", error.to_string());
    }
    Docker { is_enabled, options }
}

/// The executor, if jobs are to run in containers.
pub(crate) async fn open(docker: &Docker, worker: &str) -> anyhow::Result<Option<DockerExecutor>> {
    if docker.is_enabled == Some(false) {
        return Ok(None);
    }
    let mut options = docker.options.clone();
    worker.clone_into(&mut options.worker);
    let host = options.host.clone();
    if docker.is_enabled == Some(true) {
        return DockerExecutor::open(options).await.map(Some).context("ENABLE_DOCKER");
    }
    options.patience = options.patience.min(LOOK);
    match DockerExecutor::open(options).await {
        Ok(executor) => Ok(Some(executor)),
        Err(error) => {
            // Most machines have none, and nobody asked for it unless they said where it is. One that is there and will not do is told.
            let is_there = host.strip_prefix("unix://").is_some_and(|socket| Path::new(socket).exists());
            if host == USUAL && !is_there {
                tracing::debug!(host, %error, "jobs do not run in containers here");
            } else {
                tracing::warn!(host, %error, "jobs do not run in containers here");
            }
            Ok(None)
        }
    }
}

fn address(value: &str) -> Result<String, String> {
    let is_address = ["unix://", "tcp://"].iter().any(|scheme| value.starts_with(scheme));
    is_address.then(|| value.to_owned()).ok_or_else(|| "must begin with unix:// or tcp://".to_owned())
}

fn memory_mb(value: &str) -> Result<u64, String> {
    let value = value.trim().to_ascii_lowercase();
    let (number, unit) = value.split_at(value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len()));
    let mb = number.parse::<u64>().ok().and_then(|number| match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" | "m" => Some(number),
        "k" => Some(number.div_ceil(1_024)),
        "g" => number.checked_mul(1_024),
        _ => None,
    });
    mb.filter(|mb| (1..=64 << 20).contains(mb))
        .ok_or_else(|| "must be an amount of memory such as 512m or 2g".to_owned())
}

fn network_mode(value: &str) -> Result<Network, String> {
    match value {
        "none" => Ok(Network::None),
        "bridge" => Ok(Network::Bridge),
        _ => Err("must be none or bridge".to_owned()),
    }
}

fn pull_policy(value: &str) -> Result<Pull, String> {
    match value {
        "if-missing" => Ok(Pull::IfMissing),
        "always" => Ok(Pull::Always),
        "never" => Ok(Pull::Never),
        _ => Err("must be if-missing, always or never".to_owned()),
    }
}

fn credential(value: &str) -> Result<Credentials, String> {
    let parts = value.split_once('=').and_then(|(registry, rest)| Some((registry, rest.split_once(':')?)));
    let (registry, (username, password)) = parts.ok_or("must be registry=user:password")?;
    let own = str::to_owned;
    Ok(Credentials { registry: own(registry), username: own(username), password: own(password) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_people_write_it() {
        for (text, mb) in [("512", 512), ("512m", 512), ("2G", 2_048), ("2GiB", 2_048), ("1024k", 1), ("64mb", 64)] {
            assert_eq!(memory_mb(text), Ok(mb), "{text}");
        }
        for wrong in ["", "m", "0", "1t", "-1", "1.5g"] {
            memory_mb(wrong).unwrap_err();
        }
    }

    #[test]
    fn credentials_name_their_registry() {
        let read = credential("localhost:5000=me:a:b").unwrap();
        assert_eq!((&*read.registry, &*read.username, &*read.password), ("localhost:5000", "me", "a:b"));
        credential("me:secret").unwrap_err();
    }
}
