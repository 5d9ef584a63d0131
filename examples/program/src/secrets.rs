//! The secrets that tokens are signed with: made once, and kept beside the database for their owner's eyes only.
//!
//! The file has the form of an environment file, so that it can be given to `set -a; . FILE`, systemd or a container.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rand::TryRng;

/// The two secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// Signs users' tokens: `JWT_SECRET`.
    pub user: String,
    /// Signs workers' tokens: `WORKER_TOKEN_SECRET`.
    pub worker: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// The name of the file, in the database's directory.
pub const FILE_NAME: &str = "secrets.env";

const HEADER: &str = "# Made at the first start. Whoever can read this can act as any user and any worker.\n";

/// Where the secrets of a database are.
pub fn beside(database: &Path) -> PathBuf {
    database.with_file_name(FILE_NAME)
}

impl Secrets {
    /// New ones, from the system's source of randomness.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn generate() -> io::Result<Self> {
        Ok(Self { user: random_secret()?, worker: random_secret()? })
    }

    /// Those that are kept in a file.
    ///
    /// # Errors
    /// The file can't be read, may be read by others than its owner, or lacks one.
    pub fn load(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        check_private(&file)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let find = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned).ok_or_else(|| invalid(format!("it has no {name}")))
        };
        Ok(Self { user: find("JWT_SECRET")?, worker: find("WORKER_TOKEN_SECRET")? })
    }

    /// Those that are kept in a file; if there is none, new ones that are kept there from now on.
    ///
    /// # Errors
    /// Those of [`Secrets::load`], or the file can't be written.
    pub fn load_or_create(path: &Path) -> io::Result<Self> {
        match Self::load(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let secrets = Self::generate()?;
                secrets.keep(path)?;
                // Whoever came first has made them.
                Self::load(path)
            }
            loaded => loaded,
        }
    }

    /// Writes all of the file or nothing, and never over one that is there.
    fn keep(&self, path: &Path) -> io::Result<()> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(format!(".{}", std::process::id()));
        let unfinished = PathBuf::from(unfinished);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&unfinished)?;
        write!(file, "{HEADER}JWT_SECRET={}\nWORKER_TOKEN_SECRET={}\n", self.user, self.worker)?;
        file.sync_all()?;
        let linked = match std::fs::hard_link(&unfinished, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        };
        std::fs::remove_file(&unfinished)?;
        linked
    }
}

fn random_secret() -> io::Result<String> {
    let random = || rand::rngs::SysRng.try_next_u64().map_err(io::Error::other);
    Ok(format!("{:016x}{:016x}{:016x}{:016x}", random()?, random()?, random()?, random()?))
}

fn check_private(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions()) & 0o077 != 0 {
        return Err(invalid("others than its owner may read it: chmod 600, and make new secrets if they have"));
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = beside(&dir.path().join("jobs.db"));
        let made = Secrets::load_or_create(&path).unwrap();
        assert_eq!(Secrets::load_or_create(&path).unwrap(), made);
        assert_ne!(made.user, made.worker);
        assert!(made.user.len() >= cmdexec_core::token::MIN_SECRET);
        assert!(!format!("{made:?}").contains(&made.user));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        Secrets::load_or_create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Secrets::load_or_create(&path).unwrap_err().to_string().contains("chmod 600"));
    }
}
