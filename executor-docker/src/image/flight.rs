//! Fetching one image, for everybody who waits for it.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::timeout;

use super::progress::Progress;
use super::{Image, Images};
use crate::reference::Reference;
use crate::trouble::Trouble;
use cmdexec_core::time::Clock;

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// The last thing that there is to say.
    pub(super) line: Option<String>,
    /// What came of it.
    pub(super) landed: Option<Result<Arc<Image>, Trouble>>,
}

impl Flight {
    pub(super) fn is_over(&self) -> bool {
        self.landed.is_some()
    }
}

/// Fetches the image, unless everybody who waited goes.
pub(super) async fn fly(images: &Images, wanted: &Reference, sender: &watch::Sender<Flight>) {
    sender.send_modify(|flight| flight.line = Some(format!("pulling {wanted}")));
    let landed = tokio::select! {
        landed = fetch(images, wanted, sender) => landed,
        () = nobody_waits(sender) => return,
    };
    sender.send_modify(|flight| {
        flight.line = Some(match &landed {
            Ok(image) => format!("pulled {}", image.digest),
            Err(_) => format!("pulling {wanted} failed"),
        });
        flight.landed = Some(landed);
    });
}

/// The table of flights holds a receiver too.
async fn nobody_waits(sender: &watch::Sender<Flight>) {
    while sender.receiver_count() > 1 {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

async fn fetch(images: &Images, wanted: &Reference, sender: &watch::Sender<Flight>) -> Result<Arc<Image>, Trouble> {
    let (bound, credentials) = (images.pull_timeout, images.credentials_for(wanted));
    let pulled = timeout(bound, async {
        let mut steps = images.daemon.pull(wanted, credentials);
        let mut progress = Progress::new(images.clock.uptime());
        while let Some(step) = steps.next().await {
            if let Some(said) = progress.take(&step?, images.clock.uptime()) {
                sender.send_modify(|flight| flight.line = Some(format!("pulling {wanted}: {said}")));
            }
        }
        Ok(())
    });
    let pulled = match pulled.await {
        Ok(pulled) => pulled,
        Err(_) => Err(Trouble::Here(format!("it took more than {} s", bound.as_secs()))),
    };
    pulled.map_err(|error| match error {
        // A registry says that something is not there in the same way as the daemon does.
        Trouble::NotFound(why) | Trouble::Refused(why) | Trouble::Conflict(why) | Trouble::Here(why) => {
            Trouble::Here(format!("the image {wanted} could not be pulled: {why}"))
        }
        other => other,
    })?;
    let image = images.find(wanted).await?;
    if let Some(budget) = &images.budget {
        let size = images.daemon.image(&image.id).await?.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        budget.fetched(&image.name, size);
        for name in budget.beyond(&image.name) {
            match images.daemon.remove_image(&name).await {
                Ok(()) | Err(Trouble::NotFound(_)) => {
                    tracing::info!(name, "removed an image that was not used for long");
                    budget.removed(&name);
                }
                // In use, most likely: it is asked about again after the next one is fetched.
                Err(error) => tracing::debug!(name, %error, "an image can't be removed"),
            }
        }
    }
    Ok(image)
}
