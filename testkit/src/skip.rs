//! Tests that can't run where they are.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::Write;

/// Notes that the current test can't run here, and why: on standard output, and as a line of the file that `CMDEXEC_SKIPS`
/// names, if it does, so that whoever runs the tests counts it. The test is named by its thread, which the test runner
/// names for it.
///
/// # Panics
/// The file can't be written to.
pub fn skip(why: &str) {
    let current = std::thread::current();
    let note = format!("{}: {why}", current.name().unwrap_or("a test"));
    println!("{note}");
    if let Some(path) = std::env::var_os("CMDEXEC_SKIPS") {
        let mut skips = File::options().append(true).create(true).open(path).unwrap();
        writeln!(skips, "{note}").unwrap();
    }
}
