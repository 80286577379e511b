//! The way to an open connection, and everything that can go wrong on it, told apart.

use crate::support::server::{answer, trusting};
use crate::support::{Call, Fault, LONG, Log, Recorder, Rig, SHORT, Server, Transport, Why, frame};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use websockex::protocol::handshake::{Answer, Misbehaviour};
use websockex::trace::Kind;
use websockex::{
    Error, HandshakeError, HandshakeLimits, Reactor, ReconnectPolicy, Request, Stage, UrlError,
};

/// The fault of an attempt that failed, with the checks that hold for all of them.
fn failed(log: &Log) -> Fault {
    let lost = log.only_lost();
    assert!(!lost.clean);
    assert_eq!((lost.attempt, lost.epoch, lost.policy), (1, 0, None));
    match lost.why {
        Why::ConnectFailed(fault) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bad_url_is_refused_before_any_io() {
    let mut reactor = Reactor::new().expect("a reactor");
    for (url, expected) in [
        ("http://example.com/", None),
        ("example.com", None),
        ("ws://", None),
        ("ws://example.com:99999/", None),
        ("ws://exa mple.com/", None),
        ("ws://[::1/", None),
        ("ws://example.com/#part", Some(UrlError::Fragment)),
    ] {
        let error = reactor.connect(url, Recorder::new()).expect_err(url);
        let Error::Url(error) = error else {
            panic!("{url}: {error:?}");
        };
        assert!(
            expected.is_none_or(|expected| error == expected),
            "{url}: {error:?}"
        );
    }
    assert_eq!(reactor.connections(), 0);
    assert_eq!(reactor.trace().recorded(), 0);
    // With nothing to run for it returns at once.
    reactor.run().expect("nothing to do");
}

#[test]
fn a_bad_request_is_refused_before_any_io() {
    let request = || Request::new("ws://localhost/").expect("a URL");
    for refused in [
        request().header("Bad Name", "x"),
        request().header("X-Injected", "a\r\nEvil: yes"),
        request().header("Sec-WebSocket-Key", "mine"),
        request().origin("a\nb"),
        request().subprotocol("two words"),
        request()
            .subprotocol("a")
            .and_then(|request| request.subprotocol("a")),
    ] {
        assert!(matches!(refused, Err(Error::Request(_))), "{refused:?}");
    }
}

#[test]
fn what_the_user_set_reaches_the_server_and_what_it_answers_the_user() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        let request = peer.read_request();
        assert_eq!(request.target(), "/a/b%20c?x=1&y=%C3%BC");
        let headers = request.headers();
        assert_eq!(
            headers.first("host"),
            Some(&*format!("127.0.0.1:{}", peer_port(&peer)))
        );
        assert_eq!(headers.first("origin"), Some("https://example.com"));
        assert_eq!(headers.first("x-token"), Some("a b"));
        // "user:pass word" in base64.
        assert_eq!(
            headers.first("authorization"),
            Some("Basic dXNlcjpwYXNzIHdvcmQ=")
        );
        assert_eq!(
            request.subprotocols().collect::<Vec<_>>(),
            ["v2.feed", "v1.feed"]
        );
        let mut bytes = Vec::new();
        let answer = Answer {
            subprotocol: Some("v1.feed"),
            headers: &[("Set-Cookie".to_owned(), "a=1".to_owned())],
            ..Answer::default()
        };
        request
            .write_response(&answer, &mut bytes)
            .expect("an answer");
        peer.write(&bytes);
        peer.answer_close(1000);
    });
    let url = format!(
        "ws://user:pass%20word@{}/a/b%20c?x=1&y=%C3%BC",
        server.address
    );
    let request = Request::new(url)
        .and_then(|request| request.origin("https://example.com"))
        .and_then(|request| request.header("X-Token", "a b"))
        .and_then(|request| request.subprotocol("v2.feed"))
        .and_then(|request| request.subprotocol("v1.feed"))
        .expect("a request");
    let address = server.address;
    let recorder = Recorder::new().open(move |cx, open| {
        assert_eq!(open.response.status(), 101);
        assert_eq!(open.response.subprotocol(), Some("v1.feed"));
        assert_eq!(open.response.header("set-cookie"), Some("a=1"));
        assert_eq!(open.peer, address);
        assert_eq!(cx.epoch(), 1);
        cx.close();
        Ok(())
    });
    let mut rig = Rig::new();
    let log = rig.connect(request, recorder);
    rig.run();
    assert_eq!(log.only_lost().why, Why::local(1000));
}

fn peer_port(peer: &crate::support::Peer) -> u16 {
    peer.tcp().local_addr().expect("a socket").port()
}

/// A host by name, and one by its IPv6 address.
#[test]
fn names_and_ipv6_addresses_are_connected_to() {
    let script = |_: usize, stream: TcpStream| {
        let mut peer = crate::support::Peer::new(Transport::Plain, stream);
        peer.accept();
        peer.answer_close(1000);
    };
    let mut rig = Rig::new();
    let close = || {
        Recorder::new().open(|cx, _| {
            cx.close();
            Ok(())
        })
    };
    let server = Server::start_raw(Transport::Plain, script);
    let url = format!("ws://localhost:{}/", server.address.port());
    let named = rig.connect(url, close());
    rig.run();
    assert!(named.only_lost().clean, "{named:?}");
    assert_eq!(rig.traced(Kind::Resolved), 1);
    // Not every machine has IPv6.
    if let Ok(listener) = TcpListener::bind("[::1]:0") {
        let server = Server::on(listener, Transport::Plain, script);
        let addressed = rig.connect(format!("ws://{}/", server.address), close());
        rig.run();
        assert!(addressed.only_lost().clean, "{addressed:?}");
        assert_eq!(rig.traced(Kind::Resolved), 1, "an address needs no look-up");
    }
}

#[test]
fn a_name_that_does_not_exist() {
    let mut rig = Rig::new();
    let request = Request::new("ws://no-such-host.invalid/").expect("a URL");
    let log = rig.connect(trusting(request), Recorder::new());
    rig.run();
    assert_eq!(failed(&log), Fault::Resolve("no-such-host.invalid".into()));
}

/// A port on which nobody listens.
fn refused_address() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("it is bound")
}

#[test]
fn a_port_that_refuses() {
    for &transport in Transport::ALL {
        let scheme = if transport == Transport::Plain {
            "ws"
        } else {
            "wss"
        };
        let mut rig = Rig::new();
        let request = Request::new(format!("{scheme}://{}/", refused_address())).expect("a URL");
        let log = rig.connect(trusting(request), Recorder::new());
        rig.run();
        assert_eq!(failed(&log), Fault::Connect(ErrorKind::ConnectionRefused));
    }
}

/// An answer other than 101 comes with all that it said.
#[test]
fn a_refusal_has_status_headers_and_the_start_of_the_body() {
    for &transport in Transport::ALL {
        for length in [0, 5, 4096, 100_000] {
            let server = Server::start(transport, move |_, mut peer| {
                let headers = [("Retry-After".to_owned(), "30".to_owned())];
                peer.reject(429, &headers, &b"slow ".repeat(length / 5 + 1)[..length]);
            });
            let mut rig = Rig::new();
            let log = rig.connect(server.request(), Recorder::new());
            rig.run();
            let Fault::Handshake(HandshakeError::Rejected(rejection)) = failed(&log) else {
                panic!("{log:?}");
            };
            assert_eq!((rejection.status, &*rejection.reason), (429, "No"));
            assert_eq!(rejection.headers.first("retry-after"), Some("30"));
            let kept = length.min(HandshakeLimits::default().max_rejection_body);
            let body = "slow ".repeat(length / 5 + 1);
            assert_eq!(rejection.body, body.as_bytes()[..kept]);
        }
    }
}

/// A refusal whose body never ends, of a server that keeps the connection: no need to wait for it.
#[test]
fn a_refusal_without_an_end_is_a_refusal() {
    let server = Server::start_raw(Transport::Plain, |_, stream| {
        let mut peer = crate::support::Peer::new(Transport::Plain, stream);
        peer.read_request();
        peer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\n\r\nwait");
        peer.expect_end();
    });
    let mut rig = Rig::new();
    let request = server.request().handshake_timeout(SHORT * 10);
    let log = rig.connect(request, Recorder::new());
    rig.run();
    let Fault::Handshake(HandshakeError::Rejected(rejection)) = failed(&log) else {
        panic!("{log:?}");
    };
    assert_eq!((rejection.status, &rejection.body[..]), (503, &b"wait"[..]));
}

/// Answers that are no proper 101.
#[test]
fn a_peer_that_misbehaves_in_the_opening_handshake() {
    type Damage = fn(String) -> String;
    let cases: [(Damage, Misbehaviour); 4] = [
        (
            |answer| answer.replace("Upgrade: websocket\r\n", ""),
            Misbehaviour::UpgradeMissing,
        ),
        (
            |answer| answer.replace("Connection: Upgrade", "Connection: close"),
            Misbehaviour::ConnectionNotUpgrade,
        ),
        (
            |answer| answer.replace("Accept: ", "Accept: x"),
            Misbehaviour::AcceptWrong,
        ),
        (
            |answer| answer.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: mine\r\n\r\n"),
            Misbehaviour::SubprotocolNotOffered,
        ),
    ];
    for (damage, misbehaviour) in cases {
        let server = Server::start(Transport::Plain, move |_, mut peer| {
            let request = peer.read_request();
            let answer = String::from_utf8(answer(&request)).expect("ASCII");
            peer.write(damage(answer).as_bytes());
            peer.write(&frame(0x81, b"not delivered"));
            peer.expect_end();
        });
        let mut rig = Rig::new();
        let log = rig.connect(server.request(), Recorder::new());
        rig.run();
        let error = HandshakeError::Misbehaved(misbehaviour);
        assert_eq!(failed(&log), Fault::Handshake(error));
        assert_eq!(log.opened(), 0);
    }
}

#[test]
fn an_answer_that_is_no_http_or_has_no_end() {
    let endless = format!("HTTP/1.1 101 Ok\r\nX: {}", "x".repeat(1 << 20));
    for (answer, limit) in [
        ("SSH-2.0-OpenSSH_9.9\r\n".to_owned(), false),
        (endless, true),
    ] {
        let server = Server::start(Transport::Plain, move |_, mut peer| {
            peer.read_request();
            // It may be cut off before all of it is sent.
            let _ = peer.try_write(answer.as_bytes());
            while peer.read_frame().is_some() {}
        });
        let mut rig = Rig::new();
        let log = rig.connect(server.request(), Recorder::new());
        rig.run();
        match failed(&log) {
            Fault::Handshake(HandshakeError::Limit(_)) if limit => {}
            Fault::Handshake(HandshakeError::Malformed(_)) if !limit => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A silent peer at each stage; the stage is named.
#[test]
fn a_silent_peer_is_given_up() {
    // Upgrade: it accepts, and says nothing. TLS: likewise.
    for &transport in Transport::ALL {
        let (hold, held) = channel();
        let server = Server::start_raw(transport, move |_, stream| {
            hold.send(stream).expect("the test holds it");
        });
        let mut rig = Rig::new();
        let request = server.request().handshake_timeout(SHORT).tls_timeout(SHORT);
        let log = rig.connect(request, Recorder::new());
        rig.run();
        let stage = if transport == Transport::Plain {
            Stage::Upgrade
        } else {
            Stage::Tls
        };
        assert_eq!(failed(&log), Fault::Timeout(stage));
        drop(held);
    }
}

/// A peer that says a byte now and then does not get more time.
#[test]
fn a_slow_answer_does_not_extend_the_handshake_timeout() {
    let server = Server::start_raw(Transport::Plain, |_, mut stream| {
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nX: ".iter();
        // Until the client has had enough of it.
        for byte in answer.chain(std::iter::repeat(&b'x')) {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::yield_now();
        }
    });
    let mut rig = Rig::new();
    let limits = HandshakeLimits {
        max_header_bytes: usize::MAX,
        ..HandshakeLimits::default()
    };
    let request = server
        .request()
        .handshake_timeout(SHORT)
        .handshake_limits(limits);
    let log = rig.connect(request, Recorder::new());
    rig.run();
    assert_eq!(failed(&log), Fault::Timeout(Stage::Upgrade));
}

#[test]
fn an_answer_that_is_too_long_is_a_limit_that_was_hit() {
    let server = Server::start_raw(Transport::Plain, |_, mut stream| {
        let endless = b"HTTP/1.1 101 Switching Protocols\r\nX: ".repeat(20);
        // It may be cut off before all of it is sent.
        let _ = stream.write_all(&endless);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut rig = Rig::new();
    let limits = HandshakeLimits {
        max_header_bytes: 500,
        ..HandshakeLimits::default()
    };
    let request = server.request().handshake_limits(limits);
    rig.connect(request.reconnect(ReconnectPolicy::never()), Recorder::new());
    rig.run();
    let line = "*DBG* feed hit the limit header_block: 501 where 500 is allowed".to_owned();
    assert!(rig.dbg_lines().contains(&line), "{:?}", rig.dbg_lines());
}

#[cfg(target_os = "linux")]
#[test]
fn a_silent_peer_at_the_tcp_stage() {
    let (_sockets, address) = crate::support::port_that_is_silent();
    let mut rig = Rig::new();
    let request = Request::new(format!("ws://{address}/")).expect("a URL");
    let log = rig.connect(trusting(request).connect_timeout(SHORT), Recorder::new());
    rig.run();
    assert_eq!(failed(&log), Fault::Timeout(Stage::Tcp));
}

#[test]
fn nothing_is_sent_twice_or_kept_over_an_attempt() {
    // The first attempt is cut in the middle of the 101, the second gets a whole one.
    let server = Server::start(Transport::Plain, |number, mut peer| {
        let request = peer.read_request();
        let answer = answer(&request);
        if number == 0 {
            peer.write(&answer[..answer.len() - 1]);
        } else {
            peer.write(&answer);
            peer.expect_text("hello");
            peer.answer_close(1000);
        }
    });
    let mut rig = Rig::new();
    let request = server.request();
    let request = request.reconnect(ReconnectPolicy::fixed(SHORT));
    let recorder = Recorder::new().open(|cx, _| {
        cx.send_text("hello")?;
        cx.close();
        Ok(())
    });
    let log = rig.connect(request, recorder);
    rig.run();
    let lost = log.lost();
    assert_eq!((lost[0].attempt, lost[0].policy), (1, Some(SHORT)));
    let open = Call::Open {
        epoch: 1,
        attempts: 2,
    };
    assert_eq!(log.calls()[1], open);
    assert!(lost[1].clean);
}

#[cfg(not(feature = "tls"))]
#[test]
fn wss_without_the_feature_is_refused_before_any_io() {
    let mut reactor = Reactor::new().expect("a reactor");
    let error = reactor.connect("wss://localhost/", Recorder::new());
    assert!(matches!(error, Err(Error::TlsUnavailable)), "{error:?}");
}

/// A handler must not fall back to an open connection either.
#[cfg(not(feature = "tls"))]
#[test]
fn reconnecting_to_wss_without_the_feature_sends_nothing_in_the_clear() {
    use websockex::Reconnect;
    let first = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
    });
    let second = Server::start_raw(Transport::Plain, |_, mut stream| {
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("the end");
        assert!(received.is_empty(), "{}", received.escape_ascii());
    });
    let secure = format!("wss://user:secret@{}/", second.address);
    let mut rig = Rig::new();
    let mut tried = false;
    let recorder = Recorder::new().disconnect(move |_, _| {
        if std::mem::replace(&mut tried, true) {
            return Reconnect::Never;
        }
        let request = Request::new(&secure).expect("a URL");
        Reconnect::To(Box::new(request.handshake_timeout(SHORT)))
    });
    let log = rig.connect(first.request(), recorder);
    rig.run();
    assert_eq!(log.lost()[1].why, Why::ConnectFailed(Fault::TlsUnavailable));
}

/// Timers and deadlines that lie very far away.
#[test]
fn very_long_timeouts_are_no_trouble() {
    let server = Server::echo(Transport::Plain);
    let mut rig = Rig::new();
    let forever = std::time::Duration::MAX;
    let request = server
        .request()
        .connect_timeout(forever)
        .handshake_timeout(forever)
        .close_timeout(forever);
    let recorder = Recorder::new()
        .open(move |cx, _| {
            cx.set_timer(websockex::TimerId(1), forever);
            cx.set_timer(websockex::TimerId(2), LONG * 24 * 365);
            Ok(cx.send_text("x")?)
        })
        .close_after(1);
    let log = rig.connect(request, recorder);
    rig.run();
    assert!(log.only_lost().clean);
    assert_eq!(log.count(|call| matches!(call, Call::Timer(_))), 0);
}
