//! What the executor and the init of a container say to each other. Compiled into both.
//!
//! The executor sends messages of one byte, of which a job's is followed by its length and the job:
//!
//! ```text
//! J length:u32 | commands:u32 variables:u32 | argc:u32 of each command | directory, arguments, variables, each ending in NUL
//! ```
//!
//! The init answers with records of 16 bytes: a kind, three bytes of padding, a number of 32 bits and one of 64. All numbers
//! are little-endian. Whoever is asked for a job it does not understand ends.

/// The version of this: the init says it first.
pub(crate) const VERSION: i32 = 2;

/// Run a job. On a socket the descriptors of its two streams come with it.
pub(crate) const JOB: u8 = b'J';
/// Ask everything to end; begin no further command.
pub(crate) const TERMINATE: u8 = b'T';
/// End everything.
pub(crate) const KILL: u8 = b'K';

/// How long a record is.
pub(crate) const RECORD: usize = 16;
/// The longest job that is taken: what a spec may hold is less.
pub(crate) const MAX_JOB: usize = 16 << 20;

/// The init is there. The number is [`VERSION`], and the other who it is: its user.
pub(crate) const HELLO: u8 = b'H';
/// A command has ended: its wait status, and how many microseconds it ran.
pub(crate) const STEP: u8 = b'S';
/// A command could not be started: the error's number, and which step it was.
pub(crate) const UNSTARTED: u8 = b'U';
/// Everything is dead and reaped: the last command's wait status, and the flags below.
pub(crate) const END: u8 = b'E';
/// Output, where no descriptors came: how many bytes follow, and of which stream (1 or 2).
pub(crate) const OUTPUT: u8 = b'O';

/// In [`END`]: it was asked to end before its last command began.
pub(crate) const CUT: u64 = 1;
/// In [`END`]: no space is left in the first of [`PLACES`]. Twice this is the second's, and so on.
pub(crate) const FULL: u64 = 2;

/// Where a job may write, each ending in NUL: its directory, the container's own file system, and two in memory.
pub(crate) const PLACES: [&[u8]; 4] = [b"/work\0", b"/\0", b"/tmp\0", b"/dev/shm\0"];

/// In [`UNSTARTED`]: what could not be done, beside the step's number in the lower half. Without one of these it is the program.
///
/// The directory could not be entered.
pub(crate) const AT_DIRECTORY: u64 = 1 << 32;
/// No process could be made.
pub(crate) const AT_FORK: u64 = 2 << 32;
