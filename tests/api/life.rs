//! Staying alive and reaching the peer: heartbeats, watchdogs, reading paused and resumed, water
//! marks, several addresses, socket options, the times of the stages, and when to try again.

use crate::support::server::trusting;
use crate::support::{
    Call, Duet, Fault, LONG, Log, PATIENCE, Peer, Recorder, Rig, SHORT, Server, Transport, Why,
    frame, port_that_is_silent, port_that_refuses,
};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use websockex::protocol::handshake::HandshakeError;
use websockex::trace::{Kind, Level};
use websockex::{
    DisconnectReason, Message, Reactor, Reconnect, ReconnectPolicy, Request, SocketOptions,
    StageTimes, Watch,
};

// ---- heartbeats and watchdogs ----

/// A machine so busy that a pong is late makes for another connection, and not for a failed test.
#[test]
fn a_heartbeat_of_pings_measures_the_round_trip() {
    for &transport in Transport::ALL {
        let server = Server::start(transport, |_, mut peer| {
            peer.accept();
            while let Some(frame) = peer.read_frame() {
                match frame.opcode {
                    9 => drop(peer.try_write(&self::frame(0x8a, &frame.payload))),
                    8 => return peer.close(1000, ""),
                    opcode => panic!("{opcode}"),
                }
            }
        });
        let request = server.request().ping_every(SHORT * 5, SHORT * 5);
        let request = request.expect("a heartbeat that can work");
        let recorder = Recorder::new()
            .open(|cx, _| {
                assert_eq!(cx.round_trip(), None, "of this connection");
                Ok(())
            })
            .pong(|cx, _| {
                let round_trip = cx.round_trip().expect("this is the answer");
                assert!(round_trip <= SHORT * 5 + PATIENCE);
                cx.close();
                Ok(())
            });
        let mut rig = Rig::new();
        let policy = ReconnectPolicy::fixed(Duration::ZERO);
        let log = rig.connect(request.reconnect(policy), recorder);
        rig.run();
        assert_eq!(log.count(|call| matches!(call, Call::Pong(_))), 1);
        let last = log.lost().pop().expect("it has ended");
        assert_eq!(last.why, Why::local(1000));
    }
}

/// What the peer must have missed before it is taken for dead.
fn silent(configure: impl FnOnce(Request) -> Request, watch: Watch, chatter: &[u8]) {
    let mut duet = Duet::open_with(Transport::Plain, Recorder::new(), configure);
    duet.peer.write(chatter);
    duet.rig.run();
    let lost = duet.log.only_lost();
    assert_eq!(lost.why, Why::Silent(watch));
    assert!(!lost.clean);
    // The socket is gone with it.
    duet.peer.drain();
}

#[test]
fn each_sign_of_life_that_is_missed_has_a_reason_of_its_own() {
    // What the peer says instead, which is not what is waited for.
    let (ping, pong, text) = (frame(0x89, b""), frame(0x8a, b"other"), frame(0x81, b"x"));
    let beat = (SHORT * 2, SHORT);
    silent(
        |request| request.ping_every(beat.0, beat.1).expect("a heartbeat"),
        Watch::Pong,
        &pong,
    );
    silent(
        |request| {
            let request = request.text_every("are you there?", beat.0, beat.1);
            request.expect("a heartbeat")
        },
        Watch::Answer,
        &ping,
    );
    silent(
        |request| request.watch_bytes(SHORT).expect("a limit"),
        Watch::AnyByte,
        &text,
    );
    silent(
        |request| request.watch_data(SHORT).expect("a limit"),
        Watch::Data,
        &[ping.clone(), pong].concat(),
    );
    silent(
        |request| request.watch_first_data(SHORT).expect("a limit"),
        Watch::FirstData,
        &ping,
    );
}

/// A limit says how long; and a silent peer is left for the next attempt like any that was lost.
#[test]
fn a_silent_server_is_left_and_tried_again() {
    let server = Server::start(Transport::Plain, |number, mut peer| {
        peer.accept();
        if number == 0 {
            peer.drain();
        } else if peer.try_write(&frame(0x81, b"I am well")).is_ok() {
            // If it was late for the limit, the client has left this one too.
            if peer.read_frame().is_some() && peer.try_write(&frame(0x88, &[])).is_ok() {
                peer.end();
            }
        }
    });
    let recorder = Recorder::new()
        .close_after(1)
        .disconnect(|_, lost| match lost.reason {
            DisconnectReason::Silent { watch, limit } => {
                assert_eq!((*watch, *limit), (Watch::FirstData, SHORT));
                let text = lost.reason.to_string();
                assert!(text.contains("first message"), "{text}");
                Reconnect::ByPolicy
            }
            _ => Reconnect::ByPolicy,
        });
    let request = server.request().watch_first_data(SHORT).expect("a limit");
    let mut rig = Rig::new();
    let policy = ReconnectPolicy::fixed(Duration::ZERO);
    let log = rig.connect(request.reconnect(policy), recorder);
    rig.run();
    let lost = log.lost();
    assert_eq!(lost[0].why, Why::Silent(Watch::FirstData));
    assert!(lost.len() >= 2 && log.texts() == ["I am well"], "{log:?}");
    assert_eq!(lost.last().expect("two").why, Why::local(1000));
}

#[test]
fn a_heartbeat_of_text_is_a_message_and_any_message_answers_it() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        for _ in 0..2 {
            match peer.read_frame() {
                Some(frame) if frame.opcode == 1 => assert_eq!(frame.payload, b"{\"op\":1}"),
                // It was late for the deadline.
                _ => return,
            }
            if peer.try_write(&frame(0x82, b"binary, even")).is_err() {
                return;
            }
        }
        peer.drain();
    });
    let request = server.request();
    let request = request.text_every("{\"op\":1}", SHORT * 5, SHORT * 5);
    let mut rig = Rig::new();
    let policy = ReconnectPolicy::fixed(Duration::ZERO);
    let mut seen = (0, 0);
    // The second beat goes out only after the first was answered, and the third has no answer.
    let recorder = Recorder::new()
        .message(move |cx, _| {
            seen = if seen.0 == cx.epoch() {
                (seen.0, seen.1 + 1)
            } else {
                (cx.epoch(), 1)
            };
            if seen.1 == 2 {
                cx.close();
            }
            Ok(())
        })
        .disconnect(|_, lost| match lost.reason {
            DisconnectReason::Silent { watch, .. } => {
                assert_eq!(*watch, Watch::Answer);
                Reconnect::ByPolicy
            }
            _ => Reconnect::Never,
        });
    let request = request.expect("a heartbeat").close_timeout(SHORT);
    let log = rig.connect(request.reconnect(policy), recorder);
    rig.run();
    assert!(log.messages() >= 2, "{log:?}");
    let last = log.lost().pop().expect("it has ended");
    assert_eq!(last.why, Why::local(1000));
}

// ---- pausing ----

/// While reading is paused, TCP holds the server back; nothing is lost after that.
#[test]
fn what_is_paused_pushes_back_and_loses_nothing() {
    const MESSAGES: usize = 16_000;
    const LENGTH: usize = 1024;
    for &transport in Transport::ALL {
        let by_handler = Recorder::new()
            .open(|cx, _| {
                cx.pause_reading();
                Ok(())
            })
            .cast(|cx| {
                cx.resume_reading();
                Ok(())
            });
        let duet = Duet::open(transport, by_handler);
        let Duet {
            peer, mut rig, log, ..
        } = duet;
        let written = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&written);
        let writer = thread::spawn(move || {
            let mut peer = peer;
            for number in 0..MESSAGES {
                let mut payload = number.to_string().into_bytes();
                payload.resize(LENGTH, b'.');
                peer.write(&frame(0x82, &payload));
                count.store(number + 1, Ordering::Release);
            }
        });
        // Until the server gets no further.
        let (mut before, mut same) = (0, 0);
        while same < 10 {
            rig.reactor.turn(Some(SHORT)).expect("a turn");
            let now = written.load(Ordering::Acquire);
            assert_ne!(now, MESSAGES, "nobody pushed back");
            same = if now == before { same + 1 } else { 0 };
            before = now;
        }
        assert_eq!(log.messages(), 0, "{transport:?}");
        // Other commands reach it as ever; and the handler itself resumes.
        rig.reactor
            .remote()
            .cast(log.id(), String::new())
            .expect("it is there");
        rig.run_until(|| log.messages() == MESSAGES);
        let calls = log.calls();
        let binaries = calls.iter().filter_map(|call| match call {
            Call::Binary(bytes) => Some(bytes),
            _ => None,
        });
        for (number, bytes) in binaries.enumerate() {
            let text = number.to_string();
            assert!(bytes.starts_with(text.as_bytes()) && bytes[text.len()] == b'.');
        }
        writer.join().expect("all is written");
        rig.run();
        assert_eq!(log.only_lost().why, Why::Dropped);
    }
}

#[test]
fn another_thread_pauses_and_resumes_and_closing_resumes_too() {
    let mut duet = Duet::open(Transport::Plain, Recorder::new());
    let (remote, id) = (duet.rig.reactor.remote(), duet.log.id());
    remote.pause_reading(id).expect("it is there");
    duet.rig.turn();
    duet.peer.text("1");
    duet.peer.text("2");
    duet.rig.settle();
    assert_eq!(duet.log.messages(), 0);
    // Twice is once.
    remote.pause_reading(id).expect("it is there");
    remote.resume_reading(id).expect("it is there");
    let log = duet.log.clone();
    duet.rig.run_until(|| log.messages() == 2);
    // The peer's Close would not be seen; this side's is answered all the same.
    remote.pause_reading(id).expect("it is there");
    duet.rig.turn();
    duet.peer.text("3");
    let code = websockex::CloseCode::NORMAL;
    remote.close(id, code, "").expect("it is there");
    let peer = thread::spawn(move || {
        let mut peer = duet.peer;
        peer.answer_close(1000);
    });
    duet.rig.run();
    peer.join().expect("it was closed");
    assert_eq!(log.texts(), ["1", "2", "3"]);
    assert!(log.only_lost().clean);
    assert_eq!(duet.rig.traced(Kind::ReadingPaused), 2);
    assert_eq!(duet.rig.traced(Kind::ReadingResumed), 1);
}

/// Who does not listen cannot say that nobody speaks.
#[test]
fn watchdogs_rest_while_reading_is_paused_and_begin_anew() {
    let recorder = Recorder::new().open(|cx, _| {
        cx.pause_reading();
        Ok(())
    });
    let mut duet = Duet::open_with(Transport::Plain, recorder, |request| {
        request.watch_bytes(SHORT).expect("a limit")
    });
    for _ in 0..10 {
        duet.rig.reactor.turn(Some(SHORT)).expect("a turn");
    }
    assert!(duet.log.is_open());
    let remote = duet.rig.reactor.remote();
    remote.resume_reading(duet.log.id()).expect("it is there");
    duet.rig.run();
    assert_eq!(duet.log.only_lost().why, Why::Silent(Watch::AnyByte));
}

// ---- water marks ----

/// Between the marks nobody is told anything.
#[test]
fn on_drained_comes_at_the_low_mark_once_the_high_one_was_reached() {
    const MIB: usize = 1 << 20;
    let message = vec![0; MIB];
    // More than the kernel keeps for a socket whose buffer is set so small.
    let mut options = SocketOptions::default();
    options.send_buffer = Some(1 << 16);
    let send = move |cx: &mut websockex::Context<'_>, _: &websockex::Open<'_>| {
        for _ in 0..8 {
            cx.send_binary(&message)?;
        }
        Ok(())
    };
    for (low, high, drained) in [(MIB, 2 * MIB, 1), (0, 1, 1), (0, 64 * MIB, 0)] {
        let recorder = Recorder::new().open(send.clone()).drained(move |cx| {
            assert!(cx.queued() <= low, "{} queued", cx.queued());
            Ok(())
        });
        let mut duet = Duet::open_with(Transport::Plain, recorder, |request| {
            let request = request.socket(options.clone());
            request.water_marks(low, high).expect("marks")
        });
        assert_eq!(duet.rig.traced(Kind::QueueHighWater), drained);
        assert_eq!(duet.log.count(|call| *call == Call::Drained), 0);
        let mut peer = duet.peer;
        let reader = thread::spawn(move || {
            for _ in 0..8 {
                assert_eq!(peer.read_frame().expect("a frame").payload.len(), MIB);
            }
            peer.close(1000, "");
            peer.expect_close(1000);
        });
        duet.rig.run();
        reader.join().expect("all came");
        assert_eq!(duet.log.count(|call| *call == Call::Drained), drained);
    }
}

// ---- reaching the peer ----

/// An open connection that says which address it has come from; both ends close it.
fn open_and_close(rig: &mut Rig, request: Request, recorder: Recorder) -> Log {
    let log = rig.connect(request, recorder);
    rig.run();
    assert_eq!(log.opened(), 1, "{log:?}");
    log
}

fn closing() -> Recorder {
    Recorder::new().open(|cx, _| {
        cx.close();
        Ok(())
    })
}

fn answering(transport: Transport) -> Server {
    Server::start(transport, |_, mut peer| {
        peer.accept();
        peer.answer_close(1000);
    })
}

#[test]
fn a_dead_address_is_passed_over() {
    let (_refusing, refuses) = port_that_refuses();
    let server = answering(Transport::Plain);
    let mut rig = Rig::new();
    let request = server.request().connect_to([refuses, server.address]);
    let good = server.address;
    let recorder = Recorder::new().open(move |cx, open| {
        assert_eq!((open.peer, open.attempts), (good, 1));
        cx.close();
        Ok(())
    });
    let log = open_and_close(&mut rig, request.expect("addresses"), recorder);
    assert_eq!(log.only_lost().why, Why::local(1000));
    assert_eq!(rig.traced(Kind::TcpConnecting), 2);
    assert_eq!(rig.traced(Kind::TcpConnected), 1);
}

/// RFC 8305 §5: the next address does not wait for the failure of the one before.
#[cfg(target_os = "linux")]
#[test]
fn an_address_that_does_not_answer_is_overtaken() {
    let (_silent, silent) = port_that_is_silent();
    let server = answering(Transport::Plain);
    let mut rig = Rig::new();
    let request = server.request().connect_to([silent, server.address]);
    let request = request.expect("addresses").connect_timeout(LONG);
    let log = open_and_close(&mut rig, request.open_timeout(LONG), closing());
    assert_eq!(log.only_lost().why, Why::local(1000));
    assert_eq!(rig.traced(Kind::TcpConnecting), 2);
}

#[test]
fn when_all_addresses_refuse_the_last_one_is_named() {
    let ((_a, first), (_b, second)) = (port_that_refuses(), port_that_refuses());
    let mut rig = Rig::new();
    let request = Request::new("ws://feed.invalid/").expect("a URL");
    let request = trusting(request).connect_to([first, second]);
    let recorder = Recorder::new().disconnect(move |_, lost| {
        match lost.reason {
            DisconnectReason::ConnectFailed(websockex::Error::Connect { address, .. }) => {
                assert_eq!(*address, second);
            }
            reason => panic!("{reason}"),
        }
        Reconnect::ByPolicy
    });
    let log = rig.connect(request.expect("addresses"), recorder);
    rig.run();
    let refused = Fault::Connect(ErrorKind::ConnectionRefused);
    assert_eq!(log.only_lost().why, Why::ConnectFailed(refused));
}

/// The address is another, the server's name the URL's: in `Host`, and over TLS in its certificate.
#[test]
fn connect_to_leaves_host_and_server_name_to_the_url() {
    for &transport in Transport::ALL {
        let server = Server::start(transport, |_, mut peer| {
            let request = peer.accept();
            let host = request.headers().first("host");
            assert!(
                matches!(host, Some("localhost:1" | "feed.invalid:1")),
                "{host:?}"
            );
            peer.answer_close(1000);
        });
        // The certificate is one for "localhost" and the addresses.
        let url = match transport {
            Transport::Plain => "ws://feed.invalid:1/",
            #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
            Transport::Tls => "wss://localhost:1/",
        };
        let request = Request::new(url).expect("a URL");
        let request = trusting(request).connect_to([server.address]);
        open_and_close(&mut Rig::new(), request.expect("an address"), closing());
    }
}

/// The name that the certificate must have is the URL's, whatever is connected to.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
#[test]
fn connect_to_does_not_change_who_is_trusted() {
    let server = Server::start_raw(Transport::Tls, |_, stream| {
        use std::io::Read;
        let config = crate::support::pki::server_config();
        let mut stream = crate::support::pki::accept(stream, config);
        // The client breaks off.
        assert!(!matches!(stream.read(&mut [0; 1]), Ok(1..)));
    });
    let request = Request::new("wss://feed.invalid/").expect("a URL");
    let request = trusting(request).connect_to([server.address]);
    let mut rig = Rig::new();
    let log = rig.connect(request.expect("an address"), Recorder::new());
    rig.run();
    let lost = log.only_lost();
    assert!(matches!(lost.why.fault(), Some(Fault::Tls(_))), "{lost:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_server_sees_the_source_address() {
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let server = Server::start(Transport::Plain, move |_, mut peer| {
        let address = peer.tcp().peer_addr().expect("it is connected");
        assert_eq!(address.ip(), source);
        peer.accept();
        peer.answer_close(1000);
    });
    let mut options = SocketOptions::default();
    options.source = Some(source);
    options.nodelay = false;
    options.quickack = true;
    options.receive_buffer = Some(1 << 16);
    options.send_buffer = Some(1 << 16);
    options.keepalive = Some(LONG);
    options.user_timeout = Some(LONG);
    let request = server.request().socket(options);
    open_and_close(&mut Rig::new(), request, closing());
}

/// What the system refuses fails the attempt, and says so.
#[test]
fn a_source_address_that_is_not_ours_fails_the_attempt() {
    let mut options = SocketOptions::default();
    // TEST-NET-1 of RFC 5737: nobody's.
    options.source = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let request = Request::new(format!("ws://{address}/")).expect("a URL");
    let mut rig = Rig::new();
    let log = rig.connect(trusting(request).socket(options), Recorder::new());
    rig.run();
    let fault = Fault::Connect(ErrorKind::AddrNotAvailable);
    assert_eq!(log.only_lost().why, Why::ConnectFailed(fault));
}

// ---- stages ----

#[test]
fn the_times_of_the_stages_are_told() {
    for &transport in Transport::ALL {
        let secure = transport != Transport::Plain;
        let server = Server::start(transport, |number, mut peer| {
            if number == 0 {
                peer.reject(503, &[], b"");
            } else {
                peer.accept();
                peer.answer_close(1000);
            }
        });
        let url = server.url().replace("127.0.0.1", "localhost");
        let request = trusting(Request::new(url).expect("a URL"));
        let (told, times) = channel();
        let and_later = told.clone();
        let recorder = Recorder::new()
            .open(move |cx, open| {
                cx.close();
                Ok(told.send(open.times)?)
            })
            .disconnect(move |_, lost| {
                and_later.send(lost.times).expect("the test listens");
                Reconnect::ByPolicy
            });
        let mut rig = Rig::new();
        let policy = ReconnectPolicy::fixed(Duration::ZERO);
        rig.connect(request.reconnect(policy), recorder);
        rig.run();
        let times: Vec<StageTimes> = times.iter().collect();
        let [refused, opened, closed] = times[..] else {
            panic!("{times:?}");
        };
        for times in [refused, opened] {
            assert!(times.resolve.is_some() && times.tcp.is_some(), "{times:?}");
            assert_eq!((times.tls.is_some(), times.proxy), (secure, None));
        }
        // It did not come to the end of this one.
        assert_eq!(refused.upgrade, None);
        assert!(opened.upgrade.is_some());
        assert_eq!(closed, StageTimes::default(), "it was open");
    }
}

/// The limit of the whole attempt counts where that of the stage has not passed yet.
#[test]
fn the_whole_attempt_has_a_limit_too() {
    let server = Server::start_raw(Transport::Plain, |_, stream| {
        let mut peer = Peer::new(Transport::Plain, stream);
        peer.read_request();
        peer.expect_end();
    });
    let request = server.request().open_timeout(SHORT).handshake_timeout(LONG);
    let mut rig = Rig::new();
    let recorder = Recorder::new().disconnect(|_, lost| {
        match lost.reason {
            DisconnectReason::ConnectFailed(websockex::Error::Timeout { limit, .. }) => {
                assert_eq!(*limit, SHORT);
            }
            reason => panic!("{reason}"),
        }
        Reconnect::ByPolicy
    });
    let log = rig.connect(request, recorder);
    rig.run();
    assert_eq!(log.lost().len(), 1);
}

// ---- when to try again ----

#[test]
fn a_server_that_asks_for_patience_gets_it() {
    let (retry, hour) = ("Retry-After".to_owned(), 3600);
    for (status, value, expected) in [
        (503, "7", 7),
        (429, "11", 11),
        (418, "13", 13),
        // Not for ever, and only with a status that means it; nonsense is none.
        (503, "999999999999999999999999", hour),
        (500, "7", 0),
        (503, "soon", 0),
        (503, "", 0),
    ] {
        let headers = [(retry.clone(), value.to_owned())];
        let server = Server::start(Transport::Plain, move |_, mut peer| {
            peer.reject(status, &headers, b"");
        });
        let mut rig = Rig::new();
        let policy = ReconnectPolicy::fixed(Duration::ZERO);
        let recorder = Recorder::new().disconnect(|_, _| Reconnect::Never);
        let log = rig.connect(server.request().reconnect(policy), recorder);
        rig.run();
        let lost = log.only_lost();
        let expected = Some(Duration::from_secs(expected));
        assert_eq!(lost.policy, expected, "{status} {value}");
        assert!(matches!(
            lost.why.fault(),
            Some(Fault::Handshake(HandshakeError::Rejected(_)))
        ));
    }
}

#[test]
fn a_policy_gives_up_after_so_many_attempts() {
    let (_socket, address) = port_that_refuses();
    let request = Request::new(format!("ws://{address}/")).expect("a URL");
    let policy = ReconnectPolicy::exponential(SHORT, SHORT * 2).expect("bounds");
    let request = trusting(request).reconnect(policy.max_attempts(4));
    let mut rig = Rig::new();
    let log = rig.connect(request, Recorder::new());
    rig.run();
    let delays: Vec<_> = log.lost().iter().map(|lost| lost.policy).collect();
    assert_eq!(delays.len(), 4, "{delays:?}");
    assert!(delays[..3].iter().all(|delay| *delay <= Some(SHORT * 2)));
    assert!(delays[0].is_some_and(|delay| delay <= SHORT));
    assert_eq!(delays[3], None);
    assert!(log.is_terminated());
    assert_eq!(rig.traced(Kind::LimitHit), 1);
}

/// A server that takes connections and drops them is no better than one that refuses: only data over
/// some time begins the count anew.
#[test]
fn only_a_good_connection_resets_the_policy() {
    for (reset_after, data, good) in [
        (LONG, true, false),
        (Duration::ZERO, false, false),
        (Duration::ZERO, true, true),
    ] {
        let server = Server::start(Transport::Plain, move |_, mut peer| {
            let text = frame(0x81, b"x");
            peer.accept_and_send(if data { &text } else { &[] });
            peer.end();
            peer.drain();
        });
        let policy = ReconnectPolicy::fixed(Duration::ZERO).max_attempts(3);
        let request = server.request().reconnect(policy.reset_after(reset_after));
        let mut rig = Rig::new();
        let recorder = Recorder::new().disconnect(|_, lost| match lost.epoch {
            6.. => Reconnect::Never,
            _ => Reconnect::ByPolicy,
        });
        let log = rig.connect(request, recorder);
        rig.run();
        assert_eq!(log.opened(), if good { 6 } else { 3 }, "{log:?}");
    }
}

/// A connection of the new request records what that one asks for.
#[test]
fn another_request_brings_its_trace_level() {
    let server = Server::start(Transport::Plain, |number, mut peer| {
        peer.accept();
        if number > 0 {
            peer.expect_text("x");
            peer.answer_close(1000);
        }
    });
    let next = server.request().trace(Level::Frames);
    let mut rig = Rig::with(Reactor::builder());
    let recorder = Recorder::new()
        .open(|cx, open| {
            cx.send(Message::Text("x"))?;
            if open.epoch == 2 {
                cx.close();
            }
            Ok(())
        })
        .disconnect(move |_, lost| match lost.epoch {
            1 => Reconnect::To(Box::new(next.clone())),
            _ => Reconnect::Never,
        });
    rig.connect(server.request(), recorder);
    rig.run();
    // The text and the Close.
    assert_eq!(rig.traced(Kind::FrameSent), 2);
}
