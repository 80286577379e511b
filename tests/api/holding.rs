//! Messages that are held while the connection is not open.

use crate::support::server::trusting;
use crate::support::{LONG, PATIENCE, Peer, Recorder, Rig, Server, Transport, port_that_refuses};
use std::thread;
use std::time::Duration;
use websockex::trace::{Event, Kind};
use websockex::{
    CloseCode, Error, PolicyError, Reconnect, ReconnectPolicy, Request, Restart, SendError,
    Supervision,
};

const AT_ONCE: ReconnectPolicy = ReconnectPolicy::fixed(Duration::ZERO);

/// The numbers in the events of `kind`.
fn values(rig: &Rig, kind: Kind) -> Vec<u64> {
    let events = rig.reactor.trace().iter();
    let of_kind = events.filter(|event| event.kind() == kind);
    of_kind.map(Event::value).collect()
}

#[test]
fn what_is_sent_too_early_goes_out_when_the_connection_opens() {
    for &transport in Transport::ALL {
        let server = Server::start(transport, |number, mut peer: Peer| {
            peer.accept();
            peer.expect_text("subscribe");
            if number == 0 {
                for text in ["before the first turn", "from the loop"] {
                    peer.expect_text(text);
                }
                return peer.end();
            }
            for text in ["from on_disconnect", "cast"] {
                peer.expect_text(text);
            }
            peer.answer_close(1000);
        });
        let recorder = Recorder::new()
            .open(|cx, _| Ok(cx.send_text("subscribe")?))
            .cast(|cx| {
                cx.send_text("cast")?;
                cx.close();
                Ok(())
            });
        let (remote_out, remote_in) = std::sync::mpsc::channel::<websockex::Remote>();
        let recorder = recorder.disconnect(move |cx, lost| {
            if lost.epoch == 1 && lost.attempt == 0 {
                cx.send_text("from on_disconnect").expect("it is held");
                let remote = remote_in.recv().expect("the test sends it");
                remote.cast(cx.id(), "c".to_owned()).expect("it is there");
            }
            Reconnect::ByPolicy
        });
        let request = server.request().reconnect(AT_ONCE);
        let request = request.hold_sends(4, 100).expect("a limit");
        let mut rig = Rig::new();
        let remote = rig.reactor.remote();
        remote_out.send(remote.clone()).expect("it listens");
        let log = recorder.log();
        // Accepted before the reactor knows the connection.
        let id = remote.connect(request, recorder).expect("a request");
        remote
            .send(id, "before the first turn")
            .expect("it is held");
        remote.send(id, "from the loop").expect("it is held");
        rig.run_until(|| log.is_terminated());
        assert_eq!((log.opened(), rig.traced(Kind::SendDropped)), (2, 0));
    }
}

#[test]
fn beyond_the_limit_it_is_refused_and_at_the_end_it_is_counted() {
    let (_socket, address) = port_that_refuses();
    let request = Request::new(format!("ws://{address}/")).expect("a URL");
    let request = trusting(request).reconnect(ReconnectPolicy::fixed(LONG));
    for (messages, bytes) in [(0, 1), (1, 0)] {
        let refused = request.clone().hold_sends(messages, bytes);
        assert!(matches!(refused, Err(Error::Policy(PolicyError::Zero(_)))));
    }
    let request = request.hold_sends(2, 100).expect("a limit");
    let mut rig = Rig::new();
    let log = rig.connect(request, Recorder::new());
    let (remote, id) = (rig.reactor.remote(), log.id());
    for _ in 0..2 {
        remote.send(id, "held").expect("it is held");
    }
    // Other threads learn of it at the end of the turn.
    rig.run_until(|| remote.send(id, "too much") == Err(SendError::HoldFull));
    let waiting = remote.clone();
    let waiter = thread::spawn(move || waiting.send_and_wait(id, "no", PATIENCE));
    assert_eq!(waiter.join().expect("no panic"), Err(SendError::HoldFull));
    remote
        .close(id, CloseCode::NORMAL, "")
        .expect("it is there");
    rig.run();
    assert_eq!(values(&rig, Kind::Abandoned), [2]);
    assert!(remote.stats().drops >= 2);
}

/// Whoever waits for a message that is held waits until it is written.
#[test]
fn send_and_wait_waits_for_the_open_too() {
    let server = Server::start(Transport::Plain, |number, mut peer| {
        if number == 0 {
            return peer.reject(503, &[], b"");
        }
        peer.accept();
        peer.expect_text("held");
        peer.answer_close(1000);
    });
    let (_socket, address) = port_that_refuses();
    let nowhere = Request::new(format!("ws://{address}/")).expect("a URL");
    let mut rig = Rig::new();
    let remote = rig.reactor.remote();
    // One that opens, and one that ends without.
    let request = server.request().hold_sends(9, 99).expect("a limit");
    let opens = rig.connect(request.reconnect(AT_ONCE), Recorder::new());
    let nowhere = trusting(nowhere).hold_sends(9, 99).expect("a limit");
    let ends = rig.connect(nowhere.reconnect(ReconnectPolicy::never()), Recorder::new());
    let wait = |id| {
        let remote = remote.clone();
        thread::spawn(move || remote.send_and_wait(id, "held", PATIENCE))
    };
    let (written, gone) = (wait(opens.id()), wait(ends.id()));
    rig.run_until(|| written.is_finished() && gone.is_finished());
    assert_eq!(written.join().expect("no panic"), Ok(()));
    assert_eq!(gone.join().expect("no panic"), Err(SendError::Gone));
    remote
        .close(opens.id(), CloseCode::NORMAL, "")
        .expect("open");
    rig.run();
}

#[test]
fn what_is_held_outlives_a_restart() {
    let server = Server::start(Transport::Plain, |number, mut peer| {
        if number == 0 {
            return peer.reject(403, &[], b"");
        }
        peer.accept();
        peer.expect_text("held");
        peer.close(1000, "");
        peer.expect_close(1000);
    });
    let request = server.request().reconnect(ReconnectPolicy::never());
    let request = request.hold_sends(1, 4).expect("a limit");
    let mut rig = Rig::new();
    let supervision = Supervision::new(Restart::OnFailure);
    let id = rig.reactor.supervise(request, supervision, Recorder::new);
    let remote = rig.reactor.remote();
    remote
        .send(id.expect("a request"), "held")
        .expect("it is held");
    rig.run();
    assert_eq!(values(&rig, Kind::Abandoned), []);
}
