//! A message that has not arrived whole: what the [`decoder`](super::decoder) gathers when a read cuts
//! a frame, or several frames make a message. And the [`Pool`] that these come from and return to, so
//! that an idle connection owns no buffer.

use super::buffer::MessageBuffer;
use super::decoder::{Limits, Observer};
use super::deflate::Inflater;
use super::error::ProtocolError;
use super::frame::{
    BEGINS_BINARY, BEGINS_TEXT, CONTINUES, ENDS, FrameHeader, LEAST_FRAME, MAX_CONTROL_PAYLOAD,
    MAX_HEADER_LENGTH, OpCode, split_plain,
};
use super::mask;

/// An incomplete header, frame or message.
pub(super) struct Assembly {
    pub(super) header: [u8; MAX_HEADER_LENGTH],
    /// Bytes of `header` that have arrived; zero when a frame's payload is awaited, or nothing.
    pub(super) header_length: usize,
    /// The frame whose payload is still arriving.
    pub(super) frame: Option<PartialFrame>,
    /// The message under way: what its first frame said.
    pub(super) kind: Option<MessageKind>,
    pub(super) message: MessageBuffer,
    /// Inflates the message under way; `None` if it is not compressed.
    pub(super) inflater: Option<Box<Inflater>>,
    pub(super) control: [u8; MAX_CONTROL_PAYLOAD],
    pub(super) control_length: usize,
    /// The message was handed out; the assembly is free at the next call.
    pub(super) delivered: bool,
}

#[derive(Clone, Copy)]
pub(super) struct PartialFrame {
    pub(super) header: FrameHeader,
    /// Payload bytes that have arrived.
    pub(super) received: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageKind {
    Text,
    Binary,
}

impl Assembly {
    fn new() -> Self {
        Self {
            header: [0; MAX_HEADER_LENGTH],
            header_length: 0,
            frame: None,
            kind: None,
            message: MessageBuffer::default(),
            inflater: None,
            control: [0; MAX_CONTROL_PAYLOAD],
            control_length: 0,
            delivered: false,
        }
    }

    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.message.capacity()
    }

    fn reset(&mut self) {
        self.message.clear();
        self.header_length = 0;
        self.frame = None;
        self.kind = None;
        self.inflater = None;
        self.control_length = 0;
        self.delivered = false;
    }

    /// Forgets a message that was handed out.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.delivered = false;
        self.message.clear();
        self.kind = None;
    }

    /// Forgets a message that was handed out, for another one in its place. False if there is none, or
    /// something has to be returned: an inflater, or the memory of a large message.
    #[inline(always)]
    pub(super) fn begin_anew(&mut self) -> bool {
        let can = self.delivered
            && self.inflater.is_none()
            && self.message.capacity() <= MAX_RETAINED_BUFFER;
        if can {
            self.clear();
        }
        can
    }

    /// Nothing incomplete in it?
    pub(super) fn is_idle(&self) -> bool {
        self.header_length == 0 && self.frame.is_none() && self.kind.is_none()
    }

    /// Takes the fragments of an uncompressed message that lie whole and in order in `input`, those
    /// of a server: what a message in fragments consists of nearly always. True when the last one
    /// was among them. False says only that the message is not complete; the long way has to look
    /// why.
    ///
    /// They are validated together and not one by one: a complete message by the caller, when it
    /// makes text of it, and here what has come of one that is not complete.
    #[inline(always)]
    pub(super) fn take_fragments(
        &mut self,
        input: &mut &[u8],
        limits: &Limits,
        observer: &mut impl Observer,
    ) -> Result<bool, ProtocolError> {
        if self.header_length > 0 || self.frame.is_some() || self.inflater.is_some() {
            return Ok(false);
        }
        let mut rest = *input;
        let mut is_complete = false;
        while !is_complete && let Some(&[first, ..]) = rest.first_chunk::<LEAST_FRAME>() {
            // Something is under way if, and only if, this goes on with it.
            let (opcode, kind) = match (first, self.kind) {
                (CONTINUES | ENDS, Some(kind)) => (OpCode::Continuation, kind),
                (BEGINS_TEXT, None) => (OpCode::Text, MessageKind::Text),
                (BEGINS_BINARY, None) => (OpCode::Binary, MessageKind::Binary),
                _ => break,
            };
            let Some((payload, behind)) = split_plain(rest) else {
                break;
            };
            let length = payload.len() as u64;
            // It cannot overflow: both are lengths of what is in memory.
            let together = self.message.len() as u64 + length;
            if length > limits.max_frame || together > limits.max_message {
                break;
            }
            is_complete = first == ENDS;
            observer.frame(&FrameHeader::plain(is_complete, opcode, length), payload);
            self.message.extend(payload);
            self.kind = Some(kind);
            rest = behind;
        }
        *input = rest;
        if !is_complete {
            self.validate_text()?;
        }
        Ok(is_complete)
    }

    /// Takes what `input` has of the header under way. `None`: it is still incomplete.
    pub(super) fn take_header(
        &mut self,
        input: &mut &[u8],
    ) -> Result<Option<FrameHeader>, ProtocolError> {
        if self.header_length == 0
            && let Some((header, length)) = FrameHeader::parse(input)?
        {
            *input = &input[length..];
            return Ok(Some(header));
        }
        while let Some((&byte, rest)) = input.split_first() {
            self.header[self.header_length] = byte;
            self.header_length += 1;
            *input = rest;
            // Byte by byte, so that nothing behind the header is taken: at most 13 times, for the
            // one header that the end of a read has cut.
            if let Some((header, _)) = FrameHeader::parse(&self.header[..self.header_length])? {
                self.header_length = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Takes what `input` has of the payload of `frame`; true when it is complete.
    pub(super) fn take_payload(
        &mut self,
        frame: &mut PartialFrame,
        input: &mut &[u8],
        limits: &Limits,
    ) -> Result<bool, ProtocolError> {
        let missing = frame.header.payload_length - frame.received;
        let length =
            usize::try_from(missing).map_or(input.len(), |missing| missing.min(input.len()));
        let (payload, rest) = input.split_at(length);
        *input = rest;
        if frame.header.opcode.is_control() {
            let end = self.control_length + length;
            copy_unmasked(&mut self.control[self.control_length..end], payload, frame);
            self.control_length = end;
        } else if self.inflater.is_some() {
            self.inflate(payload, frame, limits)?;
        } else {
            let room = &mut self.message.room(length)[..length];
            copy_unmasked(room, payload, frame);
            self.message.advance(length);
            self.validate_text()?;
        }
        frame.received += length as u64;
        Ok(frame.received == frame.header.payload_length)
    }

    /// Inflates the next piece of a frame's payload into the message.
    fn inflate(
        &mut self,
        payload: &[u8],
        frame: &PartialFrame,
        limits: &Limits,
    ) -> Result<(), ProtocolError> {
        let Some(inflater) = &mut self.inflater else {
            return Ok(());
        };
        match frame.header.mask {
            None => inflater.inflate(payload, &mut self.message, limits.max_message)?,
            Some(key) => {
                let mut offset = frame.received;
                for piece in payload.chunks(UNMASKED_PIECE) {
                    let mut unmasked = [0; UNMASKED_PIECE];
                    let unmasked = &mut unmasked[..piece.len()];
                    mask::copy(unmasked, piece, rotated(key, offset));
                    inflater.inflate(unmasked, &mut self.message, limits.max_message)?;
                    offset += piece.len() as u64;
                }
            }
        }
        self.validate_text()
    }

    #[inline(always)]
    fn validate_text(&mut self) -> Result<(), ProtocolError> {
        if self.kind == Some(MessageKind::Text) {
            // RFC 6455 §8.1; at once and not at the end, so that bad text ends the connection
            // before all of it was received.
            self.message
                .validate()
                .map_err(ProtocolError::InvalidUtf8)?;
        }
        Ok(())
    }

    /// The last frame of a compressed message is complete.
    pub(super) fn finish_inflating(&mut self, limits: &Limits) -> Result<(), ProtocolError> {
        match &mut self.inflater {
            None => Ok(()),
            Some(inflater) => {
                inflater.finish(&mut self.message, limits.max_message)?;
                self.validate_text()
            }
        }
    }
}

/// A client's compressed payload is unmasked in pieces of this many bytes before it is inflated.
const UNMASKED_PIECE: usize = 2048;

/// Copies the next piece of a frame's payload, unmasked if a client masked it.
fn copy_unmasked(destination: &mut [u8], payload: &[u8], frame: &PartialFrame) {
    match frame.header.mask {
        None => destination.copy_from_slice(payload),
        Some(key) => mask::copy(destination, payload, rotated(key, frame.received)),
    }
}

/// The key as it stands at byte `offset` of the payload.
pub(super) fn rotated(key: mask::MaskKey, offset: u64) -> mask::MaskKey {
    // The key repeats every four bytes, so the low bits are all that counts.
    mask::rotate(key, (offset & 3) as usize)
}

/// Assemblies to reuse, shared by the connections of a reactor, so that none is allocated in the
/// steady state.
pub struct Pool {
    // Boxed on purpose: a connection holds a thin pointer, and the box itself is what is reused.
    #[allow(clippy::vec_box)]
    free: Vec<Box<Assembly>>,
    /// Inflaters that carry nothing over.
    #[allow(clippy::vec_box)]
    inflaters: Vec<Box<Inflater>>,
    retained: usize,
    max_retained: usize,
}

/// An assembly with a larger buffer is not kept: one large message must not hold its memory.
const MAX_RETAINED_BUFFER: usize = 2 << 20;

/// Inflaters kept: one serves all connections as long as their messages arrive whole; each message
/// that is cut holds one until its rest has come.
const MAX_RETAINED_INFLATERS: usize = 8;

impl Default for Pool {
    /// Keeps at most 4 MiB of unused buffers.
    fn default() -> Self {
        Self::new(4 << 20)
    }
}

impl Pool {
    /// A pool that keeps unused buffers of at most `max_retained` bytes in all.
    pub const fn new(max_retained: usize) -> Self {
        Self {
            free: Vec::new(),
            inflaters: Vec::new(),
            retained: 0,
            max_retained,
        }
    }

    /// Bytes of memory that lie unused in the pool.
    pub fn retained(&self) -> usize {
        self.retained
    }

    pub(super) fn take_inflater(&mut self) -> Box<Inflater> {
        self.inflaters
            .pop()
            .unwrap_or_else(|| Box::new(Inflater::without_context()))
    }

    pub(super) fn give_inflater(&mut self, inflater: Box<Inflater>) {
        if self.inflaters.len() < MAX_RETAINED_INFLATERS {
            self.inflaters.push(inflater);
        }
    }

    pub(super) fn take(&mut self) -> Box<Assembly> {
        let Some(assembly) = self.free.pop() else {
            return Box::new(Assembly::new());
        };
        self.retained -= assembly.memory();
        assembly
    }

    pub(super) fn give(&mut self, mut assembly: Box<Assembly>) {
        let memory = assembly.memory();
        if memory <= MAX_RETAINED_BUFFER && self.retained + memory <= self.max_retained {
            assembly.reset();
            self.retained += memory;
            self.free.push(assembly);
        }
    }
}
