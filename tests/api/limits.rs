//! What peers may not do, and how much they may send; the server sees which code it gets.

use crate::support::{Duet, Fault, Recorder, Rig, Transport, Why, frame};
use std::time::Duration;
use websockex::trace::{Kind, Limit, Subject};
use websockex::{Error, Limits, PolicyError, ProtocolError, Request};

/// A header that declares `length` bytes in the longest form, and has none of them.
fn declared(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first, 127];
    bytes.extend(length.to_be_bytes());
    bytes
}

/// Delivers a good message with `bytes` right behind it, and returns why it ended. The peer must
/// have seen `code`.
fn violate(transport: Transport, limits: Limits, bytes: &[u8], code: u16) -> ProtocolError {
    let mut duet = Duet::open_with(transport, Recorder::new(), |request| request.limits(limits));
    // Pitfall 32: the good one is delivered, although it is in the same read.
    let mut all = frame(0x81, b"good");
    all.extend(bytes);
    all.extend(frame(0x81, b"not seen"));
    duet.deliver(&all);
    duet.peer.expect_close(code);
    duet.peer.expect_end();
    duet.peer.end();
    duet.rig.run();
    assert_eq!(duet.log.texts(), ["good"]);
    assert_eq!(duet.rig.traced(Kind::ErrorCloseSent), 1);
    let lost = duet.log.only_lost();
    assert!(!lost.clean);
    match lost.why {
        Why::Failed(Fault::Protocol(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pitfall_32_good_messages_come_before_the_error_behind_them() {
    use ProtocolError as E;
    let short_16 = [0x82, 126, 0, 125];
    let cases: [(Vec<u8>, ProtocolError); 12] = [
        (frame(0xc1, b"rsv1"), E::ReservedBits(4)),
        (frame(0xa1, b"rsv2"), E::ReservedBits(2)),
        (frame(0x91, b"rsv3"), E::ReservedBits(1)),
        (frame(0x83, b"opcode 3"), E::ReservedOpCode(3)),
        (frame(0x8b, b"opcode 11"), E::ReservedOpCode(11)),
        (vec![0x81, 0x81, 1, 2, 3, 4, 5], E::MaskedFrame),
        (short_16.to_vec(), E::NonMinimalLength),
        (declared(0x82, 1 << 63), E::LengthOverflow),
        (frame(0x09, b"not final"), E::FragmentedControl),
        (frame(0x89, &[0; 126]), E::ControlTooLong),
        (frame(0x80, b"of nothing"), E::UnexpectedContinuation),
        (
            [frame(0x01, b"a"), frame(0x81, b"b")].concat(),
            E::InterruptedMessage,
        ),
    ];
    for &transport in Transport::ALL {
        for (bytes, expected) in &cases {
            let error = violate(transport, Limits::default(), bytes, 1002);
            assert_eq!(error, *expected);
        }
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_with_1007() {
    for &transport in Transport::ALL {
        for bytes in [
            frame(0x81, b"\xff"),
            frame(0x81, b"cut \xe2\x82"),
            [frame(0x01, b"\xe2"), frame(0x80, b"\x28")].concat(),
            // Refused at the first bad byte, however much is still to come.
            [&declared(0x81, 1 << 20)[..], b"bad \xc0 byte"].concat(),
        ] {
            let error = violate(transport, Limits::default(), &bytes, 1007);
            assert!(matches!(error, ProtocolError::InvalidUtf8(_)), "{error}");
        }
    }
}

#[test]
fn a_limit_exceeded_closes_with_1009() {
    let limits = Limits {
        max_frame: 1000,
        max_message: 1500,
    };
    for &transport in Transport::ALL {
        // Of a frame, by its header alone, and of a message by its frames together.
        let error = violate(transport, limits, &declared(0x82, 1 << 62), 1009);
        let length = 1 << 62;
        assert_eq!(
            error,
            ProtocolError::FrameTooLarge {
                length,
                limit: 1000
            }
        );
        let error = violate(transport, limits, &frame(0x82, &[0; 1001]), 1009);
        let length = 1001;
        assert_eq!(
            error,
            ProtocolError::FrameTooLarge {
                length,
                limit: 1000
            }
        );
        let fragments = [frame(0x02, &[0; 1000]), frame(0x80, &[0; 501])].concat();
        let error = violate(transport, limits, &fragments, 1009);
        let length = 1501;
        assert_eq!(
            error,
            ProtocolError::MessageTooLarge {
                length,
                limit: 1500
            }
        );
    }
}

#[test]
fn what_is_just_within_the_limits_is_delivered() {
    let limits = Limits {
        max_frame: 1000,
        max_message: 1500,
    };
    let mut duet = Duet::open_with(Transport::Plain, Recorder::new(), |request| {
        request.limits(limits)
    });
    duet.deliver(&frame(0x82, &[0; 1000]));
    let fragments = [frame(0x02, &[0; 1000]), frame(0x80, &[0; 500])].concat();
    duet.deliver(&fragments);
    assert_eq!(duet.log.messages(), 2);
    // Several in one read, in which the limits end anywhere.
    let lengths = [1000, 1, 996, 500, 997, 0, 1000, 3, 999];
    let messages = lengths.map(|length| frame(0x82, &vec![0; length]));
    duet.deliver(&messages.concat());
    assert_eq!(duet.log.messages(), 2 + lengths.len());
    assert!(duet.log.is_open());
}

#[test]
fn a_limit_that_was_hit_is_in_the_trace() {
    let limits = Limits {
        max_frame: 10,
        max_message: 10,
    };
    let mut duet = Duet::open_with(Transport::Plain, Recorder::new(), |request| {
        request.limits(limits)
    });
    duet.deliver(&frame(0x82, &[0; 11]));
    duet.peer.end();
    duet.rig.run();
    let mut events = duet.rig.reactor.trace().iter();
    let hit = events.find(|event| event.kind() == Kind::LimitHit);
    let hit = hit.expect("it is recorded");
    assert_eq!((hit.value(), hit.limit()), (11, 10));
    assert_eq!(hit.subject(), Subject::Limit(Limit::Frame));
}

/// The Close frame that says why arrives, although the peer has much more under way: a reset must
/// not overtake it.
#[test]
fn a_peer_that_talks_on_still_learns_why() {
    for &transport in Transport::ALL {
        let duet = Duet::open(transport, Recorder::new());
        let (mut peer, mut rig, log) = (duet.peer, duet.rig, duet.log);
        let talker = std::thread::spawn(move || {
            peer.write(&frame(0x83, b"bad"));
            let chatter = frame(0x82, &[0; 10_000]);
            for _ in 0..1000 {
                peer.write(&chatter);
            }
            peer.expect_close(1002);
            peer.expect_end();
        });
        rig.run_until(|| log.is_terminated());
        talker.join().expect("it saw the Close");
    }
}

/// A time in which nothing can be done is refused before anything is tried.
#[test]
fn no_time_at_all_is_refused() {
    let timeouts: [fn(Request) -> Request; 6] = [
        |request| request.resolve_timeout(Duration::ZERO),
        |request| request.connect_timeout(Duration::ZERO),
        |request| request.proxy_timeout(Duration::ZERO),
        |request| request.tls_timeout(Duration::ZERO),
        |request| request.handshake_timeout(Duration::ZERO),
        |request| request.open_timeout(Duration::ZERO),
    ];
    let mut rig = Rig::new();
    for timeout in timeouts {
        let request = timeout(Request::new("ws://127.0.0.1:9/").expect("a URL"));
        let refused = rig.reactor.connect(request, Recorder::new());
        let zero = matches!(refused, Err(Error::Policy(PolicyError::Zero(_))));
        assert!(zero, "{refused:?}");
    }
}
