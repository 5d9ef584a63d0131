//! The files that a job brings and leaves.

mod artifacts;
mod fetch;
mod place;
mod upload;

pub(crate) use artifacts::{list, save, unpack};
pub(crate) use fetch::fetch;
pub(crate) use upload::upload;

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use cmdexec_core::files::FileId;
use cmdexec_core::job::JobSpec;
use cmdexec_core::service::JobService;

/// What a job brings with it and leaves behind.
#[derive(Debug, Args)]
pub(crate) struct FilesArgs {
    /// Pack this directory, without what .gitignore and .cmdexecignore name, and run the job in it
    #[arg(short, long, value_name = "PATH", conflicts_with_all = ["zip", "file_id"])]
    dir: Option<PathBuf>,
    /// Run the job in what is in this ZIP
    #[arg(long, value_name = "FILE", conflicts_with = "file_id")]
    zip: Option<PathBuf>,
    /// Run the job in what is in a ZIP that was uploaded before
    #[arg(long, value_name = "ID", value_parser = file_id)]
    file_id: Option<FileId>,
    /// The directory in there to start in
    #[arg(long, value_name = "PATH")]
    workdir: Option<String>,
    /// Which files to keep after the run, such as 'dist/**'; may be repeated
    #[arg(short, long, value_name = "GLOB")]
    outputs: Vec<String>,
}

impl FilesArgs {
    /// Notes in the spec what can be known before anything is uploaded.
    pub(crate) fn note(&self, spec: &mut JobSpec) {
        if self.file_id.is_some() {
            spec.input = self.file_id;
        }
        if self.workdir.is_some() {
            spec.working_directory.clone_from(&self.workdir);
        }
        spec.outputs.extend(self.outputs.iter().cloned());
    }

    /// Whether the job will leave anything.
    pub(crate) fn expects_artifacts(spec: &JobSpec) -> bool {
        !spec.outputs.is_empty()
    }

    /// Uploads what the job is to bring, unless the server has it already.
    pub(crate) async fn bring(&self, jobs: &dyn JobService, quiet: bool) -> anyhow::Result<Option<FileId>> {
        match (&self.dir, &self.zip) {
            (Some(path), _) | (None, Some(path)) => Ok(Some(upload(jobs, path, quiet).await?.id)),
            (None, None) => Ok(self.file_id),
        }
    }
}

pub(crate) fn file_id(text: &str) -> Result<FileId, String> {
    text.parse().map_err(|error: cmdexec_core::files::ParseFileIdError| error.to_string())
}

/// Refuses to keep what nobody named.
pub(crate) fn check_download(spec: &JobSpec, download: Option<&PathBuf>) -> anyhow::Result<()> {
    if download.is_some() && !FilesArgs::expects_artifacts(spec) {
        bail!("there is nothing to download: name what the job leaves with --outputs, such as --outputs 'dist/**'");
    }
    Ok(())
}
