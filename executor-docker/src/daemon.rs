//! The daemon: its calls, each with a bound on how long it may take, and its errors converted once.

use std::collections::HashMap;
use std::time::Duration;

use bollard::API_DEFAULT_VERSION;
use bollard::auth::DockerCredentials;
use bollard::models::{
    ContainerCreateBody, ContainerState, ContainerSummary, CreateImageInfo, ImageInspect, NetworkCreateRequest,
    SystemInfo,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, CreateImageOptionsBuilder, InspectContainerOptions,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptions, StartContainerOptions,
};
use futures_util::{Stream, StreamExt};
use tokio::time::timeout;

use crate::reference::{Reference, Version};
use crate::trouble::Trouble;

/// A connection to the daemon. It makes a new one for each call.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    docker: bollard::Docker,
    patience: Duration,
    /// It is Podman, which speaks the same and takes some things otherwise.
    pub(crate) is_podman: bool,
}

/// For what bounds a call itself: bollard's own bound must not come first.
const UNBOUNDED: u64 = 24 * 3_600;

impl Daemon {
    /// Finds out which version of the interface it speaks.
    pub(crate) async fn connect(host: &str, patience: Duration) -> Result<Self, Trouble> {
        let docker = if host.starts_with("unix://") {
            bollard::Docker::connect_with_unix(host, UNBOUNDED, API_DEFAULT_VERSION)?
        } else {
            bollard::Docker::connect_with_http(host, UNBOUNDED, API_DEFAULT_VERSION)?
        };
        let docker = within(patience, docker.negotiate_version()).await?;
        let version = within(patience, docker.version()).await?;
        let is_podman = version.components.iter().flatten().any(|component| component.name.contains("Podman"));
        Ok(Self { docker, patience, is_podman })
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, bollard::errors::Error>>) -> Result<T, Trouble> {
        within(self.patience, call).await
    }

    pub(crate) async fn info(&self) -> Result<SystemInfo, Trouble> {
        self.call(self.docker.info()).await
    }

    pub(crate) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String, Trouble> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        Ok(self.call(self.docker.create_container(Some(options), body)).await?.id)
    }

    pub(crate) async fn start(&self, name: &str) -> Result<(), Trouble> {
        self.call(self.docker.start_container(name, None::<StartContainerOptions>)).await
    }

    /// Ends and removes a container with its volumes. One that is not there is removed.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), Trouble> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.call(self.docker.remove_container(name, Some(options))).await {
            Err(Trouble::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    pub(crate) async fn kill(&self, name: &str) -> Result<(), Trouble> {
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        self.call(self.docker.kill_container(name, Some(options))).await
    }

    pub(crate) async fn state(&self, name: &str) -> Result<ContainerState, Trouble> {
        let seen = self.call(self.docker.inspect_container(name, None::<InspectContainerOptions>)).await?;
        seen.state.ok_or_else(|| Trouble::Refused(format!("it does not say how {name} is")))
    }

    /// Every container with a label, running or not.
    pub(crate) async fn labelled(&self, label: &str) -> Result<Vec<ContainerSummary>, Trouble> {
        let options = ListContainersOptionsBuilder::default().all(true).filters(&by_label(label)).build();
        self.call(self.docker.list_containers(Some(options))).await
    }

    /// What the first process of a container writes, and a way to write to it. To be asked for before it is started.
    pub(crate) async fn attach(&self, name: &str) -> Result<bollard::container::AttachContainerResults, Trouble> {
        let options =
            AttachContainerOptionsBuilder::default().stream(true).stdin(true).stdout(true).stderr(true).build();
        self.call(self.docker.attach_container(name, Some(options))).await
    }

    pub(crate) async fn image(&self, name: &str) -> Result<ImageInspect, Trouble> {
        self.call(self.docker.inspect_image(name)).await
    }

    /// Fetches an image; each item says something of how far it is, and none comes after an error.
    pub(crate) fn pull(
        &self,
        image: &Reference,
        credentials: Option<DockerCredentials>,
    ) -> impl Stream<Item = Result<CreateImageInfo, Trouble>> + Send + Unpin + use<> {
        let name = image.name();
        let (Version::Tag(version) | Version::Digest(version)) = &image.version;
        let options = CreateImageOptionsBuilder::default().from_image(&name).tag(version).build();
        self.docker.create_image(Some(options), None, credentials).map(|item| item.map_err(Trouble::from)).boxed()
    }

    /// Removes an image's name, and the image if it has no other and no container uses it.
    pub(crate) async fn remove_image(&self, name: &str) -> Result<(), Trouble> {
        self.call(self.docker.remove_image(name, None::<RemoveImageOptions>, None)).await.map(drop)
    }

    pub(crate) async fn create_network(&self, request: NetworkCreateRequest) -> Result<(), Trouble> {
        self.call(self.docker.create_network(request)).await.map(drop)
    }

    pub(crate) async fn networks(&self, label: &str) -> Result<Vec<String>, Trouble> {
        let options = ListNetworksOptionsBuilder::default().filters(&by_label(label)).build();
        let found = self.call(self.docker.list_networks(Some(options))).await?;
        Ok(found.into_iter().filter_map(|network| network.name).collect())
    }

    pub(crate) async fn remove_network(&self, name: &str) -> Result<(), Trouble> {
        match self.call(self.docker.remove_network(name)).await {
            Err(Trouble::NotFound(_)) => Ok(()),
            other => other,
        }
    }
}

fn by_label(label: &str) -> HashMap<String, Vec<String>> {
    [("label".to_owned(), vec![label.to_owned()])].into()
}

async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, Trouble> {
    timeout(patience, call).await.map_err(|_| Trouble::Silent(patience))?.map_err(Trouble::from)
}
