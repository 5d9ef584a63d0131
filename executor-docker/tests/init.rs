//! The init that the library carries is what its source says, whoever compiles it and wherever.
#![cfg(init)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "helpers of tests fail as tests do"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

include!("../init/rustc.rs");

/// Whom else the init is for, and how an ELF file says so. `scripts/test` has the compiler know them.
const OTHERS: [(&str, u16); 2] = [("aarch64-unknown-linux-musl", 183), ("riscv64gc-unknown-linux-gnu", 243)];

fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Makes the init from the source in `dir`.
fn make(dir: &Path, target: &str) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("made");
    let made =
        rustc().args(ARGUMENTS).args(["--target", target]).arg("-o").arg(&out).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::read(out).unwrap()
}

#[test]
fn the_init_is_made_again_to_the_byte_elsewhere() {
    let carried = include_bytes!(concat!(env!("OUT_DIR"), "/init"));
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let elsewhere = tempfile::Builder::new().prefix("a rather longer path").tempdir().unwrap();
    for folder in ["init", "src"] {
        fs::create_dir(elsewhere.path().join(folder)).unwrap();
    }
    for entry in fs::read_dir(package.join("init")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, elsewhere.path().join("init").join(path.file_name().unwrap())).unwrap();
    }
    fs::copy(package.join("src/wire.rs"), elsewhere.path().join("src/wire.rs")).unwrap();
    assert!(make(elsewhere.path(), env!("INIT_TARGET")) == carried, "other bytes than are carried");
}

#[test]
fn the_init_can_be_made_for_other_machines() {
    for (target, machine) in OTHERS {
        let library = rustc().args(["--print", "target-libdir", "--target", target]).output().unwrap();
        if !Path::new(String::from_utf8(library.stdout).unwrap().trim()).exists() {
            common::skip(&format!("the compiler does not know {target}"));
            continue;
        }
        let made = make(Path::new(env!("CARGO_MANIFEST_DIR")), target);
        assert!(made.starts_with(b"\x7fELF") && made[18..20] == machine.to_le_bytes(), "{target}");
    }
}
