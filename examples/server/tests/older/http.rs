//! HTTP/1.1 by hand over one kept connection, so that what goes over the wire is exactly what is written here.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// How long an answer may take; it only ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The sizes of the chunks that a chunked body is sent in, over and over.
const CHUNKS: [usize; 5] = [1, 5, 64, 1_000, 16_384];

/// One connection to a server.
pub(crate) struct Http {
    authority: String,
    connection: Option<BufReader<TcpStream>>,
}

/// The body of a request.
pub(crate) enum Body<'a> {
    None,
    /// With its content type and `Content-Length`.
    Sized(&'a str, &'a [u8]),
    /// With its content type and `Transfer-Encoding: chunked`.
    Chunked(&'a str, &'a [u8]),
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Http {
    pub(crate) fn to(url: &str) -> Self {
        Self { authority: url.strip_prefix("http://").unwrap().to_owned(), connection: None }
    }

    /// Asks, and waits for the answer.
    pub(crate) fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &Body<'_>) -> Reply {
        self.ask(method, target, headers, body);
        self.answer()
    }

    /// Asks, without a look at the answer.
    pub(crate) fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &Body<'_>) {
        let mut message = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.authority).into_bytes();
        let usual = [("Accept", "application/json, text/plain, */*"), ("Accept-Encoding", "gzip, deflate, br")];
        for (name, value) in usual.iter().chain(headers) {
            write!(message, "{name}: {value}\r\n").unwrap();
        }
        match body {
            Body::None => {}
            Body::Sized(kind, bytes) => {
                write!(message, "Content-Type: {kind}\r\nContent-Length: {}\r\n", bytes.len()).unwrap();
            }
            Body::Chunked(kind, _) => {
                write!(message, "Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\n").unwrap();
            }
        }
        message.extend(b"\r\n");
        let stream = match &mut self.connection {
            Some(connection) => connection.get_mut(),
            none => none.insert(connect(&self.authority)).get_mut(),
        };
        stream.write_all(&message).unwrap();
        match body {
            Body::None => {}
            Body::Sized(_, bytes) => stream.write_all(bytes).unwrap(),
            Body::Chunked(_, bytes) => write_chunked(stream, bytes),
        }
    }

    /// The answer to what was asked.
    pub(crate) fn answer(&mut self) -> Reply {
        let mut connection = self.connection.take().unwrap();
        let reply = Reply::read(&mut connection);
        if reply.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        reply
    }

    /// Closes the connection. The next request makes another.
    pub(crate) fn hang_up(&mut self) {
        self.connection = None;
    }
}

fn connect(authority: &str) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(authority).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

fn write_chunked(stream: &mut TcpStream, mut bytes: &[u8]) {
    for size in CHUNKS.iter().cycle() {
        let (chunk, rest) = bytes.split_at(bytes.len().min(*size));
        // The last one is empty.
        write!(stream, "{:x}\r\n", chunk.len()).unwrap();
        stream.write_all(chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
        if chunk.is_empty() {
            return;
        }
        bytes = rest;
    }
}

impl Reply {
    fn read(connection: &mut BufReader<TcpStream>) -> Self {
        let status = line(connection).split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = line(connection);
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Self { status, headers, body: Vec::new() };
        let length = reply.header("content-length").map(|length| length.parse().unwrap());
        if reply.header("transfer-encoding") == Some("chunked") {
            while let size @ 1.. = u64::from_str_radix(&line(connection), 16).unwrap() {
                connection.take(size).read_to_end(&mut reply.body).unwrap();
                assert_eq!(line(connection), "");
            }
            assert_eq!(line(connection), "");
        } else if let Some(length) = length {
            connection.take(length).read_to_end(&mut reply.body).unwrap();
            assert_eq!(reply.body.len() as u64, length, "the answer broke off");
        }
        reply
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}: {}", self.status, self.text()))
    }

    /// The answer, which must be a success in JSON.
    #[track_caller]
    pub(crate) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        let json = self.json();
        assert_eq!(json["success"], true, "{json}");
        json
    }

    /// The answer, which must be a refusal that older clients understand.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.json()["code"].as_str()), (status, Some(code)), "{}", self.text());
        assert!(self.json()["error"].is_string(), "{}", self.text());
    }
}

fn line(connection: &mut impl BufRead) -> String {
    let mut line = String::new();
    connection.read_line(&mut line).unwrap();
    assert!(line.ends_with("\r\n"), "the answer broke off: {line:?}");
    line.trim_end_matches("\r\n").to_owned()
}
