//! Each line of the threat model (`docs/design/containers.md`), tried from inside a job, in containers that were ready, that were made
//! for the job, and that are talked to through the daemon.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "helpers of tests fail as tests do"
)]

mod common;

use cmdexec_core::job::{JobSpec, Network};
use cmdexec_executor_docker::Options;
use cmdexec_testkit::executor::Subject;

use common::{complaint, subject};

/// Runs each of these tests against each way that containers are had.
macro_rules! breakouts {
    ($($name:ident)*) => {
        mod ready { $(#[tokio::test] async fn $name() { super::attempt(|_| (), super::$name).await; })* }
        mod cold { $(#[tokio::test] async fn $name() { super::attempt(|o| o.pool.most = 0, super::$name).await; })* }
        mod attached { $(#[tokio::test] async fn $name() { super::attempt(|o| o.attach = true, super::$name).await; })* }
    };
}

async fn attempt(change: impl FnOnce(&mut Options), what: impl AsyncFn(&Subject)) {
    if let Some(subject) = subject(change).await {
        what(&subject).await;
    }
}

breakouts! {
    it_has_no_privileges_and_can_gain_none
    it_is_nobody_and_owns_only_its_own
    the_images_files_are_not_its_to_change
    nothing_of_the_machine_is_mounted
    it_can_mount_nothing_and_make_no_namespace
    there_are_no_devices
    the_kernels_settings_are_out_of_reach
    it_sees_no_process_but_its_own
    the_first_process_is_out_of_reach
    no_descriptor_leads_out
    the_way_to_the_executor_is_closed
    there_is_no_network
    its_surroundings_say_nothing_of_the_machine
    what_is_in_memory_is_its_own
    a_fork_bomb_ends_with_its_job
    what_it_leaves_cannot_hurt_the_worker
}

/// Every one of these commands must fail.
async fn all_fail(subject: &Subject, commands: &[&str]) {
    let lines = commands
        .iter()
        .map(|command| format!("({command}) >/dev/null 2>&1 && echo '{}'\n", command.replace('\'', "'\\''")));
    let succeeded = subject.sh(&format!("{}true", lines.collect::<String>())).await.succeeded();
    assert_eq!(succeeded, "", "these should have failed");
}

async fn it_has_no_privileges_and_can_gain_none(subject: &Subject) {
    let status = subject.sh("cat /proc/self/status").await.succeeded();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("the field").trim().to_owned();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), 0, "{set}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".to_owned(), "2".to_owned()));
}

async fn it_is_nobody_and_owns_only_its_own(subject: &Subject) {
    let said = subject
        .sh("id -u; id -g; id -G; stat -c %u . ; cp /bin/busybox busybox; chmod 4755 busybox; ./busybox id -u")
        .await
        .succeeded();
    let own = said.lines().next().unwrap().to_owned();
    assert!(own != "0" && said.lines().all(|line| line == own), "{said}");
    all_fail(subject, &["chown 0 .", "su -c true", "chroot / true", "nice -n -5 true"]).await;
}

async fn the_images_files_are_not_its_to_change(subject: &Subject) {
    all_fail(
        subject,
        &["echo > /x", "echo > /bin/x", "rm /bin/ls", "echo >> /etc/passwd", "mkdir /etc/x", "echo > /.cmdexec/x"],
    )
    .await;
    subject.sh("echo x > /tmp/x && echo x > x && echo x > /dev/shm/x").await.succeeded();
}

async fn nothing_of_the_machine_is_mounted(subject: &Subject) {
    let seen =
        subject.sh("cat /proc/self/mountinfo; ls /work/..; ls /var/run /run 2>/dev/null; true").await.succeeded();
    assert!(!seen.contains("docker.sock") && !seen.contains(".sock "), "{seen}");
    let fields = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
    for mount in seen.lines().map(fields).filter(|mount| mount.len() > 6 && mount.iter().any(|field| field == "-")) {
        let (at, options) = (&mount[4], &mount[5]);
        let is_known = [
            "/",
            "/proc",
            "/dev",
            "/sys",
            "/tmp",
            "/work",
            "/.cmdexec",
            "/etc/resolv.conf",
            "/etc/hostname",
            "/etc/hosts",
        ]
        .contains(&at.as_str())
            || ["/proc/", "/dev/", "/sys/"].iter().any(|below| at.starts_with(below));
        assert!(is_known, "{at} is mounted");
        // The files under /etc are the daemon's, private to the container; the root is read-only around them.
        assert!(at != "/.cmdexec" || options.starts_with("ro"), "{mount:?}");
        assert!(at != "/" || options.starts_with("ro"), "{mount:?}");
    }
    all_fail(subject, &["echo > /etc/hosts", "echo > /etc/resolv.conf", "echo > /etc/hostname"]).await;
}

async fn it_can_mount_nothing_and_make_no_namespace(subject: &Subject) {
    all_fail(
        subject,
        &[
            "mount -t tmpfs none /tmp",
            "mount -t proc none /tmp",
            "mount -o remount,rw /",
            "mount -o remount,bind,rw /.cmdexec",
            "mount --bind / /tmp",
            "umount /tmp",
            "umount -l /work",
            "unshare -U true",
            "unshare -m true",
            "unshare -n true",
            "nsenter -t 1 -m true",
            "pivot_root . .",
        ],
    )
    .await;
}

async fn there_are_no_devices(subject: &Subject) {
    let devices = subject.sh("ls /dev; find / -xdev -type b 2>/dev/null; true").await.succeeded();
    let known = [
        "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero", "console",
    ];
    for device in devices.lines() {
        assert!(known.contains(&device), "{device}");
    }
    all_fail(subject, &["mknod d b 8 0", "mknod /tmp/d c 1 1", "mknod /dev/d c 1 1"]).await;
}

async fn the_kernels_settings_are_out_of_reach(subject: &Subject) {
    all_fail(
        subject,
        &[
            "echo x > /proc/sys/kernel/core_pattern",
            "echo x > /proc/sys/kernel/hostname",
            "echo b > /proc/sysrq-trigger",
            "head -c 1 /proc/kcore | grep -q .",
            "grep -q . /proc/keys",
            "head -c 1 /proc/timer_list | grep -q .",
            "hostname other",
            "date -s 2000-01-01; test $(date +%Y) = 2000",
            "dmesg",
            "echo 1 > /sys/fs/cgroup/memory/memory.limit_in_bytes",
            "mkdir /sys/fs/cgroup/x",
            "mkdir /sys/fs/cgroup/memory/x",
            "echo 0 > /proc/1/oom_score_adj",
            "echo -1000 > /proc/self/oom_score_adj",
        ],
    )
    .await;
}

async fn it_sees_no_process_but_its_own(subject: &Subject) {
    let mut other = subject.begin(JobSpec::shell("echo ready; sleep 100"));
    other.until("ready").await;
    let seen = subject.sh("for d in /proc/[0-9]*; do tr '\\0' ' ' < $d/cmdline; echo; done").await.succeeded();
    assert!(!seen.contains("sleep 100") && !seen.contains("dockerd"), "{seen}");
    assert!(seen.lines().count() <= 3, "{seen}");
    // Nor can it end them all: it is told how its own command ended, and the other goes on.
    subject.sh("kill -9 -1; exit 3").await;
    other.stop.cancel();
    other.end().await;
}

async fn the_first_process_is_out_of_reach(subject: &Subject) {
    all_fail(
        subject,
        &[
            "ls /proc/1/fd/ | grep -q .",
            "cat /proc/1/environ",
            "head -c 1 /proc/1/mem",
            "cat /proc/1/maps | grep -q .",
            "ls /proc/1/root/",
            "ls /proc/1/cwd/",
            "readlink /proc/1/exe",
            "cat /proc/1/stack",
        ],
    )
    .await;
    // It gets no signal that it does not expect, and is still there to say how the command ended.
    subject.sh("for s in 1 2 3 6 9 11 15 19 24; do kill -$s 1; done; sleep 0.1; exit 5").await.exited(5);
}

async fn no_descriptor_leads_out(subject: &Subject) {
    // Three streams, and the directory that is being listed.
    assert_eq!(subject.sh("ls /proc/self/fd | wc -l").await.succeeded().trim(), "4");
    let seen = subject.sh("ls -l /proc/self/fd; pwd; ls -a ..").await.succeeded();
    assert!(!seen.contains("socket:") && seen.contains("/work\n") && seen.contains(".cmdexec"), "{seen}");
}

async fn the_way_to_the_executor_is_closed(subject: &Subject) {
    assert_eq!(subject.sh("ls /.cmdexec").await.succeeded(), "init\n");
    // Another init is only a program that finds nobody to talk to.
    all_fail(subject, &["/.cmdexec/init /.cmdexec/socket"]).await;
}

async fn there_is_no_network(subject: &Subject) {
    let seen = subject.sh("cat /proc/net/dev /proc/net/route /proc/net/tcp").await.succeeded();
    assert!(!seen.contains("eth0"), "{seen}");
    all_fail(
        subject,
        &["ping -c 1 -W 1 127.0.0.1", "nc -w 1 1.1.1.1 53", "ip link add type veth", "ifconfig lo 10.0.0.1"],
    )
    .await;
    let mut asks = JobSpec::shell("true");
    asks.network = Some(Network::Bridge);
    assert!(complaint(&subject.run(asks).await.outcome).contains("a network"));
}

async fn its_surroundings_say_nothing_of_the_machine(subject: &Subject) {
    let seen = subject.sh("hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf; env").await.succeeded();
    let machine = nix::unistd::gethostname().unwrap().into_string().unwrap();
    assert!(seen.starts_with("job\njob\n") && !seen.contains(&machine), "{machine} is in {seen}");
    for line in std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default().lines() {
        let told = line.split_whitespace().nth(1).unwrap_or("127.0.0.1");
        assert!(["127.0.0.1", "::1", "."].contains(&told) || !seen.contains(told), "{told} is in {seen}");
    }
}

async fn what_is_in_memory_is_its_own(subject: &Subject) {
    let mut other = subject.begin(JobSpec::shell("echo x > /tmp/mine; echo x > /dev/shm/mine; echo ready; sleep 100"));
    other.until("ready").await;
    assert_eq!(
        subject.sh("ls /tmp /dev/shm /dev/mqueue | grep mine; tail -n +2 /proc/sysvipc/shm; true").await.succeeded(),
        ""
    );
    // And it is bounded.
    all_fail(subject, &["head -c 100000000 /dev/zero > /tmp/large", "head -c 100000000 /dev/zero > /dev/shm/large"])
        .await;
    other.stop.cancel();
    other.end().await;
}

async fn a_fork_bomb_ends_with_its_job(subject: &Subject) {
    let mut spec = JobSpec::shell("f() { f | f & }; f; sleep 1; exit 4");
    spec.resources.pids = Some(64);
    spec.resources.cpu_millis = Some(500);
    let ended = subject.run(spec).await;
    assert!(!ended.outcome.is_success(), "{:?}", ended.outcome);
    subject.sh("echo alive").await.succeeded();
}

async fn what_it_leaves_cannot_hurt_the_worker(subject: &Subject) {
    let line = "ln -s /etc/passwd link; mkdir -p a/b; ln -s / a/b/root; mkfifo pipe; chmod 000 a; : > ' -rf'; : > \"$(printf 'a\\nb')\"";
    let ended = subject.sh(line).await;
    ended.succeeded();
    std::fs::remove_dir_all(&ended.dir).unwrap();
    assert!(std::path::Path::new("/etc/passwd").exists());
}

/// With a network, jobs reach the outside by it and not each other.
#[tokio::test]
async fn jobs_with_a_network_do_not_reach_each_other() {
    let Some(subject) = subject(|options| options.policy.network = true).await else { return };
    let with_network = |line: &str| {
        let mut spec = JobSpec::shell(line);
        spec.network = Some(Network::Bridge);
        spec
    };
    let serve =
        "ip -4 addr show eth0 | sed -n 's/.*inet \\([0-9.]*\\).*/at \\1 end/p'; nc -ll -p 4000 -e /bin/echo reached";
    let mut server = subject.begin(with_network(serve));
    server.until(" end").await;
    let text = server.text();
    let address = text.split_whitespace().nth(1).unwrap();
    // It can be reached from the machine, so that the next is no matter of its not listening.
    let address: std::net::SocketAddr = format!("{address}:4000").parse().unwrap();
    let mut tries = 0;
    while let Err(error) = std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(1)) {
        tries += 1;
        assert!(tries < 50, "{error}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let (address, port) = (address.ip(), address.port());
    subject.run(with_network(&format!("nc -w 2 {address} {port} < /dev/null"))).await.exited(1);
    let seen = subject.run(with_network("ip route; hostname; cat /proc/self/status")).await.succeeded();
    assert!(seen.contains("default via") && seen.contains("CapEff:\t0000000000000000"), "{seen}");
    server.stop.cancel();
    server.end().await;
    subject.executor.shutdown().await;
}

/// As the image's own user, which is root, a job has no more rights, and what it writes is removed all the same.
#[tokio::test]
async fn root_in_a_container_has_no_privileges() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let Some(subject) = subject(|options| options.policy.image_user = true).await else { return };
    assert_eq!(subject.sh("id -u").await.succeeded(), "0\n");
    it_has_no_privileges_and_can_gain_none(&subject).await;
    it_can_mount_nothing_and_make_no_namespace(&subject).await;
    there_are_no_devices(&subject).await;
    all_fail(
        &subject,
        &["chown 1 .", "echo > /x", "cat /proc/1/environ", "readlink /proc/1/fd/3", "cat < /proc/1/fd/3"],
    )
    .await;
    let ended = subject.sh("mkdir -p deep/er; echo x > deep/er/file; chmod 000 deep").await;
    ended.succeeded();
    std::fs::remove_dir_all(&ended.dir).unwrap();
}
