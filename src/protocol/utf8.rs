//! UTF-8 validation of text messages and close reasons (RFC 6455 §8.1).
//!
//! Before this, the decoder has unmasked and inflated what arrived. A message that lies whole in the
//! receive buffer goes through [`validate`] and on to the handler as `&str`; one that arrives in
//! pieces goes through a [`Validator`], piece by piece, and no byte is looked at twice.
//!
//! > When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream is not,
//! > in fact, a valid UTF-8 stream, that endpoint MUST _Fail the WebSocket Connection_.
//!
//! Both fail at the first byte that no valid text could have in its place, even in the middle of a
//! sequence whose end has not arrived. Market data is nearly all ASCII, so the ASCII at the start is
//! skipped in wide blocks. What follows it is for the vectors of `x86_64.rs` there, and elsewhere for
//! `simdutf8`, or without that feature for the standard library.
#![allow(
    unsafe_code,
    reason = "a `str` of bytes just found valid; functions compiled for what was detected"
)]

#[cfg(target_arch = "x86_64")]
mod x86_64;

use std::fmt;

/// Up to this many bytes, two overlapping blocks of baseline code beat asking what the CPU can do.
const SHORT: usize = 128;

/// The bytes are not UTF-8 (RFC 3629).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8 {
    /// Offset of the first bad byte from the start of the message, all pieces counted. A text that
    /// ends inside a code point has its length here: the byte that is missing.
    pub position: u64,
}

impl fmt::Display for InvalidUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not UTF-8 from byte {} on", self.position)
    }
}

impl std::error::Error for InvalidUtf8 {}

/// Validates a whole text.
///
/// # Errors
/// [`InvalidUtf8`] at the first byte that cannot be, or at the end if the text stops short.
// Always, and what it calls first too: left to the compiler, it was a call for each message of a feed in one
// module and none in the other.
#[inline(always)]
pub fn validate(bytes: &[u8]) -> Result<&str, InvalidUtf8> {
    let ascii = ascii_prefix(bytes);
    if ascii < bytes.len() {
        validate_from(bytes, ascii)?;
    }
    // SAFETY: up to `ascii` the bytes were found to be ASCII, and from there on, a boundary, UTF-8.
    Ok(unsafe { std::str::from_utf8_unchecked(bytes) })
}

/// Validates a text that arrives in pieces.
///
/// It remembers where it is and which bytes the code point at hand still lacks; nothing of the text.
/// After an error every further call returns that error.
///
/// ```
/// use websockex::protocol::utf8::Validator;
/// let mut validator = Validator::new();
/// validator.update(b"price in \xE2\x82")?;
/// assert!(!validator.is_boundary());
/// validator.update(b"\xAC")?;
/// validator.finish()?;
/// # Ok::<(), websockex::protocol::utf8::InvalidUtf8>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validator {
    /// Bytes found good so far; after an error, the position of that error.
    position: u64,
    state: State,
}

impl Validator {
    /// At the start of a text.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            position: 0,
            state: State::Boundary,
        }
    }

    /// Takes the next piece, of any length and cut anywhere.
    ///
    /// # Errors
    /// [`InvalidUtf8`] at the first byte that cannot follow what came before it.
    #[inline]
    pub fn update(&mut self, mut chunk: &[u8]) -> Result<(), InvalidUtf8> {
        if self.state != State::Boundary {
            chunk = self.close_code_point(chunk)?;
        }
        let ascii = ascii_prefix(chunk);
        if ascii < chunk.len() {
            return self.update_from(chunk, ascii);
        }
        self.position += chunk.len() as u64;
        Ok(())
    }

    /// Ends the text: it must not stop inside a code point.
    ///
    /// # Errors
    /// [`InvalidUtf8`] at the end of the text if it does, or the error [`Validator::update`] gave.
    pub fn finish(&self) -> Result<(), InvalidUtf8> {
        match self.state {
            State::Boundary => Ok(()),
            State::Inside(_) | State::Failed => Err(InvalidUtf8 {
                position: self.position,
            }),
        }
    }

    /// Whether the text up to here is valid as it stands, with no code point cut.
    #[must_use]
    pub fn is_boundary(&self) -> bool {
        self.state == State::Boundary
    }

    /// Takes what the code point lacks that the last piece left open, three bytes at the most, and
    /// returns what follows it.
    fn close_code_point<'a>(&mut self, mut chunk: &'a [u8]) -> Result<&'a [u8], InvalidUtf8> {
        while self.state != State::Boundary {
            let Some((&byte, rest)) = chunk.split_first() else {
                break;
            };
            self.step(byte)?;
            chunk = rest;
        }
        Ok(chunk)
    }

    /// Takes a piece that starts on a boundary with `ascii` bytes of ASCII.
    #[inline(never)]
    fn update_from(&mut self, chunk: &[u8], ascii: usize) -> Result<(), InvalidUtf8> {
        // What this piece leaves open is kept from the validators of whole texts, which would only
        // say that it is cut, and not whether it can still become valid.
        let (whole, open) = chunk.split_at(chunk.len() - open_suffix(&chunk[ascii..]));
        if let Err(InvalidUtf8 { position }) = validate_from(whole, ascii) {
            return Err(self.fail(self.position + position));
        }
        self.position += whole.len() as u64;
        open.iter().try_for_each(|&byte| self.step(byte))
    }

    /// Takes one byte.
    fn step(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        match self.state.after(byte) {
            State::Failed => Err(self.fail(self.position)),
            state => {
                self.state = state;
                self.position += 1;
                Ok(())
            }
        }
    }

    #[cold]
    fn fail(&mut self, position: u64) -> InvalidUtf8 {
        *self = Self {
            position,
            state: State::Failed,
        };
        InvalidUtf8 { position }
    }
}

/// Where in a code point a text stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Boundary,
    Inside(Expected),
    Failed,
}

/// What must follow inside a code point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    /// Continuation bytes still to come: 1 to 3.
    missing: u8,
    /// The next of them is at least this,
    lowest: u8,
    /// and at most this.
    highest: u8,
}

impl State {
    /// RFC 3629 §4, the same as the Unicode standard's table 3-7: which bytes may follow which. The
    /// narrowed second bytes keep out overlong forms (E0, F0), surrogates (ED) and what lies beyond
    /// U+10FFFF (F4).
    fn after(self, byte: u8) -> Self {
        let inside = |missing, lowest, highest| {
            Self::Inside(Expected {
                missing,
                lowest,
                highest,
            })
        };
        match (self, byte) {
            (Self::Boundary, 0x00..=0x7F) => Self::Boundary,
            (Self::Boundary, 0xC2..=0xDF) => inside(1, 0x80, 0xBF),
            (Self::Boundary, 0xE0) => inside(2, 0xA0, 0xBF),
            (Self::Boundary, 0xED) => inside(2, 0x80, 0x9F),
            (Self::Boundary, 0xE1..=0xEF) => inside(2, 0x80, 0xBF),
            (Self::Boundary, 0xF0) => inside(3, 0x90, 0xBF),
            (Self::Boundary, 0xF1..=0xF3) => inside(3, 0x80, 0xBF),
            (Self::Boundary, 0xF4) => inside(3, 0x80, 0x8F),
            (Self::Inside(expected), _) if (expected.lowest..=expected.highest).contains(&byte) => {
                if expected.missing == 1 {
                    Self::Boundary
                } else {
                    inside(expected.missing - 1, 0x80, 0xBF)
                }
            }
            _ => Self::Failed,
        }
    }
}

/// How many bytes at the end of `bytes`, three at the most, begin a sequence that they do not finish.
fn open_suffix(bytes: &[u8]) -> usize {
    for (behind, &byte) in (1..=3).zip(bytes.iter().rev()) {
        let length = match byte {
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xFF => 4,
            _ => 1,
        };
        return if behind < length { behind } else { 0 };
    }
    0
}

/// Validates `bytes`, of which the first `ascii` are known to be ASCII.
#[inline(never)]
fn validate_from(bytes: &[u8], ascii: usize) -> Result<(), InvalidUtf8> {
    if is_valid(bytes, ascii) {
        Ok(())
    } else {
        Err(first_bad_byte(bytes, ascii))
    }
}

#[cfg(target_arch = "x86_64")]
fn is_valid(bytes: &[u8], ascii: usize) -> bool {
    match x86_64::is_valid(bytes, ascii) {
        Some(is_valid) => is_valid && !is_open(bytes),
        None => std::str::from_utf8(&bytes[ascii..]).is_ok(),
    }
}

/// Do these bytes, otherwise valid and not fewer than three, end inside a code point? What
/// [`open_suffix`] says as well, without a branch.
#[cfg(target_arch = "x86_64")]
fn is_open(bytes: &[u8]) -> bool {
    let [.., third, second, first] = *bytes else {
        return false;
    };
    (first >= 0xC0) | (second >= 0xE0) | (third >= 0xF0)
}

#[cfg(all(not(target_arch = "x86_64"), not(feature = "simdutf8")))]
fn is_valid(bytes: &[u8], ascii: usize) -> bool {
    std::str::from_utf8(&bytes[ascii..]).is_ok()
}

/// Starts `simdutf8` so that it gets whole blocks, if some of the ASCII makes up for what lacks: it
/// copies a part of a block to a buffer first, and goes byte by byte below a block.
#[cfg(all(not(target_arch = "x86_64"), feature = "simdutf8"))]
fn is_valid(bytes: &[u8], ascii: usize) -> bool {
    const BLOCK: usize = 64;
    let whole = (bytes.len() - ascii).next_multiple_of(BLOCK);
    let start = bytes.len().checked_sub(whole).unwrap_or(ascii);
    simdutf8::basic::from_utf8(&bytes[start..]).is_ok()
}

/// Finds the byte at which `bytes`, known to be invalid, fails. Runs once for a connection, so that
/// it may look at the text again.
#[cold]
fn first_bad_byte(bytes: &[u8], ascii: usize) -> InvalidUtf8 {
    let valid =
        std::str::from_utf8(&bytes[ascii..]).map_or_else(|error| error.valid_up_to(), str::len);
    let mut position = ascii + valid;
    let mut state = State::Boundary;
    for &byte in &bytes[position..] {
        state = state.after(byte);
        if state == State::Failed {
            break;
        }
        position += 1;
    }
    InvalidUtf8 {
        position: position as u64,
    }
}

/// Length of some ASCII that `bytes` begins with: all of it, or what was found in passing.
#[inline(always)]
fn ascii_prefix(bytes: &[u8]) -> usize {
    let is_ascii = match bytes.len() {
        0..8 => bytes.iter().fold(0, |all, byte| all | byte) < 0x80,
        8..16 => are_ends_ascii::<8>(bytes),
        16..32 => are_ends_ascii::<16>(bytes),
        32..64 => are_ends_ascii::<32>(bytes),
        64..=SHORT => are_ends_ascii::<64>(bytes),
        _ => return ascii_prefix_long(bytes),
    };
    if is_ascii { bytes.len() } else { 0 }
}

/// For `N` to 2 `N` bytes: two blocks that overlap in the middle.
#[inline(always)]
fn are_ends_ascii<const N: usize>(bytes: &[u8]) -> bool {
    let (Some(head), Some(tail)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) else {
        return false;
    };
    // Laid over each other until one register is left, whose high bits are then counted: a shape
    // for which the compiler has one instruction. A plain OR over the bytes takes it ten.
    let mut register = [0_u8; 16];
    for block in [head, tail] {
        let (lanes, rest) = block.as_chunks::<16>();
        for lane in lanes {
            register
                .iter_mut()
                .zip(lane)
                .for_each(|(all, byte)| *all |= byte);
        }
        register
            .iter_mut()
            .zip(rest)
            .for_each(|(all, byte)| *all |= byte);
    }
    register
        .iter()
        .map(|byte| u8::from(byte.is_ascii()))
        .sum::<u8>()
        == 16
}

/// For more than [`SHORT`] bytes.
fn ascii_prefix_long(bytes: &[u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the line above found AVX2.
        return unsafe { x86_64::ascii_prefix(bytes) };
    }
    ascii_prefix_blocks::<64>(bytes, |_| {})
}

/// Whole blocks, and a last one that may overlap them. `ahead` is told where each block lies before
/// it is looked at.
#[inline(always)]
fn ascii_prefix_blocks<const N: usize>(bytes: &[u8], ahead: impl Fn(usize)) -> usize {
    // Without an early exit, so that the compiler sees one OR over vector registers.
    let is_ascii = |block: &[u8; N]| block.iter().fold(0, |all, byte| all | byte) < 0x80;
    let (blocks, _) = bytes.as_chunks::<N>();
    for (i, block) in blocks.iter().enumerate() {
        ahead(i * N);
        if !is_ascii(block) {
            return i * N;
        }
    }
    match bytes.last_chunk::<N>() {
        Some(tail) if is_ascii(tail) => bytes.len(),
        _ => blocks.len() * N,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts put before the bytes under test, so that these cross the edges of SIMD blocks.
    pub(super) fn fillers() -> Vec<Vec<u8>> {
        let ascii = (0..=70)
            .chain([127, 128, 129, 255, 256, 257])
            .map(|length| vec![b'a'; length]);
        let multibyte = (0..=70).map(|length| {
            let mut filler = "€".repeat(length / 3).into_bytes();
            filler.extend("é".repeat(length % 3 / 2).into_bytes());
            filler.resize(length, b'z');
            filler
        });
        ascii.chain(multibyte).collect()
    }

    /// Every kind of code point at the edges of its range, and every way to get one wrong.
    pub(super) fn sequences() -> Vec<Vec<u8>> {
        let mut sequences: Vec<Vec<u8>> = (0..=0xFF).map(|byte| vec![byte]).collect();
        let leads = [
            0x41, 0x80, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3,
            0xF4, 0xF5,
        ];
        for lead in leads {
            for second in [0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0] {
                sequences.push(vec![lead, second]);
                for third in [0x41, 0x80, 0xBF] {
                    sequences.push(vec![lead, second, third]);
                    sequences.extend([0x80, 0xC2].map(|fourth| vec![lead, second, third, fourth]));
                }
            }
        }
        sequences
    }

    /// Position of the first bad byte, or the length if the text is cut: by definition, the shortest
    /// prefix that no continuation makes valid, as the standard library tells (`error_len`).
    fn oracle(bytes: &[u8]) -> Result<(), InvalidUtf8> {
        let Err(error) = std::str::from_utf8(bytes) else {
            return Ok(());
        };
        let start = error.valid_up_to();
        let is_hopeless = |end: &usize| {
            std::str::from_utf8(&bytes[start..*end]).is_err_and(|e| e.error_len().is_some())
        };
        let position = (start + 1..=bytes.len())
            .find(is_hopeless)
            .map_or(bytes.len(), |end| end - 1);
        Err(InvalidUtf8 {
            position: position as u64,
        })
    }

    /// What a validator says of the pieces and their end. Checks that it fails in the piece that
    /// holds the bad byte, not later.
    fn validate_pieces(pieces: &[&[u8]]) -> Result<(), InvalidUtf8> {
        let mut validator = Validator::new();
        let mut fed = 0;
        for piece in pieces {
            fed += piece.len();
            if let Err(error) = validator.update(piece) {
                assert!(error.position < fed as u64, "found outside what was fed");
                assert_eq!(validator.finish(), Err(error), "the first error sticks");
                assert_eq!(validator.update(b"a"), Err(error), "the first error sticks");
                return Err(error);
            }
            let so_far = oracle(&pieces.concat()[..fed]);
            let is_cut = so_far
                == Err(InvalidUtf8 {
                    position: fed as u64,
                });
            assert!(
                so_far.is_ok() || is_cut,
                "a bad byte went by unseen: {pieces:02X?}"
            );
            assert_eq!(validator.is_boundary(), so_far.is_ok());
        }
        validator.finish()
    }

    #[test]
    fn whole_texts_agree_with_the_standard_library() {
        for filler in fillers() {
            for sequence in sequences() {
                for trailer in [&b""[..], &[b'a'; 70]] {
                    let text = [&filler[..], &sequence, trailer].concat();
                    let found = validate(&text).map(|valid| assert_eq!(valid.as_bytes(), text));
                    assert_eq!(
                        found,
                        oracle(&text),
                        "{} bytes, then {sequence:02X?}",
                        filler.len()
                    );
                }
            }
        }
    }

    #[test]
    fn pitfall_34_code_point_split_across_chunks_and_blocks() {
        for filler in fillers() {
            for sequence in sequences()
                .into_iter()
                .filter(|sequence| sequence.len() > 1)
            {
                let text = [&filler[..], &sequence].concat();
                let expected = oracle(&text);
                for first in filler.len()..text.len() {
                    assert_eq!(
                        validate_pieces(&[&text[..first], &text[first..]]),
                        expected,
                        "{sequence:02X?}"
                    );
                }
            }
        }
    }

    #[test]
    fn three_chunks_at_every_pair_of_splits() {
        for filler in [&b""[..], b"a", "€".as_bytes(), &[b'a'; 63]] {
            for sequence in sequences() {
                let text = [filler, &sequence, b"z"].concat();
                let expected = oracle(&text);
                for first in filler.len()..=text.len() {
                    for second in first..=text.len() {
                        let pieces = [&text[..first], &text[first..second], &text[second..]];
                        assert_eq!(
                            validate_pieces(&pieces),
                            expected,
                            "{sequence:02X?} at {first}, {second}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn fails_at_the_first_bad_byte_when_the_chunk_ends_there() {
        for (chunk, position) in [
            (&b"\xF4\x90"[..], 1),
            (b"\xE0\x80", 1),
            (b"\xED\xA0", 1),
            (b"ab\xC0", 2),
            (b"\xF5", 0),
        ] {
            assert_eq!(
                Validator::new().update(chunk),
                Err(InvalidUtf8 { position }),
                "{chunk:02X?}"
            );
        }
    }

    #[test]
    fn positions_count_from_the_start_of_the_message() {
        let mut validator = Validator::new();
        for _ in 0..1000 {
            assert_eq!(validator.update("aé€😀".as_bytes()), Ok(()));
        }
        assert_eq!(validator.update(b"\xE2\x82"), Ok(()));
        assert_eq!(validator.finish(), Err(InvalidUtf8 { position: 10_002 }));
        assert_eq!(
            validator.update(b"("),
            Err(InvalidUtf8 { position: 10_002 })
        );
    }

    #[test]
    fn pitfall_33_a_validator_keeps_nothing_to_revalidate() {
        // Its size leaves no room for text that came before, and a chunk is all that it is given.
        assert!(size_of::<Validator>() <= 16);
        // Of an open code point it keeps what may follow, not the bytes: two texts that are open in
        // the same way are one state.
        let (mut euro, mut yen) = (Validator::new(), Validator::new());
        assert_eq!(
            (euro.update(b"\xE2\x82"), yen.update(b"\xE5\x86")),
            (Ok(()), Ok(()))
        );
        assert_eq!(euro, yen);
    }

    #[test]
    fn pitfall_36_baseline_and_detected_code_find_the_same_ascii() {
        for length in SHORT + 1..=700 {
            for bad in (0..length).step_by(13).chain([length - 1]) {
                let mut bytes = vec![b'a'; length];
                assert_eq!(ascii_prefix_long(&bytes), length);
                assert_eq!(ascii_prefix_blocks::<64>(&bytes, |_| {}), length);
                bytes[bad] = 0x80;
                assert!(ascii_prefix_long(&bytes) <= bad, "{bad} of {length}");
                assert!(
                    ascii_prefix_blocks::<64>(&bytes, |_| {}) <= bad,
                    "{bad} of {length}"
                );
            }
        }
    }

    /// Numbers below what is asked for, the same in each run.
    pub(super) fn random() -> impl FnMut(usize) -> usize {
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        move |below| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::from(u16::from_be_bytes([
                seed.to_be_bytes()[0],
                seed.to_be_bytes()[1],
            ])) % below
        }
    }

    #[test]
    fn random_bytes_and_texts_in_random_pieces() {
        let mut random = random();
        let words = [
            "a",
            "{\"price\":1}",
            "é",
            "€",
            "😀",
            "\u{7FF}\u{800}\u{FFFF}\u{10000}\u{10FFFF}",
        ];
        for _ in 0..3000 {
            let mut text: Vec<u8> = (0..random(80))
                .flat_map(|_| words[random(6)].bytes())
                .collect();
            if !text.is_empty() && random(3) > 0 {
                let at = random(text.len());
                text[at] = u8::try_from(random(256)).unwrap();
            }
            let expected = oracle(&text);
            assert_eq!(validate(&text).map(drop), expected);
            let (mut pieces, mut rest) = (Vec::new(), &text[..]);
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(1 + random(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            assert_eq!(validate_pieces(&pieces), expected);
        }
    }

    #[test]
    fn the_error_says_where() {
        assert_eq!(
            validate(b"ab\xFF").map_err(|error| error.to_string()),
            Err("not UTF-8 from byte 2 on".into())
        );
    }
}
