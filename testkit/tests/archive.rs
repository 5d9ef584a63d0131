//! Unpacking what somebody made to do harm: each evil by its name, and then random ones.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::io::Cursor;
use std::sync::atomic::AtomicBool;

use cmdexec_core::archive::{Archive, Error, Limits, unpack};
use cmdexec_testkit::archive::{Attempted, Entry, Zip, deflate, limits, unpack_in_jail};
use proptest::prelude::*;

fn refused(zip: &Zip) -> Error {
    refused_bytes(&zip.bytes())
}

fn refused_bytes(bytes: &[u8]) -> Error {
    let attempted = unpack_in_jail(bytes, &limits());
    let error = attempted.result.unwrap_err();
    assert!(error.is_the_archives(), "{error}");
    // Data is judged while it is written, everything else before.
    let by_data = matches!(
        error,
        Error::Damaged { .. }
            | Error::Checksum { .. }
            | Error::LargerThanDeclared { .. }
            | Error::SmallerThanDeclared { .. }
    );
    assert!(by_data || fs::read_dir(attempted.into).unwrap().count() == 0, "something was written before {error}");
    error
}

fn taken(zip: &Zip) -> Attempted {
    let attempted = unpack_in_jail(&zip.bytes(), &limits());
    attempted.result.as_ref().unwrap_or_else(|error| panic!("{error}"));
    attempted
}

fn named(name: impl Into<Vec<u8>>) -> Zip {
    Zip::of([Entry::file(name, b"x")])
}

macro_rules! is_refused {
    ($zip:expr, $error:pat $(if $guard:expr)?) => {{
        let error = refused(&$zip);
        assert!(matches!(&error, $error $(if $guard)?), "{error:?}");
    }};
}

// --- what is fine -------------------------------------------------------------------------------------------------

#[cfg(unix)]
#[test]
fn files_directories_links_and_executable_bits_come_out() {
    use std::os::unix::fs::PermissionsExt;
    let done = taken(&Zip::of([
        Entry::directory("empty/"),
        Entry::file("a/b/data", b"hello"),
        Entry::stored("run", b"#!/bin/sh\n").mode(0o100_750),
        Entry::link("a/link", "../run"),
        Entry::directory("./"),
        Entry::file("./here", &b"long ".repeat(100_000)),
        Entry::file("nothing", b"").with(|entry| entry.packed.clear()),
    ]));
    assert_eq!(done.result.unwrap().files, 5);
    assert!(done.into.join("empty").is_dir());
    assert_eq!(fs::read(done.into.join("a/b/data")).unwrap(), b"hello");
    assert_eq!(fs::read(done.into.join("a/link")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(fs::read(done.into.join("here")).unwrap(), b"long ".repeat(100_000));
    let mode = |name: &str| fs::metadata(done.into.join(name)).unwrap().permissions().mode() & 0o111;
    assert_eq!((mode("run"), mode("a/b/data")), (0o111, 0));
}

#[test]
fn an_empty_archive_is_fine() {
    let empty = Zip::default();
    assert_eq!(empty.bytes().len(), 22);
    assert_eq!(taken(&empty).result.unwrap().files, 0);
}

#[test]
fn a_comment_of_any_length_and_something_before_the_archive_are_fine() {
    let mut zip = Zip::of([Entry::file("a", b"x"), Entry::file("b", b"y")]);
    zip.comment = b"PK\x05\x06 ".iter().copied().cycle().take(65_535).collect();
    taken(&zip);
    zip.comment = vec![];
    zip.before = b"#!/bin/sh\nexit 1\n".repeat(100);
    let done = taken(&zip);
    assert_eq!(fs::read(done.into.join("b")).unwrap(), b"y");
}

#[test]
fn sizes_that_follow_the_data_are_fine() {
    let mut entry = Entry::file("a", b"hello");
    let (crc, packed) = (entry.crc, entry.packed.clone());
    entry.flags |= 8;
    (entry.local_size, entry.local_crc) = (Some(0), Some(0));
    // The descriptor that follows the data.
    entry.packed.extend(b"PK\x07\x08");
    for number in [crc, u32::try_from(packed.len()).unwrap(), 5] {
        entry.packed.extend(number.to_le_bytes());
    }
    entry.packed_size = Some(packed.len() as u64);
    let mut bytes = Zip::of([entry]).bytes();
    // The entry's own header knows nothing of them.
    bytes[18..22].fill(0);
    unpack_in_jail(&bytes, &limits()).result.unwrap();
}

#[test]
fn set_bits_on_directories_are_not_taken_over() {
    taken(&Zip::of([Entry::directory("shared/").mode(0o042_775)]));
}

#[test]
fn archives_in_archives_stay_what_they_are() {
    let inner = Zip::of([Entry::file("../evil", b"x")]).bytes();
    let done = taken(&Zip::of([Entry::file("inner.zip", &inner)]));
    assert_eq!(fs::read(done.into.join("inner.zip")).unwrap(), inner);
}

// --- names that lead elsewhere -------------------------------------------------------------------------------------

#[test]
fn parent_directories_are_refused() {
    for name in ["..", "../evil", "a/../../evil", "a/../b", "a/..", "./../evil", "a//../../evil", "../"] {
        is_refused!(named(name), Error::ParentDirectory { .. });
    }
}

#[test]
fn absolute_paths_are_refused() {
    for name in ["/etc/evil", "/", "//server/share", "/../evil"] {
        is_refused!(named(name), Error::AbsolutePath { .. });
    }
}

#[test]
fn backslashes_drives_and_shares_are_refused() {
    for name in [r"a\..\evil", r"..\evil", r"\evil", r"a\b"] {
        is_refused!(named(name), Error::Backslash { .. });
    }
    for name in ["C:", "c:evil", "C:/evil", r"C:\evil"] {
        is_refused!(named(name), Error::DriveLetter { .. });
    }
    is_refused!(named(r"\\server\share\evil"), Error::NetworkShare { .. });
    is_refused!(named(r"\\?\C:\evil"), Error::NetworkShare { .. });
}

#[test]
fn nul_is_refused() {
    is_refused!(named("a\0b"), Error::Nul { .. });
    is_refused!(named("\0"), Error::Nul { .. });
}

#[test]
fn overlong_paths_and_names_are_refused() {
    is_refused!(named("n/".repeat(513)), Error::PathTooLong { .. });
    is_refused!(named("n".repeat(65_535)), Error::PathTooLong { .. });
    is_refused!(named("n".repeat(256)), Error::NameTooLong { .. });
    is_refused!(named("n/".repeat(65)), Error::TooDeep { .. });
    taken(&named("n/".repeat(63) + "n"));
    taken(&named("n".repeat(255)));
}

#[test]
fn empty_names_are_refused() {
    is_refused!(named(""), Error::NoName { .. });
}

#[test]
fn broken_and_overlong_utf8_are_refused() {
    is_refused!(named(b"a\xff".to_vec()), Error::NotUtf8 { .. });
    is_refused!(named(b"\xed\xa0\x80".to_vec()), Error::NotUtf8 { .. });
    for name in [
        &b"\xc0\xae\xc0\xae\xc0\xafevil"[..],
        b"..\xc0\xafevil",
        b"\xe0\x80\xae.",
        b"\xf0\x80\x80\xaf",
        b"\xc1\x9cevil",
    ] {
        for flags in [0, 0x800] {
            let zip = Zip::of([Entry::file(name, b"x").with(|entry| entry.flags = flags)]);
            is_refused!(zip, Error::OverlongUtf8 { .. });
        }
    }
}

#[test]
fn look_alikes_of_a_way_out_are_refused() {
    for name in [
        "\u{FF0E}\u{FF0E}/evil",
        "\u{2024}\u{2024}/evil",
        "\u{2025}/evil",
        "..\u{2215}evil",
        "..\u{FF0F}evil",
        "..\u{2044}evil",
        "a\u{FF0F}\u{FF0E}.\u{FF0F}evil",
        "\u{FF0F}etc\u{FF0F}evil",
        "\u{FF0E}\u{FF0E}\u{FF3C}evil",
        "\u{FE52}\u{FE52}\u{FE68}evil",
        "\u{FF23}\u{FF1A}evil",
    ] {
        is_refused!(named(name), Error::LookalikePath { .. });
    }
}

// --- names that are one name ---------------------------------------------------------------------------------------

#[test]
fn names_given_twice_are_refused() {
    let two = |one: Entry, other: Entry| Zip::of([one, other]);
    let file = |name: &str| Entry::file(name, b"x");
    is_refused!(two(file("a/b"), file("a/b")), Error::Duplicate { .. });
    is_refused!(two(file("a/b"), file("a/./b")), Error::Duplicate { .. });
    is_refused!(two(file("a"), Entry::link("a", "b")), Error::Duplicate { .. });
    taken(&two(Entry::directory("a/"), Entry::directory("a/")));
}

#[test]
fn names_that_differ_in_case_or_spelling_are_refused() {
    let two = |one: &str, other: &str| Zip::of([Entry::file(one, b"x"), Entry::file(other, b"x")]);
    is_refused!(two("README", "readme"), Error::CaseCollision { other, .. } if other == "README");
    is_refused!(two("A/x", "a/y"), Error::CaseCollision { .. });
    is_refused!(two("STRASSE", "straße"), Error::CaseCollision { .. });
    is_refused!(two("\u{e9}", "e\u{301}"), Error::UnicodeCollision { .. });
    is_refused!(two("\u{e9}/x", "e\u{301}/y"), Error::UnicodeCollision { .. });
    is_refused!(two("\u{212B}", "\u{C5}"), Error::UnicodeCollision { .. });
}

#[test]
fn a_file_where_a_directory_is_needed_is_refused() {
    let (file, below) = (Entry::file("a", b"x"), Entry::file("a/b", b"x"));
    is_refused!(Zip::of([file.clone(), below.clone()]), Error::FileAndDirectory { .. });
    is_refused!(Zip::of([below, file.clone()]), Error::FileAndDirectory { .. });
    is_refused!(Zip::of([file, Entry::directory("a/")]), Error::FileAndDirectory { .. });
}

// --- what is no plain file -----------------------------------------------------------------------------------------

#[test]
fn links_that_lead_out_are_refused() {
    for target in ["/etc/passwd", "../x", "..", "a/../../x", "d/..", "", "a\\b", "\u{FF0E}\u{FF0E}/x", "a\0b"] {
        is_refused!(Zip::of([Entry::link("link", target)]), Error::LinkOut { .. });
    }
    is_refused!(Zip::of([Entry::link("a/link", "../../x")]), Error::LinkOut { .. });
    is_refused!(Zip::of([Entry::link("link", [0xff])]), Error::LinkOut { .. });
    is_refused!(Zip::of([Entry::link("link", "n".repeat(1_025))]), Error::LinkOut { .. });
}

#[test]
fn chains_of_links_that_lead_out_are_refused() {
    // Each looks harmless beside the other: `b` is inside `a`, and `..` of where `a` leads is outside.
    let chain = Zip::of([Entry::directory("d/"), Entry::link("d/a", ".."), Entry::link("b", "d/a/..")]);
    is_refused!(chain, Error::LinkOut { .. });
    #[cfg(unix)]
    taken(&Zip::of([Entry::link("a", "b"), Entry::link("b", "c"), Entry::link("c", "a"), Entry::link("d/up", "..")]));
}

#[test]
fn nothing_is_written_through_a_link() {
    let (link, through) = (Entry::link("d", "e"), Entry::file("d/file", b"x"));
    is_refused!(Zip::of([link.clone(), through.clone()]), Error::ThroughLink { .. });
    is_refused!(Zip::of([through, link.clone()]), Error::ThroughLink { .. });
    is_refused!(Zip::of([link, Entry::directory("d/")]), Error::ThroughLink { .. });
}

#[test]
fn hard_links_are_refused() {
    // Twelve bytes of times and owners, and then what it is a link to.
    let mut extra = vec![0x0d, 0, 16, 0];
    extra.extend([0; 12]);
    extra.extend(b"file");
    let zip = Zip::of([Entry::stored("hard", b"").with(|entry| entry.local_extra = extra)]);
    is_refused!(zip, Error::HardLink { .. });
}

#[test]
fn devices_pipes_and_sockets_are_refused() {
    for mode in [0o010_644, 0o020_644, 0o060_644, 0o140_644, 0o150_644] {
        is_refused!(Zip::of([Entry::stored("special", b"").mode(mode)]), Error::SpecialFile { .. });
    }
}

#[test]
fn setuid_setgid_and_sticky_files_are_refused() {
    for (mode, expected) in [(0o104_755, "setuid"), (0o102_755, "setgid"), (0o101_755, "sticky")] {
        is_refused!(Zip::of([Entry::file("su", b"x").mode(mode)]), Error::PrivilegeBit { bit, .. } if *bit == expected);
    }
}

#[test]
fn encrypted_entries_are_refused() {
    for flags in [1, 1 | 1 << 6, 1 << 13] {
        let zip = Zip::of([Entry::file("secret", b"x").with(|entry| entry.flags |= flags)]);
        is_refused!(zip, Error::Encrypted { .. });
    }
}

#[test]
fn unknown_methods_are_refused() {
    for method in [1, 6, 9, 12, 14, 93, 95, 98, 99, 4_711] {
        let zip = Zip::of([Entry::stored("a", b"x").with(|entry| entry.method = method)]);
        is_refused!(zip, Error::UnsupportedMethod { .. });
    }
}

// --- lies ----------------------------------------------------------------------------------------------------------

#[test]
fn more_than_declared_is_refused() {
    let zip = Zip::of([Entry::file("a", &[b'x'; 1_000]).with(|entry| entry.size = 10)]);
    is_refused!(zip, Error::LargerThanDeclared { declared: 10, .. });
    let zip = Zip::of([Entry::stored("a", b"hello").with(|entry| entry.size = 4)]);
    is_refused!(zip, Error::LargerThanDeclared { .. });
}

#[test]
fn less_than_declared_is_refused() {
    let zip = Zip::of([Entry::file("a", &[b'x'; 1_000]).with(|entry| entry.size = 1_001)]);
    is_refused!(zip, Error::SmallerThanDeclared { declared: 1_001, .. });
    let zip = Zip::of([Entry::stored("a", b"hello").with(|entry| entry.size = 6)]);
    is_refused!(zip, Error::SmallerThanDeclared { .. });
}

#[test]
fn data_that_ends_early_or_goes_on_is_refused() {
    let short = Entry::file("a", &b"hello ".repeat(100)).with(|entry| entry.packed.truncate(8));
    is_refused!(Zip::of([short]), Error::Damaged { .. });
    let long = Entry::file("a", b"hello").with(|entry| entry.packed.extend(b"more"));
    is_refused!(Zip::of([long]), Error::Damaged { .. });
    let twice = Entry::file("a", b"hello").with(|entry| entry.packed.extend(deflate(b"more")));
    is_refused!(Zip::of([twice]), Error::Damaged { .. });
    let nonsense = Entry::file("a", b"hello").with(|entry| entry.packed = vec![0xff; 10]);
    is_refused!(Zip::of([nonsense]), Error::Damaged { .. });
}

#[test]
fn a_wrong_checksum_is_refused() {
    for entry in [Entry::file("a", b"hello"), Entry::stored("a", b"hello")] {
        is_refused!(Zip::of([entry.with(|entry| entry.crc ^= 1)]), Error::Checksum { .. });
    }
}

#[test]
fn headers_that_differ_are_refused() {
    let differs = |change: fn(&mut Entry)| Zip::of([Entry::stored("good", b"hello").with(change)]);
    is_refused!(differs(|entry| entry.local_name = Some(b"evil".to_vec())), Error::HeadersDiffer { what: "name", .. });
    is_refused!(differs(|entry| entry.local_name = Some(b"../x".to_vec())), Error::HeadersDiffer { what: "name", .. });
    is_refused!(differs(|entry| entry.local_size = Some(4)), Error::HeadersDiffer { what: "size", .. });
    is_refused!(differs(|entry| entry.local_method = Some(8)), Error::HeadersDiffer { what: "method", .. });
    is_refused!(differs(|entry| entry.local_crc = Some(1)), Error::HeadersDiffer { what: "checksum", .. });
    is_refused!(differs(|entry| entry.local_flags = Some(0x801)), Error::HeadersDiffer { what: "flags", .. });
    is_refused!(differs(|entry| entry.header_at = Some(3)), Error::OutOfBounds { .. } | Error::HeadersDiffer { .. });
}

#[test]
fn a_directory_with_content_is_refused() {
    is_refused!(Zip::of([Entry::stored("a/", b"x").mode(0o040_755)]), Error::DirectoryWithContent { .. });
}

#[test]
fn entries_that_share_bytes_are_refused() {
    // The bombs of many entries over one kernel: the index names one entry's data again and again.
    let kernel = Entry::file("a", &vec![0; 1 << 20]);
    let again = kernel.clone().with(|entry| (entry.name, entry.header_at) = (b"b".to_vec(), Some(0)));
    is_refused!(Zip::of([kernel.clone(), again]), Error::Overlap { .. });
    // Or an entry's data begins with the next entry's header.
    let mut quoting = Zip::of([kernel.clone()]).bytes();
    let header = 30 + 1 + kernel.packed.len();
    quoting.truncate(header);
    let outer = Entry::stored("o", &quoting);
    let inner = kernel.with(|entry| entry.header_at = Some(31));
    is_refused!(Zip::of([outer, inner]), Error::Overlap { .. });
}

#[test]
fn entries_out_of_bounds_are_refused() {
    let far = Entry::stored("a", b"hello").with(|entry| entry.header_at = Some(1 << 30));
    is_refused!(Zip::of([far]), Error::OutOfBounds { .. } | Error::NotAnArchive { .. });
    let mut beyond = Entry::file("a", b"hello");
    beyond.flags |= 8;
    (beyond.local_size, beyond.local_crc, beyond.packed_size) = (Some(0), Some(0), Some(1 << 20));
    let mut bytes = Zip::of([beyond]).bytes();
    bytes[18..22].fill(0);
    let error = refused_bytes(&bytes);
    assert!(matches!(error, Error::OutOfBounds { .. }), "{error:?}");
}

#[test]
fn lies_in_large_sizes_are_refused() {
    // The field for sizes of more than 32 bits, in both headers and in one.
    let field = |size: u64, packed: u64| {
        let mut extra = vec![1, 0, 16, 0];
        extra.extend(size.to_le_bytes());
        extra.extend(packed.to_le_bytes());
        extra
    };
    let large = |size, packed| {
        Entry::file("a", b"hello").with(|entry| {
            (entry.size, entry.packed_size) = (u64::MAX, Some(u64::MAX));
            entry.extra = field(size, packed);
        })
    };
    is_refused!(Zip::of([large(u64::MAX - 1, 7)]), Error::TooLarge { .. });
    is_refused!(Zip::of([large(5, u64::MAX - 1)]), Error::OutOfBounds { .. } | Error::HeadersDiffer { .. });
    is_refused!(Zip::of([large(5, 7)]), Error::HeadersDiffer { what: "size", .. });
    let cut = large(5, 7).with(|entry| entry.extra.truncate(10));
    refused(&Zip::of([cut]));
}

// --- more than is bearable -----------------------------------------------------------------------------------------

#[test]
fn too_many_entries_are_refused() {
    let many = Zip::of((0..1_001).map(|i| Entry::stored(format!("{i}"), b"")));
    is_refused!(many, Error::TooManyEntries { limit: 1_000 });
    // Directories that nobody named count too.
    let deep = Zip::of((0..30).map(|i| Entry::stored(format!("{i}/{}x", "d/".repeat(60)), b"")));
    is_refused!(deep, Error::TooManyEntries { .. });
}

#[test]
fn a_number_of_entries_that_is_a_lie_is_refused() {
    let mut zip = Zip::of([Entry::file("a", b"x"), Entry::file("b", b"x")]);
    zip.count = Some(60_000);
    refused(&zip);
    zip.count = Some(1);
    unpack_in_jail(&zip.bytes(), &limits());
}

#[test]
fn flat_bombs_are_refused() {
    let zeros = |len: usize| Entry::file("zeros", &vec![0; len]);
    is_refused!(Zip::of([zeros(12 << 20)]), Error::RatioTooHigh { limit: 200, .. });
    is_refused!(Zip::of([zeros(17 << 20)]), Error::TooLarge { .. });
    // Little ones are often repetitive.
    taken(&Zip::of([zeros(9 << 20)]));
    // One that says little is stopped at what it says.
    is_refused!(Zip::of([zeros(12 << 20).with(|entry| entry.size = 1_000)]), Error::LargerThanDeclared { .. });
}

#[test]
fn the_archive_itself_is_bounded() {
    let mut small = limits();
    small.unpacked = 1_000;
    let mut zip = Zip::of([Entry::file("a", b"x")]);
    zip.comment = vec![b' '; 1_000];
    let error = unpack_in_jail(&zip.bytes(), &small).result.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
}

// --- damage --------------------------------------------------------------------------------------------------------

fn good() -> Vec<u8> {
    Zip::of([
        Entry::directory("d/"),
        Entry::file("d/a", &b"hello ".repeat(100)),
        Entry::stored("b", b"hello").mode(0o100_755),
        Entry::link("d/link", "../b"),
        Entry::file("\u{e9}", &(0..=255).collect::<Vec<u8>>()),
    ])
    .bytes()
}

#[test]
fn what_is_no_archive_is_refused() {
    for nonsense in [&b""[..], b"PK", b"not a zip at all, however long it may be, and it is long"] {
        let error = refused_bytes(nonsense);
        assert!(matches!(error, Error::NotAnArchive { .. }), "{error:?}");
    }
}

#[test]
fn truncated_archives_are_refused() {
    let good = good();
    for len in 0..good.len() {
        refused_bytes(&good[..len]);
    }
}

#[test]
fn every_single_byte_may_be_wrong() {
    let good = good();
    for place in 0..good.len() {
        let mut bytes = good.clone();
        bytes[place] ^= 0x55;
        unpack_in_jail(&bytes, &limits());
    }
}

#[test]
fn what_was_given_up_ends_soon() {
    let into = tempfile::tempdir().unwrap();
    let result = unpack(Cursor::new(good()), into.path(), &Limits::default(), &AtomicBool::new(true));
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(fs::read_dir(into.path()).unwrap().count(), 0);
    // Also once it has begun to write.
    let archive = Archive::check(Cursor::new(good()), &Limits::default(), &AtomicBool::new(false)).unwrap();
    assert_eq!((archive.files(), archive.directories(), archive.bytes()), (4, 1, 600 + 5 + 4 + 256));
    assert!(matches!(archive.write(into.path(), &AtomicBool::new(true)), Err(Error::Cancelled)));
}

/// Something done to an archive.
#[derive(Debug, Clone)]
enum Damage {
    Set(prop::sample::Index, u8),
    Number(prop::sample::Index, u32),
    Cut(prop::sample::Index, prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let interesting = prop_oneof![
        any::<u32>(),
        Just(u32::MAX),
        Just(0),
        Just(0x0403_4b50),
        Just(0x0201_4b50),
        Just(0x0605_4b50),
        Just(0x0606_4b50),
        0..2_000_u32,
    ];
    prop_oneof![
        4 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, to)| Damage::Set(at, to)),
        3 => (any::<prop::sample::Index>(), interesting).prop_map(|(at, to)| Damage::Number(at, to)),
        1 => any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(from, to)| Damage::Cut(from, to)),
        1 => any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(from, to)| Damage::Repeat(from, to)),
    ]
}

impl Damage {
    fn act(&self, bytes: &mut Vec<u8>) {
        let range = |from: &prop::sample::Index, to: &prop::sample::Index| {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            from.min(to)..from.max(to)
        };
        match self {
            _ if bytes.is_empty() => {}
            Self::Set(at, to) => {
                let at = at.index(bytes.len());
                bytes[at] = *to;
            }
            Self::Number(at, to) => {
                let at = at.index(bytes.len());
                bytes.splice(at..(at + 4).min(bytes.len()), to.to_le_bytes());
            }
            Self::Cut(from, to) => drop(bytes.drain(range(from, to))),
            Self::Repeat(from, to) => {
                let piece = bytes[range(from, to)].to_vec();
                bytes.extend(piece);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_damage_is_borne(damages in prop::collection::vec(damage(), 1..6)) {
        let mut bytes = good();
        damages.iter().for_each(|damage| damage.act(&mut bytes));
        unpack_in_jail(&bytes, &limits());
    }

    #[test]
    fn any_name_is_borne(names in prop::collection::vec(r"[./\\:a-cA-Cé\u{301}e．／\x00]{0,8}", 1..6), flags in prop::sample::select(vec![0_u16, 0x800])) {
        let zip = Zip::of(names.iter().map(|name| Entry::stored(name.clone(), b"x").with(|entry| entry.flags = flags)));
        unpack_in_jail(&zip.bytes(), &limits());
    }

    #[test]
    fn any_links_are_borne(links in prop::collection::vec(("[ab]{1}(/[ab]){0,2}", r"(\.\./|\./|[ab]/){0,4}[ab.]{0,2}"), 1..8)) {
        let zip = Zip::of(links.iter().map(|(name, target)| Entry::link(name, target)));
        unpack_in_jail(&zip.bytes(), &limits());
    }
}
