//! Looking at live handlers from other threads, and replacing them.

#[path = "api/support/mod.rs"]
#[allow(dead_code, reason = "what other tests need of it")]
#[allow(unused_imports, reason = "likewise")]
#[allow(
    clippy::cast_possible_truncation,
    clippy::unused_unit,
    reason = "small numbers; a macro"
)]
mod support;

use std::any::Any;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;
use support::{PATIENCE, Server, Transport};
use websockex::trace::{Event, Kind};
use websockex::{
    Client, CloseCode, Context, Handler, HandlerResult, Message, Open, Reactor, Request, SendError,
    Termination,
};

/// Does nothing.
struct Quiet;

impl Handler for Quiet {}

/// Counts messages and says what it is when it ends.
struct Counter {
    name: &'static str,
    seen: u64,
    dropped: Sender<&'static str>,
}

impl Handler for Counter {
    fn on_open(&mut self, cx: &mut Context<'_>, _open: &Open<'_>) -> HandlerResult {
        Ok(cx.send_text("one")?)
    }

    fn on_message(&mut self, cx: &mut Context<'_>, _message: Message<'_>) -> HandlerResult {
        self.seen += 1;
        if self.seen < 10 {
            cx.send_text("another")?;
        }
        Ok(())
    }

    fn on_terminate(self: Box<Self>, _termination: &Termination<'_>) {}
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _ = self.dropped.send(self.name);
    }
}

fn seen(handler: &mut dyn Handler) -> Option<u64> {
    let handler: &mut dyn Any = handler;
    Some(handler.downcast_ref::<Counter>()?.seen)
}

#[test]
fn a_handler_is_looked_at_mended_and_replaced() {
    let server = Server::echo(Transport::Plain);
    let mut reactor = Reactor::builder()
        .stay_alive(true)
        .build()
        .expect("a reactor");
    let remote = reactor.remote();
    let (dropped, drops) = channel();
    let counter = |name| Counter {
        name,
        seen: 0,
        dropped: dropped.clone(),
    };
    let first = counter("first");
    let second = counter("second");
    let id = reactor.connect(server.request(), first).expect("a request");
    let user = thread::spawn(move || {
        let look = || {
            remote
                .with_handler(id, PATIENCE, seen)
                .expect("it is there")
        };
        while look() != Some(10) {
            thread::yield_now();
        }
        remote
            .with_handler(id, PATIENCE, |handler| {
                let handler: &mut dyn Any = handler;
                handler.downcast_mut::<Counter>().expect("it is one").seen = 9;
            })
            .expect("it is there");
        remote.send(id, "mended").expect("it is open");
        let look = || {
            remote
                .with_handler(id, PATIENCE, seen)
                .expect("it is there")
        };
        while look() != Some(10) {
            thread::yield_now();
        }
        remote.replace_handler(id, second).expect("it is there");
        assert_eq!(drops.recv().expect("the first goes"), "first");
        // No `on_open` of its own, but what comes from here on.
        assert_eq!(look(), Some(0));
        remote.send(id, "hello").expect("it is open");
        while look() != Some(10) {
            thread::yield_now();
        }
        let lost = remote.with_handler(id, PATIENCE, |_| panic!("careless"));
        assert_eq!(lost, Err::<(), _>(SendError::Gone));
        assert_eq!(drops.recv().expect("its connection ends"), "second");
        assert_eq!(
            remote.with_handler(id, PATIENCE, seen),
            Err(SendError::Gone)
        );
        remote.shutdown(PATIENCE).expect("it runs");
    });
    reactor.run().expect("a run");
    user.join().expect("all went well");
    let kinds: Vec<Kind> = reactor.trace().iter().map(Event::kind).collect();
    assert!(kinds.contains(&Kind::HandlerReplaced) && kinds.contains(&Kind::HandlerPanicked));
}

#[test]
fn the_last_events_are_read_from_outside() {
    let server = Server::echo(Transport::Plain);
    let client = Client::start().expect("a reactor");
    let remote = client.remote();
    let open = || client.connect(server.request(), Quiet).expect("it opens");
    let (first, second) = (open(), open());
    let kinds = |id| {
        let events = remote.last_events(Some(id), PATIENCE).expect("it runs");
        assert!(events.iter().all(|event| event.connection() == id.into()));
        events.iter().map(Event::kind).collect::<Vec<Kind>>()
    };
    for id in [first, second] {
        let kinds = kinds(id);
        assert!(kinds.contains(&Kind::Connecting));
        assert_eq!(kinds.last(), Some(&Kind::Connected));
    }
    remote
        .close(first, CloseCode::NORMAL, "")
        .expect("it is open");
    // It has ended, and its story is still there.
    while kinds(first).last() != Some(&Kind::Terminated) {
        thread::yield_now();
    }
    let all = remote.last_events(None, PATIENCE).expect("it runs");
    assert_eq!(all.len(), kinds(first).len() + kinds(second).len());
    assert!(all.is_sorted_by_key(Event::sequence));
    client.shutdown().expect("an orderly end");
}

#[test]
fn nobody_waits_for_himself_or_for_ever() {
    struct Impatient(websockex::Remote);
    impl Handler for Impatient {
        fn on_timer(&mut self, cx: &mut Context<'_>, _: websockex::TimerId) -> HandlerResult {
            let own = self.0.with_handler(cx.id(), PATIENCE, |_| ());
            assert_eq!(own, Err(SendError::OwnThread));
            let own = self.0.last_events(None, PATIENCE);
            assert_eq!(own, Err(SendError::OwnThread));
            let _ = self.0.shutdown(Duration::ZERO);
            Ok(())
        }
        fn on_disconnect(
            &mut self,
            cx: &mut Context<'_>,
            _: &websockex::Disconnect<'_>,
        ) -> websockex::Reconnect {
            cx.set_timer(websockex::TimerId(0), Duration::ZERO);
            websockex::Reconnect::After(PATIENCE)
        }
    }
    let server = Server::start_raw(Transport::Plain, |_, stream| drop(stream));
    let mut reactor = Reactor::new().expect("a reactor");
    let handler = Impatient(reactor.remote());
    let request = Request::new(server.url()).expect("a URL");
    let id = reactor.connect(request, handler).expect("a request");
    let remote = reactor.remote();
    let waiting = thread::spawn(move || remote.with_handler(id, Duration::ZERO, |_| ()));
    // Nobody has turned the reactor meanwhile.
    let waited = waiting.join().expect("no panic");
    assert_eq!(waited, Err(SendError::TimedOut));
    reactor.run().expect("a run");
}
