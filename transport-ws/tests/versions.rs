//! Ends that have no version of the protocol in common: the newer one hears so.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use cmdexec_core::service::Role;
use support::{Bare, World};

#[tokio::test]
async fn a_client_that_speaks_no_version_of_the_servers_hears_why_it_is_closed() {
    let world = World::start().await;
    let token = world.user_token("ada", Role::User);
    for (offered, answered) in [
        ("cmdexec.v999".to_owned(), "cmdexec.v999"),
        ("other, cmdexec.v1000, cmdexec.v999".to_owned(), "cmdexec.v1000"),
        // As browsers do, which show their token there; it is not said back.
        (format!("cmdexec.token.{token}, cmdexec.v999"), "cmdexec.v999"),
    ] {
        let request = world.request(&[("sec-websocket-protocol", &offered)]);
        // As browsers do, this client fails a handshake whose answer names none of its protocols.
        let (socket, response) = tokio_tungstenite::connect_async(request).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], answered);
        assert_eq!(Bare(socket).closed().await, (4406, "this server speaks cmdexec.v1".to_owned()));
    }
}
