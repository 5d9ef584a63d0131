//! What is packed is read back by another hand: the `zip` crate's reader.

use std::io::repeat;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use zip::ZipArchive;

use super::*;

fn packer() -> Packer {
    Packer::new(tempfile::tempfile().unwrap())
}

fn read(zip: File) -> Vec<(String, Option<u32>, Vec<u8>)> {
    let mut archive = ZipArchive::new(zip).unwrap();
    let mut entries = Vec::new();
    for place in 0..archive.len() {
        let mut entry = archive.by_index(place).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        entries.push((entry.name().unwrap().into_owned(), entry.unix_mode(), bytes));
    }
    entries
}

/// Bytes that no compressor makes smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(1).fill_bytes(&mut bytes);
    bytes
}

fn len(zip: &File) -> u64 {
    zip.metadata().unwrap().len()
}

#[test]
fn what_is_packed_is_what_comes_out() {
    let mut packer = packer();
    packer.directory("empty", 0o755).unwrap();
    assert_eq!(packer.file("a/tool", 0o104_755, u64::MAX, &b"run"[..]).unwrap(), 3);
    packer.file("a/ünï", 0o600, 2, &b"only two"[..]).unwrap();
    packer.symlink("link", "a/tool").unwrap();
    let expected = [
        ("empty/", 0o040_755, ""),
        ("a/tool", 0o100_755, "run"),
        ("a/ünï", 0o100_600, "on"),
        ("link", 0o120_777, "a/tool"),
    ];
    let expected = expected.map(|(name, mode, bytes)| (name.to_owned(), Some(mode), bytes.as_bytes().to_vec()));
    assert_eq!(read(packer.finish().unwrap()), expected);
}

#[test]
fn the_same_entries_are_the_same_bytes() {
    let pack = || {
        let mut packer = packer();
        packer.file("a", 0o644, 9, &b"x"[..]).unwrap();
        packer.symlink("b", "a").unwrap();
        let mut zip = packer.finish().unwrap();
        let mut bytes = Vec::new();
        zip.rewind().unwrap();
        zip.read_to_end(&mut bytes).unwrap();
        bytes
    };
    assert_eq!(pack(), pack());
}

#[test]
fn names_that_lead_elsewhere_and_names_that_are_taken_are_refused() {
    let mut packer = packer();
    for name in ["", "/a", "a//b", "../a", "a/./b", "a/..", "a\\b", "a\0", "a/"] {
        assert!(matches!(packer.file(name, 0o644, 1, &b"x"[..]), Err(Error::Name)), "{name:?}");
        assert!(matches!(packer.directory(name, 0o755), Err(Error::Name)), "{name:?}");
        assert!(matches!(packer.symlink(name, "a"), Err(Error::Name)), "{name:?}");
    }
    packer.file("a", 0o644, 1, &b"1"[..]).unwrap();
    assert!(matches!(packer.file("a", 0o644, 1, &b"2"[..]), Err(Error::Name)));
    packer.file("b", 0o644, 1, &b"3"[..]).unwrap();
    let entries = read(packer.finish().unwrap());
    assert_eq!(
        entries.iter().map(|(name, _, bytes)| (&**name, &**bytes)).collect::<Vec<_>>(),
        [("a", &b"1"[..]), ("b", &b"3"[..])]
    );
}

/// Gives some bytes and then fails.
struct Breaks(usize);

impl Read for Breaks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.min(buffer.len());
        self.0 -= count;
        if count == 0 { Err(io::Error::other("on purpose")) } else { Ok(count) }
    }
}

#[test]
fn what_breaks_off_is_not_in_it_and_leaves_nothing() {
    let pack = |breaks: bool| {
        let mut packer = packer();
        packer.file("a", 0o644, 9, &b"1"[..]).unwrap();
        if breaks {
            assert!(matches!(packer.file("b", 0o644, 1 << 30, Breaks(10 << 20)), Err(Error::Read(_))));
            assert!(matches!(packer.file("b", 0o644, 1 << 30, noise(1 << 20).chain(Breaks(0))), Err(Error::Read(_))));
        }
        packer.file("c", 0o644, 9, &b"2"[..]).unwrap();
        if breaks {
            assert!(matches!(packer.file("d", 0o644, 1 << 30, noise(1 << 20).chain(Breaks(0))), Err(Error::Read(_))));
        }
        packer.finish().unwrap()
    };
    assert_eq!(len(&pack(true)), len(&pack(false)));
    assert_eq!(read(pack(true)), read(pack(false)));
}

#[test]
fn it_is_never_larger_than_it_may_be() {
    for most in [0, 100, 500, 5_000, 300_000, 2_000_000] {
        let mut packer = packer().at_most(most);
        let mut taken = 0;
        for (place, size) in [900_000, 10, 0, 70_000, 5_000, 0, 200_000, 1, 0, 300, 0, 0].into_iter().enumerate() {
            match packer.file(&format!("file-{place}"), 0o644, u64::MAX, &*noise(size)) {
                Ok(_) => taken += 1,
                Err(Error::TooLarge { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            let _ = packer.directory(&format!("dir-{place}"), 0o755);
            let _ = packer.symlink(&format!("link-{place}"), "elsewhere");
        }
        let zip = packer.finish().unwrap();
        // An archive without entries has 22 bytes.
        assert!(len(&zip) <= most.max(22), "{} instead of {most}", len(&zip));
        assert_eq!(read(zip).iter().filter(|(name, ..)| name.starts_with("file")).count(), taken);
        assert_eq!(taken == 12, most == 2_000_000);
    }
}

#[test]
fn what_packs_well_may_be_much_larger_than_the_archive() {
    let mut packer = packer().at_most(1 << 20);
    assert_eq!(packer.file("zeros", 0o644, 100 << 20, repeat(0)).unwrap(), 100 << 20);
    assert!(len(&packer.finish().unwrap()) < 1 << 20);
}

#[test]
fn a_size_that_needs_the_long_form_gets_it() {
    let mut packer = packer();
    // Only said, so that the test takes no 4 GiB.
    packer.file("long", 0o644, 1 << 33, &b"x"[..]).unwrap();
    packer.file("short", 0o644, 1, &b"y"[..]).unwrap();
    let bytes: Vec<_> = read(packer.finish().unwrap()).into_iter().map(|(.., bytes)| bytes).collect();
    assert_eq!(bytes, [b"x", b"y"]);
}

#[test]
fn an_archive_that_could_not_be_written_is_not_finished() {
    let path = tempfile::NamedTempFile::new().unwrap();
    let mut packer = Packer::new(File::open(path.path()).unwrap());
    assert!(matches!(packer.file("a", 0o644, 9, &b"x"[..]), Err(Error::Write(_))));
    let _ = packer.file("b", 0o644, 9, &b"x"[..]);
    assert!(matches!(packer.finish(), Err(Error::Write(_))));
}
