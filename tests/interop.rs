//! The client against servers that other people wrote: `tests/interop/run` starts them and says in
//! the environment where they are. Without that there is nothing to test against, and each test
//! says so. What each path of a server does stands in `tests/interop/README.md`.

#![cfg(all(feature = "deflate", feature = "tls"))]

mod interop_support;

use interop_support::{Ending, Outcome, Peer, Told, json, noise, reactor, run, run_while};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use websockex::trace::Kind;
use websockex::{
    CloseCode, Compression, Context, Disconnect, Fragment, Handler, HandlerResult, Message, Open,
    OwnedMessage, Reconnect, ReconnectPolicy,
};

/// Each side of each form of the length in a frame header (RFC 6455 §5.2), and large ones.
const SIZES: [usize; 10] = [
    0,
    1,
    125,
    126,
    127,
    65_535,
    65_536,
    1_000_000,
    1 << 22,
    20_000_000,
];

/// From this size on every server compresses what it sends, if it compresses at all.
const SURELY_COMPRESSED: u64 = 2048;

fn borrow(message: &OwnedMessage) -> Message<'_> {
    match message {
        OwnedMessage::Text(text) => Message::Text(text),
        OwnedMessage::Binary(bytes) => Message::Binary(bytes),
    }
}

/// Fails without printing twenty million bytes.
fn check_same(expected: Message<'_>, got: Message<'_>) -> HandlerResult {
    if expected == got {
        return Ok(());
    }
    let kind = |message: &Message<'_>| match message {
        Message::Text(_) => "text",
        Message::Binary(_) => "binary",
    };
    let (a, b) = (expected.as_bytes(), got.as_bytes());
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    Err(format!(
        "sent {} of {} bytes, got {} of {}, the same up to {same}",
        kind(&expected),
        a.len(),
        kind(&got),
        b.len()
    )
    .into())
}

/// Sends each message, waits for its echo, and closes after the last one.
fn echo_each(
    peer: &Peer,
    path: &str,
    messages: Vec<OwnedMessage>,
    mut send: impl FnMut(&mut Context<'_>, Message<'_>) -> HandlerResult + 'static,
) -> Outcome {
    let mut next = 0;
    let count = messages.len();
    let returned = Rc::new(Cell::new(0));
    let seen = Rc::clone(&returned);
    let outcome = peer.run(
        peer.request(path),
        move |cx: &mut Context<'_>, told: Told<'_>| {
            match told {
                Told::Open(_) => {}
                Told::Message(message) => {
                    check_same(borrow(&messages[next]), message)?;
                    next += 1;
                    seen.set(next);
                }
                Told::Ping(_) | Told::Pong(_) => return Err("nobody asked for a ping".into()),
            }
            match messages.get(next) {
                Some(message) => send(cx, borrow(message))?,
                None => cx.close(),
            }
            Ok(())
        },
    );
    assert_eq!(outcome.ending, Ending::normal());
    assert_eq!(returned.get(), count);
    outcome
}

fn send_plainly(cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
    Ok(cx.send(message)?)
}

/// All frames of the messages that are large enough are compressed where deflate was agreed on,
/// and none is where it was not.
fn check_compression(peer: &Peer, outcome: &Outcome, kind: Kind) {
    for event in outcome.data_frames(kind) {
        if !peer.deflate {
            assert!(!event.compressed(), "{event:?}");
        }
    }
    let compressed = outcome.data_frames(kind).filter(|event| event.compressed());
    let plain = outcome.data_frames(kind).filter(|event| {
        // A continuation frame never has RSV1 (RFC 7692 §6.1).
        !event.compressed() && event.opcode() != 0 && event.value() >= SURELY_COMPRESSED
    });
    if peer.deflate {
        assert!(compressed.count() > 0, "no compressed frame in {kind:?}");
        assert_eq!(plain.count(), 0, "large plain frames in {kind:?}");
    }
}

#[test]
fn echoes_text_of_every_size() {
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    let texts = SIZES.map(|size| OwnedMessage::Text(json(size)));
    let outcome = echo_each(&peer, "/echo", texts.into(), send_plainly);
    check_compression(&peer, &outcome, Kind::FrameSent);
    check_compression(&peer, &outcome, Kind::FrameReceived);
    let sent = outcome
        .data_frames(Kind::FrameSent)
        .map(websockex::trace::Event::value);
    // Compressed messages are shorter on the wire, plain ones are not.
    assert_eq!(sent.max() < Some(10_000_000), peer.deflate);
}

#[test]
fn echoes_binary_of_every_size() {
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    let compressible = SIZES.map(|size| OwnedMessage::Binary(json(size).into_bytes()));
    let outcome = echo_each(&peer, "/echo", compressible.into(), send_plainly);
    check_compression(&peer, &outcome, Kind::FrameSent);
    check_compression(&peer, &outcome, Kind::FrameReceived);
}

/// Pitfall 11 with a real receiver: what does not shrink arrives whole, and is sent as it is.
#[test]
fn pitfall_11_echoes_what_does_not_compress() {
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    let incompressible = SIZES.map(|size| OwnedMessage::Binary(noise(size)));
    let outcome = echo_each(&peer, "/echo", incompressible.into(), send_plainly);
    let mut sent = outcome.data_frames(Kind::FrameSent);
    assert!(sent.all(|event| !event.compressed()));
}

/// Compression is a choice per message, whatever its size.
#[test]
fn compresses_only_what_it_is_told_to() {
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    for (compression, compressed) in [
        (Compression::Always, peer.deflate),
        (Compression::Never, false),
    ] {
        let texts = [200, 3000, 100_000].map(|size| OwnedMessage::Text(json(size)));
        let outcome = echo_each(&peer, "/echo", texts.into(), move |cx, message| {
            Ok(cx.send_with(message, compression)?)
        });
        let mut sent = outcome.data_frames(Kind::FrameSent);
        assert!(
            sent.all(|event| event.compressed() == compressed),
            "{compression:?}"
        );
    }
}

/// Sends a message in fragments of `size` bytes, a ping before each but the first.
fn send_in_fragments(cx: &mut Context<'_>, message: Message<'_>, size: usize) -> HandlerResult {
    let Message::Binary(bytes) = message else {
        return Err("text would have to be cut between characters".into());
    };
    let mut pieces = bytes.chunks(size).peekable();
    let mut fragment = Fragment::First;
    while let Some(piece) = pieces.next() {
        if fragment != Fragment::First {
            // RFC 6455 §5.4: "Control frames MAY be injected in the middle of a fragmented message."
            cx.send_ping(b"between")?;
        }
        if pieces.peek().is_none() {
            fragment = Fragment::Last;
        }
        cx.send_fragment(Message::Binary(piece), fragment)?;
        fragment = Fragment::Middle;
    }
    Ok(())
}

#[test]
fn sends_fragments() {
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    const PINGS: usize = 3 + 62;
    let messages = [(4, 1), (1_000_000, 16_000)].map(|(size, piece)| (noise(size), piece));
    let text = "one é two 市 three 🚀";
    let (mut next, mut pongs) = (0, 0);
    let outcome = peer.run(
        peer.request("/echo"),
        move |cx: &mut Context<'_>, told: Told<'_>| {
            match told {
                Told::Open(_) => {}
                Told::Ping(_) => return Err("nobody asked for a ping".into()),
                Told::Pong(payload) => {
                    assert_eq!(payload, b"between");
                    pongs += 1;
                    return Ok(());
                }
                Told::Message(message) => {
                    match messages.get(next) {
                        Some((bytes, _)) => check_same(Message::Binary(bytes), message)?,
                        None => check_same(Message::Text(text), message)?,
                    }
                    next += 1;
                }
            }
            match messages.get(next) {
                Some((bytes, piece)) => send_in_fragments(cx, Message::Binary(bytes), *piece)?,
                None if next == messages.len() => {
                    let (first, rest) = text.split_at(4);
                    cx.send_fragment(Message::Text(first), Fragment::First)?;
                    cx.send_fragment(Message::Text(""), Fragment::Middle)?;
                    cx.send_fragment(Message::Text(rest), Fragment::Last)?;
                }
                None => {
                    // Answered in order by every server: the pongs are there before the echo.
                    assert_eq!(pongs, PINGS);
                    cx.close();
                }
            }
            Ok(())
        },
    );
    assert_eq!(outcome.ending, Ending::normal());
    let sent: Vec<_> = outcome.data_frames(Kind::FrameSent).collect();
    let last = sent.iter().filter(|event| event.fin()).count();
    assert_eq!((sent.len(), last), (4 + 63 + 3, 3));
}

#[test]
fn receives_fragments() {
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    // The server cuts where it falls, inside code points, too.
    let mut messages = Vec::new();
    let mut continuations = 0;
    for size in [0, 1, 4, 5, 126, 3001, 65_537, 1_000_003_usize] {
        let piece = size.div_ceil(4).max(1);
        continuations += 2 * size.div_ceil(piece).saturating_sub(1);
        messages.push(OwnedMessage::Text(json(size)));
        messages.push(OwnedMessage::Binary(noise(size)));
    }
    let outcome = echo_each(&peer, "/fragments", messages, send_plainly);
    let received = outcome.data_frames(Kind::FrameReceived);
    let continued: Vec<_> = received.filter(|event| event.opcode() == 0).collect();
    // One server ends each message with one more, an empty one.
    assert!(continued.len() >= continuations);
    for event in continued {
        assert!(
            !event.compressed(),
            "RSV1 on a continuation frame: {event:?}"
        );
    }
    check_compression(&peer, &outcome, Kind::FrameReceived);
}

#[test]
fn receives_a_large_message() {
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    const SIZE: usize = 20_000_000;
    let mut greeted = false;
    let outcome = peer.run(
        peer.request(&format!("/big?n={SIZE}")),
        move |cx: &mut Context<'_>, told: Told<'_>| {
            match told {
                Told::Message(Message::Text(text)) if !greeted => {
                    greeted = true;
                    assert_eq!(text.len(), SIZE);
                    let alphabet = (b'a'..=b'z').cycle();
                    assert!(text.bytes().zip(alphabet).all(|(a, b)| a == b));
                    cx.send_text("still there?")?;
                }
                Told::Message(message) => {
                    check_same(Message::Text("still there?"), message)?;
                    cx.close();
                }
                _ => {}
            }
            Ok(())
        },
    );
    assert_eq!(outcome.ending, Ending::normal());
    check_compression(&peer, &outcome, Kind::FrameReceived);
}

#[test]
fn pings_both_ways() {
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    let told = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&told);
    let outcome = peer.run(
        peer.request("/ping"),
        move |cx: &mut Context<'_>, told: Told<'_>| {
            let mut log = log.borrow_mut();
            match told {
                Told::Open(_) => cx.send_ping(b"from the client")?,
                Told::Ping(payload) => {
                    log.push(format!("ping {}", payload.escape_ascii()));
                    cx.send_pong(payload)?;
                }
                Told::Pong(payload) => log.push(format!("pong {}", payload.escape_ascii())),
                Told::Message(Message::Text("pong received")) => {
                    log.push("pong received".into());
                    cx.send_text("and an echo")?;
                }
                Told::Message(message) => {
                    check_same(Message::Text("and an echo"), message)?;
                    log.push("echo".into());
                    cx.close();
                }
            }
            Ok(())
        },
    );
    assert_eq!(outcome.ending, Ending::normal());
    let mut told = told.take();
    assert_eq!(told.pop().as_deref(), Some("echo"));
    // The two pings cross each other.
    told.sort();
    assert_eq!(
        told,
        ["ping interop", "pong from the client", "pong received"]
    );
}

/// A pong is sent without anything else to send: the application only reads (pitfall 13).
#[test]
fn pitfall_13_a_pong_leaves_by_itself() {
    struct Reads(Rc<Cell<bool>>);
    impl Handler for Reads {
        fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
            self.0.set(message == Message::Text("pong received"));
            cx.close();
            Ok(())
        }
    }
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    let received = Rc::new(Cell::new(false));
    let mut reactor = reactor();
    let handler = Reads(Rc::clone(&received));
    reactor.connect(peer.request("/ping"), handler).unwrap();
    run(&mut reactor);
    assert!(received.get());
}

#[test]
fn is_closed_by_the_server() {
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    let cases = [
        (1000, "", "/close"),
        (1001, "going away", "/close?code=1001&reason=going%20away"),
        (
            1012,
            "service restart",
            "/close?code=1012&reason=service%20restart",
        ),
        (3999, "x", "/close?code=3999&reason=x"),
        (
            4999,
            "é市🚀",
            "/close?code=4999&reason=%C3%A9%E5%B8%82%F0%9F%9A%80",
        ),
    ];
    for (code, reason, path) in cases {
        // The default reason is what the server makes of none.
        let outcome = peer.run(
            peer.request(path),
            |_: &mut Context<'_>, _: Told<'_>| Ok(()),
        );
        let reason = reason.to_owned();
        assert_eq!(outcome.ending, Ending::Remote { code, reason }, "{path}");
    }
}

#[test]
fn closes_with_code_and_reason() {
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    let long = "r".repeat(123);
    for (code, reason) in [(1000, ""), (1001, "bye"), (3000, &*long), (4999, "é市🚀")] {
        let said = reason.to_owned();
        let script = move |cx: &mut Context<'_>, told: Told<'_>| {
            match told {
                Told::Open(_) => cx.send_text("last words")?,
                Told::Message(_) => cx.close_with(CloseCode::new(code), &said)?,
                Told::Ping(_) | Told::Pong(_) => {}
            }
            Ok(())
        };
        let outcome = peer.run(peer.request("/echo"), script);
        let reason = reason.to_owned();
        assert_eq!(outcome.ending, Ending::Local { code, reason });
    }
}

/// RFC 6455 §1.4: what was sent before the Close frame is still answered, and delivered.
#[test]
fn delivers_what_comes_before_the_close_is_answered() {
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    let count = Rc::new(Cell::new(0));
    let counter = Rc::clone(&count);
    let script = move |cx: &mut Context<'_>, told: Told<'_>| {
        match told {
            Told::Open(_) => {
                for number in 0..100 {
                    cx.send_text(&number.to_string())?;
                }
            }
            Told::Message(message) => {
                let number = counter.get();
                check_same(Message::Text(&number.to_string()), message)?;
                counter.set(number + 1);
                if number == 0 {
                    cx.close();
                }
            }
            Told::Ping(_) | Told::Pong(_) => {}
        }
        Ok(())
    };
    let outcome = peer.run(peer.request("/echo"), script);
    assert_eq!(outcome.ending, Ending::normal());
    assert_eq!(count.get(), 100);
}

#[test]
fn agrees_on_a_subprotocol() {
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    let offers: [&[&str]; 3] = [&["v2.feed.example"], &["first", "second"], &[]];
    for offer in offers {
        let request = offer
            .iter()
            .fold(peer.request("/subprotocol"), |request, name| {
                request.subprotocol(name).unwrap()
            });
        let expected = offer.first().copied();
        let script = move |cx: &mut Context<'_>, told: Told<'_>| {
            match told {
                Told::Open(open) => assert_eq!(open.response.subprotocol(), expected),
                Told::Message(message) => {
                    check_same(Message::Text(expected.unwrap_or_default()), message)?;
                    cx.close();
                }
                Told::Ping(_) | Told::Pong(_) => {}
            }
            Ok(())
        };
        assert_eq!(peer.run(request, script).ending, Ending::normal());
    }
}

#[test]
fn is_told_why_it_was_refused() {
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    let script = |_: &mut Context<'_>, _: Told<'_>| Err("it opened".into());
    let outcome = peer.run(peer.request("/no-such-path"), script);
    let Ending::Other(reason) = &outcome.ending else {
        panic!("{:?}", outcome.ending);
    };
    assert!(reason.contains("404"), "{reason}");
}

#[test]
fn is_dropped() {
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    let outcome = peer.run(peer.request("/drop"), |_: &mut Context<'_>, _: Told<'_>| {
        Ok(())
    });
    assert_eq!(outcome.ending, Ending::Dropped);
}

/// Dropped three times and connected again by policy, then sent elsewhere, where it works.
#[test]
fn connects_again_after_a_drop() {
    struct Persistent {
        peer: Rc<Peer>,
        log: Rc<RefCell<Vec<String>>>,
    }
    impl Handler for Persistent {
        fn on_open(&mut self, cx: &mut Context<'_>, open: &Open<'_>) -> HandlerResult {
            self.log.borrow_mut().push(format!("open {}", open.epoch));
            if open.epoch == 4 {
                cx.send_text("back again")?;
            }
            Ok(())
        }

        fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
            check_same(Message::Text("back again"), message)?;
            cx.close();
            Ok(())
        }

        fn on_disconnect(&mut self, _: &mut Context<'_>, end: &Disconnect<'_>) -> Reconnect {
            self.log.borrow_mut().push(format!("{:?}", Ending::of(end)));
            match end.epoch {
                3 => Reconnect::To(Box::new(self.peer.request("/echo"))),
                _ => Reconnect::ByPolicy,
            }
        }
    }
    let Some(peer) = Peer::from_environment() else {
        return;
    };
    let log = Rc::new(RefCell::new(Vec::new()));
    let policy = ReconnectPolicy::fixed(Duration::from_millis(1));
    let request = peer.request("/drop").reconnect(policy);
    let handler = Persistent {
        peer: Rc::new(peer),
        log: Rc::clone(&log),
    };
    let mut reactor = reactor();
    reactor.connect(request, handler).unwrap();
    run(&mut reactor);
    let last = format!("{:?}", Ending::normal());
    let dropped = "Dropped";
    assert_eq!(
        log.take(),
        [
            "open 1", dropped, "open 2", dropped, "open 3", dropped, "open 4", &last
        ]
    );
}

/// A thousand connections, all open at the same time, each echoing messages of its own.
#[test]
fn a_thousand_connections_on_one_reactor() {
    const CONNECTIONS: usize = 1000;
    const MESSAGES: usize = 5;
    /// Attempts under way at the same time: what a listener's backlog takes without dropping one,
    /// after which TCP waits a second.
    const ATTEMPTS: usize = 50;

    #[derive(Default)]
    struct Totals {
        opened: Cell<usize>,
        echoed: Cell<usize>,
        ended: RefCell<Vec<Ending>>,
    }

    struct One {
        number: usize,
        echoed: usize,
        totals: Rc<Totals>,
    }

    impl One {
        /// Some of them long enough to be compressed.
        fn message(&self) -> String {
            let mut text = json(100 * self.echoed * (1 + self.number % 10));
            text.push_str(&self.number.to_string());
            text
        }
    }

    impl Handler for One {
        fn on_open(&mut self, cx: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
            self.totals.opened.set(self.totals.opened.get() + 1);
            Ok(cx.send_text(&self.message())?)
        }

        fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
            check_same(Message::Text(&self.message()), message)?;
            self.echoed += 1;
            self.totals.echoed.set(self.totals.echoed.get() + 1);
            if self.echoed < MESSAGES {
                cx.send_text(&self.message())?;
            }
            Ok(())
        }

        fn on_disconnect(&mut self, _: &mut Context<'_>, end: &Disconnect<'_>) -> Reconnect {
            self.totals.ended.borrow_mut().push(Ending::of(end));
            Reconnect::Never
        }
    }

    let Some(peer) = Peer::from_environment() else {
        return;
    };
    let totals = Rc::new(Totals::default());
    let mut reactor = reactor();
    let mut ids = Vec::new();
    for number in 0..CONNECTIONS {
        let handler = One {
            number,
            echoed: 0,
            totals: Rc::clone(&totals),
        };
        ids.push(reactor.connect(peer.request("/echo"), handler).unwrap());
        run_while(&mut reactor, |_| {
            totals.ended.borrow().is_empty() && totals.opened.get() + ATTEMPTS <= number
        });
    }
    // None of them ends by itself, so all are open when the last echo has come.
    run_while(&mut reactor, |_| {
        totals.ended.borrow().is_empty() && totals.echoed.get() < CONNECTIONS * MESSAGES
    });
    assert_eq!(*totals.ended.borrow(), []);
    assert_eq!(reactor.connections(), CONNECTIONS);
    let remote = reactor.remote();
    for id in ids {
        remote.close(id, CloseCode::GOING_AWAY, "done").unwrap();
    }
    run(&mut reactor);
    let ended = totals.ended.take();
    assert_eq!(ended.len(), CONNECTIONS);
    let expected = Ending::Local {
        code: 1001,
        reason: "done".into(),
    };
    assert!(ended.iter().all(|end| *end == expected), "{ended:?}");
}
