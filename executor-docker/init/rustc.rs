// How the init is compiled, from the package's directory. Beside the target and where to put it, the same compiler needs no more to make the
// same bytes.
const ARGUMENTS: &[&str] = &[
    "--edition=2024",
    "--crate-name=cmdexec_init",
    "--crate-type=bin",
    "init/main.rs",
    "-Copt-level=s",
    "-Cpanic=abort",
    "-Cstrip=symbols",
    "-Ccodegen-units=1",
    "-Clto=off",
    // Not position independent: nothing would relocate it.
    "-Crelocation-model=static",
    "-Ctarget-feature=+crt-static",
    "-Cdebug-assertions=off",
    // Rust's own linker: it needs no compiler of the target's, and puts no path or build id into what it makes.
    "-Clinker=rust-lld",
    "-Clinker-flavor=ld.lld",
    "-Clink-self-contained=no",
    "-Clink-arg=--build-id=none",
    "-Clink-arg=-static",
    "--remap-path-prefix=init=init",
];
