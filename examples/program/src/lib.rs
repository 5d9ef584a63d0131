//! What the programs share around the library: [`settings`] from flags, the environment and a file, [`secrets`] that are
//! made once and kept, [`signals`] that ask a program to end, [`logs`], and directories as ZIPs ([`pack`]).
//!
//! ```
//! # #[cfg(feature = "settings")] {
//! use cmdexec_program::settings::{self, Settings, parse};
//!
//! struct Options {
//!     port: u16,
//! }
//!
//! // Read twice: once to learn which settings there are, once to read them.
//! fn options(settings: &mut Settings) -> Options {
//!     Options { port: settings.setting("PORT", "Port to listen on").or(3000, parse::number(0..=65_535)) }
//! }
//!
//! let command = clap::Command::new("server");
//! let options = settings::read(command, options, ["server", "--port", "8080"], |_| None).unwrap();
//! assert_eq!(options.port, 8080);
//! # }
//! ```

#[cfg(feature = "logs")]
pub mod logs;
#[cfg(feature = "pack")]
pub mod pack;
pub mod secrets;
#[cfg(feature = "settings")]
pub mod settings;
pub mod signals;
