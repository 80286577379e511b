//! The frame header of RFC 6455 §5.2: bytes to fields and back, in all three length forms.
//!
//! Nothing here knows about messages: which frame may follow which is the decoder's business.

use super::error::ProtocolError;
use super::mask::MaskKey;

/// Longest frame header, in bytes: two, eight of length, four of masking key.
pub const MAX_HEADER_LENGTH: usize = 14;

/// Longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASK: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// From this length on a payload's stands behind the second byte.
pub(super) const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
/// First byte of a text message in one frame, uncompressed.
pub(super) const WHOLE_TEXT: u8 = FIN | OpCode::Text as u8;
/// First byte of a binary message in one frame, uncompressed.
pub(super) const WHOLE_BINARY: u8 = FIN | OpCode::Binary as u8;
/// First byte of a fragment that begins a text message, uncompressed.
pub(super) const BEGINS_TEXT: u8 = OpCode::Text as u8;
/// First byte of a fragment that begins a binary message, uncompressed.
pub(super) const BEGINS_BINARY: u8 = OpCode::Binary as u8;
/// First byte of a fragment in the middle of a message.
pub(super) const CONTINUES: u8 = OpCode::Continuation as u8;
/// First byte of the last fragment of a message.
pub(super) const ENDS: u8 = FIN | OpCode::Continuation as u8;
/// Length of a masked frame's header if that of the payload is in the second byte.
pub(super) const SMALL_HEADER: usize = 6;
/// Likewise if it is in two bytes of its own.
pub(super) const MEDIUM_HEADER: usize = 8;
/// No frame is shorter than this but the few with no payload or one byte of it: the short ways look
/// at so much at once.
pub(super) const LEAST_FRAME: usize = 4;

/// What a frame is (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OpCode {
    /// A further fragment of the message under way.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// The closing handshake.
    Close = 0x8,
    /// A question that asks for a Pong with the same payload.
    Ping = 0x9,
    /// The answer to a Ping, or an unsolicited heartbeat.
    Pong = 0xa,
}

impl OpCode {
    /// Control frames are at most 125 bytes long, never fragmented, and may stand between the
    /// fragments of a message (RFC 6455 §5.5).
    #[inline]
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }

    #[inline]
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xa => Some(Self::Pong),
            _ => None,
        }
    }
}

/// The fields of a frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The last frame of its message.
    pub fin: bool,
    /// RSV1, which permessage-deflate uses (RFC 7692 §6). RSV2 and RSV3 have no user.
    pub rsv1: bool,
    /// What the frame is.
    pub opcode: OpCode,
    /// The masking key, if the payload is masked.
    pub mask: Option<MaskKey>,
    /// Bytes of payload that follow the header.
    pub payload_length: u64,
}

impl FrameHeader {
    /// Parses the header at the start of `bytes`; returns it with its own length.
    ///
    /// `None` means that the header is not all there yet. What can be refused is refused as soon
    /// as the byte that proves it is there.
    ///
    /// # Errors
    /// RSV2, RSV3, a reserved opcode, a length not in its shortest form or beyond 63 bits.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ProtocolError> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        // RFC 6455 §5.2: "MUST be 0 unless an extension is negotiated that defines meanings for
        // non-zero values." Only RSV1 has an extension; whether it was negotiated, and fits the
        // frame, the decoder checks.
        if first & (RESERVED & !RSV1) != 0 {
            return Err(ProtocolError::ReservedBits((first & RESERVED) >> 4));
        }
        // RFC 6455 §5.2: "If an unknown opcode is received, the receiving endpoint MUST _Fail the
        // WebSocket Connection_."
        let Some(opcode) = OpCode::from_bits(first & OPCODE) else {
            return Err(ProtocolError::ReservedOpCode(first & OPCODE));
        };
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        let (payload_length, mut position) = match second & LENGTH {
            LENGTH_16 => match bytes.get(2..4) {
                Some(&[high, low]) => (u64::from(u16::from_be_bytes([high, low])), 4),
                _ => return Ok(None),
            },
            LENGTH_64 => match bytes.get(2..10) {
                Some(&[a, b, c, d, e, f, g, h]) => {
                    (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 10)
                }
                _ => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        if position != 2 {
            check_long_length(payload_length, position)?;
        }
        let mask = if second & MASK == 0 {
            None
        } else {
            let Some(&[a, b, c, d]) = bytes.get(position..position + 4) else {
                return Ok(None);
            };
            position += 4;
            Some([a, b, c, d])
        };
        let header = Self {
            fin: first & FIN != 0,
            rsv1: first & RSV1 != 0,
            opcode,
            mask,
            payload_length,
        };
        Ok(Some((header, position)))
    }

    /// The header of an unmasked, uncompressed frame.
    pub(crate) const fn plain(fin: bool, opcode: OpCode, payload_length: u64) -> Self {
        Self {
            fin,
            rsv1: false,
            opcode,
            mask: None,
            payload_length,
        }
    }

    /// The header of a client's whole message, uncompressed, as a little-endian number to be stored at once:
    /// [`SMALL_HEADER`] bytes of it if the payload is shorter than [`LENGTH_16`], else
    /// [`MEDIUM_HEADER`]. The others may be overwritten.
    #[inline(always)]
    pub(super) fn whole(opcode: OpCode, payload_length: u16, key: MaskKey) -> u64 {
        let first = u64::from(FIN | opcode as u8);
        let key = u64::from(u32::from_le_bytes(key));
        if payload_length < u16::from(LENGTH_16) {
            let second = u64::from(MASK) | u64::from(payload_length);
            first | second << 8 | key << 16
        } else {
            let second = u64::from(MASK | LENGTH_16);
            let length = u64::from(payload_length.swap_bytes());
            first | second << 8 | length << 16 | key << 32
        }
    }

    /// Writes the header into `out`, in the shortest form, and returns its length. The bytes behind it
    /// may be overwritten as well.
    #[inline(always)]
    pub fn encode(&self, out: &mut [u8; MAX_HEADER_LENGTH]) -> usize {
        let fin = if self.fin { FIN } else { 0 };
        let rsv1 = if self.rsv1 { RSV1 } else { 0 };
        let mask = if self.mask.is_some() { MASK } else { 0 };
        let first = fin | rsv1 | self.opcode as u8;
        // Four bytes at once, of which those behind a short length are written again: one store
        // instead of two or three.
        let (length, position) = if let Ok(length) = u8::try_from(self.payload_length)
            && length < LENGTH_16
        {
            (u32::from(mask | length), 2)
        } else if let Ok(length) = u16::try_from(self.payload_length) {
            let length = u32::from(length.swap_bytes()) << 8;
            (u32::from(mask | LENGTH_16) | length, 4)
        } else {
            // The first two bytes of eight; the other six come behind the four.
            let [high, next, rest @ ..] = self.payload_length.to_be_bytes();
            out[4..10].copy_from_slice(&rest);
            let length = u32::from(u16::from_le_bytes([high, next])) << 8;
            (u32::from(mask | LENGTH_64) | length, 10)
        };
        let start = u32::from(first) | length << 8;
        out[..4].copy_from_slice(&start.to_le_bytes());
        let Some(key) = self.mask else {
            return position;
        };
        out[position..position + 4].copy_from_slice(&key);
        position + 4
    }
}

/// The payload of the frame that `bytes` begin with, and what follows it, if it is not masked and all
/// there. A feed consists of these, and a few comparisons tell them. `None` says only that
/// [`FrameHeader::parse`] has to look; at the first byte it looks in any case.
#[inline(always)]
pub(super) fn split_plain(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (body, length) = skip_plain_header(bytes)?;
    body.split_at_checked(length)
}

/// How long the payload is of the frame that `bytes` begin with, if it is not masked and the end of it
/// is missing. `None` says nothing of any other.
#[inline]
pub(super) fn length_if_cut(bytes: &[u8]) -> Option<usize> {
    let (body, length) = skip_plain_header(bytes)?;
    (body.len() < length).then_some(length)
}

/// What follows the header, and how much of that is the payload.
#[inline(always)]
fn skip_plain_header(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let &[_, second, high, low] = bytes.first_chunk::<LEAST_FRAME>()?;
    // The checks of each form stand beside it, so that the short ones pay for none but theirs.
    if second < LENGTH_16 {
        Some((&bytes[2..], usize::from(second)))
    } else if second == LENGTH_16 {
        let length = u16::from_be_bytes([high, low]);
        (length >= u16::from(LENGTH_16)).then_some((&bytes[4..], usize::from(length)))
    } else if second == LENGTH_64 {
        let (length, body) = bytes[2..].split_first_chunk()?;
        let length = u64::from_be_bytes(*length);
        check_long_length(length, 10).ok()?;
        Some((body, usize::try_from(length).ok()?))
    } else {
        None
    }
}

/// RFC 6455 §5.2: "the minimal number of bytes MUST be used to encode the length", and of the
/// 64-bit form "the most significant bit MUST be 0".
#[inline]
fn check_long_length(length: u64, header_length: usize) -> Result<(), ProtocolError> {
    let least = if header_length == 4 {
        u64::from(LENGTH_16)
    } else {
        u64::from(u16::MAX) + 1
    };
    if length < least {
        Err(ProtocolError::NonMinimalLength)
    } else if length >> 63 != 0 {
        Err(ProtocolError::LengthOverflow)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [u64; 9] = [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 32, (1 << 63) - 1];

    #[test]
    fn encodes_and_parses_every_form_at_every_split() {
        let opcodes = [0x0, 0x1, 0x2, 0x8, 0x9, 0xa].map(|bits| OpCode::from_bits(bits).unwrap());
        for payload_length in LENGTHS {
            for opcode in opcodes {
                for (fin, rsv1) in [(true, false), (false, true)] {
                    for mask in [None, Some([1, 2, 3, 4])] {
                        let header = FrameHeader {
                            fin,
                            rsv1,
                            opcode,
                            mask,
                            payload_length,
                        };
                        let mut bytes = [0; MAX_HEADER_LENGTH];
                        let length = header.encode(&mut bytes);
                        for end in 0..length {
                            assert_eq!(FrameHeader::parse(&bytes[..end]), Ok(None));
                        }
                        assert_eq!(FrameHeader::parse(&bytes), Ok(Some((header, length))));
                    }
                }
            }
        }
    }

    /// Whatever the short ways accept, the long way reads the same.
    #[test]
    fn the_short_ways_agree_with_the_long_one() {
        let mut plain = 0;
        for first in [WHOLE_TEXT, BEGINS_BINARY, CONTINUES, ENDS] {
            for second in 0..=u8::MAX {
                for length in [0_u16, 1, 125, 126, 127, 255, 256, 65_535] {
                    let [high, low] = length.to_be_bytes();
                    let bytes = [first, second, high, low, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
                    if let Some((body, length)) = skip_plain_header(&bytes) {
                        let (header, position) = FrameHeader::parse(&bytes).unwrap().unwrap();
                        assert_eq!((header.mask, header.rsv1), (None, false));
                        assert_eq!(header.payload_length, length as u64);
                        assert_eq!(body, &bytes[position..]);
                        assert_eq!(split_plain(&bytes), body.split_at_checked(length));
                        plain += 1;
                    }
                    assert_eq!(split_plain(&bytes[..3]), None);
                }
            }
        }
        // 126 lengths in the 7-bit form, of the 16-bit form the five from 126 on, of the 64-bit form
        // all but the one with its first bit set.
        assert_eq!(plain, 4 * (126 * 8 + 5 + 7));
        for (first, fin, opcode) in [
            (WHOLE_TEXT, true, OpCode::Text),
            (WHOLE_BINARY, true, OpCode::Binary),
            (BEGINS_TEXT, false, OpCode::Text),
            (BEGINS_BINARY, false, OpCode::Binary),
            (CONTINUES, false, OpCode::Continuation),
            (ENDS, true, OpCode::Continuation),
        ] {
            let header = FrameHeader::plain(fin, opcode, 3);
            assert_eq!(FrameHeader::parse(&[first, 3]), Ok(Some((header, 2))));
        }
    }

    #[test]
    fn refuses_lengths_not_in_their_shortest_form() {
        for length in [0_u16, 1, 125] {
            let [high, low] = length.to_be_bytes();
            assert_eq!(
                FrameHeader::parse(&[0x82, 126, high, low]),
                Err(ProtocolError::NonMinimalLength)
            );
        }
        for length in [0_u64, 126, 65_535] {
            let mut bytes = vec![0x82, 127];
            bytes.extend(length.to_be_bytes());
            assert_eq!(
                FrameHeader::parse(&bytes),
                Err(ProtocolError::NonMinimalLength)
            );
        }
        let mut bytes = vec![0x82, 127];
        bytes.extend((1_u64 << 63).to_be_bytes());
        assert_eq!(
            FrameHeader::parse(&bytes),
            Err(ProtocolError::LengthOverflow)
        );
    }

    #[test]
    fn refuses_reserved_opcodes_and_bits_at_the_first_byte() {
        for bits in 0..=u8::MAX {
            let parsed = FrameHeader::parse(&[bits]);
            if bits & 0x30 != 0 {
                assert_eq!(parsed, Err(ProtocolError::ReservedBits((bits >> 4) & 7)));
            } else if OpCode::from_bits(bits & 0xf).is_none() {
                assert_eq!(parsed, Err(ProtocolError::ReservedOpCode(bits & 0xf)));
            } else {
                assert_eq!(parsed, Ok(None));
            }
        }
    }
}
