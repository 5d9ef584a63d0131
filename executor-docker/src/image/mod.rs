//! Images: found, fetched once for everybody who wants them, and removed when they take too much room.

mod budget;
mod flight;
mod progress;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::ImageInspect;
use bytes::Bytes;
use cmdexec_core::executor::{OutputSink, Stream};
use cmdexec_core::time::{Clock, SystemClock};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::daemon::Daemon;
use crate::options::{Options, Pull};
use crate::reference::{Reference, Version};
use crate::trouble::Trouble;
use budget::Budget;
use flight::Flight;

/// For how long what was found out about an image is good. Asking the daemon takes longer than starting a job.
const FRESH: Duration = Duration::from_secs(10);

/// How many images are remembered.
const REMEMBERED: usize = 256;

/// An image that the daemon has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// As the job named it, completed.
    pub(crate) name: String,
    /// The daemon's name for exactly this one.
    pub(crate) id: String,
    /// What names exactly this one for everybody: its registry's digest, or the id of one that is nowhere else.
    pub(crate) digest: String,
    /// The variables that it comes with.
    pub(crate) env: Vec<(String, String)>,
    /// It has directories that each container can write to.
    pub(crate) has_volumes: bool,
}

/// What the executor knows of images.
#[derive(Debug)]
pub(crate) struct Images {
    daemon: Daemon,
    pull: Pull,
    pull_timeout: Duration,
    credentials: Vec<crate::options::Credentials>,
    budget: Option<Budget>,
    clock: SystemClock,
    known: Mutex<HashMap<Reference, (Arc<Image>, Duration)>>,
    flights: Mutex<HashMap<Reference, watch::Receiver<Flight>>>,
    tasks: TaskTracker,
}

impl Images {
    pub(crate) fn new(daemon: Daemon, options: &Options) -> Self {
        Self {
            daemon,
            pull: options.pull,
            pull_timeout: options.pull_timeout,
            credentials: options.credentials.clone(),
            budget: options
                .images_mb
                .map(|mb| Budget::open(options.dir.join("images.json"), mb.saturating_mul(1 << 20))),
            clock: SystemClock,
            known: Mutex::default(),
            flights: Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// The image, fetched if need be, which the job's output then tells of.
    pub(crate) async fn get(self: &Arc<Self>, wanted: &Reference, output: &OutputSink) -> Result<Arc<Image>, Trouble> {
        if self.pull != Pull::Always {
            if let Some(image) = self.fresh(wanted) {
                return Ok(image);
            }
            match self.find(wanted).await {
                Err(Trouble::NotFound(why)) if self.pull == Pull::Never => {
                    return Err(Trouble::Here(format!(
                        "the worker does not have the image {wanted}, and fetches none: {why}"
                    )));
                }
                Err(Trouble::NotFound(_)) => {}
                other => return other,
            }
        }
        self.fetch(wanted, output).await
    }

    /// An image that was to be there is not.
    pub(crate) fn forget(&self, image: &Image) {
        lock(&self.known).retain(|_, (known, _)| known.id != image.id);
    }

    fn fresh(&self, wanted: &Reference) -> Option<Arc<Image>> {
        let known = lock(&self.known);
        let (image, since) = known.get(wanted)?;
        (self.clock.uptime().saturating_sub(*since) < FRESH).then(|| Arc::clone(image))
    }

    /// What the daemon has under exactly this name. It would take the beginning of an id for a name too, and so give away images
    /// that the policy keeps from jobs.
    async fn find(&self, wanted: &Reference) -> Result<Arc<Image>, Trouble> {
        let seen = self.daemon.image(&wanted.to_string()).await?;
        let is_it = |name: &String| Reference::parse(name).is_ok_and(|name| name == *wanted);
        let names = seen.repo_tags.iter().chain(&seen.repo_digests).flatten();
        if !names.into_iter().any(is_it) {
            return Err(Trouble::NotFound(format!("no image is called {wanted}")));
        }
        let image = Arc::new(Image::read(wanted, seen));
        let mut known = lock(&self.known);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(wanted.clone(), (Arc::clone(&image), self.clock.uptime()));
        if let Some(budget) = &self.budget {
            budget.used(&image.name);
        }
        Ok(image)
    }

    /// Fetches an image, or waits for who is at it already.
    async fn fetch(self: &Arc<Self>, wanted: &Reference, output: &OutputSink) -> Result<Arc<Image>, Trouble> {
        let mut flight = self.board(wanted);
        loop {
            let (line, landed) = {
                let now = flight.borrow_and_update();
                (now.line.clone(), now.landed.clone())
            };
            if let Some(line) = line {
                output.write(Stream::Stderr, Bytes::from(format!("{line}\n"))).await;
            }
            if let Some(landed) = landed {
                return landed;
            }
            if flight.changed().await.is_err() {
                return Err(Trouble::Here(format!("fetching {wanted} was given up")));
            }
        }
    }

    fn board(self: &Arc<Self>, wanted: &Reference) -> watch::Receiver<Flight> {
        let mut flights = lock(&self.flights);
        // One that has landed or was given up is of the past.
        if let Some(flight) =
            flights.get(wanted).filter(|flight| flight.has_changed().is_ok() && !flight.borrow().is_over())
        {
            return flight.clone();
        }
        let (sender, receiver) = watch::channel(Flight::default());
        // The copy that is kept here would keep it going when nobody waits any more: it is removed when it is over.
        let (images, wanted) = (Arc::clone(self), wanted.clone());
        flights.insert(wanted.clone(), receiver.clone());
        self.tasks.spawn(async move {
            flight::fly(&images, &wanted, &sender).await;
            lock(&images.flights).remove(&wanted);
        });
        receiver
    }

    fn credentials_for(&self, image: &Reference) -> Option<DockerCredentials> {
        let found = self.credentials.iter().find(|credentials| credentials.registry == image.registry)?;
        Some(DockerCredentials {
            username: Some(found.username.clone()),
            password: Some(found.password.clone()),
            serveraddress: Some(found.registry.clone()),
            ..DockerCredentials::default()
        })
    }

    /// Waits until nothing is fetched any more: whoever waited has gone.
    pub(crate) async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Image {
    fn read(wanted: &Reference, seen: ImageInspect) -> Self {
        let name = wanted.to_string();
        let id = seen.id.unwrap_or_else(|| name.clone());
        let digests = seen.repo_digests.unwrap_or_default();
        let of_this = digests.iter().filter_map(|digest| Reference::parse(digest).ok());
        let digest = of_this.filter(|digest| digest.name() == wanted.name()).find_map(|digest| match &digest.version {
            Version::Digest(_) => Some(digest.to_string()),
            Version::Tag(_) => None,
        });
        let config = seen.config.unwrap_or_default();
        let has_volumes = config.volumes.is_some_and(|volumes| !volumes.is_empty());
        let env = config.env.unwrap_or_default();
        let env = env.iter().filter_map(|variable| variable.split_once('='));
        Self {
            name,
            digest: digest.unwrap_or_else(|| id.clone()),
            id,
            has_volumes,
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one call, so that a panic elsewhere leaves what holds together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
