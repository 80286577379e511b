//! SHA-1 (FIPS 180-4), for the one use the handshake has for it.
//!
//! A server proves that it read the client's `Sec-WebSocket-Key` by hashing it together with a
//! fixed GUID ([`super::handshake`] compares the answer). SHA-1 is broken as a signature; here it
//! only has to show that the other side speaks WebSocket, once per connection. The digest goes on to
//! [`super::base64`].

/// Bytes that one round of compression takes.
const BLOCK_BYTES: usize = 64;
/// The message length in bits takes the last eight bytes of the last block.
const LENGTH_BYTES: usize = 8;

const BLOCK_WORDS: usize = BLOCK_BYTES / 4;

/// FIPS 180-4 §5.3.1.
const INITIAL: [u32; 5] = [
    0x6745_2301,
    0xefcd_ab89,
    0x98ba_dcfe,
    0x1032_5476,
    0xc3d2_e1f0,
];

/// FIPS 180-4 §4.2.1: one constant for each quarter of the steps.
const CONSTANTS: [u32; 4] = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6];
const STEPS: usize = 80;
const QUARTER: usize = STEPS / CONSTANTS.len();

/// The SHA-1 digest of `message`.
#[must_use]
pub fn digest(message: &[u8]) -> [u8; 20] {
    let mut state = INITIAL;
    let (blocks, rest) = message.as_chunks::<BLOCK_BYTES>();
    for block in blocks {
        compress(&mut state, &schedule(words(block)));
    }

    // FIPS 180-4 §5.1.1: a one bit, zeros, and the length in bits as a 64-bit big-endian number.
    let mut last = [0u8; BLOCK_BYTES];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x80;
    if rest.len() + 1 > BLOCK_BYTES - LENGTH_BYTES {
        compress(&mut state, &schedule(words(&last)));
        last = [0u8; BLOCK_BYTES];
    }
    let bits = (message.len() as u64).wrapping_mul(8);
    last[BLOCK_BYTES - LENGTH_BYTES..].copy_from_slice(&bits.to_be_bytes());
    compress(&mut state, &schedule(words(&last)));
    bytes(state)
}

/// Bytes of a key as it is sent, and of the GUID behind it.
const ACCEPT_BITS: u32 = 480;
const ACCEPT_BYTES: usize = ACCEPT_BITS as usize / 8;

/// The same of a text as long as the one that the handshake hashes: all of its second block is known, and so
/// is what becomes of it.
#[must_use]
pub(super) fn digest_of_key(text: &[u8; ACCEPT_BYTES]) -> [u8; 20] {
    const SECOND: [u32; STEPS] = {
        let mut words = [0; BLOCK_WORDS];
        words[BLOCK_WORDS - 1] = ACCEPT_BITS;
        schedule(words)
    };
    let mut first = [0u8; BLOCK_BYTES];
    first[..ACCEPT_BYTES].copy_from_slice(text);
    first[ACCEPT_BYTES] = 0x80;
    let mut state = INITIAL;
    compress(&mut state, &schedule(words(&first)));
    compress(&mut state, &SECOND);
    bytes(state)
}

fn words(block: &[u8; BLOCK_BYTES]) -> [u32; BLOCK_WORDS] {
    let mut words = [0; BLOCK_WORDS];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    words
}

fn bytes(state: [u32; 5]) -> [u8; 20] {
    let mut digest = [0u8; 20];
    for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

/// FIPS 180-4 §6.1.2, step 1: what a block contributes to each step, with the step's constant added to it.
const fn schedule(block: [u32; BLOCK_WORDS]) -> [u32; STEPS] {
    let mut words = [0u32; STEPS];
    let mut t = 0;
    while t < BLOCK_WORDS {
        words[t] = block[t];
        t += 1;
    }
    while t < 2 * BLOCK_WORDS {
        words[t] = (words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16]).rotate_left(1);
        t += 1;
    }
    // The same rule applied twice: none of four neighbours depends on another, so they are done together.
    while t < STEPS {
        let mut four = [0; 4];
        let mut lane = 0;
        while lane < four.len() {
            let t = t + lane;
            four[lane] =
                (words[t - 6] ^ words[t - 16] ^ words[t - 28] ^ words[t - 32]).rotate_left(2);
            lane += 1;
        }
        (words[t], words[t + 1], words[t + 2], words[t + 3]) = (four[0], four[1], four[2], four[3]);
        t += four.len();
    }
    t = 0;
    while t < STEPS {
        words[t] = words[t].wrapping_add(CONSTANTS[t / QUARTER]);
        t += 1;
    }
    words
}

/// FIPS 180-4 §6.1.2, steps 2 to 4: mixes one block into the state.
fn compress(state: &mut [u32; 5], words: &[u32; STEPS]) {
    let mut mixed = *state;
    let (quarters, _) = words.as_chunks::<QUARTER>();
    mix(&mut mixed, &quarters[0], |b, c, d| (b & c) | (!b & d));
    mix(&mut mixed, &quarters[1], |b, c, d| b ^ c ^ d);
    mix(&mut mixed, &quarters[2], |b, c, d| {
        (b & c) | (b & d) | (c & d)
    });
    mix(&mut mixed, &quarters[3], |b, c, d| b ^ c ^ d);
    for (word, mixed) in state.iter_mut().zip(mixed) {
        *word = word.wrapping_add(mixed);
    }
}

/// A quarter of the steps; they differ in `f`.
fn mix(state: &mut [u32; 5], words: &[u32; QUARTER], f: impl Fn(u32, u32, u32) -> u32) {
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    // In fives, after which every word of the state is where it was: unrolled so, none is moved.
    for five in words.as_chunks::<5>().0 {
        for word in five {
            let next = a
                .rotate_left(5)
                .wrapping_add(f(b, c, d))
                .wrapping_add(e.wrapping_add(*word));
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
    }
    *state = [a, b, c, d, e];
}

#[cfg(test)]
mod tests {
    use super::{digest, digest_of_key};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 3174 §7.3, and the empty message.
    #[test]
    fn rfc_3174_vectors() {
        assert_eq!(
            hex(&digest(b"")),
            "da39a3ee5e6b4b0d3255bfef95601890afd80709"
        );
        assert_eq!(
            hex(&digest(b"abc")),
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(
            hex(&digest(two_blocks)),
            "84983e441c3bd26ebaae4aa1f95129e5e54670f1"
        );
        let million = vec![b'a'; 1_000_000];
        assert_eq!(
            hex(&digest(&million)),
            "34aa973cd4c4daa4f61eeb2bdbad27316534016f"
        );
        let tenfold = b"01234567".repeat(80);
        assert_eq!(
            hex(&digest(&tenfold)),
            "dea356a2cddd90c7a7ecedc5ebb563934f460452"
        );
    }

    /// RFC 6455 §1.3 gives the digest of its sample key byte by byte.
    #[test]
    fn rfc_6455_sample() {
        let text = b"dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
        assert_eq!(
            hex(&digest(text)),
            "b37a4f2cc0624f1690f64606cf385945b2bec4ea"
        );
    }

    #[test]
    fn the_digest_of_a_key_is_the_digest() {
        for byte in 0..=255 {
            let text = [byte; 60];
            assert_eq!(digest_of_key(&text), digest(&text));
        }
    }

    /// The padding spills into a second block from 56 bytes on; digests by `sha1sum`.
    #[test]
    fn lengths_around_the_padding_boundaries() {
        let table = [
            (55, "c1c8bbdc22796e28c0e15163d20899b65621d65a"),
            (56, "c2db330f6083854c99d4b5bfb6e8f29f201be699"),
            (63, "03f09f5b158a7a8cdad920bddc29b81c18a551f5"),
            (64, "0098ba824b5c16427bd7a1122a5a442a25ec644d"),
            (65, "11655326c708d70319be2610e8a57d9a5b959d3b"),
        ];
        for (length, expected) in table {
            assert_eq!(
                hex(&digest(&vec![b'a'; length])),
                expected,
                "{length} bytes"
            );
        }
    }
}
