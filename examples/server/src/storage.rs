//! Where files are kept: a folder, or an object store by its URL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;
use cmdexec_core::files::Files;
use object_store::prefix::PrefixStore;
use url::Url;

use crate::database::Database;

/// Where files are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Storage {
    /// In a folder, which is this server's alone.
    Folder(PathBuf),
    /// In a bucket, or what its like are called.
    Remote(Url),
    /// Nowhere: they are gone when the server ends.
    Memory,
}

/// The schemes of object stores, and which feature of this program knows them.
const REMOTE: [(&str, &str, bool); 5] = [
    ("s3", "s3", cfg!(feature = "s3")),
    ("s3a", "s3", cfg!(feature = "s3")),
    ("gs", "gcs", cfg!(feature = "gcs")),
    ("az", "azure", cfg!(feature = "azure")),
    ("azure", "azure", cfg!(feature = "azure")),
];

/// What the variables begin with that object stores are set up by.
const VARIABLES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

impl Storage {
    /// Beside the database.
    pub(crate) fn beside(database: &Database) -> Self {
        match database {
            Database::Memory => Self::Memory,
            Database::Sqlite(path) => Self::Folder(path.with_file_name("files")),
            // Of one server; several are told where in a bucket or a folder that they share.
            Database::Mongo(_) => Self::Folder("data/files".into()),
        }
    }

    pub(crate) fn open(&self) -> anyhow::Result<Files> {
        match self {
            Self::Memory => Ok(Files::in_memory()),
            Self::Folder(path) => Ok(Files::local(path)?),
            Self::Remote(url) => {
                let variables = std::env::vars().filter(|(name, _)| VARIABLES.iter().any(|of| name.starts_with(of)));
                let variables = variables.map(|(name, value)| (name.to_ascii_lowercase(), value));
                let (store, prefix) =
                    object_store::parse_url_opts(url, variables).context("the object store can't be set up")?;
                Ok(Files::new(Arc::new(PrefixStore::new(store, prefix))))
            }
        }
    }
}

impl FromStr for Storage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(Self::Folder(text.into())) };
        };
        if scheme == "file" {
            let is_absolute = rest.starts_with('/');
            return if is_absolute { Ok(Self::Folder(rest.into())) } else { Err("must be file:///PATH".to_owned()) };
        }
        match REMOTE.iter().find(|(known, ..)| *known == scheme) {
            None => Err("must be a folder, or a URL that begins with file://, s3://, az:// or gs://".to_owned()),
            Some((_, feature, false)) => Err(format!("this program was built without {scheme}:// (feature {feature})")),
            Some(_) => {
                let url: Url = text.parse().map_err(|error| format!("is no URL: {error}"))?;
                let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
                if !is_plain {
                    return Err("must have no user, password or parameters: those are in the environment".to_owned());
                }
                Ok(Self::Remote(url))
            }
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Remote(url) => url.fmt(f),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_storage_can_be() {
        let folder = |path: &str| Ok(Storage::Folder(path.into()));
        for (text, storage) in [
            ("/var/lib/files", folder("/var/lib/files")),
            ("files", folder("files")),
            ("file:///var/lib/files", folder("/var/lib/files")),
            ("memory:", Ok(Storage::Memory)),
        ] {
            assert_eq!(text.parse::<Storage>(), storage, "{text}");
        }
        for wrong in ["", "file://host/path", "ftp://host/path", "redis://x"] {
            assert!(wrong.parse::<Storage>().is_err(), "{wrong}");
        }
    }

    #[test]
    #[cfg(feature = "s3")]
    fn a_bucket_is_named_without_secrets() {
        let storage: Storage = "s3://bucket/some/prefix".parse().unwrap();
        assert_eq!(storage.to_string(), "s3://bucket/some/prefix");
        assert!("s3://key:secret@bucket".parse::<Storage>().is_err());
    }

    #[test]
    #[cfg(not(feature = "gcs"))]
    fn what_was_not_built_in_is_said() {
        assert!("gs://bucket".parse::<Storage>().unwrap_err().contains("feature gcs"));
    }
}
