//! The inbound half of a session: which parser reads the bytes that arrive now.

use super::proxy::Tunnel;
use super::{Life, Time};
use crate::error::ProxyError;
use crate::protocol::decoder::{Decoder, Observer};
use crate::protocol::frame::{FrameHeader, OpCode};
use crate::protocol::handshake::{ClientHandshake, HandshakeError};
use crate::stats::tally::Tally;
use crate::trace::event::Frame;
use crate::trace::kind::{Kind, Subject};
use crate::trace::recorder::Recorder;

/// Who reads the bytes.
pub(crate) enum Inbound {
    /// Nobody: there is no connection, or what comes is of no interest any more.
    Nobody,
    /// The exchange with a proxy.
    Tunnelling(Box<Tunnel>),
    /// The opening handshake.
    Upgrading(Box<ClientHandshake>),
    /// Frames.
    Open(Decoder),
}

impl Inbound {
    /// Gives up an exchange with a proxy, and says what it came to.
    pub(crate) fn finish_tunnel(&mut self) -> Option<ProxyError> {
        match std::mem::replace(self, Self::Nobody) {
            Self::Tunnelling(tunnel) => Some(tunnel.finish()),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Gives up a handshake that is under way, and says what it came to.
    pub(crate) fn finish_handshake(&mut self) -> Option<HandshakeError> {
        match std::mem::replace(self, Self::Nobody) {
            Self::Upgrading(handshake) => Some(handshake.finish()),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// Counts the frames that the decoder sees, but for messages that come whole in one, and records them
/// when the level asks for it. It only borrows; what an event needs is gathered when there is one.
pub(crate) struct FrameTrace<'a> {
    pub(crate) trace: &'a mut Recorder,
    pub(crate) tally: &'a mut Tally,
    pub(crate) life: &'a Life,
    pub(crate) now: Time,
}

impl Observer for FrameTrace<'_> {
    #[inline]
    fn frame(&mut self, header: &FrameHeader, payload: &[u8]) {
        let tally = &mut self.tally.inbound;
        tally.frame(header.opcode as u8, header.payload_length);
        self.record_if_asked(Kind::FrameReceived, header, payload);
    }

    #[inline]
    fn completed(&mut self, opcode: OpCode, message: &[u8]) {
        // As if it had come in one frame.
        let header = FrameHeader::plain(true, opcode, message.len() as u64);
        self.record_if_asked(Kind::FragmentedCompleted, &header, message);
    }
}

impl FrameTrace<'_> {
    #[inline(always)]
    fn record_if_asked(&mut self, kind: Kind, header: &FrameHeader, payload: &[u8]) {
        if self.life.level.records(kind) {
            record(self.trace, self.life, self.now, kind, (*header, payload));
        }
    }
}

/// Are the messages recorded that come whole in one frame?
#[inline(always)]
pub(crate) fn records_whole(life: &Life) -> bool {
    life.level.records(Kind::FrameReceived)
}

/// Records a message that has come whole in one frame; the level must ask for it.
#[inline]
pub(crate) fn record_whole(
    trace: &mut Recorder,
    life: &Life,
    now: Time,
    opcode: OpCode,
    payload: &[u8],
) {
    let frame = Frame {
        opcode: opcode as u8,
        fin: true,
        compressed: false,
        length: payload.len() as u64,
        payload: life.level.shown(payload),
    };
    life.trace_frame(trace, now, Kind::FrameReceived, Subject::None, &frame);
}

/// Apart from the above, and with all its arguments by value: what is never needed while frames are
/// not traced is not stored either.
#[cold]
fn record(
    trace: &mut Recorder,
    life: &Life,
    now: Time,
    kind: Kind,
    (header, payload): (FrameHeader, &[u8]),
) {
    let frame = Frame {
        opcode: header.opcode as u8,
        fin: header.fin,
        compressed: header.rsv1,
        length: header.payload_length,
        payload: life.level.shown(payload),
    };
    life.trace_frame(trace, now, kind, Subject::None, &frame);
}
