//! Frames (RFC 6455 §5.2), as server and floors need them: written beforehand, and walked over.

/// Opcodes.
#[allow(missing_docs)]
pub mod opcode {
    pub const CONTINUATION: u8 = 0x0;
    pub const TEXT: u8 = 0x1;
    pub const BINARY: u8 = 0x2;
    pub const CLOSE: u8 = 0x8;
    pub const PING: u8 = 0x9;
    pub const PONG: u8 = 0xa;
}

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const MASKED: u8 = 0x80;

/// A header as it stands in the stream.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// FIN, RSV1 to RSV3 and the opcode.
    pub first: u8,
    /// Bytes of the header itself.
    pub len: usize,
    /// Bytes of the payload behind it.
    pub payload: usize,
    /// The key, of frames from a client.
    pub key: Option<[u8; 4]>,
}

impl Header {
    /// The header that `bytes` begin with, if all of it is there.
    #[inline(always)]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let (len, payload) = match second & 0x7f {
            126 => (
                4,
                u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?).into(),
            ),
            127 => {
                let length = u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
                (10, usize::try_from(length).ok()?)
            }
            length => (2, usize::from(length)),
        };
        if second & MASKED == 0 {
            return Some(Self {
                first,
                len,
                payload,
                key: None,
            });
        }
        let key = Some(*bytes.get(len..)?.first_chunk()?);
        Some(Self {
            first,
            len: len + 4,
            payload,
            key,
        })
    }

    /// The last fragment of a message?
    #[inline(always)]
    pub fn is_final(&self) -> bool {
        self.first & FIN != 0
    }

    /// Of [`opcode`].
    #[inline(always)]
    pub fn opcode(&self) -> u8 {
        self.first & 0x0f
    }
}

/// Appends a frame.
pub fn write(out: &mut Vec<u8>, first: u8, key: Option<[u8; 4]>, payload: &[u8]) {
    let masked = if key.is_some() { MASKED } else { 0 };
    out.push(first);
    match payload.len() {
        length @ 0..126 => out.push(masked | length as u8),
        length @ 126..0x1_0000 => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&key.unwrap_or_default()[..if key.is_some() { 4 } else { 0 }]);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut out[start..], key, 0);
    }
}

/// Masks or unmasks, `offset` bytes into the payload.
pub fn mask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    for chunk in bytes.chunks_mut(4) {
        for (byte, key) in chunk.iter_mut().zip(key) {
            *byte ^= key;
        }
    }
}

/// Appends a message of the server's, in so many fragments.
pub fn write_message(
    out: &mut Vec<u8>,
    opcode: u8,
    deflated: bool,
    payload: &[u8],
    fragments: usize,
) {
    let rsv1 = if deflated { RSV1 } else { 0 };
    let size = payload.len().div_ceil(fragments.max(1)).max(1);
    let count = payload.len().div_ceil(size).max(1);
    let mut pieces = payload.chunks(size);
    for index in 0..count {
        let kind = if index == 0 {
            opcode | rsv1
        } else {
            self::opcode::CONTINUATION
        };
        let fin = if index + 1 == count { FIN } else { 0 };
        write(out, fin | kind, None, pieces.next().unwrap_or(&[]));
    }
}
