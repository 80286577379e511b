//! Base64 (RFC 4648 §4, standard alphabet, padded).
//!
//! The handshake needs it three times: the client's nonce becomes `Sec-WebSocket-Key`, the SHA-1
//! digest becomes `Sec-WebSocket-Accept`, and a URL's userinfo becomes Basic authorization.
//! Decoding is for the server role, which must see that the key holds sixteen bytes.

use std::error::Error;
use std::fmt;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const PADDING: u8 = b'=';

/// Characters that `bytes` bytes take once encoded, padding included.
#[must_use]
pub const fn encoded_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Encodes bytes of any length.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(encoded_len(bytes.len()));
    for group in bytes.chunks(3) {
        text.extend(encode_group(group).map(char::from));
    }
    text
}

/// Encodes a fixed number of bytes without allocating.
///
/// `M` must be [`encoded_len`]`(N)`; any other pair does not compile.
///
/// ```
/// let key: [u8; 24] = websockex::protocol::base64::encode_array(b"the sample nonce");
/// assert_eq!(&key, b"dGhlIHNhbXBsZSBub25jZQ==");
/// ```
#[must_use]
pub fn encode_array<const N: usize, const M: usize>(bytes: &[u8; N]) -> [u8; M] {
    const {
        assert!(
            M == encoded_len(N),
            "the array does not fit the encoded text"
        );
    };
    let mut text = [0u8; M];
    let (places, _) = text.as_chunks_mut::<4>();
    let (groups, rest) = bytes.as_chunks::<3>();
    for (place, group) in places.iter_mut().zip(groups) {
        *place = encode_group(group);
    }
    if let (Some(place), false) = (places.last_mut(), rest.is_empty()) {
        *place = encode_group(rest);
    }
    text
}

/// One to three bytes become four characters.
#[inline]
fn encode_group(group: &[u8]) -> [u8; 4] {
    let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
    let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    let character = |shift: u32| ALPHABET[(bits >> shift & 0x3f) as usize];
    let mut text = [character(18), character(12), character(6), character(0)];
    text[group.len() + 1..].fill(PADDING);
    text
}

/// Decodes strictly: whole groups of four, padding only at the end, no spare bits set.
///
/// # Errors
/// [`DecodeError`] says what is wrong.
pub fn decode(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let (groups, rest) = text.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(DecodeError::Length);
    }
    let mut bytes = Vec::with_capacity(groups.len() * 3);
    for (index, group) in groups.iter().enumerate() {
        let padding = match group {
            [_, _, PADDING, PADDING] => 2,
            [_, _, _, PADDING] => 1,
            _ => 0,
        };
        if padding > 0 && index + 1 != groups.len() {
            return Err(DecodeError::Character);
        }
        let mut bits = 0u32;
        for &character in &group[..4 - padding] {
            bits = bits << 6 | u32::from(value(character).ok_or(DecodeError::Character)?);
        }
        bits <<= 6 * padding;
        let [_, decoded @ ..] = bits.to_be_bytes();
        let (kept, spare) = decoded.split_at(3 - padding);
        // RFC 4648 §3.5: decoders MAY reject encodings whose pad bits are not zero.
        if spare.iter().any(|&byte| byte != 0) {
            return Err(DecodeError::SpareBits);
        }
        bytes.extend_from_slice(kept);
    }
    Ok(bytes)
}

fn value(character: u8) -> Option<u8> {
    Some(match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

/// Why a text is not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The length is not a multiple of four.
    Length,
    /// A character outside the alphabet, or padding anywhere but at the end.
    Character,
    /// The bits that padding leaves over are not zero, so that two texts would mean the same bytes.
    SpareBits,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "the length of base64 text must be a multiple of four",
            Self::Character => "a character outside the base64 alphabet, or misplaced padding",
            Self::SpareBits => "the bits left over by base64 padding must be zero",
        })
    }
}

impl Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648 §10.
    const VECTORS: [(&str, &str); 7] = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ];

    #[test]
    fn rfc_4648_vectors_both_ways() {
        for (plain, encoded) in VECTORS {
            assert_eq!(encode(plain.as_bytes()), encoded);
            assert_eq!(decode(encoded.as_bytes()).unwrap(), plain.as_bytes());
            assert_eq!(encoded_len(plain.len()), encoded.len());
        }
    }

    #[test]
    fn every_byte_survives_a_round_trip_at_every_length() {
        let all: Vec<u8> = (0..=255).collect();
        for length in 0..all.len() {
            assert_eq!(
                decode(encode(&all[..length]).as_bytes()).unwrap(),
                &all[..length]
            );
        }
    }

    /// RFC 6455 §1.3.
    #[test]
    fn arrays_encode_like_slices() {
        let key: [u8; 24] = encode_array(b"the sample nonce");
        assert_eq!(&key, b"dGhlIHNhbXBsZSBub25jZQ==");
        let digest = crate::protocol::sha1::digest(
            b"dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11",
        );
        let accept: [u8; 28] = encode_array(&digest);
        assert_eq!(&accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn decoding_is_strict() {
        let table: [(&str, DecodeError); 9] = [
            ("Zg", DecodeError::Length),
            ("Zg=", DecodeError::Length),
            ("Zm9v\r\n", DecodeError::Length),
            ("Zg==Zg==", DecodeError::Character),
            ("Z===", DecodeError::Character),
            ("=m9v", DecodeError::Character),
            ("Zm9-", DecodeError::Character),
            ("Zh==", DecodeError::SpareBits),
            ("Zm9=", DecodeError::SpareBits),
        ];
        for (text, expected) in table {
            assert_eq!(decode(text.as_bytes()), Err(expected), "{text:?}");
        }
    }
}
