//! What is packed of a tree, hostile or not; read back by the reader of our own archives.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::archive::unpack;

struct Job {
    dir: TempDir,
}

/// What came of it: files by their path (links as `-> target`), and what was said.
struct Packed {
    entries: u64,
    files: BTreeMap<String, String>,
    named: Vec<bool>,
    said: String,
    bytes: u64,
    dir: TempDir,
}

impl Job {
    /// A job that left these files.
    fn leaving(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("work")).unwrap();
        for (path, text) in files {
            let path = dir.path().join("work").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { dir }
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("work").join(path)
    }

    fn try_pack(&self, globs: &[&str], limits: OutputLimits, start: &str) -> Result<(Found, File), String> {
        let globs: Vec<_> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        let zip = tempfile::tempfile().unwrap();
        let given_up = AtomicBool::new(false);
        let archive = zip.try_clone().unwrap();
        let outputs = Outputs::new(&globs).unwrap();
        let found = pack(&self.dir.path().join("work"), Path::new(start), &outputs, limits, archive, &given_up)?;
        Ok((found, zip))
    }

    fn pack_within(&self, globs: &[&str], limits: OutputLimits) -> Packed {
        let (found, zip) = self.try_pack(globs, limits, "").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let bytes = zip.metadata().unwrap().len();
        unpack(zip, dir.path(), &Limits::default(), &AtomicBool::new(false)).unwrap();
        let mut files = BTreeMap::new();
        read(dir.path(), "", &mut files);
        let said = found.warnings.into_texts().join("\n");
        Packed { entries: found.entries, files, named: found.named, said, bytes, dir }
    }

    fn pack(&self, globs: &[&str]) -> Packed {
        self.pack_within(globs, OutputLimits::default())
    }
}

fn read(dir: &Path, path: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{path}{}", entry.file_name().to_str().unwrap());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.insert(format!("{path}/"), String::new());
            read(&entry.path(), &format!("{path}/"), files);
        } else if kind.is_symlink() {
            files.insert(path, format!("-> {}", fs::read_link(entry.path()).unwrap().display()));
        } else {
            files.insert(path, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

impl Packed {
    fn names(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn what_is_named_is_packed_and_a_directory_with_all_below_it() {
    let job = Job::leaving(&[("a.log", "1"), ("b.txt", "2"), ("dist/x/y.js", "3"), ("src/a.log", "4")]);
    fs::create_dir_all(job.path("dist/empty")).unwrap();
    fs::set_permissions(job.path("a.log"), fs::Permissions::from_mode(0o755)).unwrap();
    let packed = job.pack(&["*.log", "dist", "missing/**", "dist/x/y.js"]);
    assert_eq!(packed.names(), ["a.log", "dist/", "dist/empty/", "dist/x/", "dist/x/y.js"]);
    assert_eq!((packed.entries, &*packed.files["a.log"], &*packed.said), (5, "1", ""));
    assert_eq!(packed.named, [true, true, false, true]);
    assert_eq!(fs::metadata(packed.dir.path().join("a.log")).unwrap().permissions().mode() & 0o111, 0o111);
    assert_eq!(job.pack(&["."]).files.len(), 8);
    assert_eq!(job.pack(&["**/*.log"]).names(), ["a.log", "src/", "src/a.log"]);
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let bytes = || {
        let files: Vec<_> = (0..50).map(|i| (format!("d{}/f{i}", i % 7), "x".repeat(i))).collect();
        let job = Job::leaving(&files.iter().map(|(path, text)| (&**path, &**text)).collect::<Vec<_>>());
        let (_, mut zip) = job.try_pack(&["**"], OutputLimits::default(), "").unwrap();
        let mut bytes = Vec::new();
        io::Seek::rewind(&mut zip).unwrap();
        zip.read_to_end(&mut bytes).unwrap();
        bytes
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn links_stay_links_and_lead_nowhere_else() {
    let job = Job::leaving(&[("d/file", "inside")]);
    fs::write(job.dir.path().join("secret"), "outside").unwrap();
    for (name, target) in [
        ("ok", "d/file"),
        ("d/up", "../d/file"),
        ("dangling", "nothing"),
        ("to-directory", "d"),
        ("absolute", "/etc/passwd"),
        ("out", "../secret"),
        ("d/out", "../../secret"),
        ("out-directory", ".."),
        ("sly", "d/up/../../secret"),
    ] {
        symlink(target, job.path(name)).unwrap();
    }
    let packed = job.pack(&["**"]);
    let links: Vec<_> = packed.files.iter().filter(|(_, text)| text.starts_with("->")).collect();
    assert_eq!(links.len(), 4, "{links:?}");
    assert_eq!(packed.files["to-directory"], "-> d");
    for name in ["absolute", "out", "d/out", "out-directory", "sly"] {
        assert!(packed.said.contains(&format!("`{name}` was left out: the link leads out")), "{}", packed.said);
    }
    // A link is not followed on the way either.
    let through = job.pack(&["to-directory/**", "out-directory/secret"]);
    assert_eq!((through.entries, &*through.named), (0, &[false, false][..]));
}

#[test]
fn a_start_that_has_become_a_link_is_not_entered() {
    let job = Job::leaving(&[("sub/deep/file", "inside")]);
    let (found, _) = job.try_pack(&["**"], OutputLimits::default(), "sub/deep").unwrap();
    assert_eq!((found.entries, found.warnings.into_texts().len()), (1, 0));
    fs::rename(job.path("sub"), job.path("moved")).unwrap();
    symlink("/etc", job.path("sub")).unwrap();
    for start in ["sub", "sub/deep", "gone"] {
        let (found, _) = job.try_pack(&["**"], OutputLimits::default(), start).unwrap();
        assert_eq!(found.entries, 0, "{start}");
        assert!(found.warnings.into_texts()[0].contains("the directory that the command started in"));
    }
}

#[test]
fn what_is_no_file_is_left_out_and_nobody_waits_for_it() {
    let job = Job::leaving(&[("z", "last")]);
    nix::unistd::mkfifo(&job.path("pipe"), Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(job.path("socket")).unwrap();
    let packed = job.pack(&["*"]);
    assert_eq!(packed.names(), ["z"]);
    assert!(packed.said.contains("`pipe` was left out: it is a named pipe"), "{}", packed.said);
    assert!(packed.said.contains("`socket` was left out: it is a socket"), "{}", packed.said);
}

#[test]
fn names_that_no_archive_can_have_are_left_out() {
    let job = Job::leaving(&[(r"a\b", "x"), ("fine", "y")]);
    let raw = std::ffi::OsStr::from_bytes(b"not-\xff-utf8");
    fs::write(job.dir.path().join("work").join(raw), "z").unwrap();
    let packed = job.pack(&["*"]);
    assert_eq!(packed.names(), ["fine"]);
    assert!(packed.said.contains("its name is not UTF-8"), "{}", packed.said);
    assert!(packed.said.contains(r"`a\b` was left out"), "{}", packed.said);
    assert_eq!(job.pack(&["fine"]).said, "");
}

#[test]
fn too_deep_and_too_long_are_left_out() {
    let job = Job::leaving(&[("top", "x")]);
    let deep = vec!["d"; 80].join("/");
    fs::create_dir_all(job.path(&deep)).unwrap();
    let long = vec!["n".repeat(250); 6].join("/");
    fs::create_dir_all(job.path(&long)).unwrap();
    let packed = job.pack(&["**"]);
    assert!(packed.said.contains("more than 64 levels deep") && packed.said.contains("more than 1024 bytes"));
    assert_eq!(packed.files["top"], "x");
}

#[test]
fn files_of_others_are_not_read_for_a_job_that_linked_them() {
    let job = Job::leaving(&[("own", "mine")]);
    fs::hard_link(job.path("own"), job.path("again")).unwrap();
    assert_eq!(job.pack(&["*"]).files.len(), 2, "a job's own hard links are files");
    if !is_root() {
        return;
    }
    let secret = job.dir.path().join("secret");
    fs::write(&secret, "root's").unwrap();
    fs::hard_link(&secret, job.path("stolen")).unwrap();
    for given in [job.path(""), job.path("own")] {
        std::os::unix::fs::chown(given, Some(60_999), Some(60_999)).unwrap();
    }
    let packed = job.pack(&["*"]);
    assert_eq!(packed.names(), ["again", "own"]);
    assert!(packed.said.contains("`stolen` was left out: it is a hard link to a file of another user"));
}

#[test]
fn what_may_not_be_read_is_left_out() {
    let job = Job::leaving(&[("d/file", "x"), ("locked", "y"), ("open", "z")]);
    for (path, mode) in [("d", 0o000), ("locked", 0o000), ("..", 0o711)] {
        fs::set_permissions(job.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    // Root reads what it likes, so this thread is somebody else to the file system.
    #[cfg(target_os = "linux")]
    let before = nix::unistd::setfsuid(nix::unistd::Uid::from_raw(if is_root() { 60_999 } else { u32::MAX }));
    let packed = job.pack(&["**"]);
    #[cfg(target_os = "linux")]
    nix::unistd::setfsuid(before);
    assert_eq!(packed.names(), ["open"]);
    assert!(packed.said.contains("`d` was left out: permission denied"), "{}", packed.said);
    assert!(packed.said.contains("`locked` was left out: permission denied"), "{}", packed.said);
}

#[test]
fn a_huge_file_without_content_is_left_out_unread() {
    let job = Job::leaving(&[("small", "x")]);
    File::create(job.path("sparse")).unwrap().set_len(1 << 40).unwrap();
    let packed = job.pack(&["*"]);
    assert_eq!(packed.names(), ["small"]);
    assert!(packed.said.contains("`sparse` was left out: with its 1099511627776 bytes"), "{}", packed.said);
}

#[test]
fn whole_files_are_taken_as_far_as_they_fit() {
    let job = Job::leaving(&[("a", "12345"), ("b", "1234567"), ("c", "123"), ("d", "12")]);
    let packed = job.pack_within(&["*"], OutputLimits { unpacked: 10, ..OutputLimits::default() });
    assert_eq!(packed.names(), ["a", "c", "d"]);
    assert!(packed.said.contains("`b` was left out"), "{}", packed.said);

    let packed = job.pack_within(&["*", "missing"], OutputLimits { entries: 2, ..OutputLimits::default() });
    assert_eq!(packed.names(), ["a", "b"]);
    assert_eq!(packed.said, "outputs: `c` was left out: so was all after it, because there are more than 2 of them");
    assert_eq!(packed.named, [true, true], "nobody knows whether it is missing");

    let noise: String =
        (0..200_000_u32).map(|i| char::from(33 + (i.wrapping_mul(2_654_435_761) >> 25) as u8 % 90)).collect();
    fs::write(job.path("b"), noise).unwrap();
    let packed = job.pack_within(&["*"], OutputLimits { packed: 10_000, ..OutputLimits::default() });
    assert_eq!(packed.names(), ["a", "c", "d"]);
    assert!(packed.bytes <= 10_000 && packed.said.contains("`b` was left out: with it their ZIP would"));
}

#[test]
fn ten_thousand_files_are_packed() {
    let job = Job::leaving(&[]);
    for i in 0..10_000 {
        if i % 100 == 0 {
            fs::create_dir(job.path(&format!("d{}", i / 100))).unwrap();
        }
        fs::write(job.path(&format!("d{}/f{i}", i / 100)), i.to_string()).unwrap();
    }
    let packed = job.pack(&["d*/**"]);
    assert_eq!((packed.files.len(), &*packed.files["d99/f9999"], &*packed.said), (10_100, "9999", ""));
}

#[test]
fn nothing_is_written_any_more_once_it_is_given_up() {
    let job = Job::leaving(&[("a", "x")]);
    let outputs = Outputs::new(&["**".to_owned()]).unwrap();
    let zip = tempfile::tempfile().unwrap();
    let limits = OutputLimits::default();
    let given_up = AtomicBool::new(true);
    pack(job.path("").as_path(), Path::new(""), &outputs, limits, zip, &given_up).unwrap_err();
}
