//! A server with thousands of idle workers at its sockets: what each costs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::task::AbortOnDropHandle;

use crate::table::{Report, mib};
use crate::{children, machine, serve};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How often each beats.
const INTERVAL: Duration = Duration::from_secs(10);

async fn say(socket: &mut Socket, message: serde_json::Value) -> Result<()> {
    Ok(socket.send(Message::text(message.to_string())).await?)
}

/// A worker that has registered and has room for two jobs.
async fn open(url: &str, id: &str, token: &str) -> Result<Socket> {
    let mut request = format!("{url}/api/ws").into_client_request()?;
    request.headers_mut().insert("x-worker-token", token.parse()?);
    let config = WebSocketConfig::default().read_buffer_size(4_096);
    let (mut socket, _) = tokio_tungstenite::connect_async_with_config(request, Some(config), true).await?;
    let body = json!({
        "workerId": id, "hostname": "idle", "cpuCores": 2, "totalMemoryMb": 1024, "slots": 2, "executors": ["process"],
    });
    say(&mut socket, json!({ "type": "register", "id": 1, "body": body })).await?;
    loop {
        let message = socket.next().await.context("the socket ended")??;
        if message.to_text()?.contains("\"ok\"") {
            break;
        }
    }
    say(&mut socket, json!({ "type": "ready", "body": { "workerId": id, "credits": 2 } })).await?;
    Ok(socket)
}

/// Beats until the socket ends.
async fn live(mut socket: Socket, id: String, first: Duration) -> Result<()> {
    let beat = json!({ "workerId": id, "status": "idle", "cpuUsage": 1.0, "ramUsage": 1.0, "running": [] });
    let beat = json!({ "type": "heartbeat", "id": 2, "body": beat }).to_string();
    let mut due = Box::pin(tokio::time::sleep(first));
    loop {
        tokio::select! {
            message = socket.next() => {
                let message = message.context("the socket ended")??;
                ensure!(!message.is_close(), "{message}");
            }
            () = &mut due => {
                socket.send(Message::text(beat.clone())).await?;
                due = Box::pin(tokio::time::sleep(INTERVAL));
            }
        }
    }
}

/// Measures and prints.
pub(crate) async fn bench(dir: &Path, workers: usize, seconds: u64) -> Result<()> {
    let path = dir.join("sockets.db");
    machine::remove_database(&path);
    let (server, url) = children::server(&path).await?;
    // Whatever is made once is made before.
    let token = serve::worker_token()?;
    drop(open(&serve::socket_url(&url), "first", &token).await?);
    let alone = server.used()?;
    let mut tasks = Vec::new();
    for n in 0..workers {
        let id = format!("idle-{n}");
        let socket = open(&serve::socket_url(&url), &id, &token).await?;
        // They beat at different times.
        let first = Duration::from_millis(n as u64 * 7 % 10_000);
        tasks.push(AbortOnDropHandle::new(tokio::spawn(live(socket, id, first))));
    }
    // Until each has beaten once.
    tokio::time::sleep(INTERVAL + Duration::from_secs(2)).await;
    let before = server.used()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = server.used()?;
    ensure!(tasks.iter().all(|task| !task.is_finished()), "a worker was turned away");
    drop(tasks);
    server.kill().await?;
    machine::remove_database(&path);

    let cpu = after.cpu.checked_sub(before.cpu).context("time runs backwards")?;
    let share = cpu.as_secs_f64() / Duration::from_secs(seconds).as_secs_f64() * 100.0;
    let each = after.memory.saturating_sub(alone.memory) as f64 / workers as f64 / 1_024.0;
    let title = format!("{workers} idle workers at their sockets, each beating every 10 s");
    let mut report = Report::new(&title, &["what", "measured", "at most"]);
    report.row(["memory of the server for each".into(), format!("{each:.1} KiB"), "16 KiB".into()]);
    report.row(["memory of the server".into(), mib(after.memory), String::new()]);
    report.row(["memory before they came".into(), mib(alone.memory), String::new()]);
    report.row(["processor, of one core".into(), format!("{share:.1} %"), "10 %".into()]);
    report.print();
    Ok(())
}
