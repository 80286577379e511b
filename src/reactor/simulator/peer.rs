//! The other end of a simulated TCP connection, as the network calls it.

use super::log::Log;
use std::time::Duration;

/// A server, or a proxy.
pub(super) trait Peer {
    /// Bytes have arrived.
    fn receive(&mut self, line: &mut Line<'_>, bytes: &[u8]);

    /// The time that it asked for with [`Line::wake`] has come.
    fn wake(&mut self, line: &mut Line<'_>) {
        let _ = line;
    }

    /// The client has ended its side.
    fn end(&mut self, line: &mut Line<'_>) {
        line.end = Some(End::Finished);
    }
}

/// How a peer ends its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// In good order, after all it has sent.
    Finished,
    /// With a reset.
    Reset,
}

/// What a peer may do in a call.
pub(super) struct Line<'a> {
    /// The number of the connection.
    pub(super) number: usize,
    pub(super) log: &'a Log,
    /// What it sends.
    pub(super) output: Vec<u8>,
    pub(super) end: Option<End>,
    /// When it wants to be called again.
    pub(super) wake: Option<Duration>,
    /// Does it read what arrives?
    pub(super) reads: bool,
}
