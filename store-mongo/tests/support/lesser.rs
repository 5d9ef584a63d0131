//! A server that lacks what Amazon DocumentDB lacks, or may lack: change streams and retryable writes. It is a real one, behind a proxy
//! that refuses them in its place.

use std::sync::Arc;

use mongodb::bson::{RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// The head of a message: its length, its number, which it answers, and what it is.
const HEAD: usize = 16;

/// What it is that requests and answers are.
const MESSAGE: [u8; 4] = 2013_u32.to_le_bytes();

/// Starts it before a member of a replica set; it lasts as long as the process. The answer is its address.
pub(crate) fn start(member: &str) -> String {
    let member = member.to_owned();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&member).await else { continue };
                let ((from, to), (back_from, on)) = (near.into_split(), far.into_split());
                let to = Arc::new(Mutex::new(to));
                tokio::spawn(requests(from, on, Arc::clone(&to)));
                tokio::spawn(answers(back_from, to));
            }
        });
    });
    format!("mongodb://{address}/?directConnection=true")
}

async fn requests(mut from: OwnedReadHalf, mut on: OwnedWriteHalf, back: Arc<Mutex<OwnedWriteHalf>>) {
    while let Some(message) = read(&mut from).await {
        let sent = match refusal(&message) {
            Some(refusal) => back.lock().await.write_all(&answer(&message, &refusal)).await,
            None => on.write_all(&message).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn answers(mut from: OwnedReadHalf, to: Arc<Mutex<OwnedWriteHalf>>) {
    while let Some(message) = read(&mut from).await {
        if to.lock().await.write_all(&message).await.is_err() {
            return;
        }
    }
    let _ = to.lock().await.shutdown().await;
}

async fn read(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut message = vec![0; HEAD];
    from.read_exact(&mut message).await.ok()?;
    let length = u32::from_le_bytes(message[..4].try_into().unwrap()) as usize;
    message.resize(length, 0);
    from.read_exact(&mut message[HEAD..]).await.ok()?;
    Some(message)
}

/// What the server says to a request that it does not know.
fn refusal(message: &[u8]) -> Option<RawDocumentBuf> {
    if message[12..HEAD] != MESSAGE {
        return None;
    }
    // After the flags and the kind of the section, which is the command itself.
    let body = &message[HEAD + 5..];
    assert_eq!(message[HEAD + 4], 0, "the driver sends the command first");
    let length = u32::from_le_bytes(body[..4].try_into().unwrap()) as usize;
    let command = RawDocument::from_bytes(&body[..length]).unwrap();
    let no = |code: i32, why: &str| Some(rawdoc! { "ok": 0.0, "code": code, "codeName": "Refused", "errmsg": why });
    let first = command.get_array("pipeline").ok().and_then(|stages| stages.into_iter().next()?.ok());
    let first = first.and_then(RawBsonRef::as_document);
    if first.is_some_and(|stage| stage.get("$changeStream").unwrap().is_some()) {
        return no(40_324, "Unrecognized pipeline stage name: '$changeStream'");
    }
    let is_numbered = command.get("txnNumber").unwrap().is_some();
    if is_numbered && command.get("autocommit").unwrap().is_none() {
        return no(301, "Retryable writes are not supported");
    }
    None
}

fn answer(request: &[u8], document: &RawDocumentBuf) -> Vec<u8> {
    let length = u32::try_from(HEAD + 5 + document.as_bytes().len()).unwrap();
    let mut answer = Vec::new();
    answer.extend(length.to_le_bytes());
    answer.extend([0; 4]);
    answer.extend(&request[4..8]);
    answer.extend(MESSAGE);
    answer.extend([0; 5]);
    answer.extend(document.as_bytes());
    answer
}
