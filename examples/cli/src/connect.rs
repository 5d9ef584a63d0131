//! Where the server is, and who asks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use cmdexec_transport_http::Client;
use serde::Deserialize;

use crate::args::Server;

const DEFAULT_URL: &str = "http://127.0.0.1:3000";

/// What may stand in the configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    url: Option<String>,
    token: Option<String>,
}

/// The service that was asked for.
pub(crate) fn client(server: &Server) -> anyhow::Result<Client> {
    let (url, token) = named(server)?;
    // `ws` becomes `http`, `wss` becomes `https`.
    let url = url.strip_prefix("ws").map_or_else(|| url.clone(), |rest| format!("http{rest}"));
    Ok(Client::builder(url).user_token(token).build()?)
}

/// The same over a socket. Where there is none, that is soon known.
pub(crate) fn socket(server: &Server) -> anyhow::Result<cmdexec_transport_ws::Client> {
    let (url, token) = named(server)?;
    let mut options = cmdexec_transport_ws::client::Options::default();
    (options.connect_timeout, options.retry_for) = (Duration::from_secs(3), Duration::from_secs(1));
    Ok(cmdexec_transport_ws::Client::builder(url).user_token(token).options(options).build()?)
}

/// The server and the token: a flag beats the environment, which beats the file.
fn named(server: &Server) -> anyhow::Result<(String, String)> {
    let config = config(server)?;
    let url = server.url.clone().or_else(|| variable("CMDEXEC_URL")).or_else(|| variable("SERVER_URL")).or(config.url);
    let url = url.unwrap_or_else(|| DEFAULT_URL.to_owned());
    let token = server.token.clone().or_else(|| variable("CMDEXEC_TOKEN")).or(config.token);
    let Some(token) = token else {
        bail!("there is no token: set CMDEXEC_TOKEN, or make one with `cmdexec token user --id YOU`");
    };
    Ok((url, token))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A file that was named must be there; the usual one may be missing.
fn config(server: &Server) -> anyhow::Result<Config> {
    let named = server.config.clone().or_else(|| variable("CMDEXEC_CONFIG").map(PathBuf::from));
    let Some(path) = named.clone().or_else(usual_file) else { return Ok(Config::default()) };
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => Ok(Config::default()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn parse(text: &str) -> anyhow::Result<Config> {
    // The error's text quotes the line, which may be the token's.
    toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.message()))
}

fn usual_file() -> Option<PathBuf> {
    let folder = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = folder.or_else(|| Some(Path::new(&variable("HOME")?).join(".config")))?;
    Some(folder.join("cmdexec/config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_in_the_file_does_not_show_the_token() {
        let error = parse("token = \"psst\" oops").unwrap_err();
        assert!(!format!("{error:#}").contains("psst"), "{error:#}");
        assert_eq!(parse("url = \"http://here\"").unwrap().url.as_deref(), Some("http://here"));
    }
}
