//! From a name to an open connection, and what can come between.

use super::super::network::Route;
use super::super::peer::End;
use super::super::server::{Dialogue, Diarist, Play, Server, Until, Welcome};
use super::super::world::World;
use super::{ADDRESS, URL, check, once};
use crate::session::policy::ReconnectPolicy;
use crate::session::proxy::Proxy;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A server that says goodbye a second after it was asked for a connection.
fn brief() -> Server {
    Server::open().then(SECOND, Play::Close(1000, String::new()))
}

const BRIEF: &str = "disconnect 0: closed by the peer with 1000";
const BRIEF_SERVER: &str = "server: close Some(1000)";

/// The whole life of a connection to [`brief`] that opens at `at`.
fn brief_life(at: u64, open: &str) -> Vec<(u64, &str)> {
    // Asked 10 ms before it is open, and 10 ms away: its Close frame comes a second after.
    let close = at + 1000;
    vec![
        (at, open),
        (close + 10, BRIEF_SERVER),
        (close + 20, BRIEF),
        (close + 20, "end"),
    ]
}

#[test]
fn a_name_that_is_not_known() {
    let expected = [
        (0, "disconnect 1: no address for nowhere.test: no such name"),
        (0, "end"),
    ];
    check(World::new(), once("ws://nowhere.test/"), &expected);
}

#[test]
fn a_slow_name_server() {
    let mut world = World::new();
    world.name("slow.test", 3 * SECOND, &["10.0.0.1"]);
    world.serve(ADDRESS, brief);
    let expected = brief_life(3040, "open 1: 10.0.0.1:80");
    check(world, once("ws://slow.test/"), &expected);
}

/// The answer comes when nobody waits for it any more.
#[test]
fn a_name_server_that_is_too_slow() {
    let mut world = World::new();
    world.name("slow.test", 5 * SECOND, &["10.0.0.1"]);
    world.serve(ADDRESS, brief);
    let request = once("ws://slow.test/").resolve_timeout(2 * SECOND);
    let expected = [
        (
            2000,
            "disconnect 1: looking up the name took longer than 2s",
        ),
        (2000, "end"),
    ];
    check(world, request, &expected);
}

/// RFC 8305 §5: the next address is tried 250 ms after one that says nothing.
#[test]
fn a_first_address_that_is_dead() {
    let mut world = World::new();
    world.name("feed.test", Duration::ZERO, &["10.0.0.9", "10.0.0.1"]);
    world.route("10.0.0.9:80", Route::Silent);
    world.serve(ADDRESS, brief);
    let expected = brief_life(290, "open 1: 10.0.0.1:80");
    check(world, once("ws://feed.test/"), &expected);
}

/// RFC 8305 §5: at once after one that refuses.
#[test]
fn a_first_address_that_refuses() {
    let mut world = World::new();
    world.name("feed.test", Duration::ZERO, &["10.0.0.9", "10.0.0.1"]);
    world.route("10.0.0.9:80", Route::Refuses);
    world.serve(ADDRESS, brief);
    let expected = brief_life(60, "open 1: 10.0.0.1:80");
    check(world, once("ws://feed.test/"), &expected);
}

#[test]
fn all_addresses_refuse() {
    let mut world = World::new();
    world.name("feed.test", Duration::ZERO, &["10.0.0.9", "10.0.0.1"]);
    world.route("10.0.0.9:80", Route::Refuses);
    world.route(ADDRESS, Route::Refuses);
    let expected = [
        (
            40,
            "disconnect 1: no connection to 10.0.0.1:80: connection refused",
        ),
        (40, "end"),
    ];
    check(world, once("ws://feed.test/"), &expected);
}

#[test]
fn no_address_answers() {
    let mut world = World::new();
    world.name("feed.test", 5 * SECOND, &["10.0.0.8", "10.0.0.9"]);
    let request = once("ws://feed.test/").connect_timeout(3 * SECOND);
    let expected = [
        (8000, "disconnect 1: connecting took longer than 3s"),
        (8000, "end"),
    ];
    check(world, request, &expected);
}

#[test]
fn a_server_that_never_answers_the_upgrade() {
    let world = World::new();
    world.serve(ADDRESS, || Server::new(Welcome::Nothing, Box::new(Diarist)));
    let request = once(URL).handshake_timeout(2 * SECOND);
    let expected = [
        (
            2020,
            "disconnect 1: the opening handshake took longer than 2s",
        ),
        (2020, "end"),
    ];
    check(world, request, &expected);
}

/// The limit of the whole attempt counts where it is the shorter one.
#[test]
fn the_whole_attempt_has_a_limit() {
    let mut world = World::new();
    world.name("feed.test", SECOND, &["10.0.0.1"]);
    world.serve(ADDRESS, || Server::new(Welcome::Nothing, Box::new(Diarist)));
    let request = once("ws://feed.test/").open_timeout(Duration::from_millis(2500));
    let expected = [
        (
            2500,
            "disconnect 1: the opening handshake took longer than 2.5s",
        ),
        (2500, "end"),
    ];
    check(world, request, &expected);
}

#[test]
fn a_refusal_that_asks_for_patience() {
    let mut world = World::new();
    let refusal = b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n";
    world.serve(ADDRESS, || {
        let welcome = Welcome::Raw(refusal.to_vec(), Some(End::Finished));
        Server::new(welcome, Box::new(Diarist))
    });
    world.at(1000, |world| world.serve(ADDRESS, brief));
    // The one attempt that may fail has failed; after the second connection nothing is left.
    let policy = ReconnectPolicy::fixed(SECOND)
        .max_attempts(2)
        .reset_after(HOUR);
    let patience = "disconnect 1: the opening handshake failed: the server answered 503 (Busy) \
                    instead of 101 (RFC 6455 §4.1); again after 3s";
    let mut expected = vec![(40, patience)];
    expected.extend(brief_life(3080, "open 1: 10.0.0.1:80"));
    check(world, once(URL).reconnect(policy), &expected);
}

#[test]
fn a_redirect_is_followed_at_once() {
    let mut world = World::new();
    world.name("other.test", Duration::from_millis(5), &["10.0.0.2"]);
    world.serve(ADDRESS, || {
        let answer =
            "HTTP/1.1 302 Found\r\nLocation: ws://other.test/\r\nContent-Length: 0\r\n\r\n";
        let welcome = Welcome::Raw(answer.into(), Some(End::Finished));
        Server::new(welcome, Box::new(Diarist))
    });
    world.serve("10.0.0.2:80", brief);
    let expected = brief_life(85, "open 1: 10.0.0.2:80");
    check(world, once(URL).follow_redirects(1), &expected);
}

const PROXY: &str = "10.0.0.7:3128";

fn through(proxy: &str, steps: &[(Until, &'static [u8])], expected: &[(u64, &str)]) {
    let world = World::new();
    let steps = steps.to_vec();
    world.serve(PROXY, move || {
        Dialogue::new(steps.clone(), Some(Box::new(brief())))
    });
    let proxy = Proxy::parse(proxy).expect("a good proxy");
    let request = once("ws://feed.test/").proxy(proxy).proxy_timeout(SECOND);
    check(world, request, expected);
}

#[test]
fn through_an_http_proxy() {
    let mut expected = vec![(30, "proxy: CONNECT feed.test:80 HTTP/1.1")];
    expected.extend(brief_life(60, "open 1: 10.0.0.7:3128"));
    let steps = &[(Until::BlankLine, &b"HTTP/1.1 200 OK\r\n\r\n"[..])];
    through("http://10.0.0.7:3128", steps, &expected);
}

#[test]
fn an_http_proxy_that_refuses() {
    let expected = [
        (30, "proxy: CONNECT feed.test:80 HTTP/1.1"),
        (
            40,
            "disconnect 1: the proxy does not open the way: the proxy answered 403 (No) to CONNECT \
             (RFC 9110 §9.3.6)",
        ),
        (40, "end"),
    ];
    let answer = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n";
    through(
        "http://10.0.0.7:3128",
        &[(Until::BlankLine, answer)],
        &expected,
    );
}

#[test]
fn a_proxy_that_says_nothing() {
    let expected = [
        (30, "proxy: CONNECT feed.test:80 HTTP/1.1"),
        (1020, "disconnect 1: asking the proxy took longer than 1s"),
        (1020, "end"),
    ];
    through(
        "http://10.0.0.7:3128",
        &[(Until::BlankLine, b"")],
        &expected,
    );
    let expected = [
        (30, "proxy: [5, 1, 0]"),
        (1020, "disconnect 1: asking the proxy took longer than 1s"),
        (1020, "end"),
    ];
    through(
        "socks5h://10.0.0.7:3128",
        &[(Until::Bytes(3), b"")],
        &expected,
    );
}

const SOCKS_GREETING: &str = "proxy: [5, 1, 0]";
/// Command, address type, the length of the name, the name, the port.
const SOCKS_REQUEST: &str = "proxy: [5, 1, 0, 3, 9, 66, 65, 65, 64, 2e, 74, 65, 73, 74, 0, 50]";

#[test]
fn through_a_socks5_proxy() {
    let mut expected = vec![(30, SOCKS_GREETING), (50, SOCKS_REQUEST)];
    expected.extend(brief_life(80, "open 1: 10.0.0.7:3128"));
    let steps = &[
        (Until::Bytes(3), &[5, 0][..]),
        (Until::Bytes(16), &[5, 0, 0, 1, 10, 0, 0, 1, 0, 80][..]),
    ];
    through("socks5h://10.0.0.7:3128", steps, &expected);
}

#[test]
fn a_socks5_proxy_that_refuses() {
    let expected = [
        (30, SOCKS_GREETING),
        (50, SOCKS_REQUEST),
        (
            60,
            "disconnect 1: the proxy does not open the way: the SOCKS proxy did not connect: \
             connection refused (RFC 1928 §6)",
        ),
        (60, "end"),
    ];
    let steps = &[
        (Until::Bytes(3), &[5, 0][..]),
        (Until::Bytes(16), &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0][..]),
    ];
    through("socks5h://10.0.0.7:3128", steps, &expected);
}
