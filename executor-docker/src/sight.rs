//! Whether the daemon sees the executor's directories: one that runs elsewhere, or in a container, may have others at their paths.

use std::fs;

use bollard::models::{ContainerCreateBody, HostConfig};

use crate::daemon::Daemon;
use crate::options::Options;
use crate::profile::{HOME, bind};
use crate::trouble::Trouble;
use crate::workshop::short_id;

/// The id of an image that nobody has.
const NO_IMAGE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Asks the daemon for a container with a directory of the executor's. It is of an image that is not there, so that none is made;
/// but Docker looks at the directory first.
pub(crate) async fn look(daemon: &Daemon, options: &Options) -> Result<(), Trouble> {
    let name = format!("cmdexec-{}", short_id());
    // Of a name that no other machine has.
    let dir = options.dir.join(&name);
    fs::create_dir(&dir).map_err(|error| Trouble::io("making a directory", &error))?;
    let host_config = HostConfig { mounts: Some(vec![bind(&dir, HOME, true)]), ..HostConfig::default() };
    let body = ContainerCreateBody {
        image: Some(NO_IMAGE.to_owned()),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    };
    let answer = daemon.create(&name, body).await;
    let _ = fs::remove_dir(&dir);
    match answer {
        Err(unseen @ Trouble::Unseen(_)) => Err(unseen),
        // What else it may say is said again of the first job's.
        _ => Ok(()),
    }
}
