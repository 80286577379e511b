//! The reactor from other threads, and from inside handlers.

use crate::support::server::trusting;
use crate::support::{
    Call, Duet, LONG, PATIENCE, Recorder, Rig, Server, Transport, Why, port_that_refuses,
};
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use websockex::trace::{Event, Kind};
use websockex::{
    CloseCode, Error, Message, OwnedMessage, Reactor, ReconnectPolicy, Request, SendError,
};

#[test]
fn connect_send_cast_and_close_from_another_thread() {
    for &transport in Transport::ALL {
        let server = Server::echo(transport);
        let mut rig = Rig::with(Reactor::builder().stay_alive(true));
        let remote = rig.reactor.remote();
        let (told, opened) = channel();
        let (back, echoes) = channel();
        let recorder = Recorder::new()
            .open(move |_, _| Ok(told.send(())?))
            .cast(|cx| Ok(cx.send_text("cast")?))
            .message(move |_, message| Ok(back.send(message.as_bytes().to_vec())?));
        let log = recorder.log();
        let request = server.request();
        let user = thread::spawn(move || {
            let id = remote.connect(request, recorder).expect("a request");
            // Valid at once; delivered when it opens.
            remote.cast(id, "early".to_owned()).expect("it is there");
            opened.recv().expect("it opens");
            let messages: [OwnedMessage; 4] = [
                "text".into(),
                String::from("string").into(),
                vec![1, 2, 3].into(),
                (&b"slice"[..]).into(),
            ];
            // `on_open` runs before other threads may know.
            while remote.send(id, "first") == Err(SendError::NotOpen) {
                thread::yield_now();
            }
            for message in messages {
                remote.send(id, message).expect("it is open");
            }
            let expected: [&[u8]; 6] =
                [b"cast", b"first", b"text", b"string", &[1, 2, 3], b"slice"];
            for expected in expected {
                assert_eq!(echoes.recv().expect("an echo"), expected);
            }
            remote
                .close(id, CloseCode::new(4001), "done")
                .expect("it is open");
            while remote.send(id, "not sent") != Err(SendError::Gone) {
                thread::yield_now();
            }
            remote.shutdown(LONG).expect("it runs");
        });
        rig.reactor.run().expect("it runs until it is shut down");
        user.join().expect("the user is content");
        assert_eq!(log.calls()[1], Call::Cast("early".into()));
        let lost = log.only_lost();
        assert_eq!(lost.why, Why::Local(Some(4001), "done".into()));
        assert!(lost.clean);
    }
}

/// Casts wait for the next open, in order, and are not lost by a disconnect.
#[test]
fn casts_wait_for_the_connection_to_open() {
    let server = Server::start(Transport::Plain, |number, mut peer| {
        if number == 0 {
            peer.reject(503, &[], b"");
            return;
        }
        peer.accept();
        peer.expect_text("1");
        peer.expect_text("2");
        peer.answer_close(1000);
    });
    let mut rig = Rig::new();
    let mut number = 0;
    let recorder = Recorder::new().cast(move |cx| {
        number += 1;
        cx.send_text(&number.to_string())?;
        if number == 2 {
            cx.close();
        }
        Ok(())
    });
    let request = server
        .request()
        .reconnect(ReconnectPolicy::fixed(Duration::ZERO));
    let log = rig.connect(request, recorder);
    let remote = rig.reactor.remote();
    for cast in ["a", "b"] {
        remote.cast(log.id(), cast.to_owned()).expect("it is there");
    }
    rig.run();
    let calls = log.calls();
    assert!(matches!(calls[0], Call::Disconnect(_)));
    assert!(matches!(calls[1], Call::Open { attempts: 2, .. }));
    assert_eq!(
        calls[2..4],
        [Call::Cast("a".into()), Call::Cast("b".into())]
    );
}

/// A peer that takes nothing, and a thread that goes on sending: all is counted, and the trace keeps
/// room for what led there.
#[test]
fn sends_that_are_refused_do_not_wash_out_the_trace() {
    const REFUSED: u64 = 1000;
    let mut duet = Duet::open_with(Transport::Plain, Recorder::new(), |request| {
        request.max_queued(100_000)
    });
    let (remote, id) = (duet.rig.reactor.remote(), duet.log.id());
    let drops = || remote.status(id).map_or(0, |status| status.stats.drops);
    while drops() < REFUSED {
        let message = vec![0; 90_000];
        remote.send(id, message).expect("it is open");
        duet.rig.turn();
    }
    assert_eq!(duet.rig.traced(Kind::SendDropped), 1);
    assert_eq!(duet.rig.traced(Kind::LimitHit), 1);
    assert_eq!(duet.rig.traced(Kind::Connected), 1);
    remote
        .shutdown(Duration::ZERO)
        .expect("the reactor is there");
    duet.rig.run();
}

/// What was accepted for a connection that has ended by its turn is counted and recorded.
#[test]
fn a_message_for_what_has_ended_meanwhile_is_not_lost_silently() {
    let duet = Duet::open(Transport::Plain, Recorder::new());
    let Duet {
        peer, mut rig, log, ..
    } = duet;
    let (remote, id) = (rig.reactor.remote(), log.id());
    // Both wait when the turn comes, and the end comes first.
    peer.reset();
    crate::support::wait_until(|| {
        remote.send(id, "too late").expect("nobody knows it yet");
        rig.turn();
        log.is_terminated()
    });
    rig.run();
    let dropped = rig.traced(Kind::SendDropped) as u64;
    assert_eq!(dropped, remote.stats().drops);
}

/// What waits for a connection that never opens has a limit, and is counted.
#[test]
fn casts_do_not_pile_up_without_limit() {
    const WAITING: u64 = 65_536;
    let (_socket, address) = port_that_refuses();
    let mut rig = Rig::new();
    let request = Request::new(format!("ws://{address}/")).expect("a URL");
    let request = trusting(request).reconnect(ReconnectPolicy::fixed(LONG));
    let log = rig.connect(request, Recorder::new());
    let (remote, id) = (rig.reactor.remote(), log.id());
    for number in 0..WAITING + 3 {
        while let Err(error) = remote.cast(id, number.to_string()) {
            assert!(matches!(error, SendError::Full { .. }), "{error}");
            rig.turn();
        }
    }
    let drops = || remote.status(id).map(|status| status.stats.drops);
    rig.run_until(|| drops() == Some(3));
    assert_eq!(rig.traced(Kind::LimitHit), 1);
    remote
        .close(id, CloseCode::NORMAL, "")
        .expect("it is there");
    rig.run();
    let events = rig.reactor.trace().iter();
    let abandoned = events.filter(|event| event.kind() == Kind::Abandoned);
    let counts: Vec<u64> = abandoned.map(Event::value).collect();
    assert_eq!(counts, [WAITING]);
    assert_eq!(remote.stats().drops, WAITING + 3);
}

/// A message whose bytes the socket has is written, whatever was sent behind it.
#[test]
fn send_and_wait_waits_for_its_own_message_only() {
    // More than the kernel keeps of what nobody reads.
    const LARGE: usize = 32 << 20;
    for &transport in Transport::ALL {
        let mut duet = Duet::open(transport, Recorder::new());
        let (remote, id) = (duet.rig.reactor.remote(), duet.log.id());
        let queued = || {
            remote
                .status(id)
                .map_or(0, |status| status.stats.queued_bytes)
        };
        let waiter = {
            let remote = remote.clone();
            thread::spawn(move || remote.send_and_wait(id, vec![1; LARGE], PATIENCE))
        };
        duet.rig.run_until(|| queued() > 0);
        remote.send(id, vec![2; LARGE]).expect("it is open");
        let mut peer = duet.peer;
        let reader = thread::spawn(move || {
            peer.expect(2, &vec![1; LARGE]);
            peer
        });
        duet.rig.run_until(|| waiter.is_finished());
        assert_eq!(waiter.join().expect("no panic"), Ok(()));
        assert!(queued() > 0, "the one behind it waits");
        duet.rig.run_until(|| reader.is_finished());
        drop(reader.join().expect("it got it"));
        duet.rig.run();
    }
}

#[test]
fn each_sender_keeps_its_order() {
    const SENDERS: usize = 4;
    const MESSAGES: usize = 500;
    let mut duet = Duet::open(Transport::Plain, Recorder::new());
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (remote, id) = (duet.rig.reactor.remote(), duet.log.id());
            thread::spawn(move || {
                for number in 0..MESSAGES {
                    let text = format!("{sender} {number}");
                    remote.send(id, text).expect("it is open");
                }
            })
        })
        .collect();
    let mut peer = duet.peer;
    let reader = thread::spawn(move || {
        let mut next = [0; SENDERS];
        for _ in 0..SENDERS * MESSAGES {
            let payload = peer.read_frame().expect("a frame").payload;
            let text = String::from_utf8(payload).expect("text");
            let (sender, number) = text.split_once(' ').expect("two numbers");
            let sender: usize = sender.parse().expect("a number");
            assert_eq!(number, next[sender].to_string());
            next[sender] += 1;
        }
        assert_eq!(next, [MESSAGES; SENDERS]);
        peer.close(1000, "");
        peer.expect_close(1000);
    });
    duet.rig.run();
    reader.join().expect("all came");
    for sender in senders {
        sender.join().expect("all were sent");
    }
}

#[test]
fn a_full_command_queue_says_so() {
    let mut rig = Rig::with(Reactor::builder().command_capacity(3));
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        for text in ["0", "1", "2"] {
            peer.expect_text(text);
        }
        peer.answer_close(1001);
    });
    let log = rig.connect(server.request(), Recorder::new());
    rig.run_until(|| log.is_open());
    let (remote, id) = (rig.reactor.remote(), log.id());
    for number in 0..3 {
        remote.send(id, number.to_string()).expect("there is room");
    }
    let full = SendError::Full {
        queued: 3,
        limit: 3,
    };
    assert_eq!(remote.send(id, "3"), Err(full));
    assert_eq!(remote.cast(id, String::new()), Err(full));
    assert_eq!(remote.close(id, CloseCode::NORMAL, ""), Err(full));
    let error = remote.connect("ws://localhost/", Recorder::new());
    assert!(matches!(error, Err(Error::Refused(_))), "{error:?}");
    // The slot that it had taken is free again.
    assert_eq!(rig.reactor.connections(), 1);
    // To end it is never refused.
    remote.shutdown(LONG).expect("it runs");
    rig.run();
}

#[test]
fn shutdown_says_1001_to_all_and_ends_every_connection() {
    const COUNT: usize = 20;
    for &transport in Transport::ALL {
        let server = Server::start(transport, |_, mut peer| {
            peer.accept();
            peer.answer_close(1001);
        });
        let mut rig = Rig::with(Reactor::builder().stay_alive(true));
        let policy = ReconnectPolicy::fixed(Duration::ZERO);
        let request = server.request().reconnect(policy);
        let mut logs: Vec<_> = (0..COUNT)
            .map(|_| rig.connect(&request, Recorder::new()))
            .collect();
        rig.run_until(|| logs.iter().all(crate::support::Log::is_open));
        // One more that has not come that far: nobody answers it.
        let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = silent.local_addr().expect("it is bound");
        logs.push(rig.connect(format!("ws://{address}/"), Recorder::new()));
        let remote = rig.reactor.remote();
        let closer = thread::spawn(move || remote.shutdown(LONG));
        rig.reactor.run().expect("it ends");
        closer.join().expect("no panic").expect("it ran");
        for log in &logs[..COUNT] {
            let lost = log.only_lost();
            assert_eq!((lost.why, lost.clean), (Why::local(1001), true));
            assert_eq!(lost.policy, None);
        }
        assert!(logs.iter().all(crate::support::Log::is_terminated));
        let error = rig.reactor.connect(&request, Recorder::new());
        assert!(matches!(error, Err(Error::Refused(_))), "{error:?}");
    }
}

/// Peers that do not answer, and connections that never opened, are dropped at the deadline.
#[test]
fn shutdown_does_not_wait_for_silent_peers() {
    let Duet {
        peer, mut rig, log, ..
    } = Duet::open_with(Transport::Plain, Recorder::new(), |request| {
        request.close_timeout(LONG)
    });
    let remote = rig.reactor.remote();
    remote.shutdown(Duration::ZERO).expect("it runs");
    rig.reactor.run().expect("it ends");
    let lost = log.only_lost();
    assert_eq!((lost.why, lost.clean), (Why::local(1001), false));
    let lines = rig.dbg_lines();
    let [.., timer, forced, _] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(timer, "*DBG* feed fired drain_deadline");
    assert!(
        forced.starts_with("*DBG* feed forcefully closed"),
        "{forced}"
    );
    drop(peer);
}

/// Pitfall 25: a handler's commands to its own reactor are queued and never waited for.
#[test]
fn pitfall_25_commands_from_inside_a_handler_do_not_deadlock() {
    let server = Server::echo(Transport::Plain);
    let mut rig = Rig::with(Reactor::builder().command_capacity(16));
    let (remote, second_request) = (rig.reactor.remote(), server.request());
    let second = Recorder::new()
        .open(|cx, _| Ok(cx.send_text("second")?))
        .close_after(1);
    let second_log = second.log();
    let mut second = Some(second);
    let recorder = Recorder::new()
        .open(move |cx, _| {
            let second = second.take().expect("it opens once");
            remote.connect(second_request.clone(), second)?;
            // More than there is room for, from the loop's own thread: refused, not waited for.
            let id = cx.id();
            let mut cast = 0;
            while remote.cast(id, "own".to_owned()).is_ok() {
                cast += 1;
            }
            assert_eq!(cast, 15);
            Ok(cx.send_text("first")?)
        })
        .message(|cx, message| {
            assert_eq!(message, Message::Text("first"));
            cx.close();
            Ok(())
        });
    let log = rig.connect(server.request(), recorder);
    rig.run();
    assert_eq!(log.count(|call| matches!(call, Call::Cast(_))), 15);
    assert_eq!(second_log.texts(), ["second"]);
    assert!(second_log.is_terminated());
}

#[test]
fn a_reactor_that_is_gone_says_so() {
    let Duet {
        mut peer, rig, log, ..
    } = Duet::open(Transport::Plain, Recorder::new());
    let (remote, id) = (rig.reactor.remote(), log.id());
    remote
        .send(id, "in the queue, never sent")
        .expect("it is open");
    drop(rig);
    assert_eq!(remote.send(id, "x"), Err(SendError::Gone));
    assert_eq!(remote.cast(id, String::new()), Err(SendError::Gone));
    assert_eq!(
        remote.close(id, CloseCode::NORMAL, ""),
        Err(SendError::Gone)
    );
    assert_eq!(remote.shutdown(LONG), Err(SendError::Gone));
    let error = remote.connect("ws://localhost/", Recorder::new());
    assert!(matches!(error, Err(Error::Refused(_))), "{error:?}");
    // The handler was dropped without a further word, as documented, and so was the socket.
    assert!(!log.is_terminated());
    peer.expect_end();
}

#[test]
fn a_reactor_that_is_asked_to_stays_alive() {
    let server = Server::echo(Transport::Plain);
    let mut rig = Rig::with(Reactor::builder().stay_alive(true));
    let remote = rig.reactor.remote();
    let request = server.request();
    let user = thread::spawn(move || {
        for _ in 0..3 {
            let (told, ended) = channel();
            let recorder = Recorder::new()
                .open(|cx, _| {
                    cx.close();
                    Ok(())
                })
                .terminate(move || told.send(()).expect("the user listens"));
            remote.connect(&request, recorder).expect("a request");
            // Each time, no connection is left.
            ended.recv().expect("it ends");
        }
        remote.shutdown(LONG).expect("it is still there");
    });
    rig.reactor.run().expect("it ends when told to");
    user.join().expect("three connections");
}

/// What cannot be sent is refused on the spot.
#[test]
fn a_remote_refuses_what_cannot_be() {
    let duet = Duet::open(Transport::Plain, Recorder::new());
    let (remote, id) = (duet.rig.reactor.remote(), duet.log.id());
    let refused = remote.close(id, CloseCode::ABNORMAL, "");
    assert!(matches!(refused, Err(SendError::InvalidClose(_))));
    assert!(matches!(
        remote.connect("no url", Recorder::new()),
        Err(Error::Url(_))
    ));
    let request = Request::new("ws://localhost/").expect("a URL");
    let request = request.header("X", "y").expect("a header");
    drop(request);
    assert_eq!(duet.rig.reactor.connections(), 1);
}
