//! Masking (RFC 6455 §5.3): the XOR over every payload that a client sends.
//!
//! Before this, the frame encoder has written the header with a fresh key; [`copy`] then moves the
//! payload behind it, masked on the way. Inbound, [`apply`] unmasks where the bytes lie, which only
//! the server role needs. A payload that comes in pieces is masked piece by piece, each with the key
//! [`rotate`]d to where the piece starts.
//!
//! > Octet i of the transformed data ("transformed-octet-i") is the XOR of octet i of the original
//! > data ("original-octet-i") with octet at index i modulo 4 of the masking key
//!
//! The algorithm is written once, in `apply_blocks` and `copy_blocks`, as plain loops that the
//! compiler vectorises. Thin wrappers compile it for each instruction set, and one of them is chosen
//! at run time. Payloads up to `SHORT` bytes are done before that choice is made; whoever copies very
//! many of them makes it beforehand, see `Implementation::run`.
#![allow(
    unsafe_code,
    reason = "calling a function compiled for a detected instruction set"
)]

/// The four bytes of a frame's masking key, in the order they have on the wire.
pub type MaskKey = [u8; 4];

/// Up to this many bytes, two overlapping blocks of baseline code beat asking what the CPU can do.
pub(super) const SHORT: usize = 128;

/// The longest payload of [`copy_short`]. Without AVX2 its two blocks still fit the registers, if barely.
pub(super) const SHORT_COPY: usize = 256;

/// Bytes per turn of the inner loop: as many as four registers of the instruction set hold, so that
/// both ends of a payload stay in registers while the loop runs. Multiples of a cache line, none
/// smaller.
const FOUR_OF_128_BITS: usize = 64;
const FOUR_OF_256_BITS: usize = 128;
const FOUR_OF_512_BITS: usize = 256;

/// A store that straddles two cache lines costs double; blocks are laid on this boundary.
const CACHE_LINE: usize = 64;

/// The key as it stands at payload byte `offset`: what to pass for a piece that starts there.
///
/// ```
/// use websockex::protocol::mask::rotate;
/// assert_eq!(rotate([1, 2, 3, 4], 5), [2, 3, 4, 1]);
/// ```
#[inline]
#[must_use]
pub const fn rotate(key: MaskKey, offset: usize) -> MaskKey {
    let bytes = offset.to_le_bytes()[0] % 4;
    u32::from_le_bytes(key)
        .rotate_right(8 * bytes as u32)
        .to_le_bytes()
}

/// Masks or unmasks `bytes` in place; `key[0]` goes with `bytes[0]`.
#[inline]
pub fn apply(bytes: &mut [u8], key: MaskKey) {
    if bytes.len() <= SHORT {
        apply_short(bytes, key);
    } else {
        Implementation::best().apply(bytes, key);
    }
}

/// Copies `source` to `destination`, masking on the way; `key[0]` goes with `source[0]`.
///
/// # Panics
/// If the two slices differ in length.
#[inline]
pub fn copy(destination: &mut [u8], source: &[u8], key: MaskKey) {
    assert_eq!(
        destination.len(),
        source.len(),
        "mask::copy needs slices of one length"
    );
    if source.len() <= SHORT {
        copy_short(destination, source, key);
    } else {
        Implementation::for_copies().copy(destination, source, key);
    }
}

/// The name of the instruction set that long payloads are unmasked with on this machine; for copies it
/// is AVX2 where this is AVX-512.
#[must_use]
pub fn implementation() -> &'static str {
    Implementation::best().name()
}

/// Every implementation this machine can run, best first; for the benches and the tests.
#[doc(hidden)]
#[must_use]
pub fn implementations() -> Vec<Implementation> {
    InstructionSet::ALL
        .iter()
        .copied()
        .filter(|set| set.is_usable())
        .map(Implementation)
        .collect()
}

/// An instruction set that this machine was found to have.
///
/// The field is private and filled only after [`InstructionSet::is_usable`] said yes. That makes the
/// methods safe to call.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Implementation(InstructionSet);

/// Best first. `Scalar` is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InstructionSet {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    Avx512,
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    Avx2,
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    Sse2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Scalar,
}

impl InstructionSet {
    const ALL: &[Self] = &[
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Self::Avx512,
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Self::Avx2,
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Self::Sse2,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
        Self::Scalar,
    ];

    /// Asks the CPU; the standard library keeps the answer, so that this is a load and a test.
    #[inline]
    fn is_usable(self) -> bool {
        match self {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
            }
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::Sse2 => is_x86_feature_detected!("sse2"),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Self::Scalar => true,
        }
    }
}

impl Implementation {
    #[inline]
    fn best() -> Self {
        let usable = InstructionSet::ALL
            .iter()
            .copied()
            .find(|set| set.is_usable());
        Self(usable.unwrap_or(InstructionSet::Scalar))
    }

    /// Does `work`, and what is inlined into it, in code for this instruction set if it is AVX2. The
    /// short copies in it then have wider registers without asking what the CPU can do, and without a
    /// call each; so `work` takes what it needs as arguments, which stay in registers too.
    #[inline(always)]
    pub(crate) fn run<A, B, R>(self, a: A, b: B, work: impl FnOnce(A, B) -> R) -> R {
        match self.0 {
            // SAFETY: an `Implementation` exists only for an instruction set that `is_usable` found.
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            InstructionSet::Avx2 => unsafe { x86::run_avx2(a, b, work) },
            _ => work(a, b),
        }
    }

    /// The best for [`copy`], which the kernel's copy follows: with AVX-512 a send of 16 KiB or of 1 MiB
    /// took 6 % longer than with AVX2, and one of 1 KiB as long. Some processors lower their clock for
    /// it, and stay there for a while. Whoever makes many short copies asks once, and then for
    /// [`run`](Self::run).
    #[inline]
    pub(crate) fn for_copies() -> Self {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        if InstructionSet::Avx2.is_usable() {
            return Self(InstructionSet::Avx2);
        }
        Self::best()
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            InstructionSet::Avx512 => "avx512",
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            InstructionSet::Avx2 => "avx2",
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            InstructionSet::Sse2 => "sse2",
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => "neon",
            InstructionSet::Scalar => "scalar",
        }
    }

    /// As [`apply`], with this instruction set whatever the length.
    #[inline]
    pub fn apply(self, bytes: &mut [u8], key: MaskKey) {
        match self.0 {
            // SAFETY: an `Implementation` exists only for an instruction set that `is_usable` found.
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            InstructionSet::Avx512 => unsafe { x86::apply_avx512(bytes, key) },
            // SAFETY: as above.
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            InstructionSet::Avx2 => unsafe { x86::apply_avx2(bytes, key) },
            // SAFETY: as above.
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            InstructionSet::Sse2 => unsafe { x86::apply_sse2(bytes, key) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => unsafe { aarch64::apply_neon(bytes, key) },
            InstructionSet::Scalar => scalar::apply(bytes, key),
        }
    }

    /// As [`copy`], with this instruction set whatever the length.
    #[inline]
    pub fn copy(self, destination: &mut [u8], source: &[u8], key: MaskKey) {
        match self.0 {
            // SAFETY: an `Implementation` exists only for an instruction set that `is_usable` found.
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            InstructionSet::Avx512 => unsafe { x86::copy_avx512(destination, source, key) },
            // SAFETY: as above.
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            InstructionSet::Avx2 => unsafe { x86::copy_avx2(destination, source, key) },
            // SAFETY: as above.
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            InstructionSet::Sse2 => unsafe { x86::copy_sse2(destination, source, key) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => unsafe { aarch64::copy_neon(destination, source, key) },
            InstructionSet::Scalar => scalar::copy(destination, source, key),
        }
    }
}

/// Masks up to [`SHORT`] bytes as two blocks, one at each end, that overlap in the middle.
#[inline]
fn apply_short(bytes: &mut [u8], key: MaskKey) {
    match bytes.len() {
        64.. => apply_ends::<64>(bytes, key),
        32.. => apply_ends::<32>(bytes, key),
        16.. => apply_ends::<16>(bytes, key),
        8.. => apply_ends::<8>(bytes, key),
        4.. => apply_ends::<4>(bytes, key),
        _ => bytes
            .iter_mut()
            .zip(key)
            .for_each(|(byte, mask)| *byte ^= mask),
    }
}

/// Copies up to [`SHORT_COPY`] bytes as [`apply_short`] masks them, from one slice to another of the
/// same length.
#[inline(always)]
pub(super) fn copy_short(destination: &mut [u8], source: &[u8], key: MaskKey) {
    match source.len() {
        129.. => copy_ends::<128>(destination, source, key),
        64.. => copy_ends::<64>(destination, source, key),
        32.. => copy_ends::<32>(destination, source, key),
        16.. => copy_ends::<16>(destination, source, key),
        8.. => copy_ends::<8>(destination, source, key),
        4.. => copy_ends::<4>(destination, source, key),
        _ => {
            for ((to, from), mask) in destination.iter_mut().zip(source).zip(key) {
                *to = from ^ mask;
            }
        }
    }
}

/// Masks the first `N` bytes and the last `N`.
#[inline(always)]
fn apply_ends<const N: usize>(bytes: &mut [u8], key: MaskKey) {
    apply_around::<N>(bytes, key, |_| ());
}

/// As [`apply_ends`], from one slice to another.
#[inline(always)]
fn copy_ends<const N: usize>(destination: &mut [u8], source: &[u8], key: MaskKey) {
    let tail_key = rotate(key, source.len().wrapping_sub(N));
    if let (Some(to), Some(from)) = (
        destination.first_chunk_mut::<N>(),
        source.first_chunk::<N>(),
    ) {
        *to = masked(*from, key);
    }
    if let (Some(to), Some(from)) = (destination.last_chunk_mut::<N>(), source.last_chunk::<N>()) {
        *to = masked(*from, tail_key);
    }
}

/// Masks the first and the last `N` bytes around `middle`, which may mask any of the bytes as well:
/// both ends are read before anything is written and written after everything else, so that a byte
/// that belongs to several blocks is still masked once.
#[inline(always)]
fn apply_around<const N: usize>(bytes: &mut [u8], key: MaskKey, middle: impl FnOnce(&mut [u8])) {
    let (Some(&head), Some(&tail)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) else {
        unreachable!("the caller chose N by the length");
    };
    let tail_key = rotate(key, bytes.len() - N);
    middle(bytes);
    if let Some(block) = bytes.first_chunk_mut::<N>() {
        *block = masked(head, key);
    }
    if let Some(block) = bytes.last_chunk_mut::<N>() {
        *block = masked(tail, tail_key);
    }
}

/// The algorithm: whole blocks on cache-line boundaries, and at each end a block that may overlap
/// them. No byte is left over for a slower loop.
#[inline(always)]
fn apply_blocks<const N: usize>(bytes: &mut [u8], key: MaskKey) {
    if bytes.len() <= SHORT {
        return apply_short(bytes, key);
    }
    if N > FOUR_OF_128_BITS && bytes.len() <= 2 * FOUR_OF_256_BITS {
        return apply_ends::<FOUR_OF_256_BITS>(bytes, key);
    }
    apply_around::<N>(bytes, key, |bytes| {
        // `min`: `align_offset` is allowed not to know, and says so with `usize::MAX`.
        let aligned = bytes.as_ptr().align_offset(CACHE_LINE).min(N);
        let (blocks, _) = bytes[aligned..].as_chunks_mut::<N>();
        mask_words(blocks.as_flattened_mut(), rotate(key, aligned));
    });
}

/// As [`apply_blocks`], from one slice to another of the same length.
#[inline(always)]
fn copy_blocks<const N: usize>(destination: &mut [u8], source: &[u8], key: MaskKey) {
    if source.len() <= SHORT_COPY {
        return copy_short(destination, source, key);
    }
    copy_ends::<N>(destination, source, key);
    let aligned = destination.as_ptr().align_offset(CACHE_LINE).min(N);
    let (to, _) = destination[aligned..].as_chunks_mut::<N>();
    let (from, _) = source[aligned..].as_chunks::<N>();
    copy_words(
        to.as_flattened_mut(),
        from.as_flattened(),
        rotate(key, aligned),
    );
}

/// One block under the key.
#[inline(always)]
fn masked<const N: usize>(mut block: [u8; N], key: MaskKey) -> [u8; N] {
    mask_words(&mut block, key);
    block
}

/// Whole words under the key. This flat loop over words of the key's width is what the compiler
/// vectorises well; nested loops over blocks it turned into gathers and scatters for AVX-512.
#[inline(always)]
fn mask_words(bytes: &mut [u8], key: MaskKey) {
    let key = u32::from_ne_bytes(key);
    let (words, _) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
}

/// As [`mask_words`], from one slice to another.
#[inline(always)]
fn copy_words(destination: &mut [u8], source: &[u8], key: MaskKey) {
    let key = u32::from_ne_bytes(key);
    let (to, _) = destination.as_chunks_mut::<4>();
    let (from, _) = source.as_chunks::<4>();
    for (to, from) in to.iter_mut().zip(from) {
        *to = (u32::from_ne_bytes(*from) ^ key).to_ne_bytes();
    }
}

/// The algorithm in what every CPU of the target has, which on some includes vector registers.
mod scalar {
    use super::{FOUR_OF_128_BITS, MaskKey, apply_blocks, copy_blocks};

    pub(super) fn apply(bytes: &mut [u8], key: MaskKey) {
        apply_blocks::<FOUR_OF_128_BITS>(bytes, key);
    }

    pub(super) fn copy(destination: &mut [u8], source: &[u8], key: MaskKey) {
        copy_blocks::<FOUR_OF_128_BITS>(destination, source, key);
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod x86 {
    use super::{
        FOUR_OF_128_BITS, FOUR_OF_256_BITS, FOUR_OF_512_BITS, MaskKey, apply_blocks, copy_blocks,
    };

    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn apply_avx512(bytes: &mut [u8], key: MaskKey) {
        apply_blocks::<FOUR_OF_512_BITS>(bytes, key);
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn copy_avx512(destination: &mut [u8], source: &[u8], key: MaskKey) {
        copy_blocks::<FOUR_OF_512_BITS>(destination, source, key);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn run_avx2<A, B, R>(a: A, b: B, work: impl FnOnce(A, B) -> R) -> R {
        work(a, b)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn apply_avx2(bytes: &mut [u8], key: MaskKey) {
        apply_blocks::<FOUR_OF_256_BITS>(bytes, key);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn copy_avx2(destination: &mut [u8], source: &[u8], key: MaskKey) {
        copy_blocks::<FOUR_OF_256_BITS>(destination, source, key);
    }

    #[target_feature(enable = "sse2")]
    pub(super) fn apply_sse2(bytes: &mut [u8], key: MaskKey) {
        apply_blocks::<FOUR_OF_128_BITS>(bytes, key);
    }

    #[target_feature(enable = "sse2")]
    pub(super) fn copy_sse2(destination: &mut [u8], source: &[u8], key: MaskKey) {
        copy_blocks::<FOUR_OF_128_BITS>(destination, source, key);
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::{FOUR_OF_128_BITS, MaskKey, apply_blocks, copy_blocks};

    #[target_feature(enable = "neon")]
    pub(super) fn apply_neon(bytes: &mut [u8], key: MaskKey) {
        apply_blocks::<FOUR_OF_128_BITS>(bytes, key);
    }

    #[target_feature(enable = "neon")]
    pub(super) fn copy_neon(destination: &mut [u8], source: &[u8], key: MaskKey) {
        copy_blocks::<FOUR_OF_128_BITS>(destination, source, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lengths of the short path, of one block and of a few blocks of every implementation.
    const LENGTHS: std::ops::RangeInclusive<usize> = 0..=600;
    const KEYS: [MaskKey; 4] = [
        [0x37, 0xFA, 0x21, 0x3D],
        [0, 0, 0, 0],
        [0xFF; 4],
        [1, 2, 3, 4],
    ];
    /// What must stay untouched on both sides of the masked bytes.
    const GUARD: u8 = 0xA5;

    /// RFC 6455 §5.3 taken literally.
    fn oracle(original: &[u8], key: MaskKey) -> Vec<u8> {
        original
            .iter()
            .enumerate()
            .map(|(i, octet)| octet ^ key[i % 4])
            .collect()
    }

    /// Bytes in which no stretch looks like the next.
    fn payload(length: usize) -> Vec<u8> {
        (0..length as u64)
            .map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0])
            .collect()
    }

    type Apply = Box<dyn Fn(&mut [u8], MaskKey)>;
    type Copy = Box<dyn Fn(&mut [u8], &[u8], MaskKey)>;

    /// Everything that must agree with the oracle: the public functions, and each implementation, which a
    /// copy that is short enough runs with, too.
    fn subjects() -> Vec<(&'static str, Apply, Copy)> {
        let mut subjects: Vec<(&'static str, Apply, Copy)> =
            vec![("public", Box::new(apply), Box::new(copy))];
        for implementation in implementations() {
            subjects.push((
                implementation.name(),
                Box::new(move |bytes, key| implementation.apply(bytes, key)),
                Box::new(move |destination, source, key| {
                    implementation.copy(destination, source, key);
                }),
            ));
            subjects.push((
                "run",
                Box::new(move |bytes, key| implementation.apply(bytes, key)),
                Box::new(move |destination, source, key| {
                    if source.len() > SHORT_COPY {
                        return implementation.copy(destination, source, key);
                    }
                    implementation.run(destination, source, |to, from| copy_short(to, from, key));
                }),
            ));
        }
        subjects
    }

    /// Checks both functions of every subject on `original`, placed `offset` bytes into a buffer.
    fn check(original: &[u8], offset: usize, key: MaskKey) {
        let expected = oracle(original, key);
        let end = offset + original.len();
        for (name, apply, copy) in subjects() {
            let mut buffer = vec![GUARD; end + CACHE_LINE];
            buffer[offset..end].copy_from_slice(original);
            apply(&mut buffer[offset..end], key);
            assert!(
                buffer[offset..end] == expected,
                "apply/{name}: {} at {offset}",
                original.len()
            );
            assert!(
                is_guarded(&buffer, offset, end),
                "apply/{name} wrote outside: {} at {offset}",
                original.len()
            );

            buffer.fill(GUARD);
            copy(&mut buffer[offset..end], original, key);
            assert!(
                buffer[offset..end] == expected,
                "copy/{name}: {} at {offset}",
                original.len()
            );
            assert!(
                is_guarded(&buffer, offset, end),
                "copy/{name} wrote outside: {} at {offset}",
                original.len()
            );
        }
    }

    fn is_guarded(buffer: &[u8], start: usize, end: usize) -> bool {
        buffer[..start]
            .iter()
            .chain(&buffer[end..])
            .all(|&byte| byte == GUARD)
    }

    #[test]
    fn every_length_agrees_with_the_oracle() {
        for length in LENGTHS {
            for key in KEYS {
                check(&payload(length), length % 7, key);
            }
        }
    }

    #[test]
    fn every_alignment_agrees_with_the_oracle() {
        for length in [
            0, 1, 3, 4, 7, 8, 15, 16, 31, 33, 63, 65, 127, 128, 129, 191, 255, 256, 257, 300, 511,
            513,
        ] {
            for offset in 0..CACHE_LINE {
                check(&payload(length), offset, KEYS[0]);
            }
        }
    }

    #[test]
    fn large_payloads_agree_with_the_oracle() {
        for length in [4095, 4096, 65_537, (1 << 20) + 3] {
            check(&payload(length), 6, KEYS[0]);
        }
    }

    #[test]
    fn masking_twice_gives_the_original_back() {
        let original = payload(1000);
        let mut bytes = original.clone();
        apply(&mut bytes, KEYS[0]);
        assert_ne!(bytes, original);
        apply(&mut bytes, KEYS[0]);
        assert_eq!(bytes, original);
    }

    #[test]
    fn pieces_under_the_rotated_key_equal_the_whole() {
        let original = payload(700);
        let whole = oracle(&original, KEYS[0]);
        for piece in [1, 2, 3, 5, 64, 129, 333] {
            let mut bytes = original.clone();
            for (i, chunk) in bytes.chunks_mut(piece).enumerate() {
                apply(chunk, rotate(KEYS[0], i * piece));
            }
            assert_eq!(bytes, whole, "in pieces of {piece}");
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 6455 §5.7: a single-frame masked text message that contains "Hello".
        let mut bytes = [0; 5];
        copy(&mut bytes, b"Hello", [0x37, 0xFA, 0x21, 0x3D]);
        assert_eq!(bytes, [0x7F, 0x9F, 0x4D, 0x51, 0x58]);
    }

    #[test]
    fn rotate_wraps_at_four() {
        assert_eq!(rotate([1, 2, 3, 4], 0), [1, 2, 3, 4]);
        assert_eq!(rotate([1, 2, 3, 4], 3), [4, 1, 2, 3]);
        assert_eq!(rotate([1, 2, 3, 4], usize::MAX), [4, 1, 2, 3]);
    }

    #[test]
    #[should_panic(expected = "one length")]
    fn copy_refuses_different_lengths() {
        copy(&mut [0; 3], &[0; 4], KEYS[0]);
    }

    #[test]
    fn pitfall_36_only_detected_instruction_sets_are_offered() {
        let names: Vec<_> = implementations()
            .iter()
            .map(|implementation| implementation.name())
            .collect();
        assert_eq!(
            names.first(),
            Some(&implementation()),
            "the best of those usable is the one chosen"
        );
        assert_eq!(names.last(), Some(&"scalar"), "there is always one left");
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        {
            let avx512 =
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            assert_eq!(names.contains(&"avx512"), avx512);
            assert_eq!(names.contains(&"avx2"), is_x86_feature_detected!("avx2"));
            assert_eq!(names.contains(&"sse2"), is_x86_feature_detected!("sse2"));
        }
    }
}
