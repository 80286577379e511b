//! Through a proxy: HTTP CONNECT and SOCKS5, good ones and hostile ones.

use crate::support::proxy::{Client, ESTABLISHED, SUCCEEDED, named, start};
use crate::support::server::trusting;
use crate::support::{Call, Fault, Recorder, Rig, SHORT, Server, Transport, Why};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::mpsc::channel;
use websockex::trace::Kind;
use websockex::{
    Proxy, ProxyError, Reconnect, ReconnectPolicy, Request, SocksReply, SocksViolation, Stage,
    StageTimes,
};

/// Opens the way for a CONNECT to `target`, byte by byte.
fn open_http(client: &mut Client, target: &str) {
    let expected = [
        format!("CONNECT {target} HTTP/1.1"),
        format!("Host: {target}"),
    ];
    assert_eq!(client.read_head(), expected);
    client.trickle(ESTABLISHED);
}

/// Opens the way for a SOCKS client without credentials, byte by byte, and says where to.
fn open_socks(client: &mut Client) -> String {
    client.expect_methods(&[0]);
    client.trickle(&[5, 0]);
    let target = client.read_target();
    client.trickle(SUCCEEDED);
    target
}

/// A request through `proxy` to a server that only the proxy could find.
fn request_through(proxy: Proxy) -> Request {
    trusting(Request::new("ws://feed.invalid/").expect("a URL")).proxy(proxy)
}

/// Sends a few messages through `proxy` and gets them back.
fn check_echo(server: &Server, url: &str, proxy: Proxy) {
    let mut rig = Rig::new();
    let request = trusting(Request::new(url).expect("a URL")).proxy(proxy);
    let (times, told) = channel();
    let mut left = vec!["one".to_owned(), "x".repeat(300_000)];
    let recorder = Recorder::new()
        .open(move |cx, open| {
            times.send(open.times).expect("the test waits for it");
            Ok(cx.send_text("zero")?)
        })
        .message(move |cx, _| {
            match left.pop() {
                Some(text) => cx.send_text(&text)?,
                None => cx.close(),
            }
            Ok(())
        });
    let log = rig.connect(request, recorder);
    rig.run();
    assert_eq!(log.only_lost().why, Why::local(1000));
    assert_eq!(
        log.texts(),
        ["zero".into(), "x".repeat(300_000), "one".into()]
    );
    let times: StageTimes = told.try_recv().expect("it was open");
    assert!(
        times.proxy.is_some() && times.upgrade.is_some(),
        "{times:?}"
    );
    assert_eq!(times.tls.is_some(), server.url().starts_with("wss"));
    assert_eq!(rig.traced(Kind::ProxyConnected), 1);
}

/// Runs an attempt through the proxy and says why it failed.
fn fault_of(rig: &mut Rig, request: Request) -> Fault {
    let log = rig.connect(request, Recorder::new());
    rig.run();
    assert_eq!(log.opened(), 0);
    match log.only_lost().why {
        Why::ConnectFailed(fault) => fault,
        other => panic!("{other:?}"),
    }
}

/// What the client makes of a proxy that does as `script` says.
fn proxy_error(scheme: &str, script: impl Fn(Client) + Send + Sync + 'static) -> ProxyError {
    let proxy = start(move |_, client| script(client));
    let request = request_through(named(&proxy, scheme));
    match fault_of(&mut Rig::new(), request) {
        Fault::Proxy(error) => error,
        other => panic!("{other:?}"),
    }
}

// ---- the way through ----

#[test]
fn through_an_http_proxy() {
    for &transport in Transport::ALL {
        let server = Server::echo(transport);
        let address = server.address;
        let url = server.url();
        let (_, place) = url.split_once("://").expect("a URL");
        let target = place.trim_end_matches("/feed").to_owned();
        let proxy = start(move |_, mut client| {
            open_http(&mut client, &target);
            client.relay(address);
        });
        check_echo(&server, &url, named(&proxy, "http://"));
    }
}

/// With `socks5h` the proxy gets the name as it stands in the URL, so it may be one that only the
/// proxy knows.
#[test]
fn through_a_socks_proxy_that_looks_the_name_up() {
    let server = Server::echo(Transport::Plain);
    let address = server.address;
    let proxy = start(move |_, mut client| {
        assert_eq!(open_socks(&mut client), "feed.invalid:80");
        client.relay(address);
    });
    check_echo(&server, "ws://feed.invalid", named(&proxy, "socks5h://"));
}

/// With `socks5` the proxy gets an address.
#[test]
fn through_a_socks_proxy_by_address() {
    for &transport in Transport::ALL {
        let server = Server::echo(transport);
        let address = server.address;
        let proxy = start(move |_, mut client| {
            let target: SocketAddr = open_socks(&mut client).parse().expect("an address");
            // Whichever of its families the machine names first.
            assert!(target.ip().is_loopback(), "{target}");
            assert_eq!(target.port(), address.port());
            client.relay(address);
        });
        let scheme = server.url();
        let (scheme, _) = scheme.split_once(':').expect("a URL");
        let url = format!("{scheme}://localhost:{}/feed", address.port());
        check_echo(&server, &url, named(&proxy, "socks5://"));
        // The name of the proxy is looked up as well, behind that of the server.
        let place = format!("socks5://localhost:{}", proxy.address.port());
        check_echo(&server, &url, Proxy::parse(&place).expect("a URL"));
    }
}

/// A literal address is one for every kind of proxy.
#[test]
fn to_a_literal_address() {
    for scheme in ["socks5://", "socks5h://"] {
        let server = Server::echo(Transport::Plain);
        let address = server.address;
        let proxy = start(move |_, mut client| {
            assert_eq!(open_socks(&mut client), "[2001:db8::7]:8443");
            client.relay(address);
        });
        check_echo(&server, "ws://[2001:db8::7]:8443", named(&proxy, scheme));
    }
}

/// TLS is between the client and the server, the one the URL names, whatever lies between them.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
#[test]
fn tls_is_with_the_server() {
    use crate::support::pki::{AUTHORITY, accept, server_config_for};
    use crate::support::server::Stream;
    let config = server_config_for(&AUTHORITY.issue(&["feed.invalid"]));
    let server = Server::start_raw(Transport::Tls, move |number, stream| {
        let mut peer = crate::support::Peer::over(accept(stream, config.clone()));
        if number == 2 {
            // The client does not like the certificate.
            let mut byte = [0];
            let failed = std::io::Read::read(peer.stream_mut(), &mut byte);
            assert!(failed.is_err(), "{failed:?}");
            return;
        }
        peer.accept();
        let Stream::Tls(tls) = peer.stream_mut() else {
            panic!("not over TLS");
        };
        assert_eq!(tls.conn.server_name(), Some("feed.invalid"));
        peer.text("hello");
        peer.answer_close(1000);
    });
    let address = server.address;
    let http = start(move |_, mut client| {
        let head = client.read_head();
        assert!(head[0].starts_with("CONNECT "), "{head:?}");
        client.write(ESTABLISHED);
        client.relay(address);
    });
    let socks = start(move |_, mut client| {
        assert_eq!(open_socks(&mut client), "feed.invalid:443");
        client.relay(address);
    });
    let request = |url| trusting(Request::new(url).expect("a URL"));
    for proxy in [named(&http, "http://"), named(&socks, "socks5h://")] {
        let mut rig = Rig::new();
        let request = request("wss://feed.invalid/").proxy(proxy);
        let log = rig.connect(request, Recorder::new().close_after(1));
        rig.run();
        assert_eq!(log.texts(), ["hello"]);
        assert_eq!(rig.traced(Kind::TlsEstablished), 1);
    }
    let other = request("wss://other.invalid/").proxy(named(&http, "http://"));
    let fault = fault_of(&mut Rig::new(), other);
    assert!(matches!(fault, Fault::Tls(_)), "{fault:?}");
}

/// `connect_to` says where the server is, to the proxy, too.
#[test]
fn the_proxy_is_told_the_address_to_connect_to() {
    let server = Server::echo(Transport::Plain);
    let address = server.address;
    let proxy = start(move |number, mut client| {
        match number {
            0 => open_http(&mut client, &address.to_string()),
            _ => assert_eq!(open_socks(&mut client), address.to_string()),
        }
        client.relay(address);
    });
    for scheme in ["http://", "socks5h://", "socks5://"] {
        let request = request_through(named(&proxy, scheme));
        let request = request.connect_to([address]).expect("an address");
        let mut rig = Rig::new();
        let recorder = Recorder::new().close_after(1);
        let log = rig.connect(request, recorder.open(|cx, _| Ok(cx.send_text("here")?)));
        rig.run();
        assert_eq!(log.texts(), ["here"], "{scheme}");
    }
}

/// If the proxy does not get to the first address, it is told the next one, in the same attempt.
#[test]
fn the_proxy_is_told_one_address_after_the_other() {
    let server = Server::echo(Transport::Plain);
    let address = server.address;
    let nowhere: SocketAddr = "192.0.2.1:9".parse().expect("an address");
    for scheme in ["http://", "socks5h://", "socks5://"] {
        let proxy = start(move |number, mut client| {
            let expected = if number < 2 { nowhere } else { address };
            if scheme == "http://" {
                let target = client.read_head().remove(0);
                assert_eq!(target, format!("CONNECT {expected} HTTP/1.1"));
                if number < 2 {
                    client.write(b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n");
                    return client.drain();
                }
                client.write(ESTABLISHED);
            } else {
                client.expect_methods(&[0]);
                client.write(&[5, 0]);
                assert_eq!(client.read_target(), expected.to_string());
                if number == 0 {
                    client.write(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]);
                    return client.drain();
                }
                if number == 1 {
                    // Some just end.
                    return client.end();
                }
                client.write(SUCCEEDED);
            }
            client.relay(address);
        });
        let request = request_through(named(&proxy, scheme));
        let addresses = [nowhere, nowhere, address];
        let request = request.connect_to(addresses).expect("addresses");
        let mut rig = Rig::new();
        let recorder = Recorder::new().close_after(1);
        let log = rig.connect(request, recorder.open(|cx, _| Ok(cx.send_text("here")?)));
        rig.run();
        let open = Call::Open {
            epoch: 1,
            attempts: 1,
        };
        assert_eq!(log.calls()[0], open, "{scheme}");
        assert_eq!(log.texts(), ["here"], "{scheme}");
    }
}

/// A proxy that answers before it is asked breaks the order, but what it is told stays in front of
/// what the server is told.
#[test]
fn a_hasty_proxy() {
    for &transport in Transport::ALL {
        let server = Server::echo(transport);
        let address = server.address;
        let proxy = start(move |_, mut client| {
            client.expect_methods(&[0]);
            client.write(&[&[5, 0], SUCCEEDED].concat());
            client.read_target();
            client.relay(address);
        });
        check_echo(&server, &server.url(), named(&proxy, "socks5h://"));
    }
}

/// Each attempt asks the proxy anew.
#[test]
fn reconnects_through_the_proxy() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.text("hello");
        peer.end();
        peer.drain();
    });
    let address = server.address;
    let proxy = start(move |number, mut client| {
        open_http(&mut client, "feed.invalid:80");
        // The second attempt fails behind the proxy.
        if number == 1 {
            client.end();
        } else {
            client.relay(address);
        }
    });
    let mut rig = Rig::new();
    let request = request_through(named(&proxy, "http://"));
    let request = request.reconnect(ReconnectPolicy::fixed(SHORT));
    let recorder = Recorder::new().disconnect(|_, lost| match lost.epoch {
        3 => Reconnect::Never,
        _ => Reconnect::ByPolicy,
    });
    let log = rig.connect(request, recorder);
    rig.run();
    assert_eq!(log.texts(), ["hello", "hello", "hello"]);
    assert_eq!(rig.traced(Kind::ProxyConnected), 4);
    let lost = log.lost();
    let attempts: Vec<_> = lost.iter().map(|lost| (lost.attempt, lost.epoch)).collect();
    assert_eq!(attempts, [(0, 1), (1, 1), (0, 2), (0, 3)]);
}

// ---- credentials ----

#[test]
fn credentials_are_sent_and_never_shown() {
    let server = Server::echo(Transport::Plain);
    let address = server.address;
    let proxy = start(move |number, mut client| {
        if number == 0 {
            let head = client.read_head();
            // "alice:open sesame" in base64.
            let login = "Proxy-Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=";
            assert_eq!(head[2..], [login]);
            client.write(ESTABLISHED);
        } else {
            client.expect_methods(&[0, 2]);
            client.trickle(&[5, 2]);
            let login = client.read_login();
            assert_eq!(login, ("alice".into(), "open sesame".into()));
            client.trickle(&[1, 0]);
            client.read_target();
            client.write(SUCCEEDED);
        }
        client.relay(address);
    });
    for scheme in ["http", "socks5h"] {
        let scheme = format!("{scheme}://alice:open%20sesame@");
        let request = request_through(named(&proxy, &scheme));
        let mut shown = format!("{request:?}");
        let mut rig = Rig::new();
        let recorder = Recorder::new().close_after(1);
        let log = rig.connect(request, recorder.open(|cx, _| Ok(cx.send_text("in")?)));
        rig.run();
        assert_eq!(log.texts(), ["in"]);
        shown += &rig.dbg_lines().join("\n");
        assert!(shown.contains(&proxy.address.to_string()), "{shown}");
        for secret in ["alice", "sesame", "YWxpY2U6"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
}

/// The server gets none of the proxy's credentials.
#[test]
fn the_server_does_not_see_the_login() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        let request = peer.accept();
        let private =
            |(name, _): &(&str, &str)| name.to_ascii_lowercase().contains("authorization");
        assert_eq!(request.headers().iter().find(private), None);
        peer.text("hello");
        peer.answer_close(1000);
    });
    let address = server.address;
    let proxy = start(move |_, mut client| {
        assert_eq!(client.read_head().len(), 3);
        client.write(ESTABLISHED);
        client.relay(address);
    });
    let mut rig = Rig::new();
    let request = request_through(named(&proxy, "http://alice:secret@"));
    let log = rig.connect(request, Recorder::new().close_after(1));
    rig.run();
    assert_eq!(log.texts(), ["hello"]);
}

// ---- refusals ----

#[test]
fn an_http_proxy_wants_credentials() {
    let error = proxy_error("http://", |mut client| {
        client.read_head();
        client.trickle(
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\
              Proxy-Authenticate: Basic realm=\"gate\"\r\nContent-Length: 4\r\n\r\nno\r\n",
        );
        client.end();
    });
    let ProxyError::AuthenticationRequired(refusal) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(refusal.status, 407);
    let scheme = refusal.headers.first("proxy-authenticate");
    assert_eq!(scheme, Some("Basic realm=\"gate\""));
}

#[test]
fn an_http_proxy_refuses() {
    for status in [101, 302, 403, 502, 503] {
        let error = proxy_error("http://", move |mut client| {
            client.read_head();
            client.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
            client.write(format!("HTTP/1.1 {status} No\r\n\r\n").as_bytes());
            client.expect_end();
        });
        match error {
            ProxyError::Refused(refusal) => assert_eq!(refusal.status, status),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_socks_proxy_refuses_with_a_reason() {
    let reasons = [
        (1, SocksReply::GeneralFailure),
        (2, SocksReply::NotAllowed),
        (3, SocksReply::NetworkUnreachable),
        (4, SocksReply::HostUnreachable),
        (5, SocksReply::ConnectionRefused),
        (6, SocksReply::TtlExpired),
        (7, SocksReply::CommandNotSupported),
        (8, SocksReply::AddressTypeNotSupported),
        (91, SocksReply::Unassigned(91)),
    ];
    for (code, reason) in reasons {
        let error = proxy_error("socks5h://", move |mut client| {
            client.expect_methods(&[0]);
            client.write(&[5, 0]);
            client.read_target();
            client.trickle(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
            client.end();
        });
        assert_eq!(error, ProxyError::Socks(reason));
    }
}

#[test]
fn a_socks_proxy_does_not_let_the_client_in() {
    let error = proxy_error("socks5h://", |mut client| {
        client.expect_methods(&[0]);
        client.write(&[5, 0xff]);
        client.expect_end();
    });
    assert_eq!(error, ProxyError::NoAcceptableMethod);
    let error = proxy_error("socks5h://alice:wrong@", |mut client| {
        client.expect_methods(&[0, 2]);
        client.write(&[5, 2]);
        client.read_login();
        client.write(&[1, 9]);
        client.expect_end();
    });
    assert_eq!(error, ProxyError::LoginFailed { status: 9 });
}

// ---- bad proxies ----

#[test]
fn a_proxy_that_does_not_speak_the_protocol() {
    let error = proxy_error("http://", |mut client| {
        client.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
        client.end();
    });
    assert!(matches!(error, ProxyError::Malformed(_)), "{error:?}");
    let violations = [
        (&b"HTTP/1.1 400"[..], SocksViolation::Version(b'H')),
        (&[4, 0], SocksViolation::Version(4)),
        // Credentials that were not offered are not asked for.
        (&[5, 2], SocksViolation::MethodNotOffered(2)),
        (&[5, 0, 5, 0, 1], SocksViolation::Reserved(1)),
        (&[5, 0, 5, 0, 0, 2], SocksViolation::AddressType(2)),
    ];
    for (bytes, violation) in violations {
        let error = proxy_error("socks5h://", |mut client| {
            client.write(bytes);
            client.end();
        });
        assert_eq!(error, ProxyError::Misbehaved(violation));
    }
}

/// Nothing grows with what a proxy sends: neither an endless head nor endless heads.
#[test]
fn a_proxy_that_never_comes_to_the_end() {
    for line in ["X-Padding: ", "\r\nHTTP/1.1 100 Continue\r\n"] {
        let error = proxy_error("http://", move |mut client| {
            client.read_head();
            let flood = format!("HTTP/1.1 100 Continue\r\n{}", line.repeat(10_000));
            // The client may have had enough before the end.
            let _ = client.try_write(flood.as_bytes());
            client.end();
        });
        assert!(matches!(error, ProxyError::Limit(_)), "{error:?}");
    }
}

#[test]
fn a_proxy_that_ends() {
    let part = &ESTABLISHED[..20];
    let cases: [(&str, &[u8]); 4] = [
        ("http://", b""),
        ("http://", part),
        ("socks5h://", b""),
        ("socks5h://", &[5, 0, 5, 0, 0, 3, 200]),
    ];
    for (scheme, bytes) in cases {
        let error = proxy_error(scheme, |mut client| {
            client.trickle(bytes);
            client.end();
        });
        let received = bytes.len();
        assert_eq!(error, ProxyError::Incomplete { received });
    }
}

#[test]
fn a_silent_proxy() {
    let cases: [(&str, &[u8]); 4] = [
        ("http://", b""),
        ("http://", &ESTABLISHED[..ESTABLISHED.len() - 1]),
        ("socks5h://", b""),
        ("socks5h://", &[5, 0]),
    ];
    for (scheme, bytes) in cases {
        let proxy = start(move |_, mut client| {
            client.write(bytes);
            client.drain();
        });
        let request = request_through(named(&proxy, scheme)).proxy_timeout(SHORT);
        let fault = fault_of(&mut Rig::new(), request);
        assert_eq!(fault, Fault::Timeout(Stage::Proxy), "{scheme} {bytes:?}");
    }
}

/// A server does not speak before the client does. Whoever answers for it there, over `wss` or not,
/// is not believed.
#[test]
fn bytes_behind_the_answer() {
    let cases = [
        ("http://", ESTABLISHED.to_vec()),
        ("socks5h://", [&[5, 0], SUCCEEDED].concat()),
    ];
    for (scheme, answer) in cases {
        let early = [&answer[..], b"HTTP/1.1 101 Switching Protocols\r\n"].concat();
        let proxy = start(move |_, mut client| {
            client.write(&early);
            client.drain();
        });
        let request = request_through(named(&proxy, scheme));
        let mut rig = Rig::new();
        let fault = fault_of(&mut rig, request);
        assert_eq!(fault, Fault::Io(ErrorKind::InvalidData), "{scheme}");
        assert_eq!(rig.traced(Kind::ProxyConnected), 0);
    }
}

#[test]
fn a_proxy_that_is_not_there() {
    let gone = start(|_, _| {});
    let proxy = named(&gone, "http://");
    drop(gone);
    let fault = fault_of(&mut Rig::new(), request_through(proxy));
    assert_eq!(fault, Fault::Connect(ErrorKind::ConnectionRefused));
}

/// The stage has no time where there is no proxy.
#[test]
fn without_a_proxy() {
    let server = Server::echo(Transport::Plain);
    let mut rig = Rig::new();
    let (times, told) = channel();
    let recorder = Recorder::new().open(move |cx, open| {
        times.send(open.times).expect("the test waits for it");
        cx.close();
        Ok(())
    });
    rig.connect(server.request(), recorder);
    rig.run();
    let times: StageTimes = told.try_recv().expect("it was open");
    assert_eq!(times.proxy, None);
    assert_eq!(rig.traced(Kind::ProxyConnected), 0);
}
