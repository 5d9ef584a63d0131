//! How the server starts, or says why not. The tests of all programs together stand beside the command line program.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::process::{Command, Output};

fn server(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cmdexec-server"));
    command.env_clear().args(args).envs(environment.iter().copied()).output().unwrap()
}

#[test]
fn every_wrong_setting_is_said_at_once_and_no_secret() {
    let same = "the same secret for both, 32 characters";
    let output = server(
        &["--port", "65536", "--lease-ms=499"],
        &[
            ("JWT_SECRET", same),
            ("WORKER_TOKEN_SECRET", same),
            ("DATABASE_URL", "mongo://here"),
            ("REDIS_URL", "redis://here"),
            ("ADMIN_PASSWORD", "hunter22"),
            ("ALLOW_SIGNUP", "true"),
            ("CORS_ORIGINS", "https://good.example, not an origin"),
            ("TRUSTED_PROXIES", "10.0.0.0/33"),
            ("LOG_FORMAT", "xml"),
        ],
    );
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    let settings = [
        "PORT (--port)",
        "LEASE_MS (--lease-ms)",
        "WORKER_TOKEN_SECRET: must differ",
        "DATABASE_URL",
        "REDIS_URL",
        "ADMIN_PASSWORD",
        "ALLOW_SIGNUP",
        "CORS_ORIGINS",
        "TRUSTED_PROXIES",
        "LOG_FORMAT",
    ];
    for setting in settings {
        assert!(said.contains(&format!("\n  {setting}")), "{setting} is missing in:\n{said}");
    }
    assert!(said.starts_with("cmdexec-server can't start: 10 settings are wrong."), "{said}");
    assert!(!said.contains(same) && !said.contains("hunter22"), "{said}");
}

#[test]
fn a_file_of_settings_is_read_and_its_mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.toml");
    std::fs::write(&file, "port = \"many\"\nprot = 3000\ncors_origins = [\"https://a.example\"]\n").unwrap();
    let output = server(&["--config", file.to_str().unwrap()], &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("PORT (from the file's port)") && said.contains("prot: there is no such setting"), "{said}");
    assert!(said.contains("2 settings are wrong"), "{said}");
}

#[test]
fn the_help_names_every_setting_and_shows_no_value() {
    let secret = "a secret that nobody may see, ever";
    let output = server(&["--help"], &[("JWT_SECRET", secret)]);
    let help = String::from_utf8(output.stdout).unwrap();
    for name in ["PORT", "BIND", "DATABASE_URL", "JWT_SECRET", "RATE_LIMIT_MAX_JOBS", "RETENTION_DAYS", "METRICS_BIND"]
    {
        assert!(help.contains(&format!("[{name}")), "{name} is missing in:\n{help}");
    }
    assert!(!help.contains(secret));
}

#[test]
fn the_book_names_every_setting() {
    let book = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
    let book = std::fs::read_to_string(book).unwrap();
    let help = String::from_utf8(server(&["--help"], &[]).stdout).unwrap();
    for rest in help.split('[').skip(1) {
        let name: String = rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
        assert!(name.is_empty() || name == "OPTIONS" || book.contains(&format!("`{name}`")), "{name} is missing");
    }
}
