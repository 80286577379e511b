//! DEFLATE itself, through zlib-rs; no other file knows it.
//!
//! Inbound, between the frames and the message: compressed payload in, as it arrives; the message's
//! bytes out, straight into its buffer. Outbound, before the encoder: a message in, its compressed
//! payload out.

use super::{Agreed, MAX_WINDOW_BITS};
use crate::protocol::buffer::{Buffer, MessageBuffer};
use crate::protocol::error::ProtocolError;
use zlib_rs::{DeflateFlush, Inflate, InflateFlush, Status};

/// What a sender takes off the end of every message (RFC 7692 §7.2.1) and a receiver puts back
/// (§7.2.2), here with one byte behind it that no complete stream touches.
const TAIL: [u8; 5] = [0x00, 0x00, 0xff, 0xff, 0x00];
const TAIL_LENGTH: usize = 4;

/// The least room for output, in bytes, that a call of the inflater is given.
const LEAST_ROOM: usize = 4096;

/// Inflates the messages of one direction.
pub struct Inflater {
    stream: Inflate,
    /// `None`: nothing is carried over from message to message.
    context_bits: Option<u8>,
    /// A block with BFINAL set has ended the stream.
    ended: bool,
}

impl Inflater {
    /// An inflater that carries a window of 2^`bits` bytes over from message to message.
    pub(crate) fn with_context(bits: u8) -> Self {
        // zlib makes windows of at least 9 bits, and a larger one inflates what a smaller one made.
        let bits = bits.max(9);
        Self {
            stream: Inflate::new(false, bits),
            context_bits: Some(bits),
            ended: false,
        }
    }

    /// An inflater for messages that each stand by themselves; it may serve any connection.
    pub(crate) fn without_context() -> Self {
        Self {
            stream: Inflate::new(false, MAX_WINDOW_BITS),
            context_bits: None,
            ended: false,
        }
    }

    /// Inflates `input`, the next piece of a message, into `message`.
    pub(crate) fn inflate(
        &mut self,
        input: &[u8],
        message: &mut MessageBuffer,
        limit: u64,
    ) -> Result<(), ProtocolError> {
        let mut input = input;
        loop {
            // RFC 7692 §7.2.3.4 allows blocks with BFINAL set; what follows is a new stream.
            if self.ended {
                if input.is_empty() {
                    return Ok(());
                }
                self.restart(message);
            }
            let step = self.step(input, message, limit, InflateFlush::NoFlush)?;
            input = &input[step.consumed..];
            if !step.full && !self.ended {
                // Not all room was needed: everything there was has come out.
                return Ok(());
            }
        }
    }

    /// The message is complete: puts the tail back, and makes ready for the next one.
    pub(crate) fn finish(
        &mut self,
        message: &mut MessageBuffer,
        limit: u64,
    ) -> Result<(), ProtocolError> {
        if !self.ended {
            let mut taken = 0;
            loop {
                // With `Block` zlib stops where a block ends, so it does not take the last byte if
                // the stream is complete, and takes it if it is cut off in the middle of a block.
                let step = self.step(&TAIL[taken..], message, limit, InflateFlush::Block)?;
                taken += step.consumed;
                if taken > TAIL_LENGTH || self.ended {
                    return Err(ProtocolError::TruncatedDeflate);
                }
                if !step.full {
                    break;
                }
            }
            if taken != TAIL_LENGTH {
                return Err(ProtocolError::TruncatedDeflate);
            }
        }
        if self.context_bits.is_none() || self.ended {
            self.restart(message);
        }
        Ok(())
    }

    /// Begins a new stream. Where context is carried over, the message so far is what there is of
    /// it: zlib forgets the window when a stream ends, and senders that end one do likewise.
    fn restart(&mut self, message: &MessageBuffer) {
        self.ended = false;
        let Some(bits) = self.context_bits else {
            self.stream.reset(false);
            return;
        };
        self.stream = Inflate::new(false, bits);
        let bytes = message.as_slice();
        let window = &bytes[bytes.len().saturating_sub(1 << bits)..];
        if !window.is_empty() {
            // Refused only in the middle of a stream.
            let _ = self.stream.set_dictionary(window);
        }
    }

    /// One call of zlib, with exactly limited room (pitfall 3): one byte more than is allowed, so
    /// that a message of the allowed length is told from a longer one.
    fn step(
        &mut self,
        input: &[u8],
        message: &mut MessageBuffer,
        limit: u64,
        flush: InflateFlush,
    ) -> Result<Step, ProtocolError> {
        let left = limit.saturating_add(1).saturating_sub(message.len() as u64);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let room = message.room(left.min(LEAST_ROOM.max(input.len() * 2)));
        let length = room.len().min(left);
        let (input_before, output_before) = (self.stream.total_in(), self.stream.total_out());
        let status = self
            .stream
            .decompress(input, &mut room[..length], flush)
            .map_err(|_| ProtocolError::InvalidDeflate)?;
        // Neither is more than was given to the call.
        #[allow(clippy::cast_possible_truncation)]
        let (consumed, produced) = (
            (self.stream.total_in() - input_before) as usize,
            (self.stream.total_out() - output_before) as usize,
        );
        message.advance(produced);
        let inflated = message.len() as u64;
        if inflated > limit {
            return Err(ProtocolError::MessageTooLarge {
                length: inflated,
                limit,
            });
        }
        self.ended = status == Status::StreamEnd;
        let full = produced == length;
        Ok(Step { consumed, full })
    }
}

struct Step {
    consumed: usize,
    /// All of the room was filled; there may be more.
    full: bool,
}

/// Deflaters for outgoing messages, made when first needed and shared by all connections: nothing
/// is carried over from message to message.
#[derive(Default)]
pub struct Deflaters {
    /// By window bits and level, of which a program uses one pair as a rule.
    streams: Vec<(u8, u8, zlib_rs::Deflate)>,
    out: Buffer,
}

impl Deflaters {
    /// Deflates a message as `agreed`; `None` if that does not make it shorter, or if the window is
    /// too small for zlib, which makes none of 8 bits. It is sent as it is then.
    pub(crate) fn deflate(&mut self, agreed: &Agreed, message: &[u8]) -> Option<&[u8]> {
        let (bits, level) = (agreed.client_window_bits, agreed.level);
        if bits < 9 {
            return None;
        }
        let known = self
            .streams
            .iter()
            .position(|(b, l, _)| (*b, *l) == (bits, level));
        let index = known.unwrap_or_else(|| {
            let stream = zlib_rs::Deflate::new(i32::from(level), false, bits);
            self.streams.push((bits, level, stream));
            self.streams.len() - 1
        });
        let stream = &mut self.streams[index].2;
        stream.reset();
        self.out.clear();
        // A message that does not shrink is of no use, so there is no need for more room than the
        // message's own length; what would not fit is given up (pitfall 11: never cut off).
        let length = message.len() + TAIL_LENGTH;
        let room = &mut self.out.room(length)[..length];
        let status = stream
            .compress(message, room, DeflateFlush::SyncFlush)
            .ok()?;
        let produced = usize::try_from(stream.total_out()).ok()?;
        let complete =
            status == Status::Ok && stream.total_in() == message.len() as u64 && produced < length;
        if !complete {
            return None;
        }
        self.out.advance(produced);
        // RFC 7692 §7.2.1: "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
        let deflated = self.out.as_slice().strip_suffix(&TAIL[..TAIL_LENGTH])?;
        (deflated.len() < message.len()).then_some(deflated)
    }
}

#[cfg(test)]
#[path = "zlib_tests.rs"]
mod tests;
