//! The init that the library carries is what its source says, whoever compiles it and wherever.
#![cfg(init)]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

include!("../init/rustc.rs");

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
    let out = elsewhere.path().join("made");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(ARGUMENTS).args(["--target", env!("INIT_TARGET")]).arg("-o").arg(&out);
    let made = rustc.current_dir(elsewhere.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(fs::read(out).unwrap() == carried, "other bytes than are carried");
}
