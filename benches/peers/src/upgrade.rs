//! The opening handshake (RFC 6455 §4), both sides, for server and floors.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1_smol::Sha1;

/// A client's request to upgrade.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Path and query.
    pub target: String,
    /// `Sec-WebSocket-Key`.
    pub key: String,
    /// Does it offer permessage-deflate?
    pub deflate: bool,
    /// Bytes of the head.
    pub len: usize,
}

impl Request {
    /// The request that `bytes` begin with, if all of it is there.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let len = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..len]);
        let mut lines = head.split("\r\n");
        let target = lines.next()?.split(' ').nth(1)?.to_owned();
        let mut request = Self {
            target,
            len,
            ..Self::default()
        };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            match name.to_ascii_lowercase().as_str() {
                "sec-websocket-key" => request.key = value.trim().to_owned(),
                "sec-websocket-extensions" => {
                    request.deflate |= value.contains("permessage-deflate");
                }
                _ => {}
            }
        }
        Some(request)
    }

    /// A value of the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The answer that grants it.
    pub fn answer(&self, extension: Option<&str>) -> String {
        let accept = accept(&self.key);
        let extension = extension.map_or(String::new(), |value| {
            format!("Sec-WebSocket-Extensions: {value}\r\n")
        });
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{extension}\r\n"
        )
    }
}

fn accept(key: &str) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(key.as_bytes());
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sha1.digest().bytes())
}

/// What a floor sends to be upgraded; its key is always the same, and the answer is not checked.
pub fn request(authority: &str, target: &str, deflate: bool) -> String {
    let extension = if deflate {
        "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    } else {
        ""
    };
    format!(
        "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n{extension}\r\n"
    )
}
