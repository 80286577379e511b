//! The server's addresses one after the other, through a proxy; and which proxy a redirect leads to.

use super::{Rig, SECOND};
use crate::error::{Error, ProxyError, SocksReply, Stage as ErrorStage};
use crate::session::proxy::{Environment, Proxy};
use crate::session::{Inbound, Stage, Step};
use std::net::SocketAddr;
use std::sync::Arc;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A connection through a SOCKS proxy to a server with three addresses.
fn rig() -> Rig {
    Rig::new(|options| {
        let proxy = Proxy::parse("socks5://192.0.2.9:1080");
        options.proxy = Some(proxy.expect("a proxy's URL"));
        options.connect_to = ["192.0.2.1:80", "192.0.2.2:80", "[2001:db8::1]:80"]
            .map(address)
            .to_vec();
        options.timeouts.whole = SECOND * 25;
        options.timeouts.proxy = SECOND * 10;
    })
}

/// The proxy is reached, and asked.
fn ask(rig: &mut Rig, step: Option<Step>) {
    let proxy = address("192.0.2.9:1080");
    assert_eq!(step, Some(Step::Connect(proxy)));
    rig.with(|life, output| life.handle_connected(output, proxy));
    let tunnel = rig.with(|life, output| life.begin_tunnel(output));
    rig.inbound = tunnel.expect("there is a proxy");
    rig.written();
    assert_eq!(rig.life.stage, Stage::Tunnelling);
}

fn told(rig: &Rig) -> String {
    let reach = rig.life.reach.as_ref().expect("an attempt");
    reach.behind_proxy.expect("an address").to_string()
}

fn refuse(rig: &mut Rig, error: ProxyError) -> Option<Step> {
    rig.inbound = Inbound::Nobody;
    rig.with(|life, output| {
        life.fail(output, Error::Proxy(error));
        assert_eq!(life.stage, Stage::Over);
        life.retry_behind_proxy(output)
    })
}

#[test]
fn each_address_is_tried_once_with_the_families_taking_turns() {
    let mut rig = rig();
    let mut step = Some(rig.pass_to_deadline());
    for expected in ["192.0.2.1:80", "[2001:db8::1]:80", "192.0.2.2:80"] {
        ask(&mut rig, step);
        assert_eq!(told(&rig), expected);
        step = refuse(&mut rig, ProxyError::Socks(SocksReply::HostUnreachable));
    }
    assert_eq!(step, None);
    assert_eq!((rig.life.stage, rig.life.attempt), (Stage::Over, 1));
}

/// What another address would not change is not tried again.
#[test]
fn what_is_not_the_addresses_fault_ends_the_attempt() {
    for error in [
        ProxyError::NoAcceptableMethod,
        ProxyError::LoginFailed { status: 1 },
        ProxyError::Socks(SocksReply::CommandNotSupported),
    ] {
        let mut rig = rig();
        let step = rig.pass_to_deadline();
        ask(&mut rig, Some(step));
        assert_eq!(refuse(&mut rig, error), None);
    }
}

/// A proxy that waits for an address that does not answer is asked for the next one, while there is
/// time for the attempt.
#[test]
fn the_time_for_the_whole_is_not_extended() {
    let mut rig = rig();
    let mut step = Some(rig.pass_to_deadline());
    for expected in ["192.0.2.1:80", "[2001:db8::1]:80", "192.0.2.2:80"] {
        ask(&mut rig, step);
        assert_eq!(told(&rig), expected);
        rig.pass_to_deadline();
        assert_eq!(rig.life.stage, Stage::Over);
        step = rig.with(|life, output| life.retry_behind_proxy(output));
    }
    assert_eq!(step, None);
    assert_eq!(rig.now.nanoseconds(), 25_000_000_000);
    let reason = rig.life.take_reason();
    let limits = match reason.error() {
        Some(Error::Timeout { stage, limit }) => (*stage, *limit),
        other => panic!("{other:?}"),
    };
    assert_eq!(limits, (ErrorStage::Proxy, SECOND * 25));
}

/// The proxy that the environment names for the server that a redirect leads to.
#[test]
fn a_redirect_asks_the_environment_again() {
    let variables = |name: &str| match name {
        "http_proxy" => Some("http://192.0.2.9:3128".to_owned()),
        "https_proxy" => Some("ftp://192.0.2.9".to_owned()),
        "no_proxy" => Some("inside.example".to_owned()),
        _ => None,
    };
    let environment = Arc::new(Environment::read(variables));
    for (location, expected) in [
        ("http://outside.example/", Some(true)),
        ("http://inside.example/", Some(false)),
        ("/there", Some(true)),
        // What is set and cannot be used is not passed by.
        ("https://outside.example/", None),
    ] {
        let environment = Arc::clone(&environment);
        let mut rig = Rig::new(|options| {
            options.max_redirects = 1;
            options.proxy = Proxy::parse("http://192.0.2.9:3128").ok();
            options.proxy_environment = Some(environment);
        });
        let Step::Connect(proxy) = rig.pass_to_deadline() else {
            panic!("no attempt");
        };
        rig.request(proxy);
        let Inbound::Upgrading(mut handshake) =
            std::mem::replace(&mut rig.inbound, Inbound::Nobody)
        else {
            panic!("it does not upgrade");
        };
        let answer =
            format!("HTTP/1.1 307 There\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let error = handshake.receive(answer.as_bytes()).expect_err("a refusal");
        rig.with(|life, output| life.fail(output, Error::Handshake(error)));
        let followed = rig.with(|life, output| life.follow_redirect(output));
        let proxied = rig.life.target.options.proxy.is_some();
        assert_eq!(followed.then_some(proxied), expected, "{location}");
    }
}
