//! Builds the launcher program that the process executor carries inside the library (`launcher/main.rs` says why).
//!
//! The compiler is called directly: a binary of this package could not be embedded in its own library. Where the
//! launcher cannot be built, the library is built without it and starts jobs in a plainer way.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(launcher)");
    println!("cargo::rerun-if-changed=launcher");
    println!("cargo::rerun-if-changed=src/executor/process/protocol.rs");
    let var = |name: &str| env::var(name).unwrap_or_default();
    // The launcher knows the system's structures as they are on these.
    let known = matches!(var("CARGO_CFG_TARGET_ARCH").as_str(), "x86_64" | "aarch64" | "riscv64")
        && var("CARGO_CFG_TARGET_OS") == "linux"
        && var("CARGO_CFG_TARGET_POINTER_WIDTH") == "64"
        && var("CARGO_CFG_TARGET_ENDIAN") == "little";
    if !known {
        return;
    }
    let out = Path::new(&var("OUT_DIR")).join("launcher");
    // Linked statically it starts and forks faster; not every system has the libraries for that.
    let mut complaints = String::new();
    for link in ["+crt-static", "-crt-static"] {
        let mut rustc = Command::new(var("RUSTC"));
        rustc.args(["--edition=2024", "--crate-name=cmdexec_launcher", "--crate-type=bin", "launcher/main.rs"]);
        rustc.args(["-Copt-level=3", "-Cpanic=abort", "-Cstrip=symbols", "-Ccodegen-units=1"]);
        rustc.arg(format!("-Ctarget-feature={link}")).args(["--target", &var("TARGET")]);
        if let Ok(linker) = env::var("RUSTC_LINKER") {
            rustc.arg(format!("-Clinker={linker}"));
        }
        rustc.arg("-o").arg(&out);
        match rustc.output() {
            Ok(done) if done.status.success() => {
                println!("cargo::rustc-cfg=launcher");
                return;
            }
            Ok(done) => complaints = String::from_utf8_lossy(&done.stderr).into_owned(),
            Err(error) => complaints = error.to_string(),
        }
    }
    let first = complaints.lines().find(|line| line.contains("error")).unwrap_or_default();
    println!("cargo::warning=building without the launcher, so jobs are isolated less: {first}");
}
