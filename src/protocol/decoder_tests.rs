use super::*;
use crate::protocol::buffer::Buffer;
use crate::protocol::close::CloseCode;
use crate::protocol::encoder::encode;

/// An event that owns what it carries.
#[derive(Clone, Debug, PartialEq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Owned {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.into()),
            Event::Binary(bytes) => Self::Binary(bytes.into()),
            Event::Ping(bytes) => Self::Ping(bytes.into()),
            Event::Pong(bytes) => Self::Pong(bytes.into()),
            Event::Close(close) => {
                Self::Close(close.map(|close| (close.code.value(), close.reason.into())))
            }
        }
    }
}

type Outcome = (Vec<Owned>, Option<ProtocolError>);

/// Feeds `chunks` one after the other.
fn decode_chunks<'c>(
    decoder: &mut Decoder,
    pool: &mut Pool,
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> Outcome {
    let mut events = Vec::new();
    for chunk in chunks {
        let mut input = chunk;
        loop {
            match decoder.decode(&mut input, pool, &mut ()) {
                Ok(Some(event)) => events.push(event.into()),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
        assert!(input.is_empty(), "`None` means that everything was taken");
    }
    (events, None)
}

fn decode(bytes: &[u8]) -> Outcome {
    decode_with(Role::Client, Limits::default(), bytes)
}

fn decode_with(role: Role, limits: Limits, bytes: &[u8]) -> Outcome {
    decode_chunks(
        &mut Decoder::new(role, limits),
        &mut Pool::default(),
        [bytes],
    )
}

/// A frame: FIN, opcode, payload.
type Sent<'a> = (bool, OpCode, &'a [u8]);

/// The frames of a server, or of a client for the role of one.
fn frames(from: Role, list: &[Sent<'_>]) -> Vec<u8> {
    let mut out = Buffer::new();
    for (fin, opcode, payload) in list {
        encode(from, *fin, *opcode, payload, [9, 8, 7, 6], &mut out);
    }
    out.as_slice().to_vec()
}

use OpCode::{Binary, Close, Continuation, Ping, Pong, Text};

/// A conversation with everything in it.
fn conversation() -> Vec<(bool, OpCode, &'static [u8])> {
    vec![
        (true, Text, "käse €".as_bytes()),
        (true, Binary, b""),
        (false, Text, "split \u{20ac}".as_bytes().split_at(7).0),
        (true, Ping, b"now"),
        (false, Continuation, b""),
        (
            true,
            Continuation,
            "split \u{20ac}".as_bytes().split_at(7).1,
        ),
        (true, Pong, b""),
        (true, Binary, &[7; 300]),
        (false, Binary, b"12"),
        (true, Continuation, b"34"),
        (true, Close, b"\x03\xe9bye"),
    ]
}

fn expected() -> Vec<Owned> {
    vec![
        Owned::Text("käse €".into()),
        Owned::Binary(vec![]),
        Owned::Ping(b"now".into()),
        Owned::Text("split €".into()),
        Owned::Pong(vec![]),
        Owned::Binary(vec![7; 300]),
        Owned::Binary(b"1234".into()),
        Owned::Close(Some((1001, "bye".into()))),
    ]
}

#[test]
fn every_split_gives_the_same_events() {
    for (from, to) in [(Role::Server, Role::Client), (Role::Client, Role::Server)] {
        let bytes = frames(from, &conversation());
        let mut pool = Pool::default();
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::new(to, Limits::default());
            let outcome = decode_chunks(&mut decoder, &mut pool, bytes.chunks(size));
            assert_eq!(outcome, (expected(), None), "in chunks of {size}");
        }
        for split in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(split);
            let mut decoder = Decoder::new(to, Limits::default());
            let outcome = decode_chunks(&mut decoder, &mut pool, [head, tail]);
            assert_eq!(outcome, (expected(), None), "split at {split}");
        }
    }
}

#[test]
fn room_takes_a_large_payload_without_the_shared_buffer() {
    for (from, to) in [(Role::Server, Role::Client), (Role::Client, Role::Server)] {
        let payload = "0123456789abcdef€".repeat(20_000);
        let bytes = frames(from, &[(true, Text, payload.as_bytes())]);
        let mut decoder = Decoder::new(to, Limits::default());
        let mut pool = Pool::default();
        let (mut rest, mut direct) = (&bytes[100..], 0);
        assert_eq!(
            decode_chunks(&mut decoder, &mut pool, [&bytes[..100]]),
            (vec![], None)
        );
        while let Some(room) = decoder.room() {
            let length = room.len().min(rest.len()).min(5003);
            room[..length].copy_from_slice(&rest[..length]);
            decoder.received(length).unwrap();
            rest = &rest[length..];
            direct += length;
        }
        assert!(direct > payload.len() * 9 / 10);
        let (events, error) = decode_chunks(&mut decoder, &mut pool, [rest]);
        assert_eq!((events, error), (vec![Owned::Text(payload)], None));
    }
}

#[test]
fn a_message_completed_in_its_room_needs_no_more_input() {
    let payload = vec![3; 10_000];
    let bytes = frames(Role::Server, &[(true, Binary, &payload)]);
    let mut decoder = Decoder::new(Role::Client, Limits::default());
    let mut pool = Pool::default();
    decode_chunks(&mut decoder, &mut pool, [&bytes[..4]]);
    let mut rest = &bytes[4..];
    while let Some(room) = decoder.room() {
        let length = room.len();
        room.copy_from_slice(&rest[..length]);
        rest = &rest[length..];
        decoder.received(length).unwrap();
    }
    let outcome = decode_chunks(&mut decoder, &mut pool, [rest]);
    assert_eq!(outcome, (vec![Owned::Binary(payload)], None));
}

#[test]
fn misbehaviour_is_told_apart() {
    let cases: [(&[Sent], ProtocolError); 8] = [
        (
            &[(true, Continuation, b"x")],
            ProtocolError::UnexpectedContinuation,
        ),
        (
            &[(false, Text, b"x"), (true, Text, b"y")],
            ProtocolError::InterruptedMessage,
        ),
        (
            &[(false, Text, b"x"), (true, Binary, b"y")],
            ProtocolError::InterruptedMessage,
        ),
        (&[(false, Ping, b"x")], ProtocolError::FragmentedControl),
        (&[(true, Ping, &[0; 126])], ProtocolError::ControlTooLong),
        (&[(true, Close, b"\x03")], ProtocolError::TruncatedCloseCode),
        (
            &[(true, Close, b"\x03\xed")],
            ProtocolError::ForbiddenCloseCode(CloseCode::NO_STATUS),
        ),
        (
            &[
                (false, Text, b"x"),
                (true, Continuation, b""),
                (true, Continuation, b""),
            ],
            ProtocolError::UnexpectedContinuation,
        ),
    ];
    for (list, error) in cases {
        assert_eq!(
            decode(&frames(Role::Server, list)).1,
            Some(error),
            "{list:?}"
        );
    }
    let masked = frames(Role::Client, &[(true, Text, b"x")]);
    assert_eq!(decode(&masked).1, Some(ProtocolError::MaskedFrame));
    let bare = frames(Role::Server, &[(true, Text, b"x")]);
    let outcome = decode_with(Role::Server, Limits::default(), &bare);
    assert_eq!(outcome.1, Some(ProtocolError::UnmaskedFrame));
}

/// Pitfall 10: RSV1 without an extension, on data, continuation and control frames.
#[test]
fn pitfall_10_reserved_bits() {
    for first in [0xc1_u8, 0xc2, 0xc9, 0xc8, 0x40] {
        assert_eq!(decode(&[first, 0]).1, Some(ProtocolError::ReservedBits(4)));
    }
}

/// Pitfall 16.
#[test]
fn pitfall_16_control_frames_are_short_and_whole() {
    for opcode in [Close, Ping, Pong] {
        let long = frames(Role::Server, &[(true, opcode, &[b'x'; 126])]);
        assert_eq!(decode(&long).1, Some(ProtocolError::ControlTooLong));
        let cut = frames(Role::Server, &[(false, opcode, b"")]);
        assert_eq!(decode(&cut).1, Some(ProtocolError::FragmentedControl));
    }
}

/// Pitfall 1: a header that declares 2^62 bytes costs no memory, neither refused nor allowed.
#[test]
fn pitfall_1_a_declared_length_allocates_nothing() {
    let mut header = vec![0x82, 127];
    header.extend((1_u64 << 62).to_be_bytes());
    assert!(matches!(
        decode(&header).1,
        Some(ProtocolError::FrameTooLarge { length, .. }) if length == 1 << 62
    ));
    let unlimited = Limits {
        max_frame: u64::MAX,
        max_message: u64::MAX,
    };
    let mut decoder = Decoder::new(Role::Client, unlimited);
    let mut pool = Pool::default();
    header.extend([1; 10]);
    assert_eq!(
        decode_chunks(&mut decoder, &mut pool, [&header[..]]),
        (vec![], None)
    );
    assert!(decoder.room().unwrap().len() <= 8192);
    assert!(decoder.memory() < 16 * 1024, "{}", decoder.memory());
}

/// Pitfall 2: the limit holds for the message, and empty fragments cost nothing.
#[test]
fn pitfall_2_fragments_are_limited_together() {
    let limits = Limits {
        max_frame: 10,
        max_message: 25,
    };
    let list = [
        (false, Text, &b"0123456789"[..]),
        (false, Continuation, b"0123456789"),
    ];
    let mut bytes = frames(Role::Server, &list);
    let outcome = decode_with(Role::Client, limits, &bytes);
    assert_eq!(outcome, (vec![], None));
    bytes.extend(frames(Role::Server, &[(true, Continuation, b"012345")]));
    let outcome = decode_with(Role::Client, limits, &bytes);
    let error = ProtocolError::MessageTooLarge {
        length: 26,
        limit: 25,
    };
    assert_eq!(outcome.1, Some(error));
    assert_eq!(error.close_code(), CloseCode::TOO_BIG);

    let mut decoder = Decoder::new(Role::Client, limits);
    let mut pool = Pool::default();
    decode_chunks(
        &mut decoder,
        &mut pool,
        [&frames(Role::Server, &[(false, Text, b"x")])[..]],
    );
    let before = decoder.memory();
    let empty = frames(
        Role::Server,
        &vec![(false, Continuation, &b""[..]); 100_000],
    );
    assert_eq!(
        decode_chunks(&mut decoder, &mut pool, [&empty[..]]),
        (vec![], None)
    );
    assert_eq!(decoder.memory(), before);
}

/// Pitfall 32: good messages in front of a bad frame in the same read come first.
#[test]
fn pitfall_32_good_messages_before_a_bad_frame() {
    let mut bytes = frames(
        Role::Server,
        &[(true, Text, b"good"), (true, Binary, b"too")],
    );
    bytes.extend([0xff, 0xff]);
    let (events, error) = decode(&bytes);
    assert_eq!(
        events,
        [Owned::Text("good".into()), Owned::Binary(b"too".into())]
    );
    assert_eq!(error, Some(ProtocolError::ReservedBits(7)));
}

#[test]
fn the_first_error_sticks() {
    let mut decoder = Decoder::new(Role::Client, Limits::default());
    let mut pool = Pool::default();
    let good = frames(Role::Server, &[(true, Text, b"good")]);
    for bytes in [&[0x83][..], &[0xff], &good] {
        let outcome = decode_chunks(&mut decoder, &mut pool, [bytes]);
        assert_eq!(outcome, (vec![], Some(ProtocolError::ReservedOpCode(3))));
    }
}

#[test]
fn nothing_is_decoded_behind_a_close() {
    let mut bytes = frames(Role::Server, &[(true, Close, b""), (true, Text, b"late")]);
    bytes.push(0xff);
    assert_eq!(decode(&bytes), (vec![Owned::Close(None)], None));
}

/// Pitfall 34: text is refused at its first bad byte, even when the rest of the frame is not there.
#[test]
fn bad_text_fails_at_the_first_bad_byte() {
    // A frame of 100 bytes of which 3 have come: 'a', then a surrogate's first two bytes.
    let bytes = [0x81, 100, b'a', 0xed, 0xa0];
    assert!(matches!(
        decode(&bytes).1,
        Some(ProtocolError::InvalidUtf8(_))
    ));
    // The same over two frames.
    let list = [(false, Text, &b"a\xed"[..]), (false, Continuation, b"\xa0")];
    let outcome = decode(&frames(Role::Server, &list));
    assert!(matches!(outcome.1, Some(ProtocolError::InvalidUtf8(_))));
    // A cut code point at the end of the message.
    let list = [(false, Text, &b"a"[..]), (true, Continuation, b"\xed")];
    let outcome = decode(&frames(Role::Server, &list));
    assert!(matches!(outcome.1, Some(ProtocolError::InvalidUtf8(_))));
}

/// Fragments that lie in one read are validated together: what comes of them must not depend on how
/// the reads fell, not even where the bad byte is, and what came before it is delivered.
#[test]
fn bad_text_in_fragments_gives_the_same_error_at_every_split() {
    let text = "a€b𝄞cé".repeat(3).into_bytes();
    let behind: [&[Sent]; 4] = [
        &[],
        &[(true, Ping, b"later")],
        &[(false, Ping, b"wrong")],
        &[(true, Text, b"an interruption")],
    ];
    for bad in 0..text.len() {
        let mut text = text.clone();
        text[bad] = 0xff;
        let (one, rest) = text.split_at(text.len() / 4 + 1);
        let (two, three) = rest.split_at(text.len() / 3);
        for behind in behind {
            let mut list = vec![
                (false, Text, &b"goo"[..]),
                (true, Continuation, b"d"),
                (false, Text, one),
                (false, Continuation, b""),
                (false, Continuation, two),
            ];
            if behind.is_empty() {
                list.push((true, Continuation, three));
            }
            list.extend(behind);
            let is_sent = bad < one.len() + two.len() || behind.is_empty();
            if !is_sent {
                continue;
            }
            let position = bad as u64;
            let error = Some(ProtocolError::InvalidUtf8(utf8::InvalidUtf8 { position }));
            let bytes = frames(Role::Server, &list);
            for size in (1..20).chain([bytes.len()]) {
                let mut decoder = Decoder::new(Role::Client, Limits::default());
                let mut pool = Pool::default();
                let outcome = decode_chunks(&mut decoder, &mut pool, bytes.chunks(size));
                let good = vec![Owned::Text("good".into())];
                assert_eq!(outcome, (good, error), "{bad} in chunks of {size}");
            }
        }
    }
}

/// Of a message that is not complete, the text that has come is validated with the read it came in,
/// up to a code point that is cut.
#[test]
fn an_incomplete_message_in_fragments_is_validated_with_its_read() {
    let euro = "€".as_bytes();
    for (second, is_good) in [(&euro[1..2], true), (b"x", false)] {
        let list = [(false, Text, &euro[..1]), (false, Continuation, second)];
        let bytes = frames(Role::Server, &list);
        let mut decoder = Decoder::new(Role::Client, Limits::default());
        let mut pool = Pool::default();
        let (events, error) = decode_chunks(&mut decoder, &mut pool, [&bytes[..]]);
        assert_eq!((events, error.is_none()), (vec![], is_good));
        if is_good {
            let end = frames(Role::Server, &[(true, Continuation, &euro[2..])]);
            let outcome = decode_chunks(&mut decoder, &mut pool, [&end[..]]);
            assert_eq!(outcome, (vec![Owned::Text("€".into())], None));
        }
    }
}

/// One message in fragments behind the other takes the same assembly, which keeps nothing of the one
/// before: not its bytes, its kind, its control frames or what was validated of it.
#[test]
fn messages_in_fragments_do_not_mix() {
    let mut list = Vec::new();
    let mut expected = Vec::new();
    let texts = ["one €", "", "three"];
    for (round, text) in texts.iter().cycle().take(30).enumerate() {
        let (head, tail) = text.as_bytes().split_at(text.len() * 9 / 10);
        let is_text = round % 4 != 3;
        list.push((false, if is_text { Text } else { Binary }, head));
        if round % 5 == 1 {
            list.push((true, Ping, b"between"));
            expected.push(Owned::Ping(b"between".into()));
        }
        list.push((true, Continuation, tail));
        expected.push(if is_text {
            Owned::Text((*text).into())
        } else {
            Owned::Binary((*text).into())
        });
        if round % 7 == 6 {
            list.push((true, Text, b"whole"));
            expected.push(Owned::Text("whole".into()));
        }
    }
    let bytes = frames(Role::Server, &list);
    for size in 1..=bytes.len() {
        let mut decoder = Decoder::new(Role::Client, Limits::default());
        let mut pool = Pool::default();
        let outcome = decode_chunks(&mut decoder, &mut pool, bytes.chunks(size));
        assert_eq!(outcome, (expected.clone(), None), "in chunks of {size}");
        assert_eq!(decoder.memory(), 0);
    }
}

/// Between messages and within one, every first byte that a frame can have is taken or refused alike,
/// whether all of the frame is there or it comes byte by byte.
#[test]
fn every_first_byte_means_the_same_on_the_short_way_and_the_long_one() {
    for start in [&b""[..], b"\x01\x01a", b"\x02\x01a"] {
        let mut refused = 0;
        for first in 0..=u8::MAX {
            let bytes = [start, &[first, 3, b'b', b'c', b'd'], b"\x80\x04efgh"].concat();
            let mut decoder = Decoder::new(Role::Client, Limits::default());
            let mut pool = Pool::default();
            let outcome = decode_chunks(&mut decoder, &mut pool, bytes.chunks(1));
            assert_eq!(decode(&bytes), outcome, "{start:?} {first:#x}");
            refused += usize::from(outcome.1.is_some());
        }
        // Good between messages: one that begins in fragments. Within one: a fragment that goes on
        // with it, and a Ping or Pong. What follows the end of a message is wrong here.
        assert_eq!(refused, 256 - if start.is_empty() { 2 } else { 3 });
    }
}

/// The limits of frame and message hold for each fragment, wherever the reads fell.
#[test]
fn limits_hold_for_each_fragment_at_every_split() {
    let limits = Limits {
        max_frame: 10,
        max_message: 25,
    };
    let too_long = |length| ProtocolError::FrameTooLarge { length, limit: 10 };
    let too_much = |length| ProtocolError::MessageTooLarge { length, limit: 25 };
    for (lengths, expected) in [
        (&[10, 10, 5][..], None),
        (&[10, 10, 6], Some(too_much(26))),
        (&[10, 10, 5, 1], Some(too_much(26))),
        (&[11, 1], Some(too_long(11))),
        (&[1, 0, 11], Some(too_long(11))),
    ] {
        let mut list = vec![(false, Binary, &b"good"[..]), (true, Continuation, b"!")];
        for (i, &length) in lengths.iter().enumerate() {
            let opcode = if i == 0 { Binary } else { Continuation };
            list.push((i + 1 == lengths.len(), opcode, &[7; 16][..length]));
        }
        let bytes = frames(Role::Server, &list);
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::new(Role::Client, limits);
            let mut pool = Pool::default();
            let (events, error) = decode_chunks(&mut decoder, &mut pool, bytes.chunks(size));
            assert_eq!(events[0], Owned::Binary(b"good!".into()));
            assert_eq!(events.len(), 1 + usize::from(expected.is_none()));
            assert_eq!(error, expected, "{lengths:?} in chunks of {size}");
        }
    }
}

/// Pitfall 4: what is idle owns no buffer, and the pool keeps no more than it may.
/// What a large message took is not kept for a small one that follows in the same read.
#[test]
fn a_large_buffer_is_given_back_before_the_next_fragment() {
    let large = vec![b'x'; 4 << 20];
    let sent = [
        (false, Binary, &large[..]),
        (true, Continuation, b"y"),
        (false, Text, b"ab"),
    ];
    let bytes = frames(Role::Server, &sent);
    let limits = Limits::default();
    let (mut decoder, mut pool) = (Decoder::new(Role::Client, limits), Pool::default());
    let mut input = bytes.as_slice();
    let event = decoder.decode(&mut input, &mut pool, &mut ());
    assert!(matches!(event, Ok(Some(Event::Binary(bytes))) if bytes.len() == large.len() + 1));
    assert_eq!(decoder.decode(&mut input, &mut pool, &mut ()), Ok(None));
    assert!(input.is_empty());
    let assembly = decoder.assembly.as_ref().expect("a message is under way");
    assert!(assembly.memory() < 1 << 20);
    assert_eq!(pool.retained(), 0);
}

#[test]
fn pitfall_4_an_idle_connection_owns_no_buffer() {
    let mut pool = Pool::new(64 * 1024);
    let mut decoders: Vec<_> = (0..100)
        .map(|_| Decoder::new(Role::Client, Limits::default()))
        .collect();
    let bytes = frames(Role::Server, &[(true, Binary, &[1; 3000])]);
    for part in [&bytes[..1000], &bytes[1000..]] {
        for decoder in &mut decoders {
            decode_chunks(decoder, &mut pool, [part]);
        }
    }
    for decoder in &decoders {
        assert_eq!(decoder.memory(), 0);
    }
    assert!(pool.retained() <= 64 * 1024);
    assert!(pool.retained() > 0);
    assert!(size_of::<Decoder>() <= 72, "{}", size_of::<Decoder>());
}

/// Headers and messages seen by an observer.
#[derive(Default)]
struct Seen(Vec<(OpCode, usize)>, Vec<(OpCode, usize)>);

impl Observer for Seen {
    fn frame(&mut self, header: &FrameHeader, payload: &[u8]) {
        self.0.push((header.opcode, payload.len()));
    }
    fn completed(&mut self, opcode: OpCode, message: &[u8]) {
        self.1.push((opcode, message.len()));
    }
}

#[test]
fn an_observer_sees_every_frame_once() {
    let bytes = frames(Role::Server, &conversation());
    let mut seen = Seen::default();
    let mut decoder = Decoder::new(Role::Client, Limits::default());
    let mut input = &bytes[..];
    while let Ok(Some(_)) = decoder.decode(&mut input, &mut Pool::default(), &mut seen) {}
    let list: Vec<_> = conversation().iter().map(|f| (f.1, f.2.len())).collect();
    assert_eq!(seen.0, list);
    assert_eq!(seen.1, [(Text, 9), (Binary, 4)]);
}

/// A message in fragments that turns out not to be text is never complete.
#[test]
fn an_observer_is_told_of_no_message_that_is_not_text() {
    let list = [(false, Text, &b"a"[..]), (true, Continuation, b"\xff")];
    let bytes = frames(Role::Server, &list);
    let mut seen = Seen::default();
    let mut decoder = Decoder::new(Role::Client, Limits::default());
    let mut input = &bytes[..];
    let outcome = decoder.decode(&mut input, &mut Pool::default(), &mut seen);
    assert!(matches!(outcome, Err(ProtocolError::InvalidUtf8(_))));
    assert_eq!(seen.0, [(Text, 1), (Continuation, 1)]);
    assert_eq!(seen.1, []);
}

/// A whole message is a slice of the input, whatever form its length has. (One of no or one byte at
/// the very end of the input is too short to tell, and goes the long way.)
#[test]
fn whole_messages_of_every_length_form_are_borrowed() {
    for length in [2, 125, 126, 65_535, 65_536, 100_000] {
        let payload = vec![b'x'; length];
        let mut bytes = Buffer::new();
        let (role, text) = (Role::Server, Text);
        encode(role, true, text, &payload, [0; 4], &mut bytes);
        let mut input = bytes.as_slice();
        let range = input.as_ptr_range();
        let mut decoder = Decoder::new(Role::Client, Limits::default());
        let event = decoder.decode(&mut input, &mut Pool::default(), &mut ());
        let Ok(Some(Event::Text(text))) = event else {
            panic!("no text");
        };
        assert_eq!(text.len(), length);
        assert!(range.contains(&text.as_ptr()));
    }
}
