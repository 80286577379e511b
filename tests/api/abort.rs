//! An end from this side without the closing handshake.

use crate::support::server::answer;
use crate::support::{Call, Duet, LONG, PATIENCE, Recorder, Rig, Server, Transport, Why, frame};
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use websockex::trace::Kind;
use websockex::{CloseCode, Reconnect, ReconnectPolicy, Request, SendError, TimerId};

fn aborted() -> Why {
    Why::Local(None, String::new())
}

/// The peer has seen no frame at all, and the handler no callback but these.
fn expect_aborted(duet: &mut Duet, messages: usize) {
    duet.rig.run();
    assert_eq!(duet.peer.drain(), []);
    assert_eq!(duet.log.messages(), messages);
    let lost = duet.log.only_lost();
    assert_eq!(
        (lost.why, lost.policy, lost.clean),
        (aborted(), None, false)
    );
    let told = [Kind::ClosingLocal, Kind::CloseSent];
    assert_eq!(told.map(|kind| duet.rig.traced(kind)), [1, 0]);
}

#[test]
fn nothing_is_delivered_and_nothing_is_sent_after_an_abort() {
    let first = frame(0x81, b"first");
    // Behind it in the same record; and in the same read, but in records of their own.
    let behind = [frame(0x81, b"second"), frame(0x89, b"ping")];
    for &transport in Transport::ALL {
        for pieces in [vec![[&first[..], &behind.concat()].concat()], {
            let mut pieces = behind.to_vec();
            pieces.insert(0, first.clone());
            pieces
        }] {
            let recorder = Recorder::new().message(|cx, _| {
                cx.send_text("never sent")?;
                cx.abort();
                assert_eq!(cx.send_text("too late"), Err(SendError::Gone));
                cx.abort();
                cx.close();
                Ok(())
            });
            let policy = ReconnectPolicy::fixed(Duration::ZERO);
            let mut duet =
                Duet::open_with(transport, recorder, |request| request.reconnect(policy));
            for piece in pieces {
                duet.peer.write(&piece);
            }
            expect_aborted(&mut duet, 1);
            // No end of the batch either.
            assert_eq!(duet.log.calls().len(), 4, "{:?}", duet.log);
        }
    }
}

#[test]
fn an_abort_in_on_open_is_told_neither_of_messages_nor_of_casts() {
    for &transport in Transport::ALL {
        let server = Server::start(transport, |_, mut peer| {
            // It may have gone before it has all of this.
            let request = peer.read_request();
            let answer = [answer(&request), frame(0x81, b"at once")].concat();
            peer.write(&answer);
            assert_eq!(peer.drain(), []);
        });
        let mut rig = Rig::new();
        let recorder = Recorder::new().open(|cx, _| {
            cx.send_text("never sent")?;
            cx.abort();
            Ok(())
        });
        let log = rig.connect(server.request(), recorder);
        let remote = rig.reactor.remote();
        let early = String::from("early");
        remote.cast(log.id(), early).expect("it is there");
        rig.run();
        let calls = log.calls();
        assert!(
            matches!(
                calls[..],
                [
                    Call::Open { .. },
                    Call::Disconnect(_),
                    Call::Terminate { .. }
                ]
            ),
            "{calls:?}"
        );
        assert_eq!(log.only_lost().why, aborted());
    }
}

#[test]
fn an_abort_at_the_end_of_a_batch_comes_before_the_close_behind_it() {
    for &transport in Transport::ALL {
        let recorder = Recorder::new().batch_end(|cx| {
            cx.abort();
            Ok(())
        });
        let mut duet = Duet::open(transport, recorder);
        let close = frame(0x88, &[]);
        duet.peer.write(&[frame(0x81, b"last"), close].concat());
        expect_aborted(&mut duet, 1);
        assert_eq!(duet.rig.traced(Kind::CloseReceived), 0);
    }
}

#[test]
fn an_abort_in_on_timer_is_told_before_other_timers() {
    let recorder = Recorder::new()
        .open(|cx, _| {
            cx.set_timer(TimerId(1), Duration::ZERO);
            cx.set_timer(TimerId(2), Duration::ZERO);
            Ok(())
        })
        .timer(|cx| {
            cx.abort();
            Ok(())
        });
    let mut duet = Duet::open(Transport::Plain, recorder);
    expect_aborted(&mut duet, 0);
    let timers = duet.log.count(|call| matches!(call, Call::Timer(_)));
    assert_eq!(timers, 1, "{:?}", duet.log);
}

#[test]
fn aborted_from_another_thread() {
    for &transport in Transport::ALL {
        let (told, opened) = channel();
        let recorder = Recorder::new().open(move |_, _| Ok(told.send(())?));
        let mut duet = Duet::open(transport, recorder);
        let (remote, id) = (duet.rig.reactor.remote(), duet.log.id());
        let user = thread::spawn(move || {
            opened.recv_timeout(PATIENCE).expect("it has opened");
            remote.abort(id).expect("it is there");
            // Until the reactor has done it.
            while remote.abort(id) != Err(SendError::Gone) {
                thread::yield_now();
            }
        });
        expect_aborted(&mut duet, 0);
        user.join().expect("it is gone");
    }
}

#[test]
fn an_abort_while_closing_waits_no_longer_for_the_peer() {
    for &transport in Transport::ALL {
        let recorder =
            Recorder::new().cast(|cx| Ok(cx.close_with(CloseCode::new(4000), "enough")?));
        let slow = |request: Request| request.close_timeout(LONG);
        let mut duet = Duet::open_with(transport, recorder, slow);
        let remote = duet.rig.reactor.remote();
        let text = String::from("close");
        remote.cast(duet.log.id(), text).expect("it is open");
        duet.await_close();
        remote.abort(duet.log.id()).expect("it is there");
        duet.rig.run();
        duet.peer.expect_close(4000);
        duet.peer.expect_end();
        let lost = duet.log.only_lost();
        assert_eq!(lost.why, Why::Local(Some(4000), "enough".into()));
        assert!(!lost.clean);
        assert_eq!(duet.rig.traced(Kind::ForcedClosed), 1);
    }
}

/// Nothing is open yet: the attempt is given up, at whichever stage it is.
#[test]
fn aborted_while_connecting() {
    for &transport in Transport::ALL {
        // After so many turns: not begun, TCP under way, TLS or opening handshake with a silent peer.
        for turns in 0..3 {
            let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
            let address = listener.local_addr().expect("it is bound");
            let scheme = if transport == Transport::Plain {
                "ws"
            } else {
                "wss"
            };
            let mut rig = Rig::new();
            let log = rig.connect(format!("{scheme}://{address}/"), Recorder::new());
            for _ in 0..turns {
                rig.turn();
            }
            let aborted_now = rig.reactor.remote().abort(log.id());
            aborted_now.expect("it is there");
            rig.run();
            assert!(log.is_terminated() && log.opened() == 0);
            if turns > 0 {
                let lost = log.only_lost();
                assert_eq!(lost.why, aborted(), "{transport:?} {turns}");
                assert_eq!(lost.policy, None);
            }
        }
    }
}

/// Between two attempts there is nothing to disconnect: the wait ends, and so does the connection.
#[test]
fn aborted_during_back_off() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
    });
    let mut rig = Rig::new();
    let request = server.request().reconnect(ReconnectPolicy::fixed(LONG));
    let log = rig.connect(request, Recorder::new());
    rig.run_until(|| !log.lost().is_empty());
    let remote = rig.reactor.remote();
    remote.abort(log.id()).expect("it is there");
    rig.run();
    assert_eq!(log.lost().len(), 1);
    let ended = log.calls().pop().expect("calls");
    assert_eq!(
        ended,
        Call::Terminate {
            why: aborted(),
            epoch: 1
        }
    );
    assert_eq!(remote.abort(log.id()), Err(SendError::Gone));
}

/// Not by policy, but the handler may want it so.
#[test]
fn a_handler_may_come_back_after_an_abort() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        assert_eq!(peer.drain(), []);
    });
    let recorder = Recorder::new()
        .open(|cx, _| {
            cx.abort();
            Ok(())
        })
        .disconnect(|_, lost| match lost.epoch {
            1 => Reconnect::After(Duration::ZERO),
            _ => Reconnect::ByPolicy,
        });
    let mut rig = Rig::new();
    let policy = ReconnectPolicy::fixed(Duration::ZERO);
    let log = rig.connect(server.request().reconnect(policy), recorder);
    rig.run();
    assert_eq!(log.opened(), 2);
}
