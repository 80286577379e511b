//! Redirects of the opening handshake, for requests that ask to follow them.

use crate::support::server::trusting;
use crate::support::{Call, Fault, Peer, Recorder, Rig, SHORT, Server, Transport, Why};
use std::io::{Read, Write};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use websockex::protocol::handshake::{HandshakeError, UpgradeRequest};
use websockex::{ReconnectPolicy, Request};

/// Answers with a redirect to `location`; the request came before.
fn point_to(peer: &mut Peer, status: u16, location: &str) -> UpgradeRequest {
    let request = peer.read_request();
    answer_with(peer, status, location);
    request
}

fn answer_with(peer: &mut Peer, status: u16, location: &str) {
    let answer =
        format!("HTTP/1.1 {status} No\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    // The client does not wait for more.
    let _ = peer.try_write(answer.as_bytes());
}

fn closing() -> Recorder {
    Recorder::new().open(|cx, _| {
        cx.close();
        Ok(())
    })
}

/// The status of the refusal that a connection has ended with.
#[track_caller]
fn refused(why: &Why) -> u16 {
    match why.fault() {
        Some(Fault::Handshake(HandshakeError::Rejected(rejection))) => rejection.status,
        _ => panic!("{why:?}"),
    }
}

#[test]
fn a_location_on_the_same_server_is_followed() {
    for &transport in Transport::ALL {
        for (status, location, target) in [
            (301, "/other?x=1", "/other?x=1"),
            (302, "other", "/other"),
            (303, "/", "/"),
            (307, "/a", "/a"),
            (308, "/b", "/b"),
            (307, "?token=x", "/feed?token=x"),
            (302, "", "/feed"),
            (301, "/other#there", "/other"),
        ] {
            let server = Server::start(transport, move |number, mut peer| {
                if number == 0 {
                    let request = point_to(&mut peer, status, location);
                    assert_eq!(request.target(), "/feed");
                    return;
                }
                let request = peer.accept();
                assert_eq!(request.target(), target);
                // It is the same server that the secret is for.
                let secret = request.headers().first("authorization");
                assert_eq!(secret, Some("Bearer x"));
                peer.answer_close(1000);
            });
            let request = server.request().header("Authorization", "Bearer x");
            let request = request.expect("a header").follow_redirects(1);
            let mut rig = Rig::new();
            let log = rig.connect(request, closing());
            rig.run();
            // One attempt, of which the handler sees nothing but its success.
            let open = Call::Open {
                epoch: 1,
                attempts: 1,
            };
            assert_eq!(log.calls()[0], open, "{status}");
            assert_eq!(log.only_lost().why, Why::local(1000));
        }
    }
}

/// Without being asked to, and for other codes, nothing is followed.
#[test]
fn other_refusals_are_refusals() {
    for (follow, status) in [(0, 301), (5, 300), (5, 304), (5, 401), (5, 201)] {
        let server = Server::start(Transport::Plain, move |number, mut peer| {
            assert_eq!(number, 0);
            point_to(&mut peer, status, "/other");
        });
        let mut rig = Rig::new();
        let log = rig.connect(server.request().follow_redirects(follow), closing());
        rig.run();
        assert_eq!(refused(&log.only_lost().why), status);
    }
}

/// A server that names itself in full is still the one that the URL's userinfo is for.
#[test]
fn the_same_server_in_full_gets_the_userinfo() {
    for &transport in Transport::ALL {
        let plain = matches!(transport, Transport::Plain);
        let own = if plain { "ws://" } else { "wss://" };
        let of_http = if plain { "http://" } else { "https://" };
        for before_host in [own, of_http, "//"] {
            let server = Server::start(transport, move |number, mut peer| {
                let first = number == 0;
                let request = if first {
                    peer.read_request()
                } else {
                    peer.accept()
                };
                let headers = request.headers();
                // "alice:hunter2" in Base64.
                let secret = headers.first("authorization");
                assert_eq!(secret, Some("Basic YWxpY2U6aHVudGVyMg=="), "{before_host}");
                if first {
                    let host = headers.first("host").expect("a host");
                    answer_with(&mut peer, 308, &format!("{before_host}{host}/other"));
                } else {
                    assert_eq!(request.target(), "/other");
                    peer.answer_close(1000);
                }
            });
            let url = server.url().replace("://", "://alice:hunter2@");
            let request = trusting(Request::new(url).expect("a URL"));
            let mut rig = Rig::new();
            let log = rig.connect(request.follow_redirects(1), closing());
            rig.run();
            assert_eq!(log.only_lost().why, Why::local(1000), "{before_host}");
        }
    }
}

/// What is meant for one server is not shown to another, nor is another looked for where the first
/// one was.
#[test]
fn another_server_gets_no_secrets() {
    let second = Server::start(Transport::Plain, |_, mut peer| {
        let request = peer.accept();
        let headers = request.headers();
        for secret in ["authorization", "cookie"] {
            assert_eq!(headers.first(secret), None);
        }
        assert_eq!(headers.first("x-version"), Some("2"));
        let host = headers.first("host").expect("a host");
        assert!(host.starts_with("127.0.0.1:"), "{host}");
        peer.answer_close(1000);
    });
    let location = format!("http://{}/there", second.address);
    // Credentials in headers, and then in the URL.
    for in_url in [false, true] {
        let location = location.clone();
        let first = Server::start(Transport::Plain, move |number, mut peer| {
            // Or the second server was looked for here.
            assert_eq!(number, 0);
            let request = point_to(&mut peer, 302, &location);
            assert!(request.headers().first("authorization").is_some());
        });
        let userinfo = if in_url { "alice:hunter2@" } else { "" };
        let url = format!("ws://{userinfo}feed.invalid:{}/", first.address.port());
        let mut request = trusting(Request::new(url).expect("a URL"))
            .connect_to([first.address])
            .expect("an address")
            .follow_redirects(1);
        let mut headers = vec![("X-Version", "2"), ("Cookie", "id=7")];
        if !in_url {
            headers.push(("Authorization", "Bearer x"));
        }
        for (name, value) in headers {
            request = request.header(name, value).expect("a header");
        }
        let mut rig = Rig::new();
        let log = rig.connect(request, closing());
        rig.run();
        assert_eq!(log.only_lost().why, Why::local(1000));
    }
}

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
#[test]
fn from_ws_to_wss_but_never_back() {
    let plain = Server::start(Transport::Plain, |_, _| panic!("nobody may come"));
    for location in [
        format!("ws://{}/", plain.address),
        format!("http://{}/", plain.address),
    ] {
        let secure = Server::start(Transport::Tls, move |_, mut peer| {
            point_to(&mut peer, 301, &location);
        });
        let mut rig = Rig::new();
        let log = rig.connect(secure.request().follow_redirects(9), closing());
        rig.run();
        assert_eq!(refused(&log.only_lost().why), 301);
    }
    let secure = Server::start(Transport::Tls, |_, mut peer| {
        peer.accept();
        peer.answer_close(1000);
    });
    let location = secure.url();
    let up = Server::start(Transport::Plain, move |_, mut peer| {
        point_to(&mut peer, 308, &location);
    });
    let mut rig = Rig::new();
    let log = rig.connect(up.request().follow_redirects(1), closing());
    rig.run();
    assert_eq!(log.only_lost().why, Why::local(1000));
}

#[test]
fn a_circle_is_left_at_the_limit() {
    let (told, requests) = channel();
    let server = Server::start(Transport::Plain, move |_, mut peer| {
        point_to(&mut peer, 302, "/feed");
        told.send(()).expect("the test listens");
    });
    let mut rig = Rig::new();
    let log = rig.connect(server.request().follow_redirects(3), closing());
    rig.run();
    let lost = log.only_lost();
    assert_eq!((refused(&lost.why), lost.attempt), (302, 1));
    drop(server);
    assert_eq!(requests.iter().count(), 4);
}

/// Servers that point to each other slowly do not make more time of it than one has.
#[test]
fn redirects_do_not_extend_the_time_for_the_whole() {
    let limit = SHORT * 10;
    let server = Server::start_raw(Transport::Plain, move |number, mut stream| {
        // What the client gives up in the middle of is no trouble here.
        let _ = stream.read(&mut [0; 4096]);
        if number < 2 {
            thread::sleep(limit * 3 / 4);
            let _ =
                stream.write_all(b"HTTP/1.1 302 No\r\nLocation: /\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let request = server.request().follow_redirects(9).open_timeout(limit);
    let mut rig = Rig::new();
    let log = rig.connect(request, closing());
    rig.run();
    let lost = log.only_lost();
    assert!(
        matches!(lost.why.fault(), Some(Fault::Timeout(_))),
        "{lost:?}"
    );
}

/// Where it was redirected to is no address of its own: it asks anew, each time with the full count.
#[test]
fn reconnects_begin_with_the_url_of_the_request() {
    let second = Server::start(Transport::Plain, |number, mut peer| {
        peer.accept();
        if number == 0 {
            peer.end();
            peer.drain();
        } else {
            peer.answer_close(1000);
        }
    });
    let location = format!("ws://{}/", second.address);
    let first = Server::start(Transport::Plain, move |number, mut peer| match number {
        0 | 2 => drop(point_to(&mut peer, 307, &location)),
        1 => peer.reject(503, &[], b""),
        _ => panic!("once too often"),
    });
    let recorder = Recorder::new().open(|cx, open| {
        if open.epoch == 2 {
            cx.close();
        }
        Ok(())
    });
    let policy = ReconnectPolicy::fixed(Duration::ZERO);
    let request = first.request().reconnect(policy).follow_redirects(1);
    let mut rig = Rig::new();
    let log = rig.connect(request, recorder);
    rig.run();
    let lost = log.lost();
    assert_eq!(lost.len(), 3, "{lost:?}");
    assert_eq!((&lost[0].why, refused(&lost[1].why)), (&Why::Dropped, 503));
    assert_eq!(lost[2].why, Why::local(1000));
    assert_eq!(log.opened(), 2);
}

/// A location that is none, or none for us.
#[test]
fn nonsense_is_not_followed() {
    for location in ["ftp://127.0.0.1/", "http://", "ws://a b/", "//[/", "\u{1}"] {
        let server = Server::start(Transport::Plain, move |number, mut peer| {
            assert_eq!(number, 0);
            point_to(&mut peer, 302, location);
        });
        let mut rig = Rig::new();
        let log = rig.connect(server.request().follow_redirects(2), closing());
        rig.run();
        let lost = log.only_lost();
        assert!(
            matches!(lost.why.fault(), Some(Fault::Handshake(_))),
            "{location:?}: {lost:?}"
        );
    }
}
