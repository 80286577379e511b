//! The opening handshake (RFC 6455 §4): the HTTP exchange that turns a TCP or TLS connection into a
//! WebSocket connection.
//!
//! Before it come [`super::url`] and the connection itself; after it the bytes on the connection
//! are frames. The files follow the exchange:
//!
//! | file | what it does |
//! | --- | --- |
//! | `request` | checks what the user wants in the request, and writes it |
//! | `response` | [`ClientHandshake`]: reads the answer and makes every check of §4.1 |
//! | `body` | the start of the body of an answer that refuses |
//! | `extensions` | the grammar of `Sec-WebSocket-Extensions` |
//! | `error` | what can go wrong, by blame |
//! | `server` | the other side, as far as a test peer or an embedded loopback needs it |
//!
//! ```
//! use websockex::protocol::handshake::{ClientHandshake, HandshakeLimits, RequestHead};
//! use websockex::protocol::url::Url;
//!
//! let url = Url::parse("ws://server.example.com/chat")?;
//! let mut out = Vec::new();
//! let nonce = *b"the sample nonce"; // sixteen random bytes, new ones for each connection
//! let request = RequestHead::new(&url);
//! let mut handshake = ClientHandshake::new(&request, nonce, HandshakeLimits::default(), &mut out)?;
//! assert!(out.starts_with(b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\n"));
//!
//! let arrived = b"HTTP/1.1 101 Switching Protocols\r\n\
//!     Upgrade: websocket\r\n\
//!     Connection: Upgrade\r\n\
//!     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
//!     \r\n\
//!     \x81\x02hi";
//! let received = handshake.receive(arrived)?;
//! assert_eq!(received.response.unwrap().status(), 101);
//! assert_eq!(&arrived[received.consumed..], b"\x81\x02hi"); // already a frame
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod body;
mod error;
mod extensions;
mod request;
mod response;
mod server;
#[cfg(test)]
mod tests;

pub use error::{HandshakeError, Misbehaviour, Rejection};
pub use extensions::{Extension, ExtensionError, MAX_EXTENSIONS, MAX_PARAMETERS, parse_extensions};
pub use request::{HeaderError, RequestHead, validate_header};
pub use response::{ClientHandshake, MAX_INTERIM_HEADS, Received, Response};
pub use server::{Answer, ReceivedRequest, ServerHandshake, UpgradeRequest, write_rejection};

use super::{base64, sha1};

/// RFC 6455 §1.3: the GUID that no server which does not know WebSocket would put behind a key.
const GUID: &[u8; 36] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The only protocol version there is: RFC 6455 §4.1, "The value of this header field MUST be 13."
const VERSION: &str = "13";

/// `Sec-WebSocket-Key` as it is written: sixteen bytes in base64.
type Key = [u8; base64::encoded_len(16)];

/// `Sec-WebSocket-Accept` as it is written: a SHA-1 digest in base64.
type Accept = [u8; base64::encoded_len(20)];

/// RFC 6455 §4.2.2 step 5.4: the accept value that answers a key.
fn accept_for(key: &Key) -> Accept {
    let mut text = [0u8; size_of::<Key>() + GUID.len()];
    let (front, back) = text.split_at_mut(key.len());
    front.copy_from_slice(key);
    back.copy_from_slice(GUID);
    base64::encode_array(&sha1::digest_of_key(&text))
}

/// How much of an HTTP exchange is taken from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// The longest head, in bytes from the first line to the blank one. Bytes behind the head do
    /// not count. 16 KiB by default.
    pub max_header_bytes: usize,
    /// How many bytes of the body of a refusing answer are kept, 4 KiB by default. The rest is
    /// never waited for.
    pub max_rejection_body: usize,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self {
            max_header_bytes: 16 * 1024,
            max_rejection_body: 4 * 1024,
        }
    }
}
