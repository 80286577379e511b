//! Those who wait for a reactor that is busy, or that ends meanwhile: each is told, and none waits for ever.

use crate::support::{LONG, PATIENCE, Recorder, SHORT, Server, Transport, Watchdog, wait_until};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;
use websockex::{
    Client, ConnectionId, DisconnectReason, Error, Reactor, Remote, Request, SendError,
    SocketOptions,
};

/// Keeps the reactor's thread in a callback until the returned end is dropped.
fn keep_busy(remote: &Remote, id: ConnectionId) -> Sender<()> {
    let (begun, begins) = channel();
    let (end, ends) = channel();
    let call = move |_: &mut dyn websockex::Handler| {
        begun.send(()).expect("the test waits for it");
        let _: Result<(), _> = ends.recv_timeout(PATIENCE);
    };
    let result = remote.with_handler(id, SHORT, call);
    assert_eq!(result, Err(SendError::TimedOut));
    begins.recv_timeout(PATIENCE).expect("it is called");
    end
}

/// So many commands wait for the reactor.
fn wait_for_commands(remote: &Remote, count: u64) {
    wait_until(|| remote.stats().queued_commands == count);
}

/// A request to a server that accepts connections and says nothing.
fn silent() -> (TcpListener, Request) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let request = Request::new(format!("ws://{address}/")).expect("a URL");
    (listener, request.handshake_timeout(LONG))
}

/// A client with an open connection to a server that sends everything back; what comes back is told.
fn client(server: &Server) -> (Client, ConnectionId, Receiver<Vec<u8>>) {
    let client = Client::start().expect("a client");
    let (told, echoes) = channel();
    let recorder = Recorder::new().message(move |_, message| {
        // Only some of the tests listen.
        let _ = told.send(message.as_bytes().to_vec());
        Ok(())
    });
    let connected = client.connect(server.request(), recorder);
    (client, connected.expect("it opens"), echoes)
}

/// What was asked is done all the same, when it has the time.
#[test]
fn who_asks_a_busy_reactor_waits_only_as_long_as_it_wants_to() {
    let _watchdog = Watchdog::start();
    let server = Server::echo(Transport::Plain);
    let (client, id, echoes) = client(&server);
    let remote = client.remote();
    let sink = remote.add_trace_sink(|_: &websockex::trace::Record| {});
    let sink = sink.expect("it runs");
    let (seen, looks) = channel();
    let busy = keep_busy(remote, id);
    let sent = remote.send_and_wait(id, "late", SHORT);
    assert_eq!(sent, Err(SendError::TimedOut));
    let events = remote.last_events(None, SHORT);
    assert_eq!(events, Err(SendError::TimedOut));
    let look = remote.with_handler(id, SHORT, move |_| seen.send(()));
    assert_eq!(look, Err(SendError::TimedOut));
    let removed = remote.remove_trace_sink(sink, SHORT);
    assert_eq!(removed, Err(SendError::TimedOut));
    drop(busy);
    assert_eq!(echoes.recv_timeout(PATIENCE).expect("an echo"), b"late");
    looks.recv_timeout(PATIENCE).expect("it has run");
    remote
        .remove_trace_sink(sink, PATIENCE)
        .expect("asking again goes on waiting");
    client.shutdown().expect("an orderly end");
}

/// No limit is given here but the reactor's own.
#[test]
fn to_connect_waits_for_a_busy_reactor_and_then_opens() {
    let _watchdog = Watchdog::start();
    let server = Server::echo(Transport::Plain);
    let (client, id, _echoes) = client(&server);
    // What `Client::connect` is; but a client is for one thread.
    let remote = client.remote();
    let busy = keep_busy(remote, id);
    thread::scope(|scope| {
        let connected = scope.spawn(|| remote.connect_blocking(server.request(), Recorder::new()));
        wait_for_commands(remote, 1);
        drop(busy);
        let second = connected.join().expect("no panic").expect("it opens");
        remote.send(second, "open").expect("it is open");
    });
    client.shutdown().expect("an orderly end");
}

/// Commands behind a shutdown, which the reactor has not got round to yet.
#[test]
fn who_asks_a_reactor_that_is_about_to_end_is_told() {
    let _watchdog = Watchdog::start();
    let server = Server::echo(Transport::Plain);
    let (_listener, unanswered) = silent();
    let (client, id, _echoes) = client(&server);
    let remote = client.remote();
    let busy = keep_busy(remote, id);
    remote.shutdown(Duration::ZERO).expect("it runs");
    let recorder = Recorder::new();
    let log = recorder.log();
    thread::scope(|scope| {
        let sent = scope.spawn(|| remote.send_and_wait(id, "late", LONG));
        let connected = scope.spawn(|| remote.connect_blocking(unanswered.name("late"), recorder));
        wait_for_commands(remote, 3);
        drop(busy);
        let sent = sent.join().expect("no panic");
        assert_eq!(sent, Err(SendError::Closing));
        let connected = connected.join().expect("no panic");
        assert_ended_here(connected);
    });
    client.shutdown().expect("an orderly end");
    // It had not begun, so there was nothing to lose.
    log.check_contract(true);
    assert_eq!(log.calls().len(), 1);
}

/// It was told that this side has ended it.
#[track_caller]
fn assert_ended_here(connected: Result<ConnectionId, Error>) {
    match connected {
        Err(Error::Ended { reason, .. }) => {
            assert!(
                matches!(*reason, DisconnectReason::Local { .. }),
                "{reason}"
            );
        }
        other => panic!("{other:?}"),
    }
}

/// Somebody waits for a server that does not answer, when another connection takes all of them with it.
#[test]
fn who_connects_is_told_when_a_linked_connection_ends_the_client() {
    let _watchdog = Watchdog::start();
    let failing = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.expect_text("fail");
        peer.end();
        peer.drain();
    });
    let (listener, unanswered) = silent();
    let client = Client::start().expect("a client");
    let linked = client.connect(failing.request().linked(), Recorder::new());
    let linked = linked.expect("it opens");
    let remote = client.remote();
    thread::scope(|scope| {
        let connected = scope.spawn(|| remote.connect_blocking(unanswered, Recorder::new()));
        // It is on its way.
        let _peer = listener.accept().expect("a connection");
        remote.send(linked, "fail").expect("it is open");
        assert_ended_here(connected.join().expect("no panic"));
    });
    let outcome = client.shutdown();
    assert!(matches!(outcome, Err(Error::Ended { .. })), "{outcome:?}");
}

/// A reactor on a thread of its own, with an open connection, that turns for as long as it is told to and
/// is dropped when the last sender is.
fn reactor(request: Request) -> (Remote, ConnectionId, Sender<()>, thread::JoinHandle<()>) {
    let (told, made) = channel();
    let (turn, turns) = channel::<()>();
    let thread = thread::spawn(move || {
        let mut reactor = Reactor::new().expect("a reactor");
        let recorder = Recorder::new();
        let log = recorder.log();
        let id = reactor.connect(request, recorder).expect("a request");
        while !log.is_open() {
            reactor.turn(Some(PATIENCE)).expect("a turn");
        }
        told.send((reactor.remote(), id)).expect("the test waits");
        for () in turns {
            reactor.turn(Some(Duration::ZERO)).expect("a turn");
        }
    });
    let (remote, id) = made.recv_timeout(PATIENCE).expect("it opens");
    (remote, id, turn, thread)
}

#[test]
fn who_waits_is_told_when_the_reactor_is_dropped_before_it_looks() {
    let _watchdog = Watchdog::start();
    let server = Server::echo(Transport::Plain);
    let (_listener, unanswered) = silent();
    let (remote, id, turn, thread) = reactor(server.request());
    thread::scope(|scope| {
        let sent = scope.spawn(|| remote.send_and_wait(id, "late", LONG));
        let events = scope.spawn(|| remote.last_events(None, LONG));
        let look = scope.spawn(|| remote.with_handler(id, LONG, |_| ()));
        let connected = scope.spawn(|| remote.connect_blocking(unanswered, Recorder::new()));
        wait_for_commands(&remote, 4);
        drop(turn);
        assert_eq!(sent.join().expect("no panic"), Err(SendError::Gone));
        assert_eq!(events.join().expect("no panic"), Err(SendError::Gone));
        assert_eq!(look.join().expect("no panic"), Err(SendError::Gone));
        let connected = connected.join().expect("no panic");
        assert!(matches!(connected, Err(Error::Refused(_))), "{connected:?}");
    });
    thread.join().expect("no panic");
}

/// A message that the peer does not take, and a connection that it does not answer.
#[test]
fn who_waits_is_told_when_the_reactor_is_dropped_in_the_middle() {
    let _watchdog = Watchdog::start();
    let (opened, peers) = channel();
    let server = Server::start(Transport::Plain, move |_, mut peer| {
        peer.accept();
        opened.send(peer).expect("the test waits for it");
    });
    let (listener, unanswered) = silent();
    let mut options = SocketOptions::default();
    options.send_buffer = Some(1 << 16);
    let (remote, id, turn, thread) = reactor(server.request().socket(options));
    let _peer = peers.recv_timeout(PATIENCE).expect("it is open");
    thread::scope(|scope| {
        let sent = scope.spawn(|| remote.send_and_wait(id, vec![0; 32 << 20], LONG));
        let connected = scope.spawn(|| remote.connect_blocking(unanswered, Recorder::new()));
        wait_for_commands(&remote, 2);
        let is_under_way =
            || remote.stats().queued_bytes > 0 && remote.connections().iter().count() == 2;
        wait_until(|| {
            turn.send(()).expect("it is there");
            is_under_way()
        });
        let _silent = listener.accept().expect("a connection");
        drop(turn);
        assert_eq!(sent.join().expect("no panic"), Err(SendError::Gone));
        let connected = connected.join().expect("no panic");
        assert!(matches!(connected, Err(Error::Refused(_))), "{connected:?}");
    });
    thread.join().expect("no panic");
}
