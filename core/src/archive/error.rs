//! Why an archive was not unpacked: one reason for each kind of hostility, each with the name of the entry.

use std::io;

/// An archive was not unpacked. Names are as the archive has them, shortened where they are long.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its variant is, and the fields are the message's")]
pub enum Error {
    #[error("it is no ZIP, or not all of one: {reason}")]
    NotAnArchive { reason: String },

    // More than is bearable.
    #[error("it has more than {limit} entries, directories on the way to them counted")]
    TooManyEntries { limit: u64 },
    #[error("more than {limit} bytes would come out of it")]
    TooLarge { limit: u64 },
    #[error("{ratio} times its own size would come out of it, and at most {limit} times is allowed")]
    RatioTooHigh { ratio: u64, limit: u64 },
    #[error("the path {entry:?} has more than {limit} bytes")]
    PathTooLong { entry: String, limit: usize },
    #[error("a name in {entry:?} has more than 255 bytes")]
    NameTooLong { entry: String },
    #[error("{entry:?} is more than {limit} levels deep")]
    TooDeep { entry: String, limit: usize },

    // Names that lead elsewhere.
    #[error("{entry:?} leads out of the directory by `..`")]
    ParentDirectory { entry: String },
    #[error("{entry:?} is an absolute path")]
    AbsolutePath { entry: String },
    #[error("{entry:?} begins with a drive letter")]
    DriveLetter { entry: String },
    #[error("{entry:?} is a path on a network share")]
    NetworkShare { entry: String },
    #[error("{entry:?} has a backslash in its name")]
    Backslash { entry: String },
    #[error("{entry:?} has a NUL in its name")]
    Nul { entry: String },
    #[error("{entry:?} has characters in its name that look like a path out of the directory")]
    LookalikePath { entry: String },
    #[error("the name {entry:?} is not valid UTF-8, as it says it is")]
    NotUtf8 { entry: String },
    #[error("the name {entry:?} hides characters in overlong UTF-8")]
    OverlongUtf8 { entry: String },
    #[error("{entry:?} is no name")]
    NoName { entry: String },

    // Names that are one name, or that can't be there at once.
    #[error("it has {entry:?} twice")]
    Duplicate { entry: String },
    #[error("{entry:?} and {other:?} differ only in upper and lower case")]
    CaseCollision { entry: String, other: String },
    #[error("{entry:?} and {other:?} differ only in how Unicode spells them")]
    UnicodeCollision { entry: String, other: String },
    #[error("{entry:?} is a file where another entry needs a directory")]
    FileAndDirectory { entry: String },
    #[error("{entry:?} leads through the link {link:?}")]
    ThroughLink { entry: String, link: String },

    // What is no plain file, directory or harmless link.
    #[error("the link {entry:?} points out of the directory, to {target:?}")]
    LinkOut { entry: String, target: String },
    #[error("{entry:?} is a hard link")]
    HardLink { entry: String },
    #[error("{entry:?} is a {kind}")]
    SpecialFile { entry: String, kind: &'static str },
    #[error("{entry:?} has the {bit} bit")]
    PrivilegeBit { entry: String, bit: &'static str },
    #[error("{entry:?} is encrypted")]
    Encrypted { entry: String },
    #[error("{entry:?} is packed by {method}, and only deflate and no packing are supported")]
    UnsupportedMethod { entry: String, method: String },

    // Lies.
    #[error("{entry:?} has two headers that differ in its {what}")]
    HeadersDiffer { entry: String, what: &'static str },
    #[error("{entry:?} and {other:?} share bytes of the archive")]
    Overlap { entry: String, other: String },
    #[error("{entry:?} says that it goes beyond the end of the archive's data")]
    OutOfBounds { entry: String },
    #[error("{entry:?} is larger than the {declared} bytes it says")]
    LargerThanDeclared { entry: String, declared: u64 },
    #[error("{entry:?} is smaller than the {declared} bytes it says")]
    SmallerThanDeclared { entry: String, declared: u64 },
    #[error("the directory {entry:?} has content")]
    DirectoryWithContent { entry: String },
    #[error("{entry:?} does not match its checksum")]
    Checksum { entry: String },
    #[error("{entry:?} is damaged: {reason}")]
    Damaged { entry: String, reason: String },

    // Not the archive's fault.
    #[error("{entry:?} is a link, which this system does not have")]
    NoLinksHere { entry: String },
    #[error("it was given up")]
    Cancelled,
    #[error("the archive can't be read: {0}")]
    Read(#[source] io::Error),
    #[error("{entry:?} can't be written: {error}")]
    Write {
        entry: String,
        #[source]
        error: io::Error,
    },
}

impl Error {
    /// Whether the archive itself is at fault, so that it would be refused anywhere and any time with these limits.
    pub fn is_the_archives(&self) -> bool {
        match self {
            Self::NoLinksHere { .. } | Self::Cancelled | Self::Read(_) => false,
            // A name that this file system does not take, or takes for another's.
            Self::Write { error, .. } => matches!(
                error.kind(),
                io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput | io::ErrorKind::AlreadyExists
            ),
            _ => true,
        }
    }

    /// What the library for the format has to say of it.
    pub(super) fn of_format(error: zip::result::ZipError) -> Self {
        use zip::result::ZipError;
        match error {
            // It ends before it is over.
            ZipError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::NotAnArchive { reason: "it ends early".to_owned() }
            }
            ZipError::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::NotAnArchive { reason: error.to_string() }
            }
            // A place before its beginning, which only a lie leads to.
            ZipError::Io(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Self::NotAnArchive { reason: error.to_string() }
            }
            ZipError::Io(error) => Self::Read(error),
            error => Self::NotAnArchive { reason: error.to_string() },
        }
    }
}
