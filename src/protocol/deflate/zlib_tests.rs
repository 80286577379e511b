use super::*;
use crate::protocol::deflate::Deflate;

const LIMIT: u64 = 1 << 20;

/// Compresses with context, as a server does.
struct Sender(zlib_rs::Deflate);

impl Sender {
    fn new(bits: u8) -> Self {
        Self(zlib_rs::Deflate::new(6, false, bits))
    }

    fn send(&mut self, message: &[u8]) -> Vec<u8> {
        if message.is_empty() {
            // RFC 7692 §7.2.3.6; zlib itself has nothing to say to an empty message.
            return vec![0];
        }
        let mut out = vec![0; message.len() * 2 + 100];
        let before = self.0.total_out();
        let status = self.0.compress(message, &mut out, DeflateFlush::SyncFlush);
        assert_eq!(status, Ok(Status::Ok));
        out.truncate(usize::try_from(self.0.total_out() - before).unwrap());
        out.strip_suffix(&TAIL[..4]).unwrap().to_vec()
    }
}

fn receive(
    inflater: &mut Inflater,
    payload: &[u8],
    chunk: usize,
    limit: u64,
) -> Result<Vec<u8>, ProtocolError> {
    let mut message = MessageBuffer::default();
    for piece in payload.chunks(chunk) {
        inflater.inflate(piece, &mut message, limit)?;
    }
    inflater.finish(&mut message, limit)?;
    Ok(message.as_slice().to_vec())
}

fn messages() -> Vec<Vec<u8>> {
    let json = br#"{"e":"trade","s":"BTCUSDT","p":"64123.10","q":"0.0015"}"#;
    let noise: Vec<u8> = (0..5000_u32)
        .map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[1])
        .collect();
    vec![
        json.to_vec(),
        vec![],
        json.repeat(300),
        noise,
        json.to_vec(),
        vec![7],
    ]
}

#[test]
fn what_no_limit_allows_comes_to_an_end() {
    let mut sender = Sender::new(15);
    let mut inflater = Inflater::with_context(15);
    for message in messages() {
        let payload = sender.send(&message);
        let received = receive(&mut inflater, &payload, 100, u64::MAX);
        assert_eq!(received, Ok(message));
    }
}

#[test]
fn round_trips_with_and_without_context_in_any_pieces() {
    for bits in [9, 12, 15] {
        for chunk in [1, 2, 7, 100_000] {
            let (mut sender, mut inflater) = (Sender::new(bits), Inflater::with_context(bits));
            let mut shared = Inflater::without_context();
            for message in messages() {
                let payload = sender.send(&message);
                assert_eq!(
                    receive(&mut inflater, &payload, chunk, LIMIT),
                    Ok(message.clone())
                );
                let payload = Sender::new(bits).send(&message);
                assert_eq!(receive(&mut shared, &payload, chunk, LIMIT), Ok(message));
            }
        }
    }
}

/// The examples of RFC 7692 §7.2.3, "Hello" in every guise.
#[test]
fn the_examples_of_the_rfc() {
    let hello: [&[u8]; 4] = [
        // §7.2.3.1, one block.
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        // §7.2.3.3, a block with no compression.
        &[
            0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
        ],
        // §7.2.3.4, a block with BFINAL set.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        // §7.2.3.5, two blocks.
        &[
            0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
        ],
    ];
    for payload in hello {
        for chunk in [1, 100] {
            let mut shared = Inflater::without_context();
            for _ in 0..3 {
                assert_eq!(
                    receive(&mut shared, payload, chunk, LIMIT),
                    Ok(b"Hello".to_vec())
                );
            }
            let mut own = Inflater::with_context(15);
            assert_eq!(
                receive(&mut own, payload, chunk, LIMIT),
                Ok(b"Hello".to_vec())
            );
            // §7.2.3.2: the second message refers back to the first.
            let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
            assert_eq!(
                receive(&mut own, &again, chunk, LIMIT),
                Ok(b"Hello".to_vec())
            );
        }
    }
}

/// Pitfall 9: a block with BFINAL set neither hangs nor loses what comes behind it.
#[test]
fn pitfall_9_final_blocks() {
    for mut inflater in [Inflater::without_context(), Inflater::with_context(15)] {
        // The payload of the frame c2 02 03 80.
        assert_eq!(receive(&mut inflater, &[0x03, 0x80], 1, LIMIT), Ok(vec![]));
        let final_hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let mut twice = final_hello.to_vec();
        twice.extend(final_hello);
        twice.push(0);
        for chunk in [1, 100] {
            assert_eq!(
                receive(&mut inflater, &twice, chunk, LIMIT),
                Ok(b"HelloHello".to_vec())
            );
        }
    }
}

#[test]
fn streams_that_are_cut_off_or_damaged_are_refused() {
    let message = br#"{"e":"trade","s":"BTCUSDT","p":"64123.10","q":"0.0015"}"#.repeat(3);
    let payload = Sender::new(15).send(&message);
    for length in 1..payload.len() {
        let mut inflater = Inflater::without_context();
        let result = receive(&mut inflater, &payload[..length], 100, LIMIT);
        assert!(result.is_err(), "cut off at {length} of {}", payload.len());
    }
    // A block of the reserved type, and a stored block whose length does not match its complement.
    for damaged in [&[0x06, 0, 0][..], &[0x00, 0x05, 0x00, 0x00, 0x00]] {
        let mut inflater = Inflater::without_context();
        assert_eq!(
            receive(&mut inflater, damaged, 100, LIMIT),
            Err(ProtocolError::InvalidDeflate)
        );
    }
}

/// Pitfall 3: the limit is exact, and a bomb costs no more memory than the limit.
#[test]
fn pitfall_3_bombs() {
    let payload = Sender::new(15).send(&vec![0; 10_000]);
    for chunk in [1, 100] {
        let mut inflater = Inflater::without_context();
        assert!(receive(&mut inflater, &payload, chunk, 10_000).is_ok());
        let mut inflater = Inflater::without_context();
        assert_eq!(
            receive(&mut inflater, &payload, chunk, 9_999),
            Err(ProtocolError::MessageTooLarge {
                length: 10_000,
                limit: 9_999
            })
        );
    }
    let bomb = Sender::new(15).send(&vec![0; 16 << 20]);
    assert!(bomb.len() < 100_000);
    let mut message = MessageBuffer::default();
    let error = Inflater::without_context().inflate(&bomb, &mut message, LIMIT);
    assert!(matches!(error, Err(ProtocolError::MessageTooLarge { .. })));
    assert!(message.capacity() <= 4 << 20, "{}", message.capacity());
}

fn agreed(bits: u8) -> Agreed {
    let offer = Deflate::new().client_max_window_bits(bits).unwrap();
    offer.accept(Some("permessage-deflate")).unwrap().unwrap()
}

/// Pitfall 11: what does not shrink is not cut off but sent as it is.
#[test]
fn pitfall_11_incompressible_messages() {
    let mut deflaters = Deflaters::default();
    for bits in 8..=15 {
        let mut inflater = Inflater::without_context();
        for message in messages() {
            match deflaters.deflate(&agreed(bits), &message) {
                Some(payload) => {
                    assert!(payload.len() < message.len());
                    assert_eq!(receive(&mut inflater, payload, 1000, LIMIT), Ok(message));
                }
                None => assert!(bits == 8 || message.len() < 60 || message.len() == 5000),
            }
        }
    }
}
