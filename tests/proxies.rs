//! The client through proxies that other people wrote: `tests/proxies/run` starts them and says in
//! the environment where they are. Without that there is nothing to go through, and each test says
//! so. What hostile proxies do is tested without any of this, in `tests/api/proxies.rs`.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

#[allow(
    dead_code,
    unused_imports,
    reason = "other tests share it, and need more of it"
)]
#[path = "api/support/mod.rs"]
mod support;

use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc::channel;
use support::server::trusting;
use support::{Fault, Recorder, Rig, SHORT, Server, Transport, Why};
use websockex::trace::Kind;
use websockex::{Proxy, ProxyError, Reconnect, ReconnectPolicy, Request, SocksReply};

/// A proxy under test, from the environment: an `http` or a `socks5h` URL.
struct Place(String);

impl Place {
    /// `None`, and a line that says so: there is no such proxy to test with.
    fn from_environment(variable: &str) -> Option<Self> {
        let place = std::env::var(variable).ok().map(Self);
        if place.is_none() {
            println!("skipped: {variable} is not set");
        }
        place
    }

    /// Those that ask for no credentials.
    fn open() -> impl Iterator<Item = Self> {
        let names = ["PROXY_HTTP", "PROXY_SOCKS"];
        names.into_iter().filter_map(Self::from_environment)
    }

    /// Those that do, with the right ones in their URLs.
    fn guarded() -> impl Iterator<Item = Self> {
        let names = ["PROXY_HTTP_AUTH", "PROXY_SOCKS_AUTH"];
        names.into_iter().filter_map(Self::from_environment)
    }

    fn is_http(&self) -> bool {
        self.0.starts_with("http:")
    }

    fn proxy(&self) -> Proxy {
        Proxy::parse(&self.0).expect("a proxy's URL")
    }

    /// The same place with this instead of its credentials: nothing, or what ends in `@`.
    fn with_login(&self, login: &str) -> Proxy {
        let (scheme, rest) = self.0.split_once("://").expect("a URL");
        let (_, place) = rest.rsplit_once('@').unwrap_or(("", rest));
        Proxy::parse(&format!("{scheme}://{login}{place}")).expect("a proxy's URL")
    }

    /// The same place, with names looked up on this side where the protocol can do that.
    fn resolving_here(&self) -> Proxy {
        Proxy::parse(&self.0.replace("socks5h:", "socks5:")).expect("a proxy's URL")
    }
}

/// A server that `localhost` leads to, whichever family that name means first.
fn echo_on_localhost(transport: Transport) -> (Server, String) {
    let listener = TcpListener::bind("localhost:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let scheme = match transport {
        Transport::Plain => "ws",
        Transport::Tls => "wss",
    };
    let server = Server::echo_on(listener, transport);
    (server, format!("{scheme}://localhost:{port}/feed"))
}

fn request(url: &str, proxy: Proxy) -> Request {
    trusting(Request::new(url).expect("a URL")).proxy(proxy)
}

/// Sends a text of each size when the echo of the one before has come, and closes after the last.
fn check_echo(request: Request, sizes: &'static [usize]) {
    let text = |size: &usize| "0123456789".chars().cycle().take(*size).collect::<String>();
    let mut rig = Rig::new();
    let (times, told) = channel();
    let mut left = sizes.iter().map(text);
    let first = left.next().expect("one at least");
    let recorder = Recorder::new()
        .open(move |cx, open| {
            times.send(open.times).expect("the test waits for it");
            Ok(cx.send_text(&first)?)
        })
        .message(move |cx, _| {
            match left.next() {
                Some(text) => cx.send_text(&text)?,
                None => cx.close(),
            }
            Ok(())
        });
    let log = rig.connect(request, recorder);
    rig.run();
    assert_eq!(log.only_lost().why, Why::local(1000));
    let expected: Vec<_> = sizes.iter().map(text).collect();
    assert!(log.texts() == expected, "{log:?}");
    let times = told.try_recv().expect("it was open");
    assert!(times.proxy.is_some(), "{times:?}");
    assert_eq!(rig.traced(Kind::ProxyConnected), 1);
}

/// Why there is no connection through the proxy.
fn proxy_error(request: Request) -> ProxyError {
    let mut rig = Rig::new();
    let log = rig.connect(request, Recorder::new());
    rig.run();
    match log.only_lost().why {
        Why::ConnectFailed(Fault::Proxy(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn echoes_small_and_large_messages() {
    for place in Place::open() {
        for &transport in Transport::ALL {
            let server = Server::echo(transport);
            let request = request(&server.url(), place.proxy());
            check_echo(request, &[0, 1, 126, 65_536, 1_000_000, 10_000_000]);
        }
    }
}

/// The server is named, once for the proxy to look up, and once, with SOCKS, to be looked up here.
#[test]
fn reaches_a_server_by_name() {
    for place in Place::open() {
        for &transport in Transport::ALL {
            let (_server, url) = echo_on_localhost(transport);
            check_echo(request(&url, place.proxy()), &[1]);
            check_echo(request(&url, place.resolving_here()), &[1]);
        }
    }
}

#[test]
fn logs_in() {
    for place in Place::guarded() {
        for &transport in Transport::ALL {
            let server = Server::echo(transport);
            check_echo(request(&server.url(), place.proxy()), &[1, 100_000]);
        }
    }
}

#[test]
fn is_not_let_in_without_the_right_credentials() {
    for place in Place::guarded() {
        let server = Server::echo(Transport::Plain);
        let error = proxy_error(request(&server.url(), place.with_login("")));
        match error {
            ProxyError::AuthenticationRequired(refusal) if place.is_http() => {
                let scheme = refusal.headers.first("proxy-authenticate");
                assert!(scheme.is_some_and(|scheme| scheme.starts_with("Basic")));
            }
            ProxyError::NoAcceptableMethod if !place.is_http() => {}
            other => panic!("{other:?}"),
        }
        let error = proxy_error(request(&server.url(), place.with_login("nobody:wrong@")));
        match error {
            ProxyError::AuthenticationRequired(_) if place.is_http() => {}
            // What tinyproxy says to wrong credentials.
            ProxyError::Refused(refusal) if place.is_http() => assert_eq!(refusal.status, 401),
            ProxyError::LoginFailed { .. } if !place.is_http() => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_server_is_not_there() {
    for place in Place::open() {
        // Taken, so that nobody else listens there, but refusing.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).expect("a port");
        let address = socket.local_addr().expect("it is bound").as_socket();
        let url = format!("ws://{}/", address.expect("IPv4"));
        match proxy_error(request(&url, place.proxy())) {
            ProxyError::Refused(refusal) => assert!(refusal.status >= 500, "{refusal:?}"),
            ProxyError::Socks(reply) => assert_eq!(reply, SocksReply::ConnectionRefused),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_name_of_the_server_leads_nowhere() {
    for place in Place::open() {
        // RFC 6761 §6.4: there are no names below `invalid`.
        match proxy_error(request("ws://feed.invalid/", place.proxy())) {
            ProxyError::Refused(refusal) => assert!(refusal.status >= 500, "{refusal:?}"),
            ProxyError::Socks(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The connection breaks behind the proxy, and the next attempt leads through it again.
#[test]
fn reconnects_through_the_proxy() {
    for place in Place::open() {
        for &transport in Transport::ALL {
            let server = Server::start(transport, |number, mut peer| {
                peer.accept();
                peer.text("hello");
                if number < 2 {
                    peer.end();
                    peer.drain();
                } else {
                    peer.answer_close(1000);
                }
            });
            let request = request(&server.url(), place.proxy());
            let request = request.reconnect(ReconnectPolicy::fixed(SHORT));
            let recorder = Recorder::new().message(|cx, _| {
                if cx.epoch() == 3 {
                    cx.close();
                }
                Ok(())
            });
            let recorder = recorder.disconnect(|_, lost| match lost.epoch {
                3 => Reconnect::Never,
                _ => Reconnect::ByPolicy,
            });
            let mut rig = Rig::new();
            let log = rig.connect(request, recorder);
            rig.run();
            assert_eq!(log.texts(), ["hello"; 3]);
            assert_eq!(rig.traced(Kind::ProxyConnected), 3);
        }
    }
}

// ---- the environment ----

/// Tells the child process which URL to connect to.
const CHILD_URL: &str = "PROXIES_CHILD_URL";

/// Connects as the environment says and prints how. Not a test by itself:
/// [`takes_the_proxy_from_the_environment`] runs it in a process with an environment of its own.
#[test]
fn child_connects_as_its_environment_says() {
    let Ok(url) = std::env::var(CHILD_URL) else {
        return;
    };
    let request = trusting(Request::new(url).expect("a URL"));
    let request = request.proxy_from_environment().expect("a proxy's URL");
    let mut rig = Rig::new();
    let log = rig.connect(
        request,
        Recorder::new().open(|cx, _| {
            cx.close();
            Ok(())
        }),
    );
    rig.run();
    let way = match log.only_lost().why {
        Why::Local(Some(1000), _) if rig.traced(Kind::ProxyConnected) == 1 => "by proxy",
        Why::Local(Some(1000), _) => "directly",
        other => panic!("{other:?}"),
    };
    println!("connected {way}.");
}

/// How a process with these variables gets to `url`.
#[track_caller]
fn way_of_a_child(url: &str, variables: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().expect("a path"));
    child.args(["--exact", "child_connects_as_its_environment_says"]);
    for inherited in ["ws", "wss", "http", "https", "all", "no"] {
        child.env_remove(format!("{inherited}_proxy"));
        child.env_remove(format!("{inherited}_proxy").to_uppercase());
    }
    let child = child.arg("--nocapture").env(CHILD_URL, url);
    let output = child.envs(variables.iter().copied()).output();
    let output = output.expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    let (_, way) = told.split_once("connected ").expect("it says how");
    let (way, _) = way.split_once('.').expect("it says how");
    way.to_owned()
}

#[test]
fn takes_the_proxy_from_the_environment() {
    for place in Place::open().chain(Place::guarded()) {
        let server = Server::echo(Transport::Plain);
        let (url, proxy) = (server.url(), place.0.as_str());
        let port = format!("127.0.0.1:{}", server.address.port());
        let way = |variables: &[(&str, &str)]| way_of_a_child(&url, variables);
        assert_eq!(way(&[]), "directly");
        assert_eq!(way(&[("http_proxy", proxy)]), "by proxy");
        assert_eq!(way(&[("ALL_PROXY", proxy)]), "by proxy");
        // For other URLs, or not to be trusted.
        assert_eq!(way(&[("https_proxy", proxy)]), "directly");
        assert_eq!(way(&[("HTTP_PROXY", proxy)]), "directly");
        for exempt in ["*", "example.com, 127.0.0.0/8", "127.0.0.1", &port] {
            let variables = [("all_proxy", proxy), ("no_proxy", exempt)];
            assert_eq!(way(&variables), "directly", "{exempt}");
        }
        for other in ["example.com", "127.0.0.1:1", "10.0.0.0/8"] {
            let variables = [("all_proxy", proxy), ("NO_PROXY", other)];
            assert_eq!(way(&variables), "by proxy", "{other}");
        }
    }
}
