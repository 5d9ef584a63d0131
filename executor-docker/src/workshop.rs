//! Making containers: from what is asked for to an init that waits for a job.

use std::sync::Arc;
use std::time::Duration;

use bollard::models::NetworkCreateRequest;
use cmdexec_core::job::Network;
use futures_util::StreamExt;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::sync::{OnceCell, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::io::StreamReader;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cgroup::Groups;
use crate::container::{Container, Line, Peer};
use crate::daemon::Daemon;
use crate::image::Image;
use crate::keep::{Home, Keep, keep};
use crate::mounts::Namespace;
use crate::options::Options;
use crate::profile::{LABEL_DIR, LABEL_WORKER, Order, body, network_name};
use crate::trouble::Trouble;
use crate::wire;

/// How long an init may take to say hello once its container was started.
const HELLO: Duration = Duration::from_secs(10);

/// How many containers the daemon is asked to make at once. More of them take longer, and do not make more a second.
const AT_ONCE: usize = 4;

/// How many containers there are at most, those included that wait to be removed. Beyond it jobs wait, so that a daemon that removes
/// nothing is not given more.
const MOST: usize = 512;

/// Where containers are made.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub(crate) daemon: Daemon,
    pub(crate) options: Options,
    /// Every container's keeper.
    keepers: TaskTracker,
    given_up: CancellationToken,
    making: Arc<Semaphore>,
    room: Arc<Semaphore>,
    network: OnceCell<()>,
}

impl Workshop {
    pub(crate) fn new(daemon: Daemon, options: Options) -> Self {
        Self {
            daemon,
            options,
            keepers: TaskTracker::new(),
            given_up: CancellationToken::new(),
            making: Arc::new(Semaphore::new(AT_ONCE)),
            room: Arc::new(Semaphore::new(MOST)),
            network: OnceCell::new(),
        }
    }

    /// Makes and starts a container, and waits for its init. Dropping the future lets it go.
    pub(crate) async fn make(&self, image: Arc<Image>, order: Order) -> Result<Container, Trouble> {
        let closed = |_| Trouble::Here("the executor ends".to_owned());
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(closed)?;
        let _turn = self.making.acquire().await.map_err(closed)?;
        if order.network == Network::Bridge {
            self.network.get_or_try_init(|| self.make_network()).await?;
        }
        let name = format!("cmdexec-{}", short_id());
        let home = Home::make(&self.options.dir, &name)
            .map_err(|error| Trouble::io("making a container's directory", &error))?;
        let limits = order.limits;
        let released = CancellationToken::new();
        let kept = released.clone().drop_guard();
        let (tell_started, started) = oneshot::channel();
        let (tell_made, made) = oneshot::channel();
        let (tell_gone, gone) = oneshot::channel();
        let listener = if order.is_attached {
            None
        } else {
            Some(home.listen().map_err(|error| Trouble::io("listening for a container", &error))?)
        };
        let work = Keep {
            daemon: self.daemon.clone(),
            body: body(&self.options, &order, &home.path, self.daemon.is_podman),
            name: name.clone(),
            released,
            given_up: self.given_up.clone(),
            started: tell_started,
            gone: tell_gone,
            made: order.is_attached.then_some(tell_made),
        };
        self.keepers.spawn(async move {
            Box::pin(keep(work)).await;
            drop(room);
        });
        let (mut line, peer) = match listener {
            Some(listener) => accept(&listener, started).await?,
            None => (self.attach(&name, made, started).await?, None),
        };
        home.close();
        let namespace = peer.and_then(|peer| Namespace::of(peer.pid).ok());
        let groups = match peer {
            Some(peer) => Groups::of(peer.pid),
            None => self.groups(&name).await,
        };
        let user = hello(&mut line).await?;
        let oom_kills = groups.as_ref().and_then(Groups::oom_kills).unwrap_or(0);
        let container =
            Container { name, image, line, peer, user, groups, limits, oom_kills, namespace, home, kept, gone };
        // The init is the one that holds the other end. As it does, its process is still who it was when its namespace and its groups
        // were looked up by number.
        if !container.is_alive() {
            return Err(Trouble::Here("its first process ended at once".to_owned()));
        }
        Ok(container)
    }

    /// Attaches before the start, so that nothing is lost.
    async fn attach(
        &self,
        name: &str,
        made: oneshot::Receiver<oneshot::Sender<()>>,
        started: oneshot::Receiver<Result<(), Trouble>>,
    ) -> Result<Line, Trouble> {
        let Ok(go) = made.await else { return Err(outcome(started.await)) };
        let attached = self.daemon.attach(name).await?;
        let bytes = attached
            .output
            .map(|item| item.map(bollard::container::LogOutput::into_bytes).map_err(std::io::Error::other));
        let _ = go.send(());
        match started.await {
            Ok(Ok(())) => Ok(Line::Attached { input: attached.input, output: Box::new(StreamReader::new(bytes)) }),
            other => Err(outcome(other)),
        }
    }

    /// The groups of a container whose init did not come by a socket, if the daemon is on this machine.
    async fn groups(&self, name: &str) -> Option<Groups> {
        if !self.options.host.starts_with("unix://") {
            return None;
        }
        let pid = self.daemon.state(name).await.ok()?.pid?;
        i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(Groups::of)
    }

    /// The network of jobs that have one: they reach the outside by it, and not each other.
    async fn make_network(&self) -> Result<(), Trouble> {
        let name = network_name(&self.options);
        let labels = [
            (LABEL_DIR.to_owned(), self.options.dir.display().to_string()),
            (LABEL_WORKER.to_owned(), self.options.worker.clone()),
        ];
        let request = NetworkCreateRequest {
            name,
            driver: Some("bridge".to_owned()),
            options: Some([("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned())].into()),
            labels: Some(labels.into()),
            ..NetworkCreateRequest::default()
        };
        match self.daemon.create_network(request).await {
            Err(Trouble::Conflict(_)) => Ok(()),
            other => other,
        }
    }

    /// Waits until every container that was let go is removed; what is not within `patience` is left for the next start.
    pub(crate) async fn close(&self, patience: Duration) {
        self.room.close();
        self.keepers.close();
        if timeout(patience, self.keepers.wait()).await.is_err() {
            self.given_up.cancel();
            self.keepers.wait().await;
        }
        if self.network.initialized()
            && let Err(error) = self.daemon.remove_network(&network_name(&self.options)).await
        {
            tracing::warn!(%error, "the network of jobs could not be removed");
        }
    }
}

/// Why there is no container, from what its keeper said of its start.
fn outcome(started: Result<Result<(), Trouble>, oneshot::error::RecvError>) -> Trouble {
    match started {
        Ok(Err(trouble)) => trouble,
        _ => Trouble::Here("the executor ends".to_owned()),
    }
}

/// Waits for the init to connect, which it does before the daemon says that it has been started.
async fn accept(
    listener: &UnixListener,
    mut started: oneshot::Receiver<Result<(), Trouble>>,
) -> Result<(Line, Option<Peer>), Trouble> {
    let mut accepted = Box::pin(listener.accept());
    let accepted = tokio::select! {
        biased;
        accepted = &mut accepted => accepted,
        started = &mut started => match started {
            Ok(Ok(())) => match timeout(HELLO, accepted).await {
                Ok(accepted) => accepted,
                Err(_) => return Err(Trouble::Here("its first process did not come".to_owned())),
            },
            other => return Err(outcome(other)),
        },
    };
    let (socket, _) = accepted.map_err(|error| Trouble::io("accepting a container's init", &error))?;
    let peer = socket.peer_cred().ok().and_then(|seen| {
        // In another PID namespace than this one it has no number here.
        let pid = seen.pid().filter(|pid| *pid > 0)?;
        Some(Peer { pid, user: seen.uid() })
    });
    Ok((Line::Socket(socket), peer))
}

/// Hears the init say who it is.
async fn hello(line: &mut Line) -> Result<u32, Trouble> {
    let mut record = [0; wire::RECORD];
    let read = async {
        match line {
            Line::Socket(socket) => socket.read_exact(&mut record).await,
            Line::Attached { output, .. } => output.read_exact(&mut record).await,
        }
    };
    match timeout(HELLO, read).await {
        Ok(Ok(_)) if record.first() == Some(&wire::HELLO) && record[4..8] == wire::VERSION.to_le_bytes() => {
            let [_, _, _, _, _, _, _, _, user @ .., _, _, _, _] = record;
            Ok(u32::from_le_bytes(user))
        }
        Ok(Ok(_)) => Err(Trouble::Here("its first process is of another version".to_owned())),
        Ok(Err(error)) => Err(Trouble::io("its first process ended at once", &error)),
        Err(_) => Err(Trouble::Here("its first process said nothing".to_owned())),
    }
}

/// Enough of a random number to tell the containers of a machine apart.
pub(crate) fn short_id() -> String {
    let mut id = uuid::Uuid::new_v4().simple().to_string();
    id.truncate(16);
    id
}
