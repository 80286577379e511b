//! A few unpredictable bytes of the operating system stretched into many.
//!
//! Below [`entropy`](super::entropy), as its source. The operating system takes some 10 ns for each
//! masking key, even when it is asked for a thousand at once, and that is more than the rest of a
//! small frame costs. ChaCha (RFC 8439 §2.3) takes a fraction of it.
#![allow(
    unsafe_code,
    reason = "calling a function compiled for a detected instruction set"
)]

use super::entropy::Source;
use std::io;

/// Bytes given out before the operating system is asked for a fresh key.
const RESEED_AFTER: usize = 1 << 20;

/// A source that asks another one for a key from time to time.
pub(crate) struct Stretch {
    key: Key,
    /// Bytes that may still be made from `key` and its successors.
    left: usize,
    source: Source,
}

impl Stretch {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            key: [0; 32],
            left: 0,
            source,
        }
    }

    /// Fills `out`. Each time the key is replaced by bytes of its own stream that nobody else gets,
    /// so that whoever reads this memory later cannot tell what was given out before the last batch.
    ///
    /// # Errors
    /// The source's, when it is asked.
    pub(crate) fn fill(&mut self, out: &mut [u8]) -> io::Result<()> {
        for piece in out.chunks_mut(RESEED_AFTER) {
            if self.left < piece.len() {
                (self.source)(&mut self.key)?;
                self.left = RESEED_AFTER;
            }
            self.left -= piece.len();
            let mut first = [0; STEP];
            blocks::<DOUBLE_ROUNDS>(&self.key, 0, [0; 3], &mut first);
            let (next, rest) = first.split_at(size_of::<Key>());
            let (begin, behind) = piece.split_at_mut(piece.len().min(rest.len()));
            begin.copy_from_slice(&rest[..begin.len()]);
            let key = std::mem::replace(&mut self.key, next.try_into().expect("it is that long"));
            stream::<DOUBLE_ROUNDS>(&key, LANES, behind);
        }
        Ok(())
    }
}

/// Bytes of a block.
const BLOCK: usize = 64;
/// Blocks made at a time. The compiler makes vector code of the loops over them, with whatever
/// registers every machine of the target has; with fewer turns it would unroll them instead.
const LANES: usize = 16;
/// Bytes made at a time.
const STEP: usize = LANES * BLOCK;

/// RFC 8439 §2.3: the first four words of the state, "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// 12 rounds instead of the RFC's 20: the best attack known reaches 7, and it is masking keys that
/// are made here, which whoever reads the connection sees anyway.
const DOUBLE_ROUNDS: usize = 6;

type Key = [u8; 32];
type Row = [u32; LANES];

/// Fills `out` with the blocks of the key stream from number `first` on, in the order of [`blocks`].
fn stream<const DOUBLE_ROUNDS: usize>(key: &Key, first: usize, out: &mut [u8]) {
    for (chunk, first) in out.chunks_mut(STEP).zip((first..).step_by(LANES)) {
        // The blocks of one key fill RESEED_AFTER at most.
        let first = u32::try_from(first).expect("a block's number is small");
        if let Some(whole) = chunk.first_chunk_mut() {
            blocks::<DOUBLE_ROUNDS>(key, first, [0; 3], whole);
        } else {
            let mut bytes = [0; STEP];
            blocks::<DOUBLE_ROUNDS>(key, first, [0; 3], &mut bytes);
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// [`LANES`] blocks, from block number `first` on, after two rounds `DOUBLE_ROUNDS` times: the first
/// word of each, then the second of each and so on, as they come. Nobody else has to make the same
/// stream, and to put them in the RFC's order would be half of the work.
fn blocks<const DOUBLE_ROUNDS: usize>(
    key: &Key,
    first: u32,
    nonce: [u32; 3],
    out: &mut [u8; STEP],
) {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
        // SAFETY: the line above found them.
        return unsafe { avx512::blocks::<DOUBLE_ROUNDS>(key, first, nonce, out) };
    }
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the line above found AVX2.
        return unsafe { blocks_avx2::<DOUBLE_ROUNDS>(key, first, nonce, out) };
    }
    blocks_baseline::<DOUBLE_ROUNDS>(key, first, nonce, out);
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
#[target_feature(enable = "avx2")]
fn blocks_avx2<const DOUBLE_ROUNDS: usize>(
    key: &Key,
    first: u32,
    nonce: [u32; 3],
    out: &mut [u8; STEP],
) {
    blocks_baseline::<DOUBLE_ROUNDS>(key, first, nonce, out);
}

/// The same for half of the lanes at a time, with a register for each row: AVX-512 has enough of them,
/// and rotates. Registers of 256 bits, because for those of 512 some processors lower their clock for
/// a while, which costs everything else more than they save here.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod avx512 {
    use super::{CONSTANTS, Key, LANES, STEP};
    #[cfg(target_arch = "x86")]
    use std::arch::x86::{
        __m256i, _mm256_add_epi32, _mm256_rol_epi32, _mm256_set1_epi32, _mm256_setr_epi32,
        _mm256_storeu_si256, _mm256_xor_si256,
    };
    #[cfg(target_arch = "x86_64")]
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_rol_epi32, _mm256_set1_epi32, _mm256_setr_epi32,
        _mm256_storeu_si256, _mm256_xor_si256,
    };

    /// Lanes of a register.
    const HALF: u8 = 8;
    const _: () = assert!(2 * HALF as usize == LANES);

    #[target_feature(enable = "avx512f,avx512vl")]
    pub(super) fn blocks<const DOUBLE_ROUNDS: usize>(
        key: &Key,
        first: u32,
        nonce: [u32; 3],
        out: &mut [u8; STEP],
    ) {
        let all = |word: u32| _mm256_set1_epi32(word.cast_signed());
        let (key, _) = key.as_chunks::<4>();
        let key: [u32; 8] = std::array::from_fn(|word| u32::from_le_bytes(key[word]));
        let mut before: [__m256i; 16] = std::array::from_fn(|row| match row {
            0..4 => all(CONSTANTS[row]),
            4..12 => all(key[row - 4]),
            12 => _mm256_add_epi32(all(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
            _ => all(nonce[row - 13]),
        });
        let (rows, _) = out.as_chunks_mut::<{ 4 * LANES }>();
        for half in 0..2 {
            let state = rounds::<DOUBLE_ROUNDS>(before);
            for (to, (row, before)) in rows.iter_mut().zip(state.into_iter().zip(before)) {
                let (lanes, _) = to.as_chunks_mut::<{ 4 * HALF as usize }>();
                let sum = _mm256_add_epi32(row, before);
                // SAFETY: `lanes` are as many as a register has, and need not be aligned.
                unsafe { _mm256_storeu_si256(lanes[half].as_mut_ptr().cast(), sum) };
            }
            before[12] = _mm256_add_epi32(before[12], all(u32::from(HALF)));
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn rounds<const DOUBLE_ROUNDS: usize>(mut state: [__m256i; 16]) -> [__m256i; 16] {
        for _ in 0..DOUBLE_ROUNDS {
            quarter_round::<0, 4, 8, 12>(&mut state);
            quarter_round::<1, 5, 9, 13>(&mut state);
            quarter_round::<2, 6, 10, 14>(&mut state);
            quarter_round::<3, 7, 11, 15>(&mut state);
            quarter_round::<0, 5, 10, 15>(&mut state);
            quarter_round::<1, 6, 11, 12>(&mut state);
            quarter_round::<2, 7, 8, 13>(&mut state);
            quarter_round::<3, 4, 9, 14>(&mut state);
        }
        state
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn quarter_round<const A: usize, const B: usize, const C: usize, const D: usize>(
        state: &mut [__m256i; 16],
    ) {
        let (mut a, mut b, mut c, mut d) = (state[A], state[B], state[C], state[D]);
        a = _mm256_add_epi32(a, b);
        d = _mm256_rol_epi32::<16>(_mm256_xor_si256(d, a));
        c = _mm256_add_epi32(c, d);
        b = _mm256_rol_epi32::<12>(_mm256_xor_si256(b, c));
        a = _mm256_add_epi32(a, b);
        d = _mm256_rol_epi32::<8>(_mm256_xor_si256(d, a));
        c = _mm256_add_epi32(c, d);
        b = _mm256_rol_epi32::<7>(_mm256_xor_si256(b, c));
        (state[A], state[B], state[C], state[D]) = (a, b, c, d);
    }
}

/// RFC 8439 §2.3: the state before the first round, in all lanes.
fn start(key: &Key, first: u32, nonce: [u32; 3]) -> [Row; 16] {
    let mut start: [Row; 16] = [[0; LANES]; 16];
    for (row, constant) in start.iter_mut().zip(CONSTANTS) {
        *row = [constant; LANES];
    }
    for (row, word) in start[4..].iter_mut().zip(key.as_chunks::<4>().0) {
        *row = [u32::from_le_bytes(*word); LANES];
    }
    for (number, lane) in (0..).zip(&mut start[12]) {
        *lane = first.wrapping_add(number);
    }
    for (row, word) in start[13..].iter_mut().zip(nonce) {
        *row = [word; LANES];
    }
    start
}

/// What all of them do, compiled for whatever the caller is compiled for.
#[inline(always)]
fn blocks_baseline<const DOUBLE_ROUNDS: usize>(
    key: &Key,
    first: u32,
    nonce: [u32; 3],
    out: &mut [u8; STEP],
) {
    let start = start(key, first, nonce);
    let mut state = start;
    // RFC 8439 §2.3.1: columns and diagonals by turns.
    for _ in 0..DOUBLE_ROUNDS {
        quarter_round::<0, 4, 8, 12>(&mut state);
        quarter_round::<1, 5, 9, 13>(&mut state);
        quarter_round::<2, 6, 10, 14>(&mut state);
        quarter_round::<3, 7, 11, 15>(&mut state);
        quarter_round::<0, 5, 10, 15>(&mut state);
        quarter_round::<1, 6, 11, 12>(&mut state);
        quarter_round::<2, 7, 8, 13>(&mut state);
        quarter_round::<3, 4, 9, 14>(&mut state);
    }
    let (words, _) = out.as_chunks_mut::<4>();
    for (words, (row, before)) in words.chunks_exact_mut(LANES).zip(state.iter().zip(&start)) {
        for lane in 0..LANES {
            words[lane] = row[lane].wrapping_add(before[lane]).to_le_bytes();
        }
    }
}

/// RFC 8439 §2.1, in all lanes.
#[allow(clippy::needless_range_loop, reason = "the lane of four rows")]
#[inline(always)]
fn quarter_round<const A: usize, const B: usize, const C: usize, const D: usize>(
    state: &mut [Row; 16],
) {
    for lane in 0..LANES {
        let [mut a, mut b, mut c, mut d] = [A, B, C, D].map(|row| state[row][lane]);
        a = a.wrapping_add(b);
        d = (d ^ a).rotate_left(16);
        c = c.wrapping_add(d);
        b = (b ^ c).rotate_left(12);
        a = a.wrapping_add(b);
        d = (d ^ a).rotate_left(8);
        c = c.wrapping_add(d);
        b = (b ^ c).rotate_left(7);
        state[A][lane] = a;
        state[B][lane] = b;
        state[C][lane] = c;
        state[D][lane] = d;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The block in this lane of a step, in the RFC's order.
    fn block(step: &[u8], lane: usize) -> Vec<u8> {
        let words = step[..STEP].chunks(4);
        words.skip(lane).step_by(LANES).flatten().copied().collect()
    }

    #[test]
    fn pitfall_36_baseline_and_detected_code_make_the_same_blocks() {
        for first in [0, 1, u32::MAX - 3] {
            let (mut detected, mut baseline) = ([0; STEP], [0; STEP]);
            blocks::<6>(&[7; 32], first, [1, 2, 3], &mut detected);
            blocks_baseline::<6>(&[7; 32], first, [1, 2, 3], &mut baseline);
            assert_eq!(detected, baseline);
            // The one below the best, too.
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            if is_x86_feature_detected!("avx2") {
                let mut narrower = [0; STEP];
                // SAFETY: the line above found AVX2.
                unsafe { blocks_avx2::<6>(&[7; 32], first, [1, 2, 3], &mut narrower) };
                assert_eq!(narrower, baseline);
            }
        }
    }

    /// RFC 8439 §2.3.2.
    #[test]
    fn the_block_of_the_rfc() {
        let key: Key = std::array::from_fn(|index| u8::try_from(index).unwrap());
        let nonce = [0x0900_0000, 0x4a00_0000, 0];
        let mut out = [0; STEP];
        blocks::<10>(&key, 1, nonce, &mut out);
        assert_eq!(
            hex(&block(&out, 0)),
            "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e\
             d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
        );
        // The other lanes hold the blocks that follow.
        let mut next = [0; STEP];
        blocks::<10>(&key, 2, nonce, &mut next);
        for lane in 1..LANES {
            assert_eq!(block(&out, lane), block(&next, lane - 1));
        }
    }

    /// RFC 8439 appendix A.1, test vectors 1 and 2: key and nonce of zeros, blocks 0 and 1.
    const ZEROS: &str = "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7\
                         da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586\
                         9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed\
                         29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f";

    #[test]
    fn the_stream_of_a_key_of_zeros() {
        let mut out = [0; 2 * STEP + 7];
        stream::<10>(&[0; 32], 0, &mut out);
        assert_eq!(hex(&block(&out, 0)) + &hex(&block(&out, 1)), ZEROS);
        let mut behind = [0; STEP + 7];
        stream::<10>(&[0; 32], LANES, &mut behind);
        assert_eq!(out[STEP..], behind);
    }

    #[test]
    fn a_key_is_replaced_by_its_own_stream_and_now_and_then_by_the_source() {
        let asked = Rc::new(Cell::new(0));
        let counter = Rc::clone(&asked);
        let mut stretch = Stretch::new(Box::new(move |key| {
            key.fill(counter.get());
            counter.set(counter.get() + 1);
            Ok(())
        }));
        let mut first = [0; 4096];
        stretch.fill(&mut first).unwrap();
        let mut whole = [0; 32 + 4096];
        stream::<DOUBLE_ROUNDS>(&[0; 32], 0, &mut whole);
        assert_eq!(whole[..32], stretch.key, "the first bytes are the next key");
        assert_eq!(whole[32..], first, "the rest is given out");
        for round in 1..=2 * RESEED_AFTER / first.len() {
            let before = first;
            stretch.fill(&mut first).unwrap();
            assert!(first != before, "nothing is given out twice");
            let expected = round * first.len() / RESEED_AFTER + 1;
            assert_eq!(usize::from(asked.get()), expected);
        }
        let mut much = vec![0; 3 * RESEED_AFTER + 1];
        stretch.fill(&mut much).unwrap();
        assert!(
            much.chunks(RESEED_AFTER)
                .all(|piece| piece.iter().any(|byte| *byte != 0))
        );
    }

    #[test]
    fn a_source_that_fails_is_an_error() {
        let mut stretch = Stretch::new(Box::new(|_| Err(io::Error::other("no entropy"))));
        assert!(stretch.fill(&mut [0; 4]).is_err());
    }
}
