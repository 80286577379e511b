//! Outbound: a payload in, frame bytes out, copied and masked in one pass.
//!
//! Before this comes the session, which decides what may be sent; after it the bytes go into the
//! turn's output buffer and from there, in one write, to the socket. The masking key of each frame
//! comes from the caller, who owns the entropy.

use super::Role;
use super::buffer::{Buffer, Spare};
use super::frame::{
    FrameHeader, LENGTH_16, MAX_HEADER_LENGTH, MEDIUM_HEADER, OpCode, SMALL_HEADER,
};
use super::mask::{self, MaskKey};

/// Payloads are encoded in pieces of this many bytes: few enough that a piece is still in the
/// second-level cache when it is written to the socket, and so many that the writes do not cost more
/// than that saves (64 KiB a quarter more for a message of 1 MiB, all of it at once as much).
pub const PIECE: usize = 256 * 1024;

/// One frame on its way out, payload first to last, in as many pieces as the caller likes.
pub struct FrameWriter<'p> {
    payload: &'p [u8],
    key: Option<MaskKey>,
    written: usize,
}

impl<'p> FrameWriter<'p> {
    /// Writes the header into `out` and holds the payload ready.
    ///
    /// `key` is the masking key. RFC 6455 §5.3: it "needs to be unpredictable", "a fresh" one for
    /// every frame, "derived from a strong source of entropy". A server's frames are not masked,
    /// and the key is not used.
    #[inline]
    pub fn begin(
        role: Role,
        fin: bool,
        opcode: OpCode,
        payload: &'p [u8],
        key: MaskKey,
        out: &mut Buffer,
    ) -> Self {
        let header = (fin, false, opcode);
        Self::begin_with(role, header, payload, key, out)
    }

    /// The same for a whole message whose payload is deflated (RFC 7692 §6.1: RSV1 is set).
    pub fn begin_deflated(
        role: Role,
        opcode: OpCode,
        payload: &'p [u8],
        key: MaskKey,
        out: &mut Buffer,
    ) -> Self {
        Self::begin_with(role, (true, true, opcode), payload, key, out)
    }

    #[inline]
    fn begin_with(
        role: Role,
        (fin, rsv1, opcode): (bool, bool, OpCode),
        payload: &'p [u8],
        key: MaskKey,
        out: &mut Buffer,
    ) -> Self {
        let mask = match role {
            Role::Client => Some(key),
            Role::Server => None,
        };
        let header = FrameHeader {
            fin,
            rsv1,
            opcode,
            mask,
            payload_length: payload.len() as u64,
        };
        let room = out.room(MAX_HEADER_LENGTH);
        let room = room.first_chunk_mut().expect("the room is that long");
        let length = header.encode(room);
        out.advance(length);
        Self {
            payload,
            key: mask,
            written: 0,
        }
    }

    /// Writes the next piece of the payload into `out`; false when the payload is all written.
    #[inline]
    pub fn write_piece(&mut self, out: &mut Buffer) -> bool {
        let rest = &self.payload[self.written..];
        let piece = &rest[..rest.len().min(PIECE)];
        let room = &mut out.room(piece.len())[..piece.len()];
        match self.key {
            // A piece is a multiple of four bytes, and so the key needs no rotating.
            Some(key) => mask::copy(room, piece, key),
            None => room.copy_from_slice(piece),
        }
        out.advance(piece.len());
        self.written += piece.len();
        self.written < self.payload.len()
    }
}

const _: () = assert!(PIECE.is_multiple_of(4));

/// Writes a whole frame into `out`.
#[inline]
pub fn encode(
    role: Role,
    fin: bool,
    opcode: OpCode,
    payload: &[u8],
    key: MaskKey,
    out: &mut Buffer,
) {
    let mask = match role {
        Role::Client => Some(key),
        Role::Server => None,
    };
    let header = FrameHeader {
        fin,
        rsv1: false,
        opcode,
        mask,
        payload_length: payload.len() as u64,
    };
    write_whole(&header, payload, out);
}

/// Header and payload take their room at once.
#[inline(always)]
fn write_whole(header: &FrameHeader, payload: &[u8], out: &mut Buffer) {
    let room = out.room(MAX_HEADER_LENGTH + payload.len());
    let start = room.first_chunk_mut().expect("the room is that long");
    let length = header.encode(start);
    let body = &mut room[length..length + payload.len()];
    match header.mask {
        Some(key) => mask::copy(body, payload, key),
        None => body.copy_from_slice(payload),
    }
    out.advance(length + payload.len());
}

/// The longest payload of [`encode_short`], which is masked without asking what the CPU can do.
pub const SHORT: usize = mask::SHORT_COPY;

/// The longest frame of [`encode_short`].
pub const SHORT_FRAME: usize = MAX_HEADER_LENGTH + SHORT;

/// Writes a whole frame of a client into `room`, a message that is no longer than [`SHORT`].
///
/// It is the encoder of most of what is sent, and so it becomes part of its caller, which knows what
/// need not be checked any more.
///
/// # Panics
/// When the payload is longer.
#[inline(always)]
pub fn encode_short(opcode: OpCode, payload: &[u8], key: MaskKey, room: Spare<'_, SHORT_FRAME>) {
    assert!(payload.len() <= SHORT);
    let length = u16::try_from(payload.len()).expect("it is short");
    let header = FrameHeader::whole(opcode, length, key);
    // Two copies of what follows, each with a constant for where the payload begins.
    if length < u16::from(LENGTH_16) {
        write_short::<SMALL_HEADER>(header, payload, key, room);
    } else {
        write_short::<MEDIUM_HEADER>(header, payload, key, room);
    }
}

/// All of the header is stored at once, and what is too long of it overwritten by the payload or with the
/// next frame.
#[inline(always)]
fn write_short<const HEADER: usize>(
    header: u64,
    payload: &[u8],
    key: MaskKey,
    room: Spare<'_, SHORT_FRAME>,
) {
    let end = HEADER + payload.len();
    let room = room.take(end);
    room[..size_of::<u64>()].copy_from_slice(&header.to_le_bytes());
    mask::copy_short(&mut room[HEADER..end], payload, key);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::decoder::{Decoder, Event, Limits, Pool};

    /// What the other role decodes is what was encoded, around every boundary of length and piece.
    #[test]
    fn round_trips_through_the_other_role() {
        for (from, to) in [(Role::Client, Role::Server), (Role::Server, Role::Client)] {
            for length in [0, 1, 125, 126, 65_535, 65_536, PIECE + 3, 2 * PIECE] {
                let payload: Vec<u8> = (0..=250).cycle().take(length).collect();
                let mut out = Buffer::new();
                let key = [1, 2, 3, 4];
                encode(from, true, OpCode::Binary, &payload, key, &mut out);
                let mut decoder = Decoder::new(to, Limits::default());
                let mut input = out.as_slice();
                let event = decoder.decode(&mut input, &mut Pool::default(), &mut ());
                assert_eq!(event, Ok(Some(Event::Binary(&payload))));
            }
        }
    }

    /// The short way writes what the long one writes.
    #[test]
    fn a_short_frame_is_the_same_frame() {
        for length in 0..=SHORT {
            let payload: Vec<u8> = (0..=250).cycle().take(length).collect();
            let key = [1, 2, 3, 4];
            let mut long = Buffer::new();
            encode(Role::Client, true, OpCode::Text, &payload, key, &mut long);
            let mut short = Buffer::new();
            short.room(SHORT_FRAME).fill(0xff);
            let room = short.spare().expect("there is room");
            encode_short(OpCode::Text, &payload, key, room);
            assert_eq!(short.as_slice(), long.as_slice());
        }
    }

    #[test]
    fn a_client_masks_with_the_key_given() {
        let mut out = Buffer::new();
        // The masked "Hello" of RFC 6455 §5.7.
        let key = [0x37, 0xfa, 0x21, 0x3d];
        encode(Role::Client, true, OpCode::Text, b"Hello", key, &mut out);
        let expected = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        assert_eq!(out.as_slice(), expected);
    }
}
