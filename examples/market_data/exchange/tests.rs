//! The exchange against a client that is not ours.

use super::{Exchange, Settings};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

const SUBSCRIBE: &str = r#"{"method":"SUBSCRIBE","params":["btcusdt@trade","btcusdt@depth","ethusdt@bookTicker"],"id":7}"#;
const SETTINGS: Settings = Settings {
    tls: false,
    rate: 20_000.0,
    seed: 1,
};

fn connect(exchange: &Exchange) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(exchange.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    tungstenite::client(exchange.url(), stream).unwrap().0
}

fn number(text: &str, name: &str) -> u64 {
    let (_, rest) = text.split_once(&format!("\"{name}\":")).unwrap();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
    rest[..end].parse().unwrap()
}

/// Reads `count` messages and checks that every stream's numbers follow one another from the start.
fn check_feed<S: Read + Write>(socket: &mut WebSocket<S>, exchange: &Exchange, count: usize) {
    let mut next = std::collections::HashMap::new();
    let mut last_sent_ns = 0;
    for _ in 0..count {
        let message = socket.read().unwrap();
        let text = message.to_text().unwrap();
        let stream = text.split('"').nth(3).unwrap().to_owned();
        let (first, last) = match stream.split_once('@').unwrap().1 {
            "trade" => (number(text, "t"), number(text, "t")),
            "bookTicker" => (number(text, "u"), number(text, "u")),
            "depth" => (number(text, "U"), number(text, "u")),
            other => panic!("{other}"),
        };
        let expected = next.entry(stream).or_insert(super::format::FIRST_SEQUENCE);
        assert_eq!(first, *expected);
        assert!(last >= first);
        *expected = last + 1;
        let sent_ns = number(text, "sent_ns");
        assert!(last_sent_ns <= sent_ns && sent_ns <= exchange.clock().now_ns());
        last_sent_ns = sent_ns;
    }
    assert_eq!(next.len(), 3);
}

#[test]
fn publishes_what_was_subscribed_to_once_the_market_is_open() {
    let exchange = Exchange::start(SETTINGS).unwrap();
    let mut socket = connect(&exchange);
    socket.send(Message::text(SUBSCRIBE)).unwrap();
    assert_eq!(
        socket.read().unwrap().to_text().unwrap(),
        r#"{"result":null,"id":7}"#
    );
    socket.send(Message::Ping("are you there".into())).unwrap();
    assert_eq!(
        socket.read().unwrap(),
        Message::Pong("are you there".into())
    );
    assert_eq!(exchange.report().published, 0);

    exchange.ring_opening_bell().unwrap();
    check_feed(&mut socket, &exchange, 5_000);
    exchange.ring_closing_bell().unwrap();

    let goodbye = CloseFrame {
        code: CloseCode::Normal,
        reason: "enough".into(),
    };
    socket.close(Some(goodbye)).unwrap();
    let echoed = loop {
        match socket.read().unwrap() {
            Message::Close(frame) => break frame.unwrap(),
            _ => continue,
        }
    };
    assert_eq!(echoed.code, CloseCode::Normal);
    assert!(matches!(
        socket.read(),
        Err(tungstenite::Error::ConnectionClosed)
    ));
    exchange.stop().unwrap();
}

#[test]
fn speaks_tls_with_a_certificate_that_its_authority_proves() {
    let exchange = Exchange::start(Settings {
        tls: true,
        ..SETTINGS
    })
    .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let pem = exchange.certificate_authority_pem().unwrap().as_bytes();
    let certificate = rustls::pki_types::pem::PemObject::from_pem_slice(pem).unwrap();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = exchange.address.ip().into();
    let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(exchange.address).unwrap();
    let stream = rustls::StreamOwned::new(tls, stream);
    let mut socket = tungstenite::client(exchange.url(), stream).unwrap().0;

    socket.send(Message::text(SUBSCRIBE)).unwrap();
    socket.read().unwrap();
    exchange.ring_opening_bell().unwrap();
    check_feed(&mut socket, &exchange, 5_000);
    exchange.stop().unwrap();
}

#[test]
fn refuses_what_it_does_not_understand() {
    let exchange = Exchange::start(SETTINGS).unwrap();
    let mut socket = connect(&exchange);
    let mut ask = |text: &str| {
        socket.send(Message::text(text)).unwrap();
        socket.read().unwrap().to_text().unwrap().to_owned()
    };
    assert_eq!(
        ask(r#"{"method":"SUBSCRIBE","params":["nothing@trade"],"id":1}"#),
        r#"{"error":{"code":-1121,"msg":"Invalid symbol."},"id":1}"#
    );
    assert!(ask("hello").contains("Invalid request"));
    socket.send(Message::binary(vec![1])).unwrap();
    let Message::Close(Some(frame)) = socket.read().unwrap() else {
        panic!("no Close frame");
    };
    assert_eq!(frame.code, CloseCode::Unsupported);

    let mut stream = TcpStream::connect(exchange.address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
}

/// A subscriber that does not read loses nothing: what was written to it arrives in full, and the
/// rest never got a number.
#[test]
fn holds_back_from_a_slow_subscriber_and_drops_nothing() {
    let exchange = Exchange::start(Settings {
        rate: 400_000.0,
        ..SETTINGS
    })
    .unwrap();
    let mut socket = connect(&exchange);
    socket.send(Message::text(SUBSCRIBE)).unwrap();
    socket.read().unwrap();
    exchange.ring_opening_bell().unwrap();
    let start = Instant::now();
    while exchange.report().held_back < 1_000 {
        assert!(start.elapsed() < Duration::from_secs(20), "never congested");
        std::thread::sleep(Duration::from_millis(5));
    }
    let published = usize::try_from(exchange.report().published).unwrap();
    check_feed(&mut socket, &exchange, published + 10_000);
    exchange.stop().unwrap();
}

#[test]
fn a_subscriber_that_vanishes_makes_room() {
    let exchange = Exchange::start(SETTINGS).unwrap();
    exchange.ring_opening_bell().unwrap();
    for _ in 0..3 {
        let mut socket = connect(&exchange);
        socket.send(Message::text(SUBSCRIBE)).unwrap();
        socket.read().unwrap();
        check_feed(&mut socket, &exchange, 500);
    }
    exchange.stop().unwrap();
}
