//! How a store is opened.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::store::{self, ErrorKind};
use cmdexec_core::time::{Clock, SystemClock};
use futures_util::future::BoxFuture;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlStr};

use crate::error::Error;
use crate::long::{self, Folder, Sweep};
use crate::store::SqliteStore;
use crate::{file, writer};

/// "cmde" in ASCII: marks a database as this crate's, so that another program's is not mistaken for an empty one.
const APPLICATION_ID: i64 = 0x636d_6465;

/// How to open a [`SqliteStore`]. Start from [`SqliteStore::options`].
#[derive(Debug, Clone)]
pub struct Options {
    clock: Arc<dyn Clock>,
    readers: u32,
    writer_cache_kib: u32,
    reader_cache_kib: u32,
    max_mib: Option<u32>,
    long_output: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            readers: 2,
            writer_cache_kib: 16 * 1024,
            reader_cache_kib: 4 * 1024,
            max_mib: None,
            long_output: long::LONG,
        }
    }
}

impl Options {
    /// The clock that deadlines are set and compared by. The machine's by default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How many connections, each with a thread, read beside the writer. 2 by default; at least 1.
    #[must_use]
    pub fn readers(mut self, readers: u32) -> Self {
        self.readers = readers.max(1);
        self
    }

    /// How many KiB of the database the writer, and each reader, keeps in memory. 16,384 and 4,096 by default.
    #[must_use]
    pub fn cache_kib(mut self, writer: u32, reader: u32) -> Self {
        self.writer_cache_kib = writer;
        self.reader_cache_kib = reader;
        self
    }

    /// From how many bytes on what is added to a job's output at once is kept in a file of the job's, in the folder that has the
    /// database's name with `-output` behind it. 128 KiB by default; `usize::MAX` for never. On Linux only; elsewhere, and where
    /// the file system can't punch holes into files, all output is kept in the database, which takes it more slowly.
    #[must_use]
    pub fn long_output(mut self, bytes: usize) -> Self {
        self.long_output = bytes;
        self
    }

    /// How many MiB the database may grow to, without the files of long output; writes that need more are `Unavailable`, as on a full disk. Not limited
    /// by default.
    #[must_use]
    pub fn max_mib(mut self, most: u32) -> Self {
        self.max_mib = Some(most);
        self
    }

    /// Opens the database in this file, makes it if it is missing, and brings an older one up to date.
    ///
    /// Must be called within a tokio runtime. The file is made with mode 0600, and
    /// its directory, if missing, with 0700.
    ///
    /// # Errors
    /// - `Unavailable`: another process (or store) has it open, or the file can't be opened now.
    /// - `Corrupt`: it is no SQLite database, or a damaged one.
    /// - `Invalid`: it is another program's database, or was written by a newer version of this one.
    pub async fn open(self, path: impl AsRef<Path>) -> Result<SqliteStore, store::Error> {
        Ok(self.try_open(path.as_ref()).await?)
    }

    async fn try_open(self, path: &Path) -> Result<SqliteStore, Error> {
        let claim = file::claim(path)?;
        identify(&claim.path).await?;
        let mut conn = connect(&Self::connection(&claim.path, self.writer_cache_kib)).await?;
        migrate(&mut conn).await?;
        conn.close().await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(self.readers)
            .acquire_timeout(Duration::from_secs(10))
            // A connection to a file does not die by itself; asking each time would double a short read's cost.
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(Self::connection(&claim.path, self.reader_cache_kib).read_only(true));
        let settings =
            writer::Settings { path: claim.path.clone(), cache_kib: self.writer_cache_kib, max_mib: self.max_mib };
        let folder = Folder::beside(&claim.path, self.long_output);
        let sweep = Sweep { database: claim.path.clone() };
        let writer = writer::start(settings, readers.clone(), Arc::clone(&self.clock), claim).await?;
        let keeper = long::start(folder.clone(), sweep, writer.clone())?;
        Ok(SqliteStore::new(self.clock, readers, writer, folder, keeper))
    }

    fn connection(path: &Path, cache_kib: u32) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(false)
            .pragma("cache_size", format!("-{cache_kib}"))
            .pragma("mmap_size", "0")
            .pragma("temp_store", "memory")
            .disable_statement_logging()
    }
}

/// Refuses a database that is not ours, before anything is changed in it, and marks an empty one as ours.
async fn identify(path: &Path) -> Result<(), Error> {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(false);
    let options = options.disable_statement_logging();
    let mut conn = connect(&options).await?;
    let found: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut conn).await?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut conn).await?;
    if found != APPLICATION_ID {
        if found != 0 || tables > 0 {
            return Err(Error::Refused(ErrorKind::Invalid, "the file is another program's SQLite database".to_owned()));
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION_ID}")))
            .execute(&mut conn)
            .await?;
    }
    conn.close().await?;
    Ok(())
}

/// Boxed, because the compiler does not see that the migrator's own future is `Send` for every lifetime.
fn migrate(conn: &mut SqliteConnection) -> BoxFuture<'_, Result<(), Error>> {
    Box::pin(async move { refuse_newer(migrations().run_direct(None, conn, false).await) })
}

/// What has become of the schema, oldest first. None of them may ever change: databases know their digests.
fn migrations() -> Migrator {
    const ALL: [(&str, &str); 6] = [
        ("initial", include_str!("../migrations/0001_initial.sql")),
        ("input", include_str!("../migrations/0002_input.sql")),
        ("output times", include_str!("../migrations/0003_output_times.sql")),
        ("cheaper writes", include_str!("../migrations/0004_cheaper_writes.sql")),
        ("long output", include_str!("../migrations/0005_long_output.sql")),
        ("cheaper jobs", include_str!("../migrations/0006_cheaper_jobs.sql")),
    ];
    let one = |(version, (name, sql)): (i64, (&'static str, &'static str))| {
        Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
    };
    Migrator::with_migrations((1..).zip(ALL).map(one).collect())
}

fn refuse_newer(migrated: Result<(), MigrateError>) -> Result<(), Error> {
    match migrated {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(version)) => Err(Error::Refused(
            ErrorKind::Invalid,
            format!("the database has schema version {version}, which is newer than this program knows: update it"),
        )),
        Err(error) => Err(error.into()),
    }
}

/// Opens a connection. Boxed as [`migrate`] is.
fn connect(options: &SqliteConnectOptions) -> BoxFuture<'_, Result<SqliteConnection, Error>> {
    Box::pin(async move { Ok(options.connect().await?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_is_listed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut files: Vec<(String, String)> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap()))
            .collect();
        files.sort();
        let name =
            |migration: &Migration| format!("{:04}_{}.sql", migration.version, migration.description.replace(' ', "_"));
        let listed = migrations().iter().map(|one| (name(one), one.sql.as_str().to_owned())).collect::<Vec<_>>();
        assert_eq!(listed, files);
    }
}
