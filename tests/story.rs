//! The flight recorder: what is told of a connection after something went wrong with it, line by line.

#[path = "api/support/mod.rs"]
#[allow(dead_code, reason = "what other tests need of it")]
#[allow(unused_imports, reason = "likewise")]
#[allow(
    clippy::cast_possible_truncation,
    clippy::unused_unit,
    reason = "small numbers; a macro"
)]
mod support;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use support::{PATIENCE, SHORT, Server, Transport, frame};
use websockex::trace::{Event, Level};
use websockex::{
    Client, Context, Disconnect, Handler, HandlerResult, Message, Open, Reactor, Reconnect,
    ReconnectPolicy, Request, Termination,
};

/// Writes the story of each disconnect down, and that of the end.
struct Teller {
    stories: Rc<RefCell<Vec<String>>>,
    close_on_text: bool,
}

impl Handler for Teller {
    fn on_open(&mut self, cx: &mut Context<'_>, _open: &Open<'_>) -> HandlerResult {
        Ok(cx.send_text("hello")?)
    }

    fn on_message(&mut self, cx: &mut Context<'_>, _message: Message<'_>) -> HandlerResult {
        if self.close_on_text {
            cx.close();
        }
        Ok(())
    }

    fn on_disconnect(&mut self, _cx: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        self.stories.borrow_mut().push(format!("{disconnect:#}"));
        Reconnect::ByPolicy
    }

    fn on_terminate(self: Box<Self>, termination: &Termination<'_>) {
        self.stories.borrow_mut().push(format!("{termination:#}"));
    }
}

/// The lines of a story without what differs between runs: times, the port, its connection's id.
fn lines(story: &str, address: SocketAddr) -> Vec<String> {
    let port = format!(":{}", address.port());
    let line = |line: &str| {
        let line = line.split(" [+").next().unwrap_or(line);
        line.replace(&port, ":PORT").replace("*DBG* peer ", "")
    };
    story.lines().map(line).collect()
}

/// Runs one connection to its end and returns the story of its disconnect and that of its end.
fn stories(request: Request, address: SocketAddr) -> (Vec<String>, Vec<String>) {
    let stories = Rc::default();
    let teller = Teller {
        stories: Rc::clone(&stories),
        close_on_text: true,
    };
    let mut reactor = Reactor::new().expect("a reactor");
    let request = request.name("peer").reconnect(ReconnectPolicy::never());
    reactor.connect(request, teller).expect("a request");
    reactor.run().expect("a run");
    let stories = stories.borrow();
    assert_eq!(stories.len(), 2, "{stories:#?}");
    (lines(&stories[0], address), lines(&stories[1], address))
}

/// Checks the story of the disconnect, and that the end's is the same one with the end.
fn check(request: Request, address: SocketAddr, reason: &str, expected: &[&str]) {
    let (disconnect, end) = stories(request, address);
    let reason = reason.to_owned();
    let expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
    assert_eq!(
        disconnect,
        [std::slice::from_ref(&reason), &expected[..]].concat()
    );
    // An event keeps the beginning of a long text.
    let kept = reason.floor_char_boundary(Event::DETAIL_CAPACITY);
    let last = match reason.len() {
        length if length > kept => format!("terminated: {}… ({length} B)", &reason[..kept]),
        _ => format!("terminated: {reason}"),
    };
    assert_eq!(end, [&[reason], &expected[..], &[last]].concat());
}

#[test]
fn a_dropped_peer() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.read_frame();
    });
    check(
        server.request().trace(Level::Frames),
        server.address,
        "the peer ended the connection without a Close frame",
        &[
            "attempting to connect to 127.0.0.1:PORT (attempt 1)",
            "opening a TCP connection to 127.0.0.1:PORT",
            "opened the TCP connection to 127.0.0.1:PORT",
            "sent the upgrade request to 127.0.0.1:PORT",
            "successfully connected (epoch 1)",
            "replying from on_open with text (5 B)",
            "sending frame: text (5 B)",
            "had the connection closed unexpectedly by the remote server",
        ],
    );
}

#[test]
fn a_refused_peer() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.reject(403, &[], b"not for you");
    });
    check(
        server.request(),
        server.address,
        "the opening handshake failed: the server answered 403 (No) instead of 101 (RFC 6455 §4.1)",
        &[
            "attempting to connect to 127.0.0.1:PORT (attempt 1)",
            "opening a TCP connection to 127.0.0.1:PORT",
            "opened the TCP connection to 127.0.0.1:PORT",
            "sent the upgrade request to 127.0.0.1:PORT",
            "failed to connect at stage upgrade (HTTP 403): the opening handshake failed: \
             the server answered 403 (No) inste… (90 B)",
        ],
    );
}

/// Whoever waits for a connection that does not open has its story by then.
#[test]
fn a_connection_that_somebody_waits_for() {
    struct Told(Sender<String>);
    impl Handler for Told {
        fn on_terminate(self: Box<Self>, termination: &Termination<'_>) {
            self.0
                .send(format!("{termination:#}"))
                .expect("it is heard");
        }
    }
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.reject(403, &[], b"not for you");
    });
    let client = Client::start().expect("a reactor");
    let (told, story) = channel();
    let request = server.request().fail_first();
    let error = client.connect(request, Told(told)).expect_err("no");
    let story = story.try_recv().expect("it is there already");
    let lines = lines(&story, server.address);
    assert_eq!(lines[0], error.to_string());
    assert!(lines[1].ends_with("attempting to connect to 127.0.0.1:PORT (attempt 1)"));
    assert!(lines[5].contains("failed to connect at stage upgrade (HTTP 403)"));
    client.shutdown().expect("an orderly end");
}

#[test]
fn a_silent_peer() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept_and_send(&frame(0x81, b"then nothing"));
        peer.drain();
    });
    // It does not answer our Close frame.
    check(
        server.request().close_timeout(SHORT).trace(Level::Payload),
        server.address,
        "closed from this side with 1000",
        &[
            "attempting to connect to 127.0.0.1:PORT (attempt 1)",
            "opening a TCP connection to 127.0.0.1:PORT",
            "opened the TCP connection to 127.0.0.1:PORT",
            "sent the upgrade request to 127.0.0.1:PORT",
            "successfully connected (epoch 1)",
            "replying from on_open with text (5 B): \"hello\"",
            "sending frame: text (5 B): \"hello\"",
            "received frame: text (12 B): \"then nothing\"",
            "closing with local reason: 1000",
            "sending close frame: 1000",
            "sending frame: close (2 B): 03e8",
            "fired close_deadline",
            "forcefully closed the connection because the server was taking too long to close.",
        ],
    );
}

/// Nobody answers our ping: the story has it, and which clock ran out.
#[test]
fn a_peer_that_is_dead() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.drain();
    });
    check(
        server
            .request()
            .ping_every(SHORT, SHORT)
            .expect("a heartbeat")
            .trace(Level::Frames),
        server.address,
        &format!("the peer is silent: no pong for {SHORT:?}"),
        &[
            "attempting to connect to 127.0.0.1:PORT (attempt 1)",
            "opening a TCP connection to 127.0.0.1:PORT",
            "opened the TCP connection to 127.0.0.1:PORT",
            "sent the upgrade request to 127.0.0.1:PORT",
            "successfully connected (epoch 1)",
            "replying from on_open with text (5 B)",
            "sending frame: text (5 B)",
            "sending frame: ping (8 B)",
            "fired pong_deadline",
        ],
    );
}

#[test]
fn a_misbehaving_peer() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        // A reserved opcode.
        peer.accept_and_send(&frame(0x83, b"what?"));
        peer.drain();
    });
    check(
        server.request(),
        server.address,
        "the peer broke the protocol: opcode 0x3 is reserved (RFC 6455 section 5.2)",
        &[
            "attempting to connect to 127.0.0.1:PORT (attempt 1)",
            "opening a TCP connection to 127.0.0.1:PORT",
            "opened the TCP connection to 127.0.0.1:PORT",
            "sent the upgrade request to 127.0.0.1:PORT",
            "successfully connected (epoch 1)",
            "closing due to error: the peer broke the protocol: opcode 0x3 is reserved \
             (RFC 6455 se… (74 B) (close code 1002)",
            "sending error close frame: 1002 \"opcode 0x3 is reserved (RFC 6455 section 5.2)\"",
        ],
    );
}

/// A neighbour that is refused again and again, and one that takes frames as fast as they come, on
/// a ring that either would fill many times over.
#[test]
fn a_busy_neighbour_pushes_no_story_out() {
    let (refusals, frames) = (200, 2000);
    let refusing = Server::start_raw(Transport::Plain, |_, stream| drop(stream));
    let blasting = Server::start(Transport::Plain, move |_, mut peer| {
        peer.accept_and_send(&frame(0x81, b"tick").repeat(frames));
        peer.drain();
    });
    let quiet = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.drain();
    });
    let mut reactor = Reactor::builder()
        .trace_capacity(64)
        .build()
        .expect("a reactor");
    let stories = [(); 3].map(|()| Rc::default());
    let mut connect = |request: Request, number: usize| {
        let teller = Teller {
            stories: Rc::clone(&stories[number]),
            close_on_text: false,
        };
        reactor.connect(request, teller).expect("a request")
    };
    connect(quiet.request().name("peer"), 0);
    let at_once = ReconnectPolicy::fixed(Duration::ZERO);
    connect(refusing.request().reconnect(at_once), 1);
    connect(blasting.request().trace(Level::Payload), 2);
    let refused: &RefCell<Vec<String>> = &stories[1];
    while refused.borrow().len() < refusals || reactor.trace().overwritten() < frames as u64 {
        reactor.turn(Some(PATIENCE)).expect("a turn");
    }
    assert!(reactor.trace().recorded() > 64 * 10);
    reactor.remote().shutdown(PATIENCE).expect("it runs");
    reactor.run().expect("a run");
    let expected = [
        "closed from this side with 1001",
        "attempting to connect to 127.0.0.1:PORT (attempt 1)",
        "opening a TCP connection to 127.0.0.1:PORT",
        "opened the TCP connection to 127.0.0.1:PORT",
        "sent the upgrade request to 127.0.0.1:PORT",
        "successfully connected (epoch 1)",
        "closing with local reason: 1001",
        "sending close frame: 1001",
    ];
    let own: &RefCell<Vec<String>> = &stories[0];
    let story = lines(&own.borrow()[0], quiet.address);
    assert_eq!(story[..expected.len()], expected);
    // And the busy one is told what it does not see any more.
    let last = refused.borrow().last().cloned().expect("a story");
    assert!(
        last.contains(" earlier events were overwritten)\n"),
        "{last}"
    );
}
