//! Builds the init program that the library carries inside (`init/main.rs` says what it is).
//!
//! The compiler is called directly: a binary of this package could not be embedded in its own library. The program uses no
//! library and no C compiler's start files, so that the same compiler makes the same bytes wherever it runs.

use std::env;
use std::path::Path;
use std::process::Command;

include!("init/rustc.rs");

fn main() {
    println!("cargo::rustc-check-cfg=cfg(init)");
    println!("cargo::rerun-if-changed=init");
    println!("cargo::rerun-if-changed=src/wire.rs");
    let var = |name: &str| env::var(name).unwrap_or_default();
    // The init knows the calls of these systems.
    let known = matches!(var("CARGO_CFG_TARGET_ARCH").as_str(), "x86_64" | "aarch64" | "riscv64")
        && var("CARGO_CFG_TARGET_OS") == "linux"
        && var("CARGO_CFG_TARGET_POINTER_WIDTH") == "64"
        && var("CARGO_CFG_TARGET_ENDIAN") == "little";
    if !known {
        return;
    }
    let out = Path::new(&var("OUT_DIR")).join("init");
    // The test makes it again.
    println!("cargo::rustc-env=INIT_TARGET={}", var("TARGET"));
    let mut rustc = Command::new(var("RUSTC"));
    rustc.args(ARGUMENTS).args(["--target", &var("TARGET")]).arg("-o").arg(&out);
    let complaints = match rustc.output() {
        Ok(done) if done.status.success() => {
            println!("cargo::rustc-cfg=init");
            return;
        }
        Ok(done) => String::from_utf8_lossy(&done.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let first = complaints.lines().find(|line| line.contains("error")).unwrap_or_default();
    println!("cargo::warning=building without the init, so no container can be run: {first}");
}
