//! What is counted while a connection has its turn: plain numbers, one set for all connections, so
//! that they stay in the first-level cache. At the end of the turn [`super::meter`] publishes them.

use super::meter::Cause;
use crate::protocol::frame::OpCode;
use crate::trace::kind::Kind;
use std::time::{Duration, SystemTime};

/// Opcodes as on the wire number at most so many.
pub(crate) const OPCODES: usize = 16;

/// What passed in one direction.
#[derive(Clone, Copy, Default)]
pub(crate) struct Flow {
    /// Bytes through the socket, those of TLS and of the opening handshake included.
    pub(crate) socket_bytes: u64,
    /// Not among the rest.
    pub(super) whole: Whole,
    /// There is a rest.
    pub(super) mixed: bool,
    pub(super) rest: Mixed,
}

/// Frames and messages of all kinds.
#[derive(Clone, Copy, Default)]
pub(super) struct Mixed {
    /// Frames by opcode.
    pub(super) frames: [u32; OPCODES],
    /// Payload of the frames, as on the wire, deflated or not.
    pub(super) frame_bytes: u64,
    pub(super) messages: u64,
    /// Messages as the application sees them.
    pub(super) message_bytes: u64,
}

impl Flow {
    #[inline]
    pub(crate) fn frame(&mut self, opcode: u8, length: u64) {
        // benches/trace.rs compares with a build that counts nothing.
        if cfg!(websockex_no_stats) {
            return;
        }
        self.mixed = true;
        self.rest.frames[usize::from(opcode) % OPCODES] += 1;
        self.rest.frame_bytes += length;
    }

    /// A frame that is a message.
    #[inline(always)]
    pub(crate) fn whole(&mut self, opcode: OpCode, length: u64) {
        self.whole.count(opcode, length);
    }

    /// Frames that are messages, counted before.
    #[inline(always)]
    pub(crate) fn add(&mut self, whole: &Whole) {
        self.whole.text += whole.text;
        self.whole.binary += whole.binary;
        self.whole.bytes += whole.bytes;
    }

    /// Anything but bytes?
    #[inline]
    pub(super) fn has_frames(&self) -> bool {
        self.mixed || self.whole.messages() > 0
    }

    /// A message was completed?
    #[inline]
    pub(super) fn has_messages(&self) -> bool {
        self.whole.messages() > 0 || self.rest.messages > 0
    }

    /// Back to nothing: of what hardly ever was anything else, no more than is needed.
    #[inline]
    fn clear(&mut self) {
        self.socket_bytes = 0;
        self.whole = Whole::default();
        if std::mem::take(&mut self.mixed) {
            self.rest = Mixed::default();
        }
    }

    #[inline]
    pub(crate) fn message(&mut self, length: usize) {
        if cfg!(websockex_no_stats) {
            return;
        }
        self.mixed = true;
        self.rest.messages += 1;
        self.rest.message_bytes += length as u64;
    }
}

impl Flow {
    /// A piece of a message.
    pub(crate) fn fragment(&mut self, last: bool, length: usize) {
        self.mixed = true;
        self.rest.messages += u64::from(last);
        self.rest.message_bytes += length as u64;
    }
}

/// Messages that came whole in one frame and as they are: nearly all. Two numbers for each instead of
/// four.
#[derive(Clone, Copy, Default)]
pub(crate) struct Whole {
    pub(super) text: u32,
    pub(super) binary: u32,
    /// Of both, as on the wire and as the application sees them.
    pub(super) bytes: u64,
}

impl Whole {
    #[inline]
    pub(super) fn messages(&self) -> u64 {
        u64::from(self.text) + u64::from(self.binary)
    }

    /// Counts a message, which is text or binary.
    #[inline(always)]
    pub(crate) fn count(&mut self, opcode: OpCode, length: u64) {
        if cfg!(websockex_no_stats) {
            return;
        }
        match opcode {
            OpCode::Binary => self.binary += 1,
            _ => self.text += 1,
        }
        self.bytes += length;
    }
}

/// A step of a connection's life that statistics are interested in, in the order in which one turn
/// can take several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    Began,
    Resolved,
    TcpConnected,
    ProxyConnected,
    TlsEstablished,
    Opened,
}

impl Step {
    pub(crate) const ALL: [Step; 6] = [
        Step::Began,
        Step::Resolved,
        Step::TcpConnected,
        Step::ProxyConnected,
        Step::TlsEstablished,
        Step::Opened,
    ];
}

/// What one turn of one connection brought.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) inbound: Flow,
    pub(crate) outbound: Flow,
    /// Sends that were refused because the queue was full, or came too late.
    pub(crate) drops: u64,
    /// The stamp of the bytes that are delivered, if they have one. It is not counted, but kept where
    /// a message costs nothing for it.
    pub(crate) received_at: Option<SystemTime>,
    /// A bit per [`Step`].
    pub(super) steps: u8,
    pub(super) round_trip_ns: Option<u64>,
    pub(super) disconnects: u64,
    pub(super) reconnect: Option<Cause>,
}

impl Tally {
    /// Notes what a lifecycle event means for the statistics, whether it is recorded or not. With a
    /// constant kind this is one instruction or none.
    #[inline]
    pub(crate) fn note(&mut self, kind: Kind) {
        let step = match kind {
            Kind::Connecting | Kind::Reconnecting => Step::Began,
            Kind::Resolved => Step::Resolved,
            Kind::TcpConnected => Step::TcpConnected,
            Kind::ProxyConnected => Step::ProxyConnected,
            Kind::TlsEstablished => Step::TlsEstablished,
            Kind::Connected | Kind::Reconnected => Step::Opened,
            _ => return,
        };
        self.steps |= 1 << step as u8;
    }

    /// A ping was answered after so long.
    pub(crate) fn round_trip(&mut self, time: Duration) {
        self.round_trip_ns = u64::try_from(time.as_nanos()).ok();
    }

    /// The connection was lost, or an attempt failed; it will be tried again, or not.
    pub(crate) fn disconnected(&mut self, cause: Cause, again: bool) {
        self.disconnects += 1;
        self.reconnect = again.then_some(cause);
    }

    /// Back to nothing.
    #[inline]
    pub(super) fn clear(&mut self) {
        if self.steps != 0 || self.has_rare() {
            *self = Self::default();
        } else {
            self.inbound.clear();
            self.outbound.clear();
        }
    }

    /// Anything that seldom happens?
    pub(super) fn has_rare(&self) -> bool {
        self.disconnects | self.drops > 0 || self.round_trip_ns.is_some()
    }

    /// Of what is rare, has there been nothing but an end without a return?
    pub(super) fn only_ends(&self) -> bool {
        self.reconnect.is_none() && self.drops == 0 && self.round_trip_ns.is_none()
    }

    pub(super) fn took(&self, step: Step) -> bool {
        self.steps & 1 << step as u8 != 0
    }
}
