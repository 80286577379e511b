//! Messages in both directions: small, large, fragmented, cut into pieces, and very many.

use crate::support::server::Received;
use crate::support::{Call, Duet, Log, PATIENCE, Recorder, Rig, Server, Transport, Why, frame};
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use websockex::trace::{Kind, Level};
use websockex::{Fragment, Message, Reactor, SendError};

#[test]
fn text_and_binary_come_back_from_tungstenite() {
    for &transport in Transport::ALL {
        let server = Server::echo(transport);
        let mut rig = Rig::new();
        let recorder = Recorder::new()
            .open(|cx, _| {
                cx.send_text("")?;
                cx.send_text("grüße, 世界 𝄞")?;
                cx.send_binary(&[0, 159, 146, 150])?;
                cx.send(Message::Text("last"))?;
                Ok(())
            })
            .close_after(4);
        let log = rig.connect(server.request(), recorder);
        rig.run();
        let calls = log.calls();
        assert_eq!(
            calls[..5],
            [
                Call::Open {
                    epoch: 1,
                    attempts: 1
                },
                Call::Text(String::new()),
                Call::Text("grüße, 世界 𝄞".into()),
                Call::Binary(vec![0, 159, 146, 150]),
                Call::Text("last".into()),
            ]
        );
        let lost = log.only_lost();
        assert_eq!((lost.why, lost.clean), (Why::local(1000), true));
        assert_eq!(calls.len(), 7, "{calls:?}");
    }
}

/// Around every boundary of the length forms, of the pieces that output is encoded in, and of the
/// receive buffer.
#[test]
fn every_length_form_comes_back() {
    const LENGTHS: [usize; 12] = [
        0, 1, 125, 126, 127, 4095, 65_535, 65_536, 65_537, 131_072, 131_073, 400_000,
    ];
    for &transport in Transport::ALL {
        let server = Server::echo(transport);
        let mut rig = Rig::new();
        let recorder = Recorder::new()
            .open(|cx, _| {
                for length in LENGTHS {
                    cx.send_binary(&pattern(length))?;
                }
                Ok(())
            })
            .close_after(LENGTHS.len());
        let log = rig.connect(server.request(), recorder);
        rig.run();
        for (call, length) in log.calls()[1..].iter().zip(LENGTHS) {
            assert!(*call == Call::Binary(pattern(length)), "{length}: {call:?}");
        }
        assert_eq!(log.messages(), LENGTHS.len());
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// Far more than any socket buffer, so that both sides block in the middle.
#[test]
fn large_messages_in_both_directions() {
    const LENGTH: usize = 16 << 20;
    for &transport in Transport::ALL {
        let server = Server::echo(transport);
        let mut rig = Rig::new();
        let recorder = Recorder::new()
            .open(|cx, _| Ok(cx.send_text(&"µ".repeat(LENGTH / 2))?))
            .close_after(1);
        let log = rig.connect(server.request(), recorder);
        rig.run();
        assert!(log.has(&Call::Text("µ".repeat(LENGTH / 2))));
        assert!(log.only_lost().clean);
    }
}

/// The queue has a limit, whoever hits it is told, and nothing else comes of it.
#[test]
fn pitfall_06_a_full_queue_refuses_and_the_connection_goes_on() {
    const MESSAGE: usize = 1 << 20;
    const QUEUE: usize = 8 << 20;
    for &transport in Transport::ALL {
        let (told, refusals) = channel();
        let recorder = Recorder::new()
            .open(move |cx, _| {
                let mut sent = 0;
                loop {
                    match cx.send_binary(&vec![sent; MESSAGE]) {
                        Ok(()) => sent += 1,
                        Err(error) => {
                            told.send((sent, error, cx.queued()))
                                .expect("the test listens");
                            return Ok(());
                        }
                    }
                }
            })
            .drained(|cx| {
                assert_eq!(cx.queued(), 0);
                Ok(cx.send_text("drained")?)
            });
        let mut duet = Duet::open_with(transport, recorder, |request| request.max_queued(QUEUE));
        let (sent, error, queued) = refusals.recv().expect("it is refused");
        let SendError::Full {
            queued: said,
            limit,
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!((said, limit), (queued, QUEUE));
        assert!(queued <= QUEUE && queued + MESSAGE > QUEUE, "{queued}");
        assert!(usize::from(sent) * MESSAGE >= QUEUE - MESSAGE);
        assert!(!duet.log.has(&Call::Drained));
        // Only the first of a run of refusals is recorded.
        assert_eq!(duet.rig.traced(Kind::SendDropped), 1);

        let log = duet.log.clone();
        let mut peer = duet.peer;
        let reader = thread::spawn(move || {
            for index in 0..sent {
                peer.expect(2, &vec![index; MESSAGE]);
            }
            peer.expect_text("drained");
            peer.text("thanks");
            peer
        });
        duet.rig.run_until(|| log.messages() == 1);
        assert_eq!(log.texts(), ["thanks"]);
        drop(reader.join().expect("the peer got it all"));
        assert!(log.has(&Call::Drained));
        assert!(log.is_open());
    }
}

#[test]
fn a_message_behind_the_101_in_the_same_segment() {
    for &transport in Transport::ALL {
        let server = Server::start(transport, |_, mut peer| {
            let mut frames = frame(0x81, b"first");
            frames.extend(frame(0x82, &[1, 2, 3]));
            frames.extend(frame(0x89, b"ping"));
            // And the beginning of one whose rest comes later.
            frames.extend(&frame(0x81, b"second")[..4]);
            peer.accept_and_send(&frames);
            peer.expect(10, b"ping");
            peer.write(&frame(0x81, b"second")[4..]);
            peer.answer_close(1000);
        });
        let mut rig = Rig::new();
        let log = rig.connect(server.request(), Recorder::new().close_after(3));
        rig.run();
        assert_eq!(
            log.calls()[1..5],
            [
                Call::Text("first".into()),
                Call::Binary(vec![1, 2, 3]),
                Call::Ping(b"ping".to_vec()),
                Call::Text("second".into()),
            ]
        );
    }
}

/// Every kind of frame and every form of length, cut in two at every byte.
#[test]
fn every_message_split_at_every_byte() {
    let mut fragmented = frame(0x01, "añ".as_bytes());
    fragmented.extend(frame(0x89, b"in between"));
    fragmented.extend(frame(0x00, b""));
    fragmented.extend(frame(0x80, "€𝄞".as_bytes()));
    let cases: [(Vec<u8>, Vec<Call>); 5] = [
        (
            frame(0x81, "añ€𝄞".as_bytes()),
            vec![Call::Text("añ€𝄞".into())],
        ),
        (frame(0x82, &pattern(130)), vec![Call::Binary(pattern(130))]),
        (frame(0x81, b""), vec![Call::Text(String::new())]),
        (frame(0x8a, b"pong"), vec![Call::Pong(b"pong".to_vec())]),
        (
            fragmented,
            vec![
                Call::Ping(b"in between".to_vec()),
                Call::Text("añ€𝄞".into()),
            ],
        ),
    ];
    for &transport in Transport::ALL {
        let mut duet = Duet::open(transport, Recorder::new());
        for (bytes, expected) in &cases {
            for split in 1..bytes.len() {
                let before = duet.log.calls().len();
                duet.deliver(&bytes[..split]);
                duet.deliver(&bytes[split..]);
                assert_eq!(duet.log.calls()[before..], expected[..], "split at {split}");
            }
        }
    }
}

/// A whole conversation, opening handshake included, one byte at a time in both directions.
#[test]
fn a_conversation_in_single_bytes() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let url = format!("ws://{}/", listener.local_addr().expect("it is bound"));
    let mut rig = Rig::new();
    let recorder = Recorder::new().echo().open(|cx, open| {
        assert_eq!(open.response.header("x-late"), Some("yes"));
        Ok(cx.send_text("hello")?)
    });
    let log = rig.connect(url.as_str(), recorder);
    rig.turn();
    let (stream, _) = listener.accept().expect("the client connects");
    rig.turn();
    let mut peer = crate::support::Peer::new(Transport::Plain, stream);
    let request = peer.read_request();
    let mut bytes = Vec::new();
    let headers = [("X-Late".to_owned(), "yes".to_owned())];
    let answer = websockex::protocol::handshake::Answer {
        headers: &headers,
        ..Default::default()
    };
    request
        .write_response(&answer, &mut bytes)
        .expect("an answer");
    let head = bytes.len();
    bytes.extend(frame(0x81, "grüße".as_bytes()));
    bytes.extend(frame(0x01, b"in "));
    bytes.extend(frame(0x89, b"ping"));
    bytes.extend(frame(0x80, b"parts"));
    bytes.extend(frame(0x88, &1001_u16.to_be_bytes()));
    for (index, byte) in bytes.iter().enumerate() {
        assert_eq!(log.is_open(), index >= head, "at byte {index}");
        peer.write(&[*byte]);
        rig.turn();
    }
    peer.expect_text("hello");
    peer.expect_text("grüße");
    peer.expect(10, b"ping");
    peer.expect_text("in parts");
    peer.expect_close(1001);
    peer.end();
    // Without this it would come back: the request has the default policy.
    rig.run_until(|| !log.lost().is_empty());
    assert_eq!(log.only_lost().why, Why::remote(1001, ""));
    assert!(log.only_lost().clean);
}

#[test]
fn fragments_in_both_directions_with_control_frames_in_between() {
    for &transport in Transport::ALL {
        let recorder = Recorder::new().echo().open(|cx, _| {
            cx.send_fragment(Message::Text("one "), Fragment::First)?;
            cx.send_ping(b"between")?;
            // What does not belong there is refused, and nothing of it is sent.
            for error in [
                cx.send_text("whole").unwrap_err(),
                cx.send_fragment(Message::Text("again"), Fragment::First)
                    .unwrap_err(),
                cx.send_fragment(Message::Binary(b"other"), Fragment::Middle)
                    .unwrap_err(),
            ] {
                assert_eq!(error, SendError::FragmentOrder);
            }
            cx.send_fragment(Message::Text("two "), Fragment::Middle)?;
            cx.send_pong(b"unasked")?;
            cx.send_fragment(Message::Text("three"), Fragment::Last)?;
            let error = cx
                .send_fragment(Message::Text("nothing begun"), Fragment::Last)
                .unwrap_err();
            assert_eq!(error, SendError::FragmentOrder);
            Ok(cx.send_binary(b"whole again")?)
        });
        let mut duet = Duet::open(transport, recorder);
        let received: Vec<_> = (0..6)
            .map(|_| duet.peer.read_frame().expect("a frame"))
            .collect();
        let expected = [
            (false, 1, "one "),
            (true, 9, "between"),
            (false, 0, "two "),
            (true, 10, "unasked"),
            (true, 0, "three"),
            (true, 2, "whole again"),
        ]
        .map(|(fin, opcode, payload)| Received {
            fin,
            opcode,
            payload: payload.as_bytes().to_vec(),
        });
        assert_eq!(received, expected);

        let mut frames = frame(0x02, &[1]);
        frames.extend(frame(0x8a, b"a pong"));
        frames.extend(frame(0x00, &[2]));
        frames.extend(frame(0x89, b"a ping"));
        frames.extend(frame(0x80, &[3]));
        duet.deliver(&frames);
        duet.peer.expect(10, b"a ping");
        duet.peer.expect(2, &[1, 2, 3]);
        assert_eq!(
            duet.log.calls()[1..],
            [
                Call::Pong(b"a pong".to_vec()),
                Call::Ping(b"a ping".to_vec()),
                Call::Binary(vec![1, 2, 3]),
            ]
        );
    }
}

#[test]
fn a_ping_is_answered_only_if_the_handler_does_it() {
    let (first, second) = (Recorder::new(), Recorder::new().ping(|_, _| Ok(())));
    for (recorder, answers) in [(first, true), (second, false)] {
        let mut duet = Duet::open(Transport::Plain, recorder);
        duet.deliver(&frame(0x89, b"there?"));
        let remote = duet.rig.reactor.remote();
        remote.send(duet.log.id(), "marker").expect("it is open");
        duet.rig.turn();
        if answers {
            duet.peer.expect(10, b"there?");
        }
        duet.peer.expect_text("marker");
        assert!(duet.log.has(&Call::Ping(b"there?".to_vec())));
    }
}

#[test]
fn control_payloads_have_at_most_125_bytes() {
    let recorder = Recorder::new().open(|cx, _| {
        assert_eq!(cx.send_ping(&[0; 126]), Err(SendError::ControlTooLong(126)));
        assert_eq!(cx.send_pong(&[0; 126]), Err(SendError::ControlTooLong(126)));
        cx.send_ping(&[7; 125])?;
        Ok(cx.send_pong(&[8; 125])?)
    });
    let mut duet = Duet::open(Transport::Plain, recorder);
    duet.peer.expect(9, &[7; 125]);
    duet.peer.expect(10, &[8; 125]);
}

/// One reactor, a thousand connections, each with its own messages.
#[test]
fn a_thousand_connections_on_one_reactor() {
    many_connections(Transport::Plain, 1000);
}

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
#[test]
fn two_hundred_tls_connections_on_one_reactor() {
    many_connections(Transport::Tls, 200);
}

/// The server says who is who, gets it back, and closes; tungstenite does the protocol.
fn many_connections(transport: Transport, count: usize) {
    // Both ends are here; the tests that run beside this one need some too.
    let files = rlimit::increase_nofile_limit(8192).expect("a limit");
    assert!(files > 2 * count as u64 + 200, "only {files} open files");
    let peers = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    socket2::SockRef::from(&listener)
        .listen(1024)
        .expect("a backlog");
    let address = listener.local_addr().expect("it is bound");
    let scheme = if transport == Transport::Plain {
        "ws"
    } else {
        "wss"
    };
    // One thread for all of them, so that the machine is not asked for a thousand.
    let server = thread::spawn(move || {
        for _ in 0..count {
            let (stream, _) = listener.accept().expect("a connection");
            let stream = crate::support::Peer::new(transport, stream).into_stream();
            let socket = tungstenite::accept(stream).expect("a handshake");
            peers.lock().expect("no panic").push(socket);
        }
        let mut peers = peers.lock().expect("no panic");
        for (number, peer) in peers.iter_mut().enumerate() {
            for part in ["a", "b", "c"] {
                let text = format!("{number} {part}");
                peer.send(tungstenite::Message::text(text)).expect("sent");
            }
        }
        for (number, peer) in peers.iter_mut().enumerate() {
            for part in ["a", "b", "c"] {
                let echo = peer.read().expect("an echo");
                assert_eq!(echo.into_text().expect("text"), format!("{number} {part}"));
            }
            peer.close(None).expect("a Close frame");
        }
        // The answers to the Close frames, and the end of the streams.
        for peer in peers.iter_mut() {
            while peer.read().is_ok() {}
        }
    });
    let mut rig = Rig::with(Reactor::builder().trace(Level::Off));
    let logs: Vec<Log> = (0..count)
        .map(|_| {
            let request =
                websockex::Request::new(format!("{scheme}://127.0.0.1:{}/", address.port()));
            let request = crate::support::server::trusting(request.expect("a URL"));
            rig.connect(request.handshake_timeout(PATIENCE), Recorder::new().echo())
        })
        .collect();
    rig.run();
    server.join().expect("the server got all echoes");
    let mut numbers: Vec<usize> = logs
        .iter()
        .map(|log| {
            let texts = log.texts();
            let number = texts[0].split(' ').next().expect("a number");
            let expected = ["a", "b", "c"].map(|part| format!("{number} {part}"));
            assert_eq!(texts, expected);
            let lost = log.only_lost();
            assert_eq!(
                (lost.why, lost.clean),
                (Why::Remote(None, String::new()), true)
            );
            number.parse().expect("a number")
        })
        .collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..count));
}
