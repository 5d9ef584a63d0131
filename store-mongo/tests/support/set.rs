//! Servers of a test's own, to be killed, stepped down and frozen.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mongodb::bson::doc;

use super::{direct, initiate};

/// Servers of one replica set, which end with the test.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) members: Vec<Member>,
    _data: tempfile::TempDir,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) address: String,
    port: u16,
    data: PathBuf,
    is_alone: bool,
    process: Option<Child>,
}

impl Member {
    pub(crate) fn start(&mut self) {
        let program = std::env::var_os("CMDEXEC_TEST_MONGOD").expect("CMDEXEC_TEST_MONGOD: scripts/test installs one");
        std::fs::create_dir_all(&self.data).unwrap();
        let mut command = Command::new(program);
        command.arg("--dbpath").arg(&self.data).arg("--port").arg(self.port.to_string());
        command.args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--oplogSize", "64"]);
        if !self.is_alone {
            command.args(["--replSet", "rs0"]);
        }
        command.args(["--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=false"]);
        // So that it can be told to fail.
        command.args(["--setParameter", "enableTestCommands=1"]);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
    }

    /// Its own address, past any network.
    pub(crate) fn own_address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops it where it stands, until it is resumed.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
        // It has been told; each of its threads may still answer one more call until it heeds it. Linux says when all have.
        let tasks = format!("/proc/{}/task", self.pid());
        let stands = |stat: &str| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
        while std::fs::read_dir(&tasks).is_ok_and(|mut tasks| {
            tasks
                .any(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).is_ok_and(|stat| !stands(&stat)))
        }) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pid()]).status().unwrap().success());
    }

    fn pid(&self) -> String {
        self.process.as_ref().unwrap().id().to_string()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Set {
    /// Three.
    pub(crate) async fn start() -> Self {
        Self::of(3, None).await
    }

    /// So many, with their data in a directory of their own in this one; by default in memory, where there is such a place.
    pub(crate) async fn of(count: usize, at: Option<&Path>) -> Self {
        let set = Self::begin(count, at, false);
        let addresses: Vec<&str> = set.members.iter().map(|member| member.address.as_str()).collect();
        initiate(&addresses).await;
        set
    }

    /// Three that reach each other, and are reached, over a network that can be cut.
    #[cfg(target_os = "linux")]
    pub(crate) async fn over_net() -> (Self, super::net::Net) {
        let mut set = Self::begin(3, None, false);
        let ports: Vec<u16> = set.members.iter().map(|member| member.port).collect();
        let (net, addresses) = super::net::Net::before(&ports).await;
        net.knows(set.members.iter().filter_map(|member| Some(member.process.as_ref()?.id())).collect());
        for (member, address) in set.members.iter_mut().zip(&addresses) {
            member.address.clone_from(address);
        }
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        initiate(&addresses).await;
        (set, net)
    }

    /// One that is no member of a replica set. It may not answer yet.
    pub(crate) fn alone() -> Self {
        Self::begin(1, None, true)
    }

    fn begin(count: usize, at: Option<&Path>, is_alone: bool) -> Self {
        let shm = Path::new("/dev/shm");
        let at = at.or(shm.is_dir().then_some(shm));
        let data = at.map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
        let ports: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let member = |listener: &TcpListener| {
            let port = listener.local_addr().unwrap().port();
            let directory = data.path().join(port.to_string());
            Member { address: format!("127.0.0.1:{port}"), port, data: directory, is_alone, process: None }
        };
        let mut members: Vec<Member> = ports.iter().map(member).collect();
        drop(ports);
        members.iter_mut().for_each(Member::start);
        Self { members, _data: data }
    }

    pub(crate) fn address(&self) -> String {
        let members: Vec<&str> = self.members.iter().map(|member| member.address.as_str()).collect();
        format!("mongodb://{}/failover?replicaSet=rs0", members.join(","))
    }

    /// The primary dies and comes back, and the next one steps down; after each, what the callers do must go on.
    pub(crate) async fn lose_primaries(&mut self, goes_on: &impl AsyncFn(&str)) {
        let first = self.primary(None).await;
        self.members[first].kill();
        goes_on("the primary was killed").await;
        self.members[first].start();

        let second = self.primary(Some(first)).await;
        let admin = direct(&self.members[second].address).await.database("admin");
        // It may close the connection that asked.
        let _ = admin.run_command(doc! { "replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 2 }).await;
        goes_on("the primary stepped down").await;
    }

    /// Whether a member takes writes, by its own word.
    pub(crate) async fn is_primary(&self, member: usize) -> bool {
        let admin = direct(&self.members[member].own_address()).await.database("admin");
        let hello = admin.run_command(doc! { "hello": 1 }).await;
        hello.is_ok_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false))
    }

    /// Which member is the primary, by the word of the others that are there.
    pub(crate) async fn primary(&self, not: Option<usize>) -> usize {
        loop {
            for (n, member) in self.members.iter().enumerate() {
                if Some(n) == not || member.process.is_none() {
                    continue;
                }
                if tokio::time::timeout(Duration::from_secs(2), self.is_primary(n)).await == Ok(true) {
                    return n;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
