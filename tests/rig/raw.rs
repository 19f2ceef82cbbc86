//! Hand-written bytes over plain TCP or TLS, for what a well-behaved client cannot say.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::{ClientConnection, StreamOwned};

use super::PATIENCE;
use super::client::{Answer, Client};

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A connection that says exactly what it is told.
pub(crate) struct Raw {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Raw {
    /// Connects the way the client would, with its TLS settings if it has any.
    pub(crate) fn connect(client: &Client) -> Self {
        let mut socket = TcpStream::connect(client.address).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_nodelay(true).expect("no delay");
        socket.write_all(client.announcement()).expect("the first bytes");
        let stream = match client.tls_config() {
            None => Stream::Plain(socket),
            Some(config) => {
                let session = ClientConnection::new(config, client.tls_name()).expect("a session");
                Stream::Tls(Box::new(StreamOwned::new(session, socket)))
            }
        };
        Self { stream, buffer: Vec::new() }
    }

    /// Sends bytes as they are. A peer that has already hung up is not an error here: what it said before
    /// is still to be read.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _gone = match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(bytes.as_ref()),
            Stream::Tls(stream) => stream.write_all(bytes.as_ref()).and_then(|()| stream.flush()),
        };
        self
    }

    /// Says that nothing more will come, and stays to listen.
    pub(crate) fn finish(&mut self) -> &mut Self {
        let _gone = match &mut self.stream {
            Stream::Plain(socket) => socket.shutdown(Shutdown::Write),
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()
            }
        };
        self
    }

    /// How long to wait for the next bytes.
    pub(crate) fn wait_at_most(&mut self, wait: Duration) -> &mut Self {
        let socket = match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &stream.sock,
        };
        socket.set_read_timeout(Some(wait)).expect("a timeout");
        self
    }

    /// Reads more; nothing means the peer has closed, reset or kept silent for too long.
    fn more(&mut self) -> Result<usize, std::io::Error> {
        let mut block = [0_u8; 65_536];
        let count = match &mut self.stream {
            Stream::Plain(socket) => socket.read(&mut block),
            Stream::Tls(stream) => stream.read(&mut block),
        }?;
        self.buffer.extend_from_slice(&block[..count]);
        Ok(count)
    }

    /// Reads until so many bytes have come.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.more().expect("more bytes") > 0, "closed after {} of {count}", self.buffer.len());
        }
        self.buffer.drain(..count).collect()
    }

    /// Reads one answer. `None`: the connection was closed without one.
    pub(crate) fn try_answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            match self.more() {
                Ok(0) => {
                    assert!(
                        self.buffer.is_empty(),
                        "half a head: {:?}",
                        String::from_utf8_lossy(&self.buffer)
                    );
                    return None;
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer came"),
                Err(_) => return None,
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head).expect("a readable head");
        let (status, headers) = parse_head(&head);
        let body = self.body(status, &headers);
        Some(Answer { status, headers, body })
    }

    /// Reads one answer that must come.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().expect("an answer before the connection is closed")
    }

    fn body(&mut self, status: u16, headers: &HeaderMap) -> Vec<u8> {
        if status == 204 || status == 304 || status < 200 {
            return Vec::new();
        }
        if headers.get("transfer-encoding").is_some() {
            return self.chunks();
        }
        match headers.get("content-length") {
            Some(length) => {
                let length = length.to_str().expect("digits").parse().expect("a length");
                self.bytes(length)
            }
            None => self.rest(),
        }
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            while !self.buffer.contains(&b'\n') {
                assert!(self.more().expect("a chunk") > 0, "closed inside a chunked body");
            }
            let end = self.buffer.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
            let line: Vec<u8> = self.buffer.drain(..end).collect();
            let size =
                usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).expect("a chunk size");
            body.extend(self.bytes(size));
            self.bytes(2);
            if size == 0 {
                return body;
            }
        }
    }

    /// Everything until the peer closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while matches!(self.more(), Ok(count) if count > 0) {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the peer closes within the time, having said nothing more.
    pub(crate) fn is_closed_within(&mut self, wait: Duration) -> bool {
        self.wait_at_most(wait);
        match self.more() {
            Ok(count) => count == 0,
            Err(error) => {
                !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
            }
        }
    }
}

fn parse_head(head: &str) -> (u16, HeaderMap) {
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut headers = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').expect("a field");
        headers.append(
            name.parse::<HeaderName>().expect("a field name"),
            HeaderValue::from_str(value.trim()).expect("a field value"),
        );
    }
    (status.unwrap_or_else(|| panic!("not a status line: {status_line}")), headers)
}
