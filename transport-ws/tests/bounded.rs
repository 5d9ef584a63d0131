//! What a peer that reads nothing makes the server keep. A file of its own, because it looks at the memory of the whole process.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "how long a real peer is borne with is measured")]
#![cfg(target_os = "linux")]

mod support;

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::job::{JobSpec, Outcome};
use cmdexec_core::service::{
    FinishedAttempt, JobServiceExt, LeaseRequest, OutputBatch, OutputPieces, Registration, Role, WorkerService,
};
use cmdexec_core::store::Chunk;
use futures_util::SinkExt;
use serde_json::json;
use support::{World, unlimited};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

const MIB: u64 = 1 << 20;

fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Pings and pings and never reads, until nothing more is taken; false if there was no end to it.
async fn pings(world: &World, headers: &[(&str, &str)]) -> bool {
    let mut stream = world.handshake(headers).await;
    let ping: Vec<u8> = [0x89, 0x80 | 0x7D, 0, 0, 0, 0].into_iter().chain([b'x'; 0x7D]).collect();
    let many = ping.repeat(1_000);
    for _ in 0..600 {
        match tokio::time::timeout(Duration::from_millis(500), stream.write_all(&many)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return true,
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_nothing_costs_little() {
    let mut options = unlimited();
    options.max_messages_per_second = u32::MAX;
    options.auth_timeout = Duration::from_secs(120);
    options.ping_interval = Duration::from_secs(120);
    options.write_timeout = Duration::from_secs(120);
    let world = World::with(options).await;
    assert!(pings(&world, &[]).await, "before it has said who it is");
    assert!(pings(&world, &[("x-worker-token", &world.worker_token(Some("w")))]).await);

    // A job that wrote 8 MiB.
    let ada = world.user("ada", Role::User);
    let worker = world.worker(Some("w"));
    let id = "w".parse().unwrap();
    worker.register(Registration { worker: Some("w".parse().unwrap()), ..Registration::new("h", 1, 1) }).await.unwrap();
    let job = ada.submit(JobSpec::shell("x".repeat(500_000))).await.unwrap();
    let lease = worker.lease(&id, LeaseRequest { max: 1, wait: Duration::from_secs(5) }).await.unwrap().remove(0);
    for seq in 0..128 {
        let chunk = Chunk { seq, stream: Stream::Stdout, bytes: Bytes::from(vec![b'x'; 64 * 1024]) };
        let pieces = OutputPieces::Numbered(vec![chunk]);
        let batch = OutputBatch { job: lease.job, token: Some(lease.token), pieces };
        worker.append_output(&id, vec![batch]).await.unwrap().remove(0).unwrap();
    }
    let report = FinishedAttempt::new(&lease, Outcome::Exited { code: 0 });
    worker.finish(&id, vec![report]).await.unwrap().remove(0).unwrap();

    // 64 MiB are asked for, and a GiB.
    let before = memory();
    let mut deaf = world.bare_user("ada").await;
    for id in 0..8 {
        let body = json!({ "jobId": job.id, "events": ["output"], "credits": 100_000 });
        deaf.say(&json!({ "type": "subscribe", "id": id, "body": body })).await;
    }
    let mut greedy = world.bare_user("ada").await;
    for id in 0..64 {
        let ask = json!({ "type": "get", "id": id, "body": { "jobIds": vec![job.id; 32] } });
        let said = greedy.0.send(Message::text(ask.to_string()));
        let _ = tokio::time::timeout(Duration::from_millis(100), said).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let more = memory().saturating_sub(before);
    assert!(more < 40 * MIB, "{} MiB", more / MIB);
    drop(greedy);

    // Once it reads, everything comes.
    let (mut bytes, mut ended) = (0, HashSet::new());
    while ended.len() < 8 {
        let message = deaf.next().await;
        match message["type"].as_str().unwrap() {
            "event" => {
                let events = message["body"]["events"].as_array().unwrap();
                bytes += events.iter().filter_map(|event| event["data"].as_str()).map(str::len).sum::<usize>();
            }
            "end" => {
                ended.insert(message["id"].as_u64().unwrap());
            }
            _ => {}
        }
    }
    assert_eq!(bytes as u64, 8 * 8 * MIB);
}
