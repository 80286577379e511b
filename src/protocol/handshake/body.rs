//! The start of the body of an answer that refuses the handshake.
//!
//! Servers explain themselves there ("invalid listen key"), so it is worth a few kilobytes. Nothing
//! depends on it: a body with broken framing is not an error, it just ends there.

use crate::protocol::http::Headers;

/// Decoding may look at so many raw bytes for each byte that is kept: chunks of one byte take six
/// (`1 CRLF x CRLF`). A peer that sends more framing than that is not listened to any longer.
const RAW_BYTES_PER_BYTE: usize = 8;
/// Raw bytes that are always allowed, so that an empty chunked body comes to its end.
const RAW_BYTES_AT_LEAST: usize = 64;

/// Reads a body as far as a limit.
#[derive(Debug)]
pub(super) struct BodyReader {
    framing: Framing,
    /// Bytes that may still be kept.
    room: usize,
    /// Raw bytes that may still be looked at.
    raw_room: usize,
}

/// RFC 9112 §6.3: how the end of a body is found.
#[derive(Debug)]
enum Framing {
    UntilClose,
    Length { remaining: u64 },
    Chunked(Chunk),
}

/// Where in a chunked body (RFC 9112 §7.1) the next byte stands.
#[derive(Debug)]
enum Chunk {
    Size { value: u64 },
    Extension { size: u64 },
    Data { remaining: u64 },
    LineEnd,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyState {
    Complete,
    NeedsMore,
}

impl BodyReader {
    /// A reader that keeps at most `limit` bytes.
    pub(super) fn new(status: u16, headers: &Headers, limit: usize) -> Self {
        let length = headers
            .first("Content-Length")
            .and_then(|length| length.parse().ok());
        let framing = match length {
            // "any response with a 1xx (Informational), 204 (No Content), or 304 (Not
            // Modified) status code is always terminated by the first empty line".
            _ if matches!(status, 204 | 304) => Framing::Length { remaining: 0 },
            // "If a message is received with both a Transfer-Encoding and a Content-Length header
            // field, the Transfer-Encoding overrides the Content-Length."
            _ if headers.has_token("Transfer-Encoding", "chunked") => {
                Framing::Chunked(Chunk::Size { value: 0 })
            }
            Some(remaining) => Framing::Length { remaining },
            None => Framing::UntilClose,
        };
        let raw_room = limit
            .saturating_mul(RAW_BYTES_PER_BYTE)
            .saturating_add(RAW_BYTES_AT_LEAST);
        Self {
            framing,
            room: limit,
            raw_room,
        }
    }

    /// Takes the next bytes and appends what belongs to the body, as far as there is room.
    pub(super) fn receive(&mut self, input: &[u8], body: &mut Vec<u8>) -> BodyState {
        let mut rest = &input[..input.len().min(self.raw_room)];
        self.raw_room -= rest.len();
        while self.room > 0 {
            match &mut self.framing {
                Framing::Length { remaining: 0 } => return BodyState::Complete,
                _ if rest.is_empty() => break,
                Framing::UntilClose => {
                    keep(&mut rest, u64::MAX, &mut self.room, body);
                }
                Framing::Length { remaining } => {
                    *remaining -= keep(&mut rest, *remaining, &mut self.room, body);
                }
                Framing::Chunked(Chunk::Data { remaining }) if *remaining > 0 => {
                    *remaining -= keep(&mut rest, *remaining, &mut self.room, body);
                }
                Framing::Chunked(chunk) => {
                    let Some((&byte, behind)) = rest.split_first() else {
                        break;
                    };
                    rest = behind;
                    let Some(next) = chunk.handle_byte(byte) else {
                        return BodyState::Complete;
                    };
                    *chunk = next;
                }
            }
        }
        if self.room == 0 || self.raw_room == 0 {
            BodyState::Complete
        } else {
            BodyState::NeedsMore
        }
    }
}

/// Moves bytes from the input to the body and returns how many.
fn keep(rest: &mut &[u8], at_most: u64, room: &mut usize, body: &mut Vec<u8>) -> u64 {
    let length = rest
        .len()
        .min(*room)
        .min(usize::try_from(at_most).unwrap_or(usize::MAX));
    let (kept, behind) = rest.split_at(length);
    body.extend_from_slice(kept);
    *rest = behind;
    *room -= length;
    length as u64
}

impl Chunk {
    /// Takes a byte of framing. `None` is the end: the last chunk, or something that is none.
    fn handle_byte(&self, byte: u8) -> Option<Self> {
        match *self {
            Self::Size { value } => match char::from(byte).to_digit(16) {
                Some(digit) => {
                    let value = value.checked_mul(16)?.checked_add(u64::from(digit))?;
                    Some(Self::Size { value })
                }
                None if matches!(byte, b'\r' | b';' | b' ' | b'\t') => {
                    Some(Self::Extension { size: value })
                }
                None => None,
            },
            Self::Extension { size: 0 } => None,
            Self::Extension { size } if byte == b'\n' => Some(Self::Data { remaining: size }),
            Self::Extension { size } => Some(Self::Extension { size }),
            Self::Data { .. } if byte == b'\r' => Some(Self::LineEnd),
            Self::LineEnd if byte == b'\n' => Some(Self::Size { value: 0 }),
            Self::Data { .. } | Self::LineEnd => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::{HeadParser, StatusLine};

    /// The body read from pieces of `chunk` bytes, and whether its end was seen.
    fn read(headers: &str, status: u16, limit: usize, raw: &[u8], chunk: usize) -> (Vec<u8>, bool) {
        let text = format!("HTTP/1.1 {status} X\r\n{headers}\r\n");
        let head = HeadParser::<StatusLine>::new(1024)
            .receive(text.as_bytes())
            .unwrap()
            .head
            .unwrap();
        let mut reader = BodyReader::new(status, &head.headers, limit);
        let mut body = Vec::new();
        // Like the handshake, which calls once with what came behind the head, often nothing.
        let mut state = reader.receive(b"", &mut body);
        for piece in raw.chunks(chunk) {
            if state == BodyState::NeedsMore {
                state = reader.receive(piece, &mut body);
            }
        }
        assert!(body.len() <= limit);
        (body, state == BodyState::Complete)
    }

    #[test]
    fn framings_in_pieces_of_every_size() {
        const CHUNKED: &str = "Transfer-Encoding: gzip, Chunked\r\nContent-Length: 2\r\n";
        // headers, status, limit, raw bytes, body, whether the end was seen
        let table: [(&str, u16, usize, &str, &str, bool); 20] = [
            ("", 403, 99, "hello", "hello", false),
            ("", 403, 4, "hello", "hell", true),
            ("", 403, 0, "hello", "", true),
            ("", 204, 99, "hello", "", true),
            ("", 304, 99, "hello", "", true),
            ("Content-Length: 0\r\n", 403, 99, "hello", "", true),
            ("Content-Length: 4\r\n", 403, 99, "hello", "hell", true),
            ("Content-Length: 5\r\n", 403, 99, "hello", "hello", true),
            ("Content-Length: 6\r\n", 403, 99, "hello", "hello", false),
            (
                "Content-Length: 18446744073709551615\r\n",
                403,
                99,
                "hello",
                "hello",
                false,
            ),
            ("Content-Length: -1\r\n", 403, 99, "hello", "hello", false),
            (
                CHUNKED,
                403,
                99,
                "3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
                "hello",
                true,
            ),
            (CHUNKED, 403, 99, "03 \r\nhel\r\n", "hel", false),
            (CHUNKED, 403, 4, "A\r\nhello", "hell", true),
            (CHUNKED, 403, 99, "a\r\nhello", "hello", false),
            (CHUNKED, 403, 99, "0\r\n\r\n", "", true),
            (CHUNKED, 403, 99, "nonsense", "", true),
            (CHUNKED, 403, 99, "3\r\nhello", "hel", true),
            (CHUNKED, 403, 99, "3\r\nhel\rlo", "hel", true),
            (CHUNKED, 403, 99, "10000000000000003\r\nhello", "", true),
        ];
        for (headers, status, limit, raw, expected, complete) in table {
            for chunk in 1..=raw.len() {
                let outcome = read(headers, status, limit, raw.as_bytes(), chunk);
                let expected = (expected.as_bytes().to_vec(), complete);
                assert_eq!(
                    outcome, expected,
                    "{headers:?} {raw:?} in pieces of {chunk}"
                );
            }
        }
    }

    #[test]
    fn chunks_of_one_byte_fit_and_endless_framing_does_not() {
        let tiny = "1\r\nx\r\n".repeat(100);
        let outcome = read(
            "Transfer-Encoding: chunked\r\n",
            403,
            100,
            tiny.as_bytes(),
            7,
        );
        assert_eq!(outcome, (vec![b'x'; 100], true));
        let endless = format!("1;{}", "x".repeat(100_000));
        let outcome = read(
            "Transfer-Encoding: chunked\r\n",
            403,
            100,
            endless.as_bytes(),
            1000,
        );
        assert_eq!(outcome, (Vec::new(), true));
    }
}
