//! RFC 6455 and RFC 7692: bytes in, events out. No sockets, clocks, entropy or globals.
//!
//! The lowest floor of the crate, usable on its own: whoever has bytes from somewhere else (a
//! capture, a test, a server) can decode and encode them here, in either [`Role`].
//!
//! ```text
//! url -> handshake (http, sha1, base64) -> decoder (frame, mask, utf8, close) -> events
//!                                   payload -> encoder (frame, mask) -> bytes
//! ```

mod assembly;
pub mod base64;
pub mod buffer;
pub mod close;
pub mod decoder;
pub mod deflate;
pub mod encoder;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod http;
pub mod mask;
pub mod sha1;
pub mod url;
pub mod utf8;

/// Which end of the connection a codec plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends masked frames, receives unmasked ones.
    Client,
    /// Sends unmasked frames, receives masked ones.
    Server,
}
