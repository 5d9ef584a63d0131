//! What is mounted below a directory, and taking it away: a worker that was killed leaves its mounts behind.

use std::io;
use std::path::Path;

/// Detaches everything that is mounted at a directory or below it. Until then nothing there may be removed: it may be what a
/// mount shows.
#[cfg(target_os = "linux")]
pub(super) fn detach_below(directory: &Path) -> io::Result<()> {
    use nix::mount::{MntFlags, umount2};
    let directory = directory.canonicalize()?;
    let table = std::fs::read("/proc/self/mountinfo")?;
    let points = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let mut below: Vec<_> = points.map(unescaped).filter(|point| point.starts_with(&directory)).collect();
    // The last that was mounted first.
    while let Some(point) = below.pop() {
        match umount2(&point, MntFlags::MNT_DETACH) {
            // Gone with another.
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn detach_below(_: &Path) -> io::Result<()> {
    Ok(())
}

/// The table writes blanks and backslashes as three octal digits.
#[cfg(target_os = "linux")]
fn unescaped(point: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut path = Vec::with_capacity(point.len());
    let mut rest = point;
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.first_chunk::<3>().and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.filter(|_| *byte == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                path.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                path.push(*byte);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(path).into()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_table_are_read() {
        assert_eq!(unescaped(br"/a\040b\134c\011"), Path::new("/a b\\c\t"));
        assert_eq!(unescaped(br"/plain\x"), Path::new(r"/plain\x"));
    }

    #[test]
    fn where_nothing_is_mounted_nothing_happens() {
        let dir = tempfile::tempdir().unwrap();
        detach_below(dir.path()).unwrap();
        assert!(dir.path().exists());
    }
}
