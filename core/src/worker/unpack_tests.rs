use std::io::Cursor;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;

type Zip = ZipWriter<Cursor<Vec<u8>>>;

fn plain() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Deflated)
}

fn zip(fill: impl FnOnce(&mut Zip)) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    fill(&mut writer);
    writer.finish().unwrap().into_inner()
}

fn file(zip: &mut Zip, name: &str, bytes: &[u8]) {
    zip.start_file(name, plain()).unwrap();
    zip.write_all(bytes).unwrap();
}

fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Result<(), Error>) {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("a.zip");
    fs::write(&archive, bytes).unwrap();
    let into = dir.path().join("into");
    fs::create_dir(&into).unwrap();
    let result = unpack(&archive, &into, &AtomicBool::new(false));
    (dir, result)
}

fn refusal(bytes: &[u8]) -> String {
    let (dir, result) = unpacked(bytes);
    let beside: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside.len(), 2, "something was written outside: {beside:?}");
    match result {
        Err(Error::Archive(message)) => message,
        other => panic!("not refused: {other:?}"),
    }
}

/// Replaces one text in a ZIP by another of the same length, in each of its places.
fn patched(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<_> = bytes.windows(from.len()).enumerate().filter(|(_, w)| *w == from).map(|(i, _)| i).collect();
    assert!(!places.is_empty());
    for place in places {
        bytes[place..place + to.len()].copy_from_slice(to);
    }
    bytes
}

#[cfg(unix)]
#[test]
fn files_directories_links_and_executable_bits_come_out() {
    use std::os::unix::fs::PermissionsExt;
    let bytes = zip(|zip| {
        zip.add_directory("empty/", plain()).unwrap();
        file(zip, "a/b/data", b"hello");
        zip.start_file("run", plain().unix_permissions(0o750)).unwrap();
        zip.write_all(b"#!/bin/sh\n").unwrap();
        zip.add_symlink("a/link", "../run", plain()).unwrap();
        file(zip, "./here", b"x");
    });
    let (dir, result) = unpacked(&bytes);
    result.unwrap();
    let into = dir.path().join("into");
    assert!(into.join("empty").is_dir());
    assert_eq!(fs::read(into.join("a/b/data")).unwrap(), b"hello");
    assert_eq!(fs::read(into.join("a/link")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(fs::read(into.join("here")).unwrap(), b"x");
    let mode = |name: &str| fs::metadata(into.join(name)).unwrap().permissions().mode() & 0o111;
    assert_eq!((mode("run"), mode("a/b/data")), (0o111, 0));
}

#[test]
fn an_empty_zip_is_fine() {
    unpacked(&zip(|_| ())).1.unwrap();
}

#[test]
fn names_that_lead_out_are_refused() {
    let with = |name: &str| {
        let placeholder = "p".repeat(name.len());
        patched(zip(|zip| file(zip, &placeholder, b"x")), placeholder.as_bytes(), name.as_bytes())
    };
    for name in ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil", "a/../b", "C:\\evil"] {
        let why = refusal(&with(name));
        assert!(why.contains("leads out") || why.contains("absolute") || why.contains("backslash"), "{name}: {why}");
    }
    assert!(refusal(&with("a\0b")).contains("NUL"));
    assert!(refusal(&zip(|zip| file(zip, &"n/".repeat(600), b""))).contains("longer"));
}

#[test]
fn links_that_lead_out_or_are_led_through_are_refused() {
    for target in ["/etc/passwd", "../x", "..", "a/../../x", "d/..", ""] {
        let why = refusal(&zip(|zip| zip.add_symlink("link", target, plain()).unwrap()));
        assert!(why.contains("points out") || why.contains("damaged"), "{target}: {why}");
    }
    let through = zip(|zip| {
        zip.add_symlink("d", "e", plain()).unwrap();
        file(zip, "d/file", b"x");
    });
    assert!(refusal(&through).contains("through a link"));
}

#[test]
fn names_given_twice_are_refused() {
    let twice = zip(|zip| {
        file(zip, "aaa", b"1");
        file(zip, "bbb", b"2");
    });
    assert!(refusal(&patched(twice, b"bbb", b"aaa")).contains("twice"));
    let same_path = zip(|zip| {
        file(zip, "a/b", b"1");
        file(zip, "a/./b", b"2");
    });
    assert!(refusal(&same_path).contains("twice"));
    let both = zip(|zip| {
        file(zip, "a", b"1");
        file(zip, "a/b", b"2");
    });
    assert!(refusal(&both).contains("can't be written"));
}

#[test]
fn bombs_are_refused() {
    let many = zip(|zip| {
        for i in 0..=MOST_ENTRIES {
            zip.start_file(format!("{i:x}"), plain().compression_method(CompressionMethod::Stored)).unwrap();
        }
    });
    assert!(refusal(&many).contains("entries"));

    let size = 1_234_567_u32;
    let honest = zip(|zip| file(zip, "zeros", &vec![0; size as usize]));
    let lies = |says: u32| patched(honest.clone(), &size.to_le_bytes(), &says.to_le_bytes());
    assert!(refusal(&lies(u32::MAX - 1)).contains("would come out"));
    // The library finds some of these itself; what counts is that no more comes out than was declared.
    refusal(&lies(10));
    refusal(&lies(size + 1));
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let good = zip(|zip| {
        file(zip, "a/b", &b"hello ".repeat(100));
        zip.add_symlink("link", "a/b", plain()).unwrap();
    });
    for nonsense in
        [&b""[..], b"PK", b"not a zip at all, however long it may be, and it is long", &good[..good.len() / 2]]
    {
        refusal(nonsense);
    }
    for place in 0..good.len() {
        let mut bytes = good.clone();
        bytes[place] ^= 0x55;
        // Some bytes mean nothing; what counts is that nothing panics or leaves the directory.
        let (dir, _) = unpacked(&bytes);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "at {place}");
    }
}

#[test]
fn what_was_given_up_ends_soon() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("a.zip");
    fs::write(&archive, zip(|zip| file(zip, "a", b"x"))).unwrap();
    let into = dir.path().join("into");
    fs::create_dir(&into).unwrap();
    assert!(unpack(&archive, &into, &AtomicBool::new(true)).is_err());
    assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
}
