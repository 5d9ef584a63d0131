//! Downloads, with a progress bar, that go on where they broke off.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use cmdexec_core::Error;
use cmdexec_core::files::{FileId, GetRange};
use cmdexec_core::service::JobService;
use futures_util::TryStreamExt;
use sha2::{Digest, Sha256};

use crate::terminal::Transfer;

/// How often a download is taken up again without a byte having come.
const TRIES: u32 = 5;

/// Downloads a file into a temporary one, which is given read from its beginning, and checks its digest.
pub(crate) async fn fetch(jobs: &dyn JobService, id: FileId, quiet: bool) -> anyhow::Result<File> {
    let mut file = tempfile::tempfile().context("making a temporary file")?;
    let mut digest = Sha256::new();
    let size = jobs.file(id).await?.size;
    let transfer = Transfer::start("downloading", size, quiet);
    let (mut got, mut tries) = (0, 0);
    while got < size {
        let before = got;
        match part(jobs, id, &mut got, &mut file, &mut digest, &transfer).await {
            Ok(()) if got < size => tokio::time::sleep(Duration::from_secs(1)).await,
            Ok(()) => {}
            Err(error) => match error.downcast_ref::<Error>().and_then(Error::retry_after) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            },
        }
        tries = if got > before { 0 } else { tries + 1 };
        if tries == TRIES {
            bail!("the download stands still");
        }
    }
    if FileId::from_sha256(digest.finalize().into()) != id {
        bail!("the file did not arrive as it was sent");
    }
    file.rewind()?;
    Ok(file)
}

async fn part(
    jobs: &dyn JobService,
    id: FileId,
    got: &mut u64,
    file: &mut File,
    digest: &mut Sha256,
    transfer: &Transfer,
) -> anyhow::Result<()> {
    let range = (*got > 0).then_some(GetRange::Offset(*got));
    let download = jobs.download(id, range).await?;
    if download.range.start != *got {
        return Err(io::Error::other("the server sent another part than was asked for").into());
    }
    let mut bytes = download.bytes;
    while let Some(piece) = bytes.try_next().await? {
        file.write_all(&piece).context("writing a temporary file")?;
        digest.update(&piece);
        *got += piece.len() as u64;
        transfer.advance(piece.len());
    }
    Ok(())
}
