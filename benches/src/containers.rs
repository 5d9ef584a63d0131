//! Jobs in containers, beside the plain API of the same daemon doing the same: create, start, wait, remove.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions,
};
use cmdexec_core::executor::{Executor, RunContext, StepLog, output_pipe};
use cmdexec_core::id::JobId;
use cmdexec_core::job::{JobSpec, Outcome};
use cmdexec_core::service::{JobService, JobServiceExt, OutputEvent, OutputQuery};
use cmdexec_core::worker::Worker;
use cmdexec_executor_docker::{DockerExecutor, Options};
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::stats::{Sample, ms};
use crate::table::{Report, rate, ratio};
use crate::{children, machine, serve};

const AT_ONCE: usize = 4;

/// What is measured, and for how long.
pub(crate) struct Settings {
    pub(crate) host: String,
    pub(crate) image: String,
    pub(crate) seconds: u64,
}

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, settings: &Settings) -> Result<()> {
    let time = Duration::from_secs(settings.seconds);
    let root = std::path::absolute(dir)?.join("containers");
    std::fs::create_dir_all(&root)?;
    std::fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    let docker = Docker::connect_with_host(&settings.host)?.negotiate_version().await?;
    let plain = plain(&docker, settings, time, true).await?;
    let preparing = plain_start(&docker, settings, time).await?;
    let cold = closed_loop(&root, settings, time, |options| options.pool.most = 0, false).await?;
    let sustained = closed_loop(&root, settings, time, |_| (), false).await?;
    let reused = closed_loop(&root, settings, time, |_| (), true).await?;
    let (own, whole) = warm(&root, settings).await?;
    std::fs::remove_dir_all(&root)?;

    let mut report = Report::new(
        "`true` in a container, 4 at once",
        &["what", "measured", "p50", "p95", "longest", "ratio", "at least"],
    );
    let none = String::new;
    report.row(["plain API: create, start, wait, remove".into(), rate(plain), none(), none(), none(), none(), none()]);
    report.row([
        "plain API without a network: create, start, remove".into(),
        rate(preparing),
        none(),
        none(),
        none(),
        none(),
        none(),
    ]);
    let mut row = |name: &str, run: &Run, to: f64, least: &str| {
        let times = [0.5, 0.95, 1.0].map(|q| ms(run.times.quantile(q)));
        let cells = [name.to_owned(), rate(run.per_second)].into_iter().chain(times);
        report.row(cells.chain([ratio(run.per_second / to), least.to_owned()]));
    };
    row("cold, to plain", &cold, plain, "1.5");
    row("through the pool, to preparing alone", &sustained, preparing, "0.9");
    row("used again, to plain", &reused, plain, "40");
    report.print();
    let mut report = Report::new("Idle, with containers that are ready", &["what", "p50", "p95", "at most"]);
    for (name, sample, most) in [
        ("the executor: start → first byte", own, "3 ms"),
        ("submit over a socket → first byte at a follower over one", whole, "8 ms, 20 ms"),
    ] {
        report.row([name.to_owned(), ms(sample.quantile(0.5)), ms(sample.quantile(0.95)), most.to_owned()]);
    }
    report.print();
    Ok(())
}

/// The plain API, as everybody uses it.
async fn plain(docker: &Docker, settings: &Settings, time: Duration, waits: bool) -> Result<f64> {
    let body = ContainerCreateBody {
        image: Some(settings.image.clone()),
        cmd: Some(vec!["true".to_owned()]),
        host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    repeat(docker, body, time, waits).await
}

/// Only making containers that wait, with the same short cut that the executor takes.
async fn plain_start(docker: &Docker, settings: &Settings, time: Duration) -> Result<f64> {
    let body = ContainerCreateBody {
        image: Some(settings.image.clone()),
        cmd: Some(vec!["sleep".to_owned(), "1000".to_owned()]),
        network_disabled: Some(true),
        host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    repeat(docker, body, time, false).await
}

async fn repeat(docker: &Docker, body: ContainerCreateBody, time: Duration, waits: bool) -> Result<f64> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (docker, body) = (docker.clone(), body.clone());
            tokio::spawn(async move {
                let mut done = 0_usize;
                while start.elapsed() < time {
                    let id = docker.create_container(None::<CreateContainerOptions>, body.clone()).await?.id;
                    docker.start_container(&id, None::<StartContainerOptions>).await?;
                    if waits {
                        let mut waiting = docker.wait_container(&id, None::<WaitContainerOptions>);
                        ensure!(waiting.next().await.context("no end")??.status_code == 0);
                    }
                    let options = RemoveContainerOptionsBuilder::default().force(true).build();
                    docker.remove_container(&id, Some(options)).await?;
                    done += 1;
                }
                anyhow::Ok(done)
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await.context("a task panicked")??;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

struct Run {
    per_second: f64,
    times: Sample,
}

fn options(root: &Path, settings: &Settings) -> Options {
    let mut options = Options::new(root.join("executor"));
    options.host.clone_from(&settings.host);
    options
}

/// Jobs one after another in a few tasks, each in a directory of its own. Removing the last container counts too.
async fn closed_loop(
    root: &Path,
    settings: &Settings,
    time: Duration,
    change: impl FnOnce(&mut Options),
    reuse: bool,
) -> Result<Run> {
    let mut options = options(root, settings);
    change(&mut options);
    let executor = Arc::new(DockerExecutor::open(options).await?);
    executor.recover().await?;
    let mut spec = JobSpec::argv(["true"]);
    spec.container_image = Some(settings.image.clone());
    spec.reuse = reuse;
    let spec = Arc::new(spec);
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|slot| {
            let (executor, spec, next, root) =
                (Arc::clone(&executor), Arc::clone(&spec), Arc::clone(&next), root.to_owned());
            tokio::spawn(async move {
                let mut times = Vec::new();
                while start.elapsed() < time {
                    let began = Instant::now();
                    let (outcome, _) = one(&executor, Arc::clone(&spec), slot, &root, &next).await?;
                    times.push(began.elapsed());
                    ensure!(outcome == Outcome::Exited { code: 0 }, "{outcome:?}");
                }
                anyhow::Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.context("a task panicked")??);
    }
    // Those that are ready are no job's; removing what jobs had is part of what they cost.
    let per_second = times.len() as f64 / start.elapsed().as_secs_f64();
    executor.shutdown().await;
    Ok(Run { per_second, times: Sample::new(times) })
}

/// One attempt, and how long its first byte took.
async fn one(
    executor: &DockerExecutor,
    spec: Arc<JobSpec>,
    slot: usize,
    root: &Path,
    next: &AtomicUsize,
) -> Result<(Outcome, Duration)> {
    let dir: PathBuf = root.join(format!("attempt-{}", next.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&dir)?;
    let (output, mut source) = output_pipe(4);
    let job = JobId::from_bytes([0; 16]);
    let stop = CancellationToken::new();
    let scope = Some("bench".to_owned());
    let context =
        RunContext { job, attempt: 1, spec, scope, dir: dir.clone(), slot, output, steps: StepLog::default(), stop };
    let began = Instant::now();
    let first = async {
        source.next().await;
        began.elapsed()
    };
    let (outcome, first) = tokio::join!(executor.run(context), first);
    std::fs::remove_dir(&dir)?;
    Ok((outcome, first))
}

/// One job at a time, with time between them for the next container: the executor alone, and all of it, through a server of its own over
/// durable SQLite and its sockets.
async fn warm(root: &Path, settings: &Settings) -> Result<(Sample, Sample)> {
    const JOBS: usize = 60;
    let pause = Duration::from_millis(400);
    let executor = DockerExecutor::open(options(root, settings)).await?;
    executor.recover().await?;
    let mut spec = JobSpec::shell("echo first; sleep 0.1");
    spec.container_image = Some(settings.image.clone());
    let next = AtomicUsize::new(0);
    let mut own = Vec::new();
    for i in 0..=JOBS {
        let (outcome, first) = one(&executor, Arc::new(spec.clone()), 0, root, &next).await?;
        ensure!(outcome == Outcome::Exited { code: 0 }, "{outcome:?}");
        // The first finds nothing ready.
        own.extend((i > 0).then_some(first));
        tokio::time::sleep(pause).await;
    }
    let path = root.join("jobs.db");
    let (server, url) = children::server(&path).await?;
    let socket = serve::socket_url(&url);
    let worker = Worker::builder(Arc::new(serve::worker_socket(&socket)?), executor).slots(2);
    let mut worker = worker.work_dir(root.join("work")).start().await?;
    let jobs = cmdexec_transport_ws::Client::builder(&socket).user_token(serve::user_token()?).build()?;
    let mut whole = Vec::new();
    for i in 0..=JOBS {
        let began = Instant::now();
        let id = jobs.submit(spec.clone()).await?.id;
        let mut output = jobs.output(id, OutputQuery { follow: true, ..OutputQuery::default() }).await?;
        while let Some(event) = output.next().await {
            if matches!(event?, OutputEvent::Chunk { .. }) {
                break;
            }
        }
        whole.extend((i > 0).then_some(began.elapsed()));
        tokio::time::sleep(pause).await;
    }
    worker.drain();
    worker.wait().await;
    server.kill().await?;
    machine::remove_database(&path);
    Ok((Sample::new(own), Sample::new(whole)))
}
