//! The inbound half of a session: which parser reads the bytes that arrive now.

use super::{Life, Time};
use crate::protocol::decoder::{Decoder, Observer};
use crate::protocol::frame::{FrameHeader, OpCode};
use crate::protocol::handshake::{ClientHandshake, HandshakeError};
use crate::trace::event::{Event, Frame};
use crate::trace::kind::Kind;
use crate::trace::recorder::Recorder;

/// Who reads the bytes.
pub(crate) enum Inbound {
    /// Nobody: there is no connection, or what comes is of no interest any more.
    Nobody,
    /// The opening handshake.
    Upgrading(Box<ClientHandshake>),
    /// Frames.
    Open(Decoder),
}

impl Inbound {
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

/// Records the frames that the decoder sees, when the level asks for it. One is made for every
/// message, so it only borrows; what an event needs is gathered when there is one.
pub(crate) struct FrameTrace<'a> {
    pub(crate) trace: &'a mut Recorder,
    pub(crate) life: &'a Life,
    pub(crate) now: Time,
}

impl FrameTrace<'_> {
    #[cold]
    fn frame_received(&mut self, header: &FrameHeader, payload: &[u8]) {
        let frame = Frame {
            opcode: header.opcode as u8,
            fin: header.fin,
            compressed: header.rsv1,
            length: header.payload_length,
            payload: self.life.level.shown(payload),
        };
        let event = Event::frame_received(self.now.nanoseconds(), self.life.id, frame);
        self.trace.record(event, self.life.name());
    }

    #[cold]
    fn fragmented_completed(&mut self, opcode: OpCode, message: &[u8]) {
        let frame = Frame {
            opcode: opcode as u8,
            fin: true,
            compressed: false,
            length: message.len() as u64,
            payload: self.life.level.shown(message),
        };
        let event = Event::fragmented_completed(self.now.nanoseconds(), self.life.id, frame);
        self.trace.record(event, self.life.name());
    }
}

impl Observer for FrameTrace<'_> {
    #[inline]
    fn frame(&mut self, header: &FrameHeader, payload: &[u8]) {
        if self.life.level.records(Kind::FrameReceived) {
            self.frame_received(header, payload);
        }
    }

    #[inline]
    fn completed(&mut self, opcode: OpCode, message: &[u8]) {
        if self.life.level.records(Kind::FragmentedCompleted) {
            self.fragmented_completed(opcode, message);
        }
    }
}
