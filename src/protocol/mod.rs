//! RFC 6455 and RFC 7692: bytes in, events out. No sockets, clocks, entropy or globals.

pub mod base64;
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
