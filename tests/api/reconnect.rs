//! Connecting again: by policy, by the handler's word, somewhere else; and not when it was not asked
//! for.

use crate::support::server::trusting;
use crate::support::{
    Call, Fault, LONG, Peer, Recorder, Rig, SHORT, Server, Transport, Why, port_that_refuses,
};
use std::io::ErrorKind;
use std::time::{Duration, Instant};
use websockex::trace::Kind;
use websockex::{CloseCode, Reconnect, ReconnectPolicy, Request};

#[test]
fn pitfall_27_a_server_that_dies_and_returns_finds_the_reactor_running() {
    let (socket, address) = port_that_refuses();
    let mut rig = Rig::new();
    let request = Request::new(format!("ws://{address}/")).expect("a URL");
    let request = trusting(request).reconnect(ReconnectPolicy::fixed(SHORT));
    let log = rig.connect(request, Recorder::new().close_after(1));
    // It refuses...
    rig.run_until(|| log.lost().len() == 3);
    // ... comes up, dies after the handshake, refuses nobody but says nothing good ...
    socket.listen(16).expect("a backlog");
    let server = Server::on(socket.into(), Transport::Plain, |number, stream| {
        let mut peer = Peer::new(Transport::Plain, stream);
        match number {
            0 => {
                peer.accept();
            }
            1 => drop(peer),
            2 => peer.reject(503, &[], b""),
            _ => {
                // ... and is well again.
                peer.accept();
                peer.text("back");
                peer.answer_close(1000);
            }
        }
    });
    rig.reactor.run().expect("it runs on, and ends by itself");
    let lost = log.lost();
    for (index, lost) in lost[..3].iter().enumerate() {
        let refused = Fault::Connect(ErrorKind::ConnectionRefused);
        assert_eq!(lost.why, Why::ConnectFailed(refused));
        assert_eq!((lost.attempt as usize, lost.epoch), (index + 1, 0));
        assert_eq!(lost.policy, Some(SHORT));
    }
    let opens: Vec<Call> = log
        .calls()
        .into_iter()
        .filter(|call| matches!(call, Call::Open { .. }))
        .collect();
    let open = |epoch, attempts| Call::Open { epoch, attempts };
    assert_eq!(opens, [open(1, 4), open(2, 3)]);
    let after: Vec<_> = lost[3..]
        .iter()
        .map(|lost| (lost.attempt, lost.epoch))
        .collect();
    assert_eq!(after, [(0, 1), (1, 1), (2, 1), (0, 2)]);
    assert_eq!(log.texts(), ["back"]);
    let last = lost.last().expect("there were some");
    assert_eq!((&last.why, last.policy), (&Why::local(1000), None));
    assert_eq!(rig.traced(Kind::Connecting), 1);
    assert_eq!(rig.traced(Kind::Connected), 1);
    assert_eq!(rig.traced(Kind::Reconnected), 1);
    assert_eq!(rig.traced(Kind::ReconnectScheduled), lost.len() - 1);
    drop(server);
}

/// The handler has the last word, whatever the policy.
#[test]
fn the_handler_decides() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.close(1001, "");
        peer.expect_close(1001);
    });
    // Never, against a policy that would.
    let mut rig = Rig::new();
    let request = server.request().reconnect(ReconnectPolicy::fixed(SHORT));
    let log = rig.connect(
        &request,
        Recorder::new().disconnect(|_, _| Reconnect::Never),
    );
    rig.run();
    assert_eq!((log.opened(), log.only_lost().policy), (1, Some(SHORT)));
    // After a while, against a policy that would not.
    let again = Recorder::new().disconnect(|cx, lost| {
        assert_eq!((cx.epoch(), lost.policy), (lost.epoch, None));
        if lost.epoch < 3 {
            Reconnect::After(SHORT)
        } else {
            Reconnect::ByPolicy
        }
    });
    let log = rig.connect(server.request(), again);
    rig.run();
    assert_eq!((log.opened(), log.lost().len()), (3, 3));
}

#[test]
fn to_another_server_with_another_request() {
    let second = Server::start(Transport::Plain, |_, mut peer| {
        let request = peer.accept();
        assert_eq!(request.target(), "/other");
        assert_eq!(request.headers().first("x-token"), Some("fresh"));
        peer.expect_text("epoch 2");
        peer.answer_close(1000);
    });
    let first = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.expect_text("epoch 1");
        peer.close(1012, "over there");
        peer.expect_close(1012);
    });
    let url = format!("ws://{}/other", second.address);
    let recorder = Recorder::new()
        .open(|cx, open| {
            cx.send_text(&format!("epoch {}", open.epoch))?;
            if open.epoch == 2 {
                cx.close();
            }
            Ok(())
        })
        .disconnect(move |_, lost| {
            if lost.epoch == 2 {
                return Reconnect::Never;
            }
            let request = Request::new(&url).and_then(|request| request.header("X-Token", "fresh"));
            Reconnect::To(Box::new(trusting(request.expect("a request"))))
        });
    let mut rig = Rig::new();
    let log = rig.connect(first.request(), recorder);
    rig.run();
    let why: Vec<_> = log.lost().into_iter().map(|lost| lost.why).collect();
    assert_eq!(why, [Why::remote(1012, "over there"), Why::local(1000)]);
}

/// The id stays the same over reconnects, and the state of the handler too.
#[test]
fn a_connection_keeps_its_id_and_its_handler() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.text("x");
        peer.close(1001, "");
        // The last time the client is the first to close.
        assert_eq!(peer.read_frame().expect("a Close frame").opcode, 8);
    });
    let mut rig = Rig::new();
    let mut seen = 0;
    let recorder = Recorder::new().message(move |cx, _| {
        seen += 1;
        if seen == 5 {
            cx.close();
        }
        Ok(())
    });
    let request = server
        .request()
        .reconnect(ReconnectPolicy::fixed(Duration::ZERO));
    let log = rig.connect(request, recorder);
    rig.run();
    assert_eq!(log.opened(), 5);
    let ids: Vec<_> = rig
        .reactor
        .trace()
        .iter()
        .map(websockex::trace::Event::connection)
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
}

/// Attempts that are refused cost turns in proportion to their number: nothing spins in between.
#[test]
fn pitfall_26_a_port_that_refuses_causes_no_busy_loop() {
    let (_socket, address) = port_that_refuses();
    let mut rig = Rig::new();
    let request = Request::new(format!("ws://{address}/")).expect("a URL");
    let request = trusting(request).reconnect(ReconnectPolicy::fixed(SHORT));
    let log = rig.connect(request, Recorder::new());
    let mut turns = 0;
    while log.lost().len() < 10 {
        rig.turn();
        turns += 1;
    }
    // Each attempt: its beginning, its refusal, and the end of the wait, which may come in two.
    assert!(turns <= 10 * 5, "{turns} turns for 10 attempts");
}

/// Nor do peers that are gone, in whatever way: with nothing to do, a turn lasts as long as it may.
/// (How long it takes at least does not depend on how busy the machine is.)
#[test]
fn pitfall_26_after_the_end_of_a_stream_nothing_spins() {
    for reset in [false, true] {
        let server = Server::start(Transport::Plain, move |_, mut peer| {
            peer.accept();
            if reset {
                peer.reset();
            }
        });
        let mut rig = Rig::new();
        let request = server.request().reconnect(ReconnectPolicy::fixed(LONG));
        let log = rig.connect(request, Recorder::new());
        rig.run_until(|| log.lost().len() == 1);
        rig.settle();
        let start = Instant::now();
        for _ in 0..5 {
            rig.reactor.turn(Some(SHORT)).expect("a turn");
        }
        assert!(start.elapsed() >= 5 * SHORT, "{:?}", start.elapsed());
    }
}

/// An attempt that fails at once, and a policy without a delay: the others still have their turn.
#[test]
fn attempts_without_delay_do_not_hold_up_the_reactor() {
    const ENOUGH: u32 = 1000;
    let mut rig = Rig::new();
    // The kernel refuses this one without asking anybody.
    let request = Request::new("ws://255.255.255.255:9/").expect("a URL");
    let request = trusting(request).reconnect(ReconnectPolicy::fixed(Duration::ZERO));
    let recorder = Recorder::new().disconnect(|_, lost| match lost.attempt {
        ENOUGH.. => Reconnect::Never,
        _ => Reconnect::ByPolicy,
    });
    let log = rig.connect(request, recorder);
    rig.turn();
    assert!(log.lost().len() <= 1, "{} in one turn", log.lost().len());
    rig.run();
    assert_eq!(log.lost().len(), ENOUGH as usize);
}

/// Another request's `fail_first` means nothing any more, and its policy counts from the beginning.
#[test]
fn another_request_begins_with_its_own_patience() {
    let (_first, refuses) = port_that_refuses();
    let (_second, refuses_too) = port_that_refuses();
    let request = |address| trusting(Request::new(format!("ws://{address}/")).expect("a URL"));
    let thrice = ReconnectPolicy::fixed(Duration::ZERO).max_attempts(3);
    let there = request(refuses_too).reconnect(thrice).fail_first();
    let mut failures = 0;
    let recorder = Recorder::new().disconnect(move |_, _| {
        failures += 1;
        match failures {
            5 => Reconnect::To(Box::new(there.clone())),
            _ => Reconnect::ByPolicy,
        }
    });
    let mut rig = Rig::new();
    let at_once = ReconnectPolicy::fixed(Duration::ZERO);
    let log = rig.connect(request(refuses).reconnect(at_once), recorder);
    rig.run();
    assert_eq!(log.lost().len(), 5 + 3);
}

/// Who looks at the connection sees where it goes now, not where it began.
#[test]
fn the_status_names_the_server_that_is_meant_now() {
    let second = Server::echo(Transport::Plain);
    let first = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.close(1001, "");
        peer.expect_close(1001);
    });
    let there = second.request();
    let server = |request: &Request| request.url().host_header().to_owned();
    let (before, after) = (server(&first.request()), server(&there));
    let recorder = Recorder::new().disconnect(move |_, lost| match lost.epoch {
        1 => Reconnect::To(Box::new(there.clone())),
        _ => Reconnect::Never,
    });
    let mut rig = Rig::new();
    let log = rig.connect(first.request(), recorder);
    let (remote, id) = (rig.reactor.remote(), log.id());
    let shown = || remote.status(id).expect("it is there").server;
    assert_eq!(shown(), before);
    rig.run_until(|| log.opened() == 2);
    assert_eq!(shown(), after);
    remote.close(id, CloseCode::NORMAL, "").expect("it is open");
    rig.run();
}
