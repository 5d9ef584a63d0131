//! The programs before a server that is behind a proxy which speaks TLS, and on machines that trust nobody.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::harness::{Cli, Site, until};
use crate::relay::Relay;

/// Speaks TLS in front of a server as long as it lives.
struct Proxy {
    port: u16,
    /// The certificate, for whoever is to trust it.
    certificate: PathBuf,
    _runtime: Runtime,
}

impl Proxy {
    fn of(site: &Site, relay: &Relay) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = site.path().join("proxy.pem");
        fs::write(&certificate, made.cert.pem()).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let chain = vec![made.cert.der().clone()];
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key.into()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let behind = relay.port();
        runtime.spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Who does not trust the certificate breaks off.
                    let Ok(mut near) = acceptor.accept(near).await else { return };
                    let mut far = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { port, certificate, _runtime: runtime }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}", self.port)
    }
}

/// What a command says on a machine that trusts whom this file names.
fn trusting(certificates: &Path, cli: &Cli, args: &[&str]) -> Output {
    let mut command = cli.command(args);
    command.env("SSL_CERT_FILE", certificates).stdin(Stdio::null()).output().unwrap()
}

fn error(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn everything_goes_over_tls() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let relay = Relay::to(server.port());
    let proxy = Proxy::of(&site, &relay);
    let cli = Cli { url: proxy.url("https"), ..site.cli(&server) };
    let trusted = proxy.certificate.to_str().unwrap();
    for (transport, scheme) in [("http", "https"), ("ws", "wss"), ("auto", "wss")] {
        let sockets = relay.opened();
        let url = proxy.url(scheme);
        let settings = [("SERVER_URL", &*url), ("TRANSPORT", transport), ("SSL_CERT_FILE", trusted)];
        let worker = site.worker(&server, transport, &settings);
        if transport != "http" {
            until("it has a socket", || (relay.opened() > sockets).then_some(()));
        }
        let said = trusting(&proxy.certificate, &cli, &["run", "--max-attempts", "9", "echo here"]);
        assert_eq!(String::from_utf8_lossy(&said.stdout), "here\n", "{transport}: {said:?}");
        drop(worker);
    }
    let before = relay.opened();
    let id = String::from_utf8(trusting(&proxy.certificate, &cli, &["submit", "true"]).stdout).unwrap();
    assert!(trusting(&proxy.certificate, &cli, &["cancel", id.trim()]).status.success());
    let watched = trusting(&proxy.certificate, &cli, &["watch", id.trim()]);
    assert!(String::from_utf8_lossy(&watched.stdout).contains("cancelled"), "{watched:?}");
    assert_eq!(relay.opened(), before + 1, "watched over a socket");
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let relay = Relay::to(server.port());
    let (proxy, other) = (Proxy::of(&site, &relay), Site::new());
    let stranger = Proxy::of(&other, &relay);
    let cli = Cli { url: proxy.url("https"), ..site.cli(&server) };
    let refused = error(&trusting(&stranger.certificate, &cli, &["list"]));
    assert!(refused.contains("invalid peer certificate"), "{refused}");
    assert_eq!(String::from_utf8_lossy(&trusting(&proxy.certificate, &cli, &["list"]).stderr), "");
}

/// As a small image without `ca-certificates`.
#[test]
fn a_machine_that_trusts_nobody_does_without_tls() {
    let site = Site::new();
    let server = site.server(0, &[]);
    let nobody = Path::new("/nonexistent");
    let _worker = site.worker(&server, "w", &[("SSL_CERT_FILE", "/nonexistent")]);
    let plain = site.cli(&server);
    let said = trusting(nobody, &plain, &["run", "echo here"]);
    assert_eq!(String::from_utf8_lossy(&said.stdout), "here\n", "{said:?}");

    let proxy = Proxy::of(&site, &Relay::to(server.port()));
    let refused = error(&trusting(nobody, &Cli { url: proxy.url("https"), ..plain }, &["list"]));
    assert!(refused.contains("No CA certificates"), "{refused}");
}
