//! permessage-deflate (RFC 7692) over real sockets: against a server that sends exactly the bytes
//! it is told to, good and bad.

#![cfg(feature = "deflate")]

mod deflate_support;

use deflate_support::{
    BINARY, Exchange, FIN, RSV1, Recorder, Sender, Server, TEXT, Told, close, frame, inflate,
    noise, request, run,
};
use std::cell::RefCell;
use std::net::TcpListener;
use std::rc::Rc;
use websockex::protocol::deflate::AnswerError;
use websockex::protocol::frame::OpCode;
use websockex::protocol::handshake::Misbehaviour;
use websockex::{
    Compression, Deflate, Error, HandshakeError, Limits, OwnedMessage, ProtocolError, Reactor,
};

/// A message of a feed.
fn trade(number: usize) -> String {
    format!(r#"{{"e":"trade","s":"BTC€","n":{number},"p":"64123.{number}","q":"0.0015"}}"#)
}

/// Sends `pieces` and Close, and expects the connection to fail with this error and code.
fn check_fails(pieces: Vec<Vec<u8>>, error: &ProtocolError, code: u16) -> Told {
    let mut pieces = pieces;
    pieces.push(close());
    let exchange = Exchange {
        pieces: vec![pieces.concat()],
        ..Exchange::default()
    };
    let (told, seen) = exchange.run();
    assert_eq!(told.error, Some(*error));
    assert_eq!(seen.close_code(), Some(code), "{error}");
    told
}

/// Sends `pieces` and Close, and expects these texts.
fn check_texts(exchange: Exchange, texts: &[impl AsRef<str>]) {
    let (told, seen) = exchange.run();
    assert_eq!(told.error, None);
    let expected: Vec<_> = texts.iter().map(AsRef::as_ref).collect();
    assert_eq!(told.texts(), expected);
    assert_eq!(seen.close_code(), Some(1000));
    assert!(told.clean);
}

#[test]
fn is_offered_only_when_asked_for() {
    let (_, seen) = Exchange {
        offer: None,
        answer: None,
        ..Exchange::default()
    }
    .run();
    assert_eq!(seen.offer, None);
    let (told, seen) = Exchange::default().run();
    assert!(told.opened && told.clean);
    assert_eq!(
        seen.offer.as_deref(),
        Some("permessage-deflate; client_no_context_takeover; client_max_window_bits")
    );
}

#[test]
fn pitfall_12_bad_answers_fail_the_handshake() {
    use AnswerError::*;
    let plain = Deflate::new();
    let asking = plain
        .server_no_context_takeover()
        .server_max_window_bits(10);
    let asking = asking.unwrap();
    let small = plain.client_max_window_bits(9).unwrap();
    let cases = [
        (plain, "permessage-deflate; x", UnknownParameter),
        (
            plain,
            "permessage-deflate; server_max_window_bits=7",
            InvalidValue("server_max_window_bits"),
        ),
        (
            plain,
            "permessage-deflate; server_max_window_bits=16",
            InvalidValue("server_max_window_bits"),
        ),
        (
            plain,
            "permessage-deflate; server_max_window_bits=010",
            InvalidValue("server_max_window_bits"),
        ),
        (
            plain,
            "permessage-deflate; server_max_window_bits",
            InvalidValue("server_max_window_bits"),
        ),
        (
            plain,
            "permessage-deflate; client_max_window_bits",
            InvalidValue("client_max_window_bits"),
        ),
        (
            plain,
            "permessage-deflate; client_no_context_takeover=1",
            InvalidValue("client_no_context_takeover"),
        ),
        (
            plain,
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            RepeatedParameter("client_no_context_takeover"),
        ),
        (
            plain,
            "permessage-deflate; server_max_window_bits=9; server_max_window_bits=10",
            RepeatedParameter("server_max_window_bits"),
        ),
        (plain, "permessage-deflate, permessage-deflate", Repeated),
        (plain, "permessage-bzip2", NotOffered),
        (plain, "permessage-deflate; =", Malformed),
        (
            asking,
            "permessage-deflate; server_max_window_bits=10",
            Ignored("server_no_context_takeover"),
        ),
        (
            asking,
            "permessage-deflate; server_no_context_takeover",
            Ignored("server_max_window_bits"),
        ),
        (
            asking,
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=11",
            TooLarge("server_max_window_bits"),
        ),
        (
            small,
            "permessage-deflate; client_max_window_bits=10",
            TooLarge("client_max_window_bits"),
        ),
    ];
    for (offer, answer, expected) in cases {
        let (told, _) = Exchange {
            offer: Some(offer),
            answer: Some(answer),
            ..Exchange::default()
        }
        .run();
        assert!(!told.opened, "{answer}");
        match told.failure {
            Some(Error::Handshake(HandshakeError::Misbehaved(found))) => {
                // What is wrong with any extension, the handshake finds before this one is looked at.
                let same = match expected {
                    Malformed => matches!(found, Misbehaviour::ExtensionsMalformed(_)),
                    NotOffered => found == Misbehaviour::ExtensionNotOffered,
                    _ => found == Misbehaviour::Deflate(expected),
                };
                assert!(same, "{answer}: {found:?}");
            }
            other => panic!("{answer}: {other:?}"),
        }
    }
}

#[test]
fn pitfall_12_an_answer_without_an_offer_fails_the_handshake() {
    let (told, _) = Exchange {
        offer: None,
        ..Exchange::default()
    }
    .run();
    let expected = HandshakeError::Misbehaved(Misbehaviour::ExtensionNotOffered);
    assert!(!told.opened);
    assert!(matches!(told.failure, Some(Error::Handshake(found)) if found == expected));
}

#[test]
fn a_server_may_decline() {
    let long = trade(0).repeat(100);
    let (told, seen) = Exchange {
        answer: None,
        pieces: vec![[frame(FIN | TEXT, b"plain"), close()].concat()],
        to_send: vec![(long.as_str().into(), Compression::Always)],
        ..Exchange::default()
    }
    .run();
    assert_eq!(told.texts(), ["plain"]);
    assert!(!seen.frames[0].compressed);
    assert_eq!(seen.frames[0].payload, long.as_bytes());
}

#[test]
fn pitfall_10_rsv1_that_was_not_negotiated() {
    let payload = Sender::new(15, true).text("compressed");
    for offer in [None, Some(Deflate::new())] {
        let (told, seen) = Exchange {
            offer,
            answer: None,
            pieces: vec![[frame(FIN | TEXT, b"before"), payload.clone()].concat()],
            ..Exchange::default()
        }
        .run();
        // The good message in front of it is delivered first (pitfall 32).
        assert_eq!(told.texts(), ["before"]);
        assert_eq!(told.error, Some(ProtocolError::ReservedBits(4)));
        assert_eq!(seen.close_code(), Some(1002));
    }
}

/// RFC 7692 §6.1: RSV1 stands on the first frame of a message; on another it means nothing.
#[test]
fn pitfall_10_rsv1_on_the_wrong_frames() {
    let first = frame(RSV1 | TEXT, &Sender::new(15, true).payload(b"in two"));
    let error = ProtocolError::ReservedBits(4);
    for bad in [RSV1, FIN | RSV1] {
        check_fails(vec![first.clone(), frame(bad, &[0])], &error, 1002);
    }
    for control in [8, 9, 10] {
        let bad = frame(FIN | RSV1 | control, &[]);
        let told = check_fails(vec![frame(FIN | TEXT, b"x"), bad.clone()], &error, 1002);
        assert_eq!(told.texts(), ["x"]);
        // Inside a compressed message, too.
        check_fails(vec![first.clone(), bad], &error, 1002);
    }
}

#[test]
fn the_other_reserved_bits_stay_forbidden() {
    let payload = Sender::new(15, true).payload(b"x");
    for (bits, error) in [(0x20, 6), (0x10, 5)] {
        let bad = frame(FIN | RSV1 | bits | TEXT, &payload);
        check_fails(vec![bad], &ProtocolError::ReservedBits(error), 1002);
    }
}

/// Pitfall 3: the server sends a thousandth of what would inflate to a gigabyte, and is stopped.
#[test]
fn pitfall_3_a_bomb_is_refused_early() {
    const MIB: usize = 1 << 20;
    for fragments in [false, true] {
        // One mebibyte of zeros, which ends at a byte; a thousand of them follow each other.
        let zeros = Sender::new(15, false).payload(&vec![0; MIB]);
        let zeros = [&zeros[..], &[0, 0, 0xff, 0xff]].concat();
        let bomb = zeros.repeat(1024);
        let sent = if fragments {
            frame(RSV1 | BINARY, &zeros)
                .into_iter()
                .chain(frame(0, &zeros))
                .collect()
        } else {
            // The header declares all of the payload; two parts in a thousand of it are sent.
            frame(FIN | RSV1 | BINARY, &bomb)[..10 + 2 * zeros.len()].to_vec()
        };
        assert!(bomb.len() > 1_000_000 && sent.len() < 4096);
        let limit = MIB as u64;
        let (told, seen) = Exchange {
            // No Close: all that the server does after this is to wait for the client's.
            pieces: vec![sent],
            limits: Limits {
                max_message: limit,
                ..Limits::default()
            },
            ..Exchange::default()
        }
        .run();
        let length = limit + 1;
        assert_eq!(
            told.error,
            Some(ProtocolError::MessageTooLarge { length, limit })
        );
        assert_eq!(told.messages, []);
        assert_eq!(seen.close_code(), Some(1009));
    }
}

/// Pitfall 3: not one byte beyond the limit, and not one less.
#[test]
fn pitfall_3_the_limit_is_exact() {
    let limit = 5000;
    for (size, allowed) in [(4999, true), (5000, true), (5001, false)] {
        let message = "x".repeat(size);
        let (told, seen) = Exchange {
            pieces: vec![[Sender::new(15, true).text(&message), close()].concat()],
            limits: Limits {
                max_message: limit,
                ..Limits::default()
            },
            ..Exchange::default()
        }
        .run();
        assert_eq!(told.messages.len(), usize::from(allowed), "{size}");
        assert_eq!(
            seen.close_code(),
            Some(if allowed { 1000 } else { 1009 }),
            "{size}"
        );
    }
}

/// The limit is one on inflated bytes: what does not compress is longer on the wire than it is, in
/// one frame and in two.
#[test]
fn pitfall_3_the_limit_counts_inflated_bytes() {
    let limit = 5000;
    for (size, allowed) in [(5000, true), (5001, false)] {
        let payload = Sender::new(15, true).payload(&noise(size));
        assert!(payload.len() > size);
        let (first, rest) = payload.split_at(10);
        for frames in [
            frame(FIN | RSV1 | BINARY, &payload),
            [frame(RSV1 | BINARY, first), frame(FIN, rest)].concat(),
        ] {
            let (told, seen) = Exchange {
                pieces: vec![[frames, close()].concat()],
                limits: Limits {
                    max_message: limit,
                    ..Limits::default()
                },
                ..Exchange::default()
            }
            .run();
            assert_eq!(told.messages.len(), usize::from(allowed), "{size}");
            let code = if allowed { 1000 } else { 1009 };
            assert_eq!(seen.close_code(), Some(code), "{size}: {:?}", told.error);
        }
    }
}

#[test]
fn truncated_streams() {
    let payload = Sender::new(15, true).payload(trade(1).as_bytes());
    for cut in 1..payload.len() {
        let bad = frame(FIN | RSV1 | TEXT, &payload[..payload.len() - cut]);
        let (told, seen) = Exchange {
            pieces: vec![[bad, close()].concat()],
            ..Exchange::default()
        }
        .run();
        assert_eq!(
            seen.close_code(),
            Some(1007),
            "{cut} bytes cut: {:?}",
            told.error
        );
        assert_eq!(told.messages, []);
    }
}

#[test]
fn garbage() {
    // A reserved block type (RFC 1951 §3.2.3), a stored block whose lengths disagree, a distance
    // beyond the beginning.
    for payload in [
        &[0x07][..],
        &[0x00, 0x01, 0x00, 0x00, 0x00],
        &[0x03 | 0x70, 0x05, 0x05],
    ] {
        let told = check_fails(
            vec![
                frame(FIN | TEXT, b"good"),
                frame(FIN | RSV1 | BINARY, payload),
            ],
            &ProtocolError::InvalidDeflate,
            1007,
        );
        assert_eq!(told.texts(), ["good"]);
    }
}

/// RFC 7692 §7.2.3.4 and pitfall 9: the four bytes that hung one client, the message behind them,
/// and one with a BFINAL block in front of more.
#[test]
fn pitfall_9_a_final_block_is_harmless() {
    // RFC 7692 §7.2.3.4: "Hello" in a block with BFINAL set, with the byte that follows it.
    let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    let mut sender = Sender::new(15, false);
    let second = sender.payload(b", and goodbye");
    // The final block ends inside its last byte; what follows begins with the next one.
    let both = [&hello[..7], &second].concat();
    check_texts(
        Exchange {
            pieces: vec![
                [
                    vec![0xc2 - 1, 0x02, 0x03, 0x80],
                    frame(FIN | RSV1 | TEXT, &hello),
                    sender.text("between"),
                    frame(FIN | RSV1 | TEXT, &both),
                    vec![0xc2 - 1, 0x02, 0x03, 0x80],
                    sender.text("after"),
                    close(),
                ]
                .concat(),
            ],
            ..Exchange::default()
        },
        &["", "Hello", "between", "Hello, and goodbye", "", "after"],
    );
}

#[test]
fn pitfall_9_the_four_bytes_themselves() {
    let message = frame(
        FIN | RSV1 | BINARY,
        &Sender::new(15, true).payload(b"after"),
    );
    for answer in [
        "permessage-deflate",
        "permessage-deflate; server_no_context_takeover",
    ] {
        let (told, seen) = Exchange {
            answer: Some(answer),
            pieces: vec![[vec![0xc2, 0x02, 0x03, 0x80], message.clone(), close()].concat()],
            ..Exchange::default()
        }
        .run();
        let expected: [OwnedMessage; 2] = [(&b""[..]).into(), (&b"after"[..]).into()];
        assert_eq!(told.messages, expected);
        assert_eq!(seen.close_code(), Some(1000));
    }
}

#[test]
fn pitfall_10_inflated_text_must_be_utf_8() {
    for bad in [&b"caf\xe9"[..], b"cut \xe2\x82", b"\xed\xa0\x80"] {
        let payload = Sender::new(15, true).payload(bad);
        for pieces in [
            vec![frame(FIN | RSV1 | TEXT, &payload)],
            vec![frame(RSV1 | TEXT, &payload[..2]), frame(FIN, &payload[2..])],
        ] {
            let (told, seen) = Exchange {
                pieces: vec![pieces.concat(), close()],
                ..Exchange::default()
            }
            .run();
            assert!(
                matches!(told.error, Some(ProtocolError::InvalidUtf8(_))),
                "{:?}",
                told.error
            );
            assert_eq!(seen.close_code(), Some(1007));
            assert_eq!(told.messages, []);
        }
    }
}

/// The window lives on from message to message, over fragments, control frames and plain messages
/// in between, however the bytes are cut.
#[test]
fn context_is_taken_over() {
    for (bits, answer) in [
        (15, "permessage-deflate"),
        (9, "permessage-deflate; server_max_window_bits=9"),
    ] {
        let mut sender = Sender::new(bits, true);
        let (mut bytes, mut texts) = (Vec::new(), Vec::new());
        for number in 0..20 {
            let text = trade(number).repeat(1 + number % 7);
            let payload = sender.payload(text.as_bytes());
            if number % 2 == 0 {
                bytes.extend(frame(FIN | RSV1 | TEXT, &payload));
            } else {
                // Payloads that refer to earlier messages are shorter than this.
                let (first, rest) = payload.split_at(payload.len() / 3);
                bytes.extend(frame(RSV1 | TEXT, first));
                bytes.extend(frame(FIN | 9, b"ping"));
                bytes.extend(frame(0, &[]));
                let (second, third) = rest.split_at(1);
                bytes.extend(frame(0, second));
                bytes.extend(frame(FIN, third));
            }
            texts.push(text);
            if number % 5 == 0 {
                bytes.extend(frame(FIN | TEXT, b"not compressed"));
                texts.push("not compressed".into());
            }
        }
        bytes.extend(close());
        for chunk in [1, 2, 13, bytes.len()] {
            let exchange = Exchange {
                answer: Some(answer),
                pieces: bytes.chunks(chunk).map(<[u8]>::to_vec).collect(),
                ..Exchange::default()
            };
            check_texts(exchange, &texts);
        }
    }
}

/// Many connections whose messages stand by themselves share one reactor's inflaters, while each has
/// a part of a message that waits for its rest.
#[test]
fn connections_without_takeover_share_inflaters() {
    const CONNECTIONS: usize = 40;
    const ROUNDS: usize = 10;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let accept = |_| {
            let (stream, _) = listener.accept().unwrap();
            Server::new(
                stream,
                Some("permessage-deflate; server_no_context_takeover"),
            )
        };
        let mut servers: Vec<_> = (0..CONNECTIONS).map(accept).collect();
        let mut sender = Sender::new(15, false);
        let mut waiting = vec![Vec::new(); CONNECTIONS];
        for round in 0..ROUNDS {
            for (index, server) in servers.iter_mut().enumerate() {
                // The rest of the last message, a whole one, and the beginning of another, cut at
                // another place for each.
                let mut bytes = std::mem::take(&mut waiting[index]);
                bytes.extend(sender.text(&trade(round * 2)));
                let cut = sender.text(&trade(round * 2 + 1).repeat(3));
                let (now, later) = cut.split_at(1 + (index + round) % (cut.len() - 1));
                bytes.extend(now);
                waiting[index] = later.to_vec();
                assert!(server.write(&bytes));
            }
        }
        for (mut server, last) in servers.into_iter().zip(waiting) {
            assert!(server.write(&last) && server.write(&close()));
            assert_eq!(server.read_to_close().close_code(), Some(1000));
        }
    });
    let mut reactor = Reactor::new().unwrap();
    let told: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let told = Rc::new(RefCell::new(Told::default()));
            let handler = Recorder {
                told: Rc::clone(&told),
                to_send: Vec::new(),
            };
            reactor
                .connect(request(address, Some(Deflate::new())), handler)
                .unwrap();
            told
        })
        .collect();
    run(&mut reactor);
    server.join().unwrap();
    let expected: Vec<_> = (0..ROUNDS * 2)
        .map(|number| trade(number).repeat(if number % 2 == 0 { 1 } else { 3 }))
        .collect();
    for told in told {
        assert_eq!(told.borrow().texts(), expected);
        assert!(told.borrow().clean);
    }
}

#[test]
fn compresses_by_threshold_or_as_it_is_told() {
    use Compression::{Always, BySize, Never};
    let offers = [
        (Deflate::new(), [false, false, true]),
        (Deflate::new().compress_from(0), [true, true, true]),
        (Deflate::new().compress_from(1025), [false, false, false]),
        (Deflate::new().never_compress(), [false, false, false]),
    ];
    let sizes = [100, 1023, 1024];
    for (offer, by_size) in offers {
        let mut to_send = Vec::new();
        for size in sizes {
            for compression in [BySize, Always, Never] {
                to_send.push(("x".repeat(size).as_str().into(), compression));
            }
        }
        let (told, seen) = Exchange {
            offer: Some(offer),
            to_send,
            ..Exchange::default()
        }
        .run();
        assert!(told.clean);
        let mut frames = seen.frames.iter();
        for (size, by_size) in sizes.iter().zip(by_size) {
            for expected in [by_size, true, false] {
                let sent = frames.next().unwrap();
                assert_eq!(
                    (sent.opcode, sent.compressed),
                    (OpCode::Text, expected),
                    "{size} {offer:?}"
                );
                let text = if sent.compressed {
                    assert!(sent.payload.len() < 30);
                    inflate(15, &sent.payload).unwrap()
                } else {
                    sent.payload.clone()
                };
                assert!(text.len() == *size && text.iter().all(|&byte| byte == b'x'));
            }
        }
    }
}

/// Pitfall 11: what does not shrink goes as it is, and whole.
#[test]
fn pitfall_11_what_does_not_compress_is_sent_whole() {
    // The sizes around which a stored block, or zlib's buffers, run out.
    for size in [0, 1, 2, 16_383, 16_384, 65_535, 65_536, 100_000] {
        let bytes = noise(size);
        let message = OwnedMessage::from(bytes.as_slice());
        let (_, seen) = Exchange {
            to_send: vec![(message, Compression::Always)],
            ..Exchange::default()
        }
        .run();
        let sent = &seen.frames[0];
        let arrived = match sent.compressed {
            true => inflate(15, &sent.payload).unwrap(),
            false => sent.payload.clone(),
        };
        assert!(arrived == bytes, "{size}");
        assert!(sent.payload.len() <= bytes.len(), "{size}");
    }
}

/// A server that asks for a window of 512 bytes gets nothing that refers further back.
#[test]
fn window_bits_the_server_asks_for_are_honoured() {
    // A kilobyte without repeats, over and over: only a larger window finds them.
    let block: String = (0..300)
        .map(|n| char::from(b'!' + (n * n % 89) as u8))
        .collect();
    let far = [block.as_str(), &"-".repeat(700), &block]
        .concat()
        .repeat(4);
    let lengths = [9_u8, 12, 15].map(|bits| {
        let answer = match bits {
            9 => "permessage-deflate; client_max_window_bits=9",
            12 => "permessage-deflate; client_max_window_bits=12",
            _ => "permessage-deflate",
        };
        let message = OwnedMessage::from(far.as_str());
        let (_, seen) = Exchange {
            answer: Some(answer),
            to_send: vec![
                (message.clone(), Compression::Always),
                (message, Compression::Always),
            ],
            ..Exchange::default()
        }
        .run();
        for sent in &seen.frames[..2] {
            assert!(sent.compressed);
            assert_eq!(inflate(bits, &sent.payload).unwrap(), far.as_bytes());
        }
        seen.frames[0].payload.len()
    });
    assert!(lengths[0] > lengths[1], "{lengths:?}");
}

/// zlib makes no windows of 8 bits, so nothing is compressed where the server asks for one.
#[test]
fn a_window_of_eight_bits_is_honoured_by_not_compressing() {
    let message = OwnedMessage::from("x".repeat(5000).as_str());
    let (told, seen) = Exchange {
        answer: Some("permessage-deflate; client_max_window_bits=8"),
        to_send: vec![(message, Compression::Always)],
        ..Exchange::default()
    }
    .run();
    assert!(told.clean);
    assert!(!seen.frames[0].compressed);
}
