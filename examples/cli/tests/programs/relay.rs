//! Something between a program and the server that lets sockets through, or does not, and cuts those that are open.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

/// Runs as long as the test does.
pub(crate) struct Relay {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    refuses: bool,
    /// How many sockets were let through, and how many were not.
    opened: usize,
    refused: usize,
    open: Vec<TcpStream>,
}

impl Relay {
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self { port: listener.local_addr().unwrap().port(), seen: Arc::default() };
        let seen = Arc::clone(&relay.seen);
        spawn(move || {
            for near in listener.incoming() {
                let seen = Arc::clone(&seen);
                spawn(move || carry(near.unwrap(), port, &seen));
            }
        });
        relay
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// How many sockets were let through so far.
    pub(crate) fn opened(&self) -> usize {
        self.seen.lock().unwrap().opened
    }

    /// How many sockets were refused so far.
    pub(crate) fn refused(&self) -> usize {
        self.seen.lock().unwrap().refused
    }

    /// Cuts the sockets that are open, and lets none through.
    pub(crate) fn refuse(&self) {
        let mut seen = self.seen.lock().unwrap();
        seen.refuses = true;
        // Those that have ended by themselves can't be cut.
        seen.open.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    /// Lets sockets through again.
    pub(crate) fn allow(&self) {
        self.seen.lock().unwrap().refuses = false;
    }
}

/// Carries one connection; whether it is to be a socket is in its first request's first line.
fn carry(mut near: TcpStream, port: u16, seen: &Mutex<Seen>) {
    let mut first = [0; 16];
    if near.read_exact(&mut first).is_err() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)) else { return };
    if first.starts_with(b"GET /api/ws") {
        let mut seen = seen.lock().unwrap();
        if seen.refuses {
            seen.refused += 1;
            return;
        }
        seen.opened += 1;
        seen.open.extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
    }
    if far.write_all(&first).is_err() {
        return;
    }
    let (near_again, far_again) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let back = spawn(move || through(far_again, near_again));
    through(near, far);
    back.join().unwrap();
}

/// Carries bytes until there are no more, and says so to the other end.
fn through(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
