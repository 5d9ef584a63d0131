//! Where jobs are kept: a file, a database that servers share, or memory.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use cmdexec_core::store::{MemoryStore, Store};
use cmdexec_store_mongo::MongoStore;
use cmdexec_store_sqlite::SqliteStore;

/// Where jobs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Database {
    /// In a SQLite file.
    Sqlite(PathBuf),
    /// In a MongoDB replica set, which other servers may share.
    Mongo(Mongo),
    /// Nowhere: they are gone when the server ends.
    Memory,
}

/// A MongoDB database.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Mongo {
    /// With the password, if it has one.
    uri: String,
    name: Option<String>,
    pool_size: Option<u32>,
}

impl Database {
    pub(crate) fn parse(value: &str) -> Result<Self, String> {
        if value == "memory:" {
            return Ok(Self::Memory);
        }
        if value.starts_with("mongodb://") || value.starts_with("mongodb+srv://") {
            return Ok(Self::Mongo(Mongo { uri: value.to_owned(), name: None, pool_size: None }));
        }
        let path = value.strip_prefix("sqlite://").or_else(|| value.strip_prefix("sqlite:")).unwrap_or_default();
        match path.split_once('?') {
            Some(_) => Err("must not have parameters after the file".to_owned()),
            None if path.is_empty() || path == ":memory:" => {
                Err("must be sqlite://FILE, mongodb://HOSTS or memory:".to_owned())
            }
            None => Ok(Self::Sqlite(path.into())),
        }
    }

    pub(crate) async fn open(&self) -> anyhow::Result<Arc<dyn Store>> {
        match self {
            Self::Memory => Ok(Arc::new(MemoryStore::new())),
            Self::Sqlite(path) => {
                let store = SqliteStore::open(path).await;
                Ok(Arc::new(store.with_context(|| format!("opening the database {}", path.display()))?))
            }
            Self::Mongo(mongo) => {
                let mut options = MongoStore::options();
                if let Some(name) = &mongo.name {
                    options = options.database(name);
                }
                if let Some(connections) = mongo.pool_size {
                    options = options.pool_size(connections);
                }
                let store = options.open(&mongo.uri).await;
                Ok(Arc::new(store.with_context(|| format!("opening the database {self}"))?))
            }
        }
    }
}

impl Mongo {
    /// With what other settings say of it.
    pub(crate) fn with(self, name: Option<String>, pool_size: Option<u32>) -> Self {
        Self { name, pool_size, ..self }
    }
}

impl fmt::Display for Database {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Mongo(mongo) => mongo.fmt(f),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

impl fmt::Display for Mongo {
    /// Without user, password and parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.uri.split_once("://").unwrap_or(("mongodb", ""));
        let plain = rest.split('?').next().unwrap_or_default();
        let hosts = plain.rsplit_once('@').map_or(plain, |(_, hosts)| hosts);
        write!(f, "{scheme}://{hosts}")?;
        match &self.name {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Mongo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases() {
        assert_eq!(Database::parse("sqlite:///var/lib/x.db"), Ok(Database::Sqlite("/var/lib/x.db".into())));
        assert!(matches!(Database::parse("mongodb://a,b/jobs?replicaSet=rs0"), Ok(Database::Mongo(_))));
        for wrong in ["", "sqlite://", "mongo://here", "x.db", "sqlite::memory:", "sqlite://x?mode=ro"] {
            assert!(Database::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_database_is_shown_without_its_password() {
        let database =
            Database::parse("mongodb://me:hunter2@a:1,b:2/jobs?replicaSet=rs0&tlsCertificateKeyFilePassword=x")
                .unwrap();
        assert_eq!(database.to_string(), "mongodb://a:1,b:2/jobs");
        assert!(!format!("{database:?}").contains("hunter2"));
    }
}
