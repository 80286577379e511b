//! The end of a connection, begun from either side in every state.

use crate::support::server::{answer, close_payload};
use crate::support::{
    Call, Duet, Fault, LONG, Peer, Recorder, Rig, SHORT, Server, Transport, Why, frame,
};
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::time::Duration;
use websockex::trace::Kind;
use websockex::{
    CloseCode, Message, ProtocolError, Reconnect, ReconnectPolicy, Request, SendError,
};

#[test]
fn closed_from_this_side() {
    for &transport in Transport::ALL {
        let recorder = Recorder::new().message(|cx, message| {
            if message != Message::Text("enough?") {
                return Ok(());
            }
            cx.close_with(CloseCode::new(4000), "enough, grüße")?;
            // Closing already: said so, and nothing is sent.
            assert_eq!(
                cx.close_with(CloseCode::NORMAL, ""),
                Err(SendError::Closing)
            );
            assert_eq!(cx.send_text("too late"), Err(SendError::Closing));
            assert_eq!(cx.send_ping(b"too late"), Err(SendError::Closing));
            cx.close();
            Ok(())
        });
        let mut duet = Duet::open(transport, recorder);
        duet.peer.text("enough?");
        duet.rig.run_until(|| duet.log.messages() == 1);
        // What the peer sent before it answers still counts, and its pings need no answer.
        duet.deliver(&frame(0x81, b"on the way"));
        duet.deliver(&frame(0x89, b"ping"));
        let close = duet.peer.read_frame().expect("a Close frame");
        assert_eq!(close.payload, close_payload(4000, "enough, grüße"));
        duet.peer.close(4000, "enough");
        duet.peer.end();
        duet.rig.run();
        duet.peer.expect_end();
        assert_eq!(duet.log.texts(), ["enough?", "on the way"]);
        let lost = duet.log.only_lost();
        assert_eq!(lost.why, Why::Local(Some(4000), "enough, grüße".into()));
        assert!(lost.clean);
        assert_eq!(duet.rig.traced(Kind::ClosedCleanly), 1);
    }
}

/// What is ending already, for a reason that is not this side's, does not come back once this side has
/// closed it; the reason stays what it was.
#[test]
fn closed_from_this_side_while_it_is_ending() {
    let code = CloseCode::NORMAL;
    for &transport in Transport::ALL {
        // The peer has closed, and keeps the TCP connection open.
        let mut duet = Duet::open_with(transport, Recorder::new(), |request| {
            request.reconnect(ReconnectPolicy::fixed(LONG))
        });
        duet.deliver(&frame(0x88, &close_payload(1001, "later")));
        duet.peer.expect_close(1001);
        let (remote, id) = (duet.rig.reactor.remote(), duet.log.id());
        remote.close(id, code, "").expect("it is there");
        duet.rig.turn();
        duet.peer.end();
        duet.rig.run();
        let lost = duet.log.only_lost();
        assert_eq!((lost.why, lost.policy), (Why::remote(1001, "later"), None));

        // The peer has broken the protocol.
        let mut duet = Duet::open_with(transport, Recorder::new(), |request| {
            request.reconnect(ReconnectPolicy::fixed(LONG))
        });
        duet.deliver(&frame(0x83, b""));
        duet.peer.expect_close(1002);
        let (remote, id) = (duet.rig.reactor.remote(), duet.log.id());
        remote.close(id, code, "").expect("it is there");
        duet.rig.run();
        let lost = duet.log.only_lost();
        assert!(lost.why.fault().is_some(), "{:?}", lost.why);
        assert_eq!(lost.policy, None);
    }
}

/// And neither does what this side has closed in good order, if the peer breaks the protocol then.
#[test]
fn closed_from_this_side_and_then_the_peer_misbehaves() {
    for &transport in Transport::ALL {
        // An opcode, a Close frame and a text that may not be.
        for bad in [frame(0x83, b""), frame(0x88, b"x"), frame(0x81, b"\xff")] {
            let mut duet = Duet::open_with(transport, Recorder::new(), |request| {
                request.reconnect(ReconnectPolicy::fixed(LONG))
            });
            let (remote, id) = (duet.rig.reactor.remote(), duet.log.id());
            remote
                .close(id, CloseCode::NORMAL, "")
                .expect("it is there");
            duet.rig.turn();
            duet.peer.expect_close(1000);
            duet.deliver(&bad);
            duet.rig.run();
            let lost = duet.log.only_lost();
            assert!(lost.why.fault().is_some(), "{:?}", lost.why);
            assert_eq!(lost.policy, None);
        }
    }
}

#[test]
fn closed_by_the_peer() {
    let long = "r".repeat(123);
    let cases: [(Vec<u8>, Why, &[u8]); 9] = [
        (Vec::new(), Why::Remote(None, String::new()), &[]),
        (close_payload(1000, ""), Why::remote(1000, ""), &[3, 232]),
        (
            close_payload(1001, "bye €"),
            Why::remote(1001, "bye €"),
            &[3, 233],
        ),
        // Pitfall 14: registered after the RFC, and refused by some.
        (close_payload(1012, ""), Why::remote(1012, ""), &[3, 244]),
        (close_payload(1013, ""), Why::remote(1013, ""), &[3, 245]),
        (close_payload(1014, ""), Why::remote(1014, ""), &[3, 246]),
        (close_payload(3000, ""), Why::remote(3000, ""), &[11, 184]),
        (close_payload(4999, ""), Why::remote(4999, ""), &[19, 135]),
        (
            close_payload(1000, &long),
            Why::remote(1000, &long),
            &[3, 232],
        ),
    ];
    for &transport in Transport::ALL {
        for (payload, why, echo) in &cases {
            let mut duet = Duet::open(transport, Recorder::new());
            duet.peer.write(&frame(0x81, b"good"));
            duet.peer.write(&frame(0x88, payload));
            duet.peer.write(&frame(0x81, b"after the end"));
            duet.rig.run_until(|| duet.log.messages() == 1);
            duet.rig.settle();
            duet.peer.expect(8, echo);
            duet.peer.end();
            duet.rig.run();
            assert_eq!(duet.log.texts(), ["good"]);
            let lost = duet.log.only_lost();
            assert_eq!((&lost.why, lost.clean), (why, true));
        }
    }
}

#[test]
fn a_close_frame_that_may_not_be_is_answered_with_1002_or_1007() {
    let cases = [
        (vec![3], 1002, ProtocolError::TruncatedCloseCode),
        (close_payload(999, ""), 1002, forbidden(999)),
        (close_payload(1004, ""), 1002, forbidden(1004)),
        (close_payload(1005, ""), 1002, forbidden(1005)),
        (close_payload(1006, ""), 1002, forbidden(1006)),
        (close_payload(1015, ""), 1002, forbidden(1015)),
        (close_payload(2999, ""), 1002, forbidden(2999)),
        (close_payload(5000, ""), 1002, forbidden(5000)),
    ];
    for (payload, code, error) in cases {
        let mut duet = Duet::open(Transport::Plain, Recorder::new());
        duet.deliver(&frame(0x88, &payload));
        duet.peer.expect_close(code);
        duet.peer.end();
        duet.rig.run();
        let lost = duet.log.only_lost();
        assert_eq!(lost.why, Why::Failed(Fault::Protocol(error)));
        assert!(!lost.clean);
    }
    let mut duet = Duet::open(Transport::Plain, Recorder::new());
    duet.deliver(&frame(0x88, &[3, 232, 0xff]));
    duet.peer.expect_close(1007);
    duet.peer.end();
    duet.rig.run();
    let why = duet.log.only_lost().why;
    let Some(Fault::Protocol(ProtocolError::InvalidUtf8(_))) = why.fault() else {
        panic!("{why:?}");
    };
}

fn forbidden(code: u16) -> ProtocolError {
    ProtocolError::ForbiddenCloseCode(CloseCode::new(code))
}

/// Both send Close before either has seen the other's.
#[test]
fn closed_from_both_sides_at_once() {
    for &transport in Transport::ALL {
        let mut duet = Duet::open(
            transport,
            Recorder::new().cast(|cx| {
                cx.close();
                Ok(())
            }),
        );
        duet.peer.close(1001, "me too");
        let remote = duet.rig.reactor.remote();
        remote
            .close(duet.log.id(), CloseCode::NORMAL, "me")
            .expect("it is open");
        duet.await_close();
        duet.peer.end();
        duet.rig.run();
        let sent = duet.peer.drain();
        assert_eq!(sent.len(), 1, "exactly one Close frame: {sent:?}");
        assert!(duet.log.only_lost().clean);
    }
}

#[test]
fn what_cannot_be_said_in_a_close_frame_is_refused() {
    let recorder = Recorder::new().open(|cx, _| {
        for code in [0, 999, 1004, 1005, 1006, 1015, 2000, 5000] {
            let refused = cx.close_with(CloseCode::new(code), "");
            assert!(matches!(refused, Err(SendError::InvalidClose(_))), "{code}");
        }
        let refused = cx.close_with(CloseCode::NORMAL, &"r".repeat(124));
        assert!(matches!(refused, Err(SendError::InvalidClose(_))));
        // It is still open.
        cx.send_text("on")?;
        Ok(cx.close_with(CloseCode::NORMAL, &"r".repeat(123))?)
    });
    let mut duet = Duet::open(Transport::Plain, recorder);
    duet.peer.expect_text("on");
    duet.peer.answer_close(1000);
    duet.rig.run();
    assert!(duet.log.only_lost().clean);
}

/// Nothing is open yet: the attempt is given up, at whichever stage it is.
#[test]
fn closed_from_this_side_while_connecting() {
    // After so many turns: not begun, TCP under way, TLS or opening handshake with a silent peer.
    for &transport in Transport::ALL {
        for turns in 0..3 {
            let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
            let port = listener.local_addr().expect("it is bound").port();
            let scheme = if transport == Transport::Plain {
                "ws"
            } else {
                "wss"
            };
            let request = Request::new(format!("{scheme}://127.0.0.1:{port}/")).expect("a URL");
            let mut rig = Rig::new();
            let log = rig.connect(request, Recorder::new());
            for _ in 0..turns {
                rig.turn();
            }
            let remote = rig.reactor.remote();
            assert_eq!(remote.send(log.id(), "x"), Err(SendError::NotOpen));
            let closed = remote.close(log.id(), CloseCode::NORMAL, "");
            closed.expect("it is there");
            rig.run();
            assert!(log.is_terminated() && log.opened() == 0);
            if turns == 2 {
                let upgrading = usize::from(transport == Transport::Plain);
                assert_eq!(rig.traced(Kind::TcpConnected), 1);
                assert_eq!(rig.traced(Kind::Upgrading), upgrading);
            }
            if turns > 0 {
                let lost = log.only_lost();
                assert_eq!(lost.why, Why::local(1000), "{transport:?} {turns}");
                assert!(!lost.clean && lost.policy.is_none());
            }
        }
    }
}

/// Between two attempts there is nothing to disconnect: the wait ends, and so does the connection.
#[test]
fn closed_from_this_side_during_back_off() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
    });
    let mut rig = Rig::new();
    let request = server.request().reconnect(ReconnectPolicy::fixed(LONG));
    let log = rig.connect(request, Recorder::new());
    rig.run_until(|| !log.lost().is_empty());
    assert_eq!(log.only_lost().policy, Some(LONG));
    assert_eq!(rig.reactor.connections(), 1);
    let remote = rig.reactor.remote();
    assert_eq!(remote.send(log.id(), "x"), Err(SendError::NotOpen));
    remote
        .close(log.id(), CloseCode::NORMAL, "")
        .expect("it is there");
    rig.run();
    assert_eq!(log.lost().len(), 1);
    let ended = log.calls().pop().expect("calls");
    assert_eq!(
        ended,
        Call::Terminate {
            why: Why::local(1000),
            epoch: 1
        }
    );
    assert_eq!(
        remote.close(log.id(), CloseCode::NORMAL, ""),
        Err(SendError::Gone)
    );
    assert_eq!(remote.send(log.id(), "x"), Err(SendError::Gone));
    assert_eq!(remote.cast(log.id(), String::new()), Err(SendError::Gone));
}

/// A handler that closes in `on_disconnect` ends it, whatever it returns.
#[test]
fn closed_from_this_side_in_on_disconnect() {
    let recorder = Recorder::new().disconnect(|cx, _| {
        assert_eq!(cx.send_text("x"), Err(SendError::NotOpen));
        cx.close();
        Reconnect::After(Duration::ZERO)
    });
    let mut duet = Duet::open(Transport::Plain, recorder);
    duet.peer.end();
    duet.rig.run();
    assert_eq!(duet.log.opened(), 1);
}

/// A close from this side after the peer's Close changes nothing.
#[test]
fn closed_from_this_side_after_the_peer_has() {
    let mut duet = Duet::open(Transport::Plain, Recorder::new());
    duet.peer.close(1001, "first");
    duet.await_close();
    let remote = duet.rig.reactor.remote();
    assert_eq!(remote.send(duet.log.id(), "x"), Err(SendError::Closing));
    remote
        .close(duet.log.id(), CloseCode::NORMAL, "second")
        .expect("it is there");
    duet.rig.turn();
    duet.peer.expect_close(1001);
    duet.peer.end();
    duet.rig.run();
    assert_eq!(duet.log.only_lost().why, Why::remote(1001, "first"));
}

#[test]
fn pitfall_14_a_peer_that_does_not_answer_close_is_given_up() {
    for &transport in Transport::ALL {
        let recorder = Recorder::new().cast(|cx| {
            cx.close();
            Ok(())
        });
        let mut duet = Duet::open_with(transport, recorder, |request| request.close_timeout(SHORT));
        let remote = duet.rig.reactor.remote();
        remote
            .cast(duet.log.id(), "close".to_owned())
            .expect("it is open");
        duet.rig.run();
        let lost = duet.log.only_lost();
        assert_eq!((lost.why, lost.clean), (Why::local(1000), false));
        assert_eq!(duet.rig.traced(Kind::ForcedClosed), 1);
        duet.peer.expect_close(1000);
        duet.peer.expect_end();
    }
}

/// Likewise one that answers, and then keeps the TCP connection; but that was a clean close.
#[test]
fn a_peer_that_does_not_end_the_stream_is_given_up() {
    for &transport in Transport::ALL {
        let mut duet = Duet::open_with(transport, Recorder::new(), |request| {
            request.close_timeout(SHORT)
        });
        duet.peer.close(1000, "");
        duet.rig.run();
        duet.peer.expect_close(1000);
        duet.peer.expect_end();
        assert!(duet.log.only_lost().clean);
    }
}

#[test]
fn a_stream_that_ends_without_close_was_dropped() {
    for &transport in Transport::ALL {
        let mut duet = Duet::open(transport, Recorder::new());
        // Half-closed: the peer would still read.
        duet.peer.end();
        duet.rig.run();
        duet.peer.expect_end();
        let lost = duet.log.only_lost();
        assert_eq!((lost.why, lost.clean), (Why::Dropped, false));
        assert_eq!(duet.rig.traced(Kind::RemoteDropped), 1);
    }
}

/// In the middle of a frame it is no different, and nothing of that frame is delivered.
#[test]
fn a_stream_that_ends_inside_a_message_was_dropped() {
    let mut duet = Duet::open(Transport::Plain, Recorder::new());
    duet.peer.text("whole");
    duet.peer.write(&frame(0x01, b"first part"));
    duet.peer.write(&frame(0x80, b"second part")[..5]);
    duet.peer.end();
    duet.rig.run();
    assert_eq!(duet.log.texts(), ["whole"]);
    assert_eq!(duet.log.only_lost().why, Why::Dropped);
}

#[test]
fn a_reset_is_an_error_of_the_socket() {
    for &transport in Transport::ALL {
        let Duet {
            peer, mut rig, log, ..
        } = Duet::open(transport, Recorder::new());
        peer.reset();
        rig.run();
        let why = log.only_lost().why;
        let reset = std::io::ErrorKind::ConnectionReset;
        assert_eq!(why, Why::Failed(Fault::Io(reset)), "{transport:?}");
    }
}

/// A reset in the middle of the closing handshake is no news.
#[test]
fn a_reset_while_closing() {
    for answered in [false, true] {
        let recorder = Recorder::new().close_after(1);
        let Duet {
            mut peer,
            mut rig,
            log,
            ..
        } = Duet::open(Transport::Plain, recorder);
        peer.text("close!");
        rig.run_until(|| log.messages() == 1);
        peer.expect_close(1000);
        if answered {
            peer.close(1000, "");
            rig.turn();
        }
        peer.reset();
        rig.run();
        let lost = log.only_lost();
        assert_eq!((lost.why, lost.clean), (Why::local(1000), answered));
    }
}

#[test]
fn pitfall_15_the_end_of_the_stream_after_both_close_frames_is_a_good_one() {
    for &transport in Transport::ALL {
        for local in [false, true] {
            let (told, closed) = channel();
            let server = Server::start(transport, move |_, mut peer| {
                peer.accept();
                if local {
                    peer.text("close!");
                    peer.answer_close(1000);
                } else {
                    peer.close(1000, "");
                    peer.expect_close(1000);
                    peer.end();
                }
                told.send(()).expect("the test listens");
                // No close_notify: `end` is below TLS.
                drop(peer);
            });
            let mut rig = Rig::new();
            // The close timeout must play no part.
            let request = server.request().close_timeout(LONG);
            let log = rig.connect(request, Recorder::new().close_after(1));
            rig.run();
            closed.recv().expect("the server saw the Close");
            let lost = log.only_lost();
            assert!(lost.clean, "{transport:?} {lost:?}");
            assert!(lost.why.fault().is_none());
            assert_eq!(rig.traced(Kind::ClosedCleanly), 1);
        }
    }
}

/// What is queued goes out before the Close frame, and the Close frame before the end.
#[test]
fn a_close_waits_for_what_is_queued() {
    const MESSAGE: usize = 1 << 20;
    for &transport in Transport::ALL {
        let recorder = Recorder::new().open(|cx, _| {
            for index in 0..8 {
                cx.send_binary(&vec![index; MESSAGE])?;
            }
            cx.close();
            Ok(())
        });
        // The queue must move within the close timeout, and a busy machine may take its time.
        let mut duet = Duet::open_with(transport, recorder, |request| request.close_timeout(LONG));
        let mut peer = duet.peer;
        let reader = std::thread::spawn(move || {
            for index in 0..8 {
                peer.expect(2, &vec![index; MESSAGE]);
            }
            peer.answer_close(1000);
        });
        duet.rig.run();
        reader.join().expect("the peer got it all");
        assert!(duet.log.only_lost().clean);
    }
}

/// A peer that reads nothing does not get the Close frame either, and cannot keep the connection.
#[test]
fn a_queue_that_never_drains_does_not_keep_a_close() {
    for &transport in Transport::ALL {
        let recorder = Recorder::new().open(|cx, _| {
            cx.send_binary(&vec![7; 32 << 20])?;
            cx.close();
            Ok(())
        });
        let mut duet = Duet::open_with(transport, recorder, |request| request.close_timeout(SHORT));
        duet.rig.run();
        let lost = duet.log.only_lost();
        assert_eq!((lost.why, lost.clean), (Why::local(1000), false));
        assert_eq!(duet.rig.traced(Kind::ForcedClosed), 1);
    }
}

/// The peer's Close right behind the 101.
#[test]
fn closed_by_the_peer_in_the_segment_of_the_101() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        let request = peer.read_request();
        let mut bytes = answer(&request);
        bytes.extend(frame(0x88, &close_payload(1013, "full")));
        peer.write(&bytes);
        peer.expect_text("hello");
        peer.expect_close(1013);
    });
    let mut rig = Rig::new();
    let recorder = Recorder::new().open(|cx, _| Ok(cx.send(Message::Text("hello"))?));
    let log = rig.connect(server.request(), recorder);
    rig.run();
    assert_eq!(log.only_lost().why, Why::remote(1013, "full"));
}

/// Peers that go away in the middle of the opening handshake.
#[test]
fn a_stream_that_ends_during_the_opening_handshake() {
    use websockex::HandshakeError;
    for part in [&b""[..], b"HTTP/1.1 101 Switching Protocols\r\nUpgr"] {
        let server = Server::start(Transport::Plain, |_, mut peer: Peer| {
            peer.read_request();
            peer.write(part);
        });
        let mut rig = Rig::new();
        let log = rig.connect(server.request(), Recorder::new());
        rig.run();
        let lost = log.only_lost();
        let error = HandshakeError::Incomplete {
            received: part.len(),
        };
        assert_eq!(lost.why, Why::ConnectFailed(Fault::Handshake(error)));
        assert_eq!((lost.attempt, lost.epoch), (1, 0));
    }
}
