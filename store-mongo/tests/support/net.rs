//! A network between the servers of a replica set that can be cut: each is known to the others and to clients by the address of
//! a proxy. What is cut arrives late, as with a network that loses it and sends it again: nobody is told, and no connection ends.

use std::fs;
use std::sync::{Arc, OnceLock};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Who speaks to whom: a member, or `None` for a client.
#[derive(Debug, Clone, Copy)]
struct Ends {
    from: Option<usize>,
    to: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Net {
    /// Which member can't be reached, and reaches nobody.
    cut: watch::Sender<Option<usize>>,
    /// The members' processes.
    pids: Arc<OnceLock<Vec<u32>>>,
}

impl Net {
    /// Starts proxies before members of these ports. The answer has their addresses too.
    pub(crate) async fn before(ports: &[u16]) -> (Self, Vec<String>) {
        let net = Self { cut: watch::Sender::new(None), pids: Arc::default() };
        let mut addresses = Vec::new();
        for (to, port) in ports.iter().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap().to_string());
            tokio::spawn(net.clone().carry(listener, to, *port));
        }
        (net, addresses)
    }

    /// Whose connections are whose. Until then nobody is let through.
    pub(crate) fn knows(&self, pids: Vec<u32>) {
        self.pids.set(pids).unwrap();
    }

    /// Cuts a member off from the others and from clients.
    pub(crate) fn cut(&self, member: usize) {
        self.cut.send_replace(Some(member));
    }

    pub(crate) fn mend(&self) {
        self.cut.send_replace(None);
    }

    async fn carry(self, listener: TcpListener, to: usize, port: u16) {
        let own = listener.local_addr().unwrap().port();
        while let Ok((near, peer)) = listener.accept().await {
            let Some(pids) = self.pids.get() else { continue };
            let ends = Ends { from: owner(pids, peer.port(), own), to };
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::spawn(pass_on(near_read, far_write, ends, self.cut.subscribe()));
            tokio::spawn(pass_on(far_read, near_write, ends, self.cut.subscribe()));
        }
    }
}

async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, ends: Ends, mut cut: watch::Receiver<Option<usize>>) {
    let is_open = |cut: &Option<usize>| cut.is_none_or(|cut| (ends.from == Some(cut)) == (ends.to == cut));
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        // Also the end of a connection is not heard of meanwhile.
        if cut.wait_for(is_open).await.is_err() || read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Which of these processes has the connection from one port of this machine to another.
fn owner(pids: &[u32], from: u16, to: u16) -> Option<usize> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let ends = [format!("0100007F:{from:04X}"), format!("0100007F:{to:04X}")];
    let inode = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields[1..3] == ends).then(|| fields[9].to_owned())
    })?;
    let socket = format!("socket:[{inode}]");
    let has_it = |pid: &u32| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == &*socket))
    };
    pids.iter().position(has_it)
}
