//! Text that is not ASCII, by vectors of x86-64: the algorithm once, and thin wrappers of what each
//! instruction set calls its instructions.
//!
//! Before this, the ASCII at the start was skipped; after it, only the code point that the end of a
//! piece cuts is left. The algorithm is Keiser and Lemire's, "Validating UTF-8 In Less Than One
//! Instruction Per Byte" (2021). What can be wrong with a byte shows nearly always in itself and the
//! one before it, and of these in three nibbles: see [`PAIRS`]. What is left is that the third and
//! fourth byte of a sequence are there exactly where a lead two or three bytes before them asks for
//! them.
//!
//! The bytes before those under test are loaded once more, one, two and three bytes further left,
//! and not shifted together from registers: there are load ports to spare, and one port only that
//! shuffles. It also makes a vector's check the same wherever it lies, so that the last one simply
//! overlaps the one before.

use super::ascii_prefix_blocks;
use std::arch::x86_64::*;

/// How far ahead of the bytes at hand others are asked for, in bytes. What the kernel has just copied
/// is not in the first two caches, and the hardware alone fetches it too late.
const AHEAD: usize = 4096;

/// Are `bytes` valid, of which the first `ascii` are known to be ASCII? They must not end inside a
/// code point. `None`: they are too few, or this processor has no vectors that help.
#[inline]
pub(super) fn is_valid(bytes: &[u8], ascii: usize) -> Option<bool> {
    if bytes.len() < SHORTEST {
        return None;
    }
    if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
        // SAFETY: the line above found what it is compiled for.
        return Some(unsafe { is_valid_avx512(bytes, ascii) });
    }
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the line above found AVX2.
        return Some(unsafe { is_valid_avx2(bytes, ascii) });
    }
    if is_x86_feature_detected!("ssse3") {
        // SAFETY: the line above found SSSE3.
        return Some(unsafe { is_valid_ssse3(bytes, ascii) });
    }
    None
}

/// With vectors of 32 bytes all the same: what it gains is one instruction for three of the bit
/// operations. Those of 64 bytes make many processors lower their clock, and text that has just been
/// received does not come fast enough for them.
#[target_feature(enable = "avx512bw,avx512vl")]
fn is_valid_avx512(bytes: &[u8], ascii: usize) -> bool {
    // SAFETY: this function is compiled for what these vectors need.
    unsafe { are_valid_by_32(bytes, ascii) }
}

#[target_feature(enable = "avx2")]
fn is_valid_avx2(bytes: &[u8], ascii: usize) -> bool {
    // SAFETY: this function is compiled for what these vectors need.
    unsafe { are_valid_by_32(bytes, ascii) }
}

/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn are_valid_by_32(bytes: &[u8], ascii: usize) -> bool {
    // SAFETY: by the caller.
    unsafe {
        if bytes.len() < BACK + <__m256i as Vector>::WIDTH {
            are_valid::<__m128i>(bytes, ascii)
        } else {
            are_valid::<__m256i>(bytes, ascii)
        }
    }
}

#[target_feature(enable = "ssse3")]
fn is_valid_ssse3(bytes: &[u8], ascii: usize) -> bool {
    // SAFETY: this function is compiled for what these vectors need.
    unsafe { are_valid::<__m128i>(bytes, ascii) }
}

/// Length of some ASCII that `bytes`, of which there are more than 128, begin with.
#[target_feature(enable = "avx2")]
pub(super) fn ascii_prefix(bytes: &[u8]) -> usize {
    match bytes.len() {
        0..=256 => ascii_prefix_blocks::<128>(bytes, |_| {}),
        257..=AHEAD => ascii_prefix_blocks::<GROUP>(bytes, |_| {}),
        _ => ascii_prefix_blocks::<GROUP>(bytes, |position| prefetch(bytes, position)),
    }
}

/// Asks for the group that lies [`AHEAD`] of the one at `position`, or for the last one: with no
/// branch, which would keep the compiler from mixing this with the work.
#[inline(always)]
fn prefetch(bytes: &[u8], position: usize) {
    let start = (position + AHEAD).min(bytes.len().saturating_sub(GROUP));
    for line in (0..GROUP).step_by(LINE) {
        let address = bytes.as_ptr().wrapping_add(start + line);
        // SAFETY: a hint, which accesses nothing; SSE belongs to x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
}

/// Bytes that the check of a vector looks back over.
const BACK: usize = 3;
/// Bytes of the vector at the very start.
const HEAD: usize = <__m128i as Vector>::WIDTH;
/// Fewer bytes than this are not for vectors.
const SHORTEST: usize = BACK + HEAD;
/// So many bytes, whole vectors all, are checked without a question between them.
const GROUP: usize = 256;
/// ASCII that ends a group makes it likely that more follows, which goes faster.
const LAST: usize = 64;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Of eight bytes.
const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);

/// # Panics
/// When there are fewer bytes than a vector has, and those before it.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn are_valid<V: Vector>(bytes: &[u8], ascii: usize) -> bool {
    assert!(bytes.len() >= BACK + V::WIDTH);
    let last = bytes.len() - V::WIDTH;
    let mut position = ascii.min(last);
    // SAFETY: of the vectors by the caller. Of every address: what is read lies from BACK before
    // `position` to a vector behind it, and `position` stays between BACK and `last`; in a group, so
    // does each of its vectors.
    unsafe {
        let at = |position: usize| bytes.as_ptr().add(position);
        if position < BACK {
            if !is_head_valid(at(0)) {
                return false;
            }
            position = HEAD.min(last);
        }
        let check = Check::<V>::new();
        let mut errors = V::splat(0);
        while position + GROUP <= bytes.len() {
            let mut is_ascii = false;
            while !is_ascii && position + GROUP <= bytes.len() {
                prefetch(bytes, position);
                for _ in 0..GROUP / V::WIDTH {
                    errors = errors.or(check.vector(at(position)));
                    position += V::WIDTH;
                }
                // In this order: vectors report slowly to a branch.
                is_ascii = at(position - 8).cast::<u64>().read_unaligned() & HIGH_BITS == 0
                    && (1..=LAST / V::WIDTH)
                        .map(|back| V::load(at(position - back * V::WIDTH)))
                        .fold(V::splat(0), |all, vector| all.or(vector))
                        .is_ascii();
            }
            if is_ascii {
                position += super::ascii_prefix(&bytes[position..]);
            }
        }
        while position < last {
            errors = errors.or(check.vector(at(position)));
            position += V::WIDTH;
        }
        errors.or(check.vector(at(last))).is_zero()
    }
}

/// The first bytes of a text, before which there is nothing.
///
/// # Safety
/// The processor has SSSE3, and [`HEAD`] bytes can be read at `start`.
#[inline(always)]
unsafe fn is_head_valid(start: *const u8) -> bool {
    // SAFETY: by the caller.
    unsafe {
        let bytes = __m128i::load(start);
        let (one, two) = (_mm_slli_si128::<1>(bytes), _mm_slli_si128::<2>(bytes));
        let three = _mm_slli_si128::<3>(bytes);
        Check::new().bytes(bytes, one, two, three).is_zero()
    }
}

/// What can be wrong with two bytes in a row, by nibbles: of the first byte the high ones and the low
/// ones, of the second the high ones, each a set with one bit per nibble (RFC 3629 §3 and §4). Its
/// place in the list is the bit of a kind.
const PAIRS: [(u16, u16, u16); 8] = [
    // A lead, and no continuation.
    (0xF000, 0xFFFF, 0xF0FF),
    // ASCII, and a continuation.
    (0x00FF, 0xFFFF, 0x0F00),
    // C0 and C1: two bytes for what fits in one.
    (0x1000, 0x0003, 0x0F00),
    // E0 and less than A0: three bytes for what fits in two.
    (0x4000, 0x0001, 0x0300),
    // ED and A0 or more: a surrogate.
    (0x4000, 0x2000, 0x0C00),
    // F4 or more, and 90 or more: beyond U+10FFFF.
    (0x8000, 0xFFF0, 0x0E00),
    // F0 and less than 90: four bytes for what fits in three; F5 or more: beyond U+10FFFF.
    (0x8000, 0xFFE1, 0x0100),
    // Two continuations. Not wrong where a lead before them asks for both.
    (0x0F00, 0xFFFF, 0x0F00),
];

/// The bit of the last kind.
const TWO_CONTINUATIONS: u8 = 0x80;

/// The kinds of [`PAIRS`] that each nibble belongs to; `column` says which nibble of the three.
const fn table(column: usize) -> [u8; 16] {
    let mut table = [0; 16];
    let mut kind = 0;
    while kind < PAIRS.len() {
        let (first_high, first_low, second_high) = PAIRS[kind];
        let nibbles = [first_high, first_low, second_high][column];
        let mut nibble = 0;
        while nibble < table.len() {
            table[nibble] |= ((nibbles >> nibble & 1) as u8) << kind;
            nibble += 1;
        }
        kind += 1;
    }
    table
}

static FIRST_HIGH: [u8; 16] = table(0);
static FIRST_LOW: [u8; 16] = table(1);
static SECOND_HIGH: [u8; 16] = table(2);

/// The constants of the check, in registers.
struct Check<V> {
    first_high: V,
    first_low: V,
    second_high: V,
    below_lead_of_three: V,
    below_lead_of_four: V,
    two_continuations: V,
}

impl<V: Vector> Check<V> {
    /// # Safety
    /// The processor has the instructions of `V`.
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: by the caller.
        unsafe {
            Self {
                first_high: V::table(&FIRST_HIGH),
                first_low: V::table(&FIRST_LOW),
                second_high: V::table(&SECOND_HIGH),
                // What is left of a lead has the high bit, and of less it has not.
                below_lead_of_three: V::splat(0xE0 - 0x80),
                below_lead_of_four: V::splat(0xF0 - 0x80),
                two_continuations: V::splat(TWO_CONTINUATIONS),
            }
        }
    }

    /// What is wrong with the bytes at `at`, zero if nothing is.
    ///
    /// # Safety
    /// The processor has the instructions of `V`, and [`BACK`] bytes before `at` and a vector from it
    /// on can be read.
    #[inline(always)]
    unsafe fn vector(&self, at: *const u8) -> V {
        // SAFETY: by the caller.
        unsafe {
            let before = |back: usize| V::load(at.sub(back));
            self.bytes(V::load(at), before(1), before(2), before(3))
        }
    }

    /// What is wrong with `bytes`, before each of which stand those of the other vectors, `one`,
    /// `two` and `three` bytes before it.
    ///
    /// # Safety
    /// The processor has the instructions of `V`.
    #[inline(always)]
    unsafe fn bytes(&self, bytes: V, one: V, two: V, three: V) -> V {
        // SAFETY: by the caller.
        unsafe {
            let pairs = (self.first_high.look_up(one.high_nibbles()))
                .and(self.first_low.look_up(one.low_nibbles()))
                .and(self.second_high.look_up(bytes.high_nibbles()));
            let third = two.minus(self.below_lead_of_three);
            let fourth = three.minus(self.below_lead_of_four);
            pairs.xor(third.or(fourth).and(self.two_continuations))
        }
    }
}

/// A vector of bytes: what the algorithm needs of it.
///
/// # Safety
/// Each function is only called where the processor has the instructions of this vector, from a
/// function that is compiled for them, and `load` with an address from which a vector can be read.
trait Vector: Copy {
    const WIDTH: usize;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn splat(byte: u8) -> Self;
    /// Repeated in each run of 16 bytes, as `look_up` needs it.
    unsafe fn table(entries: &[u8; 16]) -> Self;
    /// For each of `nibbles` its entry in this table.
    unsafe fn look_up(self, nibbles: Self) -> Self;
    unsafe fn low_nibbles(self) -> Self;
    unsafe fn high_nibbles(self) -> Self;
    unsafe fn and(self, other: Self) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    /// Zero where `other` is more.
    unsafe fn minus(self, other: Self) -> Self;
    unsafe fn is_ascii(self) -> bool;
    unsafe fn is_zero(self) -> bool;
}

/// Implements [`Vector`] with the intrinsics that are called the same but for their prefix.
macro_rules! vector {
    ($vector:ty, $width:literal, {
        load: $load:ident, splat: $splat:ident, repeat: $repeat:expr, shuffle: $shuffle:ident,
        shift: $shift:ident, and: $and:ident, or: $or:ident, xor: $xor:ident, minus: $minus:ident,
        is_ascii: $is_ascii:expr, is_zero: $is_zero:expr $(,)?
    }) => {
        // SAFETY: of each block, what the trait asks of its callers.
        impl Vector for $vector {
            const WIDTH: usize = $width;
            #[inline(always)]
            unsafe fn load(from: *const u8) -> Self {
                // SAFETY: as above.
                unsafe { $load(from.cast()) }
            }
            #[inline(always)]
            unsafe fn splat(byte: u8) -> Self {
                // SAFETY: as above.
                unsafe { $splat(byte.cast_signed()) }
            }
            #[inline(always)]
            unsafe fn table(entries: &[u8; 16]) -> Self {
                // SAFETY: as above, and the entries are as many as are loaded.
                unsafe { $repeat(_mm_loadu_si128(entries.as_ptr().cast())) }
            }
            #[inline(always)]
            unsafe fn look_up(self, nibbles: Self) -> Self {
                // SAFETY: as above.
                unsafe { $shuffle(self, nibbles) }
            }
            #[inline(always)]
            unsafe fn low_nibbles(self) -> Self {
                // SAFETY: as above.
                unsafe { $and(self, $splat(0x0F)) }
            }
            #[inline(always)]
            unsafe fn high_nibbles(self) -> Self {
                // SAFETY: as above.
                unsafe { $and($shift::<4>(self), $splat(0x0F)) }
            }
            #[inline(always)]
            unsafe fn and(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { $and(self, other) }
            }
            #[inline(always)]
            unsafe fn or(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { $or(self, other) }
            }
            #[inline(always)]
            unsafe fn xor(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { $xor(self, other) }
            }
            #[inline(always)]
            unsafe fn minus(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { $minus(self, other) }
            }
            #[inline(always)]
            unsafe fn is_ascii(self) -> bool {
                // SAFETY: as above.
                unsafe { $is_ascii(self) }
            }
            #[inline(always)]
            unsafe fn is_zero(self) -> bool {
                // SAFETY: as above.
                unsafe { $is_zero(self) }
            }
        }
    };
}

vector!(__m256i, 32, {
    load: _mm256_loadu_si256, splat: _mm256_set1_epi8, repeat: _mm256_broadcastsi128_si256,
    shuffle: _mm256_shuffle_epi8, shift: _mm256_srli_epi16, and: _mm256_and_si256,
    or: _mm256_or_si256, xor: _mm256_xor_si256, minus: _mm256_subs_epu8,
    is_ascii: |vector| _mm256_movemask_epi8(vector) == 0,
    is_zero: |vector| _mm256_testz_si256(vector, vector) == 1,
});

vector!(__m128i, 16, {
    load: _mm_loadu_si128, splat: _mm_set1_epi8, repeat: |vector| vector,
    shuffle: _mm_shuffle_epi8, shift: _mm_srli_epi16, and: _mm_and_si128,
    or: _mm_or_si128, xor: _mm_xor_si128, minus: _mm_subs_epu8,
    is_ascii: |vector| _mm_movemask_epi8(vector) == 0,
    is_zero: |vector| _mm_movemask_epi8(_mm_cmpeq_epi8(vector, _mm_setzero_si128())) == 0xFFFF,
});

#[cfg(test)]
mod tests {
    use super::super::is_open;
    use super::super::tests::{fillers, random, sequences};
    use super::*;

    type IsValid = unsafe fn(&[u8], usize) -> bool;

    /// What this processor can run of them.
    fn implementations() -> Vec<(&'static str, IsValid)> {
        let mut implementations: Vec<(_, IsValid)> = Vec::new();
        if is_x86_feature_detected!("ssse3") {
            implementations.push(("SSSE3", is_valid_ssse3));
        }
        if is_x86_feature_detected!("avx2") {
            implementations.push(("AVX2", is_valid_avx2));
        }
        if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
            implementations.push(("AVX-512", is_valid_avx512));
        }
        implementations
    }

    /// All implementations against the standard library, with the ASCII at the start known, not
    /// known, and known in part.
    fn check(text: &[u8]) {
        if text.len() < SHORTEST || is_open(text) {
            return;
        }
        let expected = std::str::from_utf8(text);
        let ascii = text.iter().take_while(|byte| byte.is_ascii()).count();
        for (name, is_valid) in implementations() {
            for known in [0, 2, ascii] {
                // SAFETY: it is in the list because the processor has what it is compiled for.
                let found = unsafe { is_valid(text, known.min(ascii)) };
                assert_eq!(found, expected.is_ok(), "{name}, {known}: {text:02X?}");
            }
        }
    }

    #[test]
    fn pitfall_36_every_implementation_agrees_with_the_standard_library() {
        for filler in fillers() {
            for sequence in sequences() {
                for trailer in [0, 33] {
                    check(&[&filler[..], &sequence, &vec![b'a'; trailer]].concat());
                }
            }
        }
    }

    #[test]
    fn a_bad_byte_anywhere_in_groups_of_vectors() {
        let text = "価格 and ASCII, цена 🚀 ".repeat(2 * GROUP / 32);
        for ascii in [0, 1, GROUP - 1, 2 * GROUP] {
            let text = ["x".repeat(ascii).as_bytes(), text.as_bytes()].concat();
            check(&text);
            for at in 0..text.len() {
                let mut text = text.clone();
                text[at] ^= 0x80;
                check(&text);
            }
        }
    }

    #[test]
    fn random_texts_with_long_runs_of_ascii() {
        let mut random = random();
        let words = ["é", "€", "😀", "ascii", "\u{7FF}\u{800}\u{FFFF}\u{10FFFF}"];
        for _ in 0..2000 {
            let mut text = Vec::new();
            for _ in 0..random(12) {
                text.extend(words[random(words.len())].repeat(random(50)).bytes());
                text.extend("a".repeat(random(4) * random(200)).bytes());
            }
            check(&text);
            if !text.is_empty() {
                let at = random(text.len());
                text[at] = u8::try_from(random(256)).unwrap();
                check(&text);
            }
        }
    }
}
