//! What follows the end of a connection for others: a restart with a fresh handler, or word to the
//! owner; and names, which no two connections have at a time.

use crate::support::{
    Call, Log, Recorder, Rig, SHORT, Server, Transport, port_that_refuses, server::trusting,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use websockex::trace::{Event, Kind};
use websockex::{
    CloseCode, DisconnectReason, Error, Reactor, Reconnect, ReconnectPolicy, Request, Restart,
    SendError, Supervision,
};

/// More restarts than any test makes, in a time that no test waits for.
const OFTEN: (u32, Duration) = (1000, crate::support::LONG);

type Factory = Box<dyn FnMut() -> Recorder>;

/// Gives each handler of a supervised connection its own log.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<Log>>>);

impl Logs {
    fn factory(&self, make: impl Fn(usize) -> Recorder + 'static) -> Factory {
        let logs = self.clone();
        Box::new(move || {
            let mut logs = logs.0.lock().expect("no panic while it is locked");
            let recorder = make(logs.len());
            logs.push(recorder.log());
            recorder
        })
    }

    fn all(&self) -> Vec<Log> {
        self.0.lock().expect("no panic while it is locked").clone()
    }

    /// How many handlers there were; each has kept to the contract.
    fn check(&self) -> usize {
        let logs = self.all();
        logs.iter().for_each(|log| log.check_contract(true));
        logs.len()
    }
}

/// What the run came to, as text.
fn ended(result: Result<(), Error>) -> (String, DisconnectReason) {
    match result {
        Err(Error::Ended { connection, reason }) => (connection, *reason),
        other => panic!("{other:?}"),
    }
}

/// A server whose connections stay open until the client closes them.
fn patient() -> Server {
    Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        let Some(frame) = peer.read_frame() else {
            return;
        };
        peer.close(u16::from_be_bytes([frame.payload[0], frame.payload[1]]), "");
        peer.drain();
    })
}

#[test]
fn a_handler_that_fails_is_followed_by_a_fresh_one() {
    let server = Server::start(Transport::Plain, |number, mut peer| {
        peer.accept_and_send(&crate::support::frame(0x81, b"x"));
        peer.answer_close(if number < 3 { 1011 } else { 1000 });
    });
    let logs = Logs::default();
    let factory = logs.factory(|number| {
        Recorder::new().message(move |cx, _| match number {
            0 => Err("no good".into()),
            1 => panic!("no good either"),
            2 => Err("nor this".into()),
            _ => {
                cx.close();
                Ok(())
            }
        })
    });
    let mut rig = Rig::new();
    let supervision = Supervision::default().intensity(OFTEN.0, OFTEN.1);
    let id = rig
        .reactor
        .supervise(server.request(), supervision, factory);
    let id = id.expect("a request");
    rig.run();
    assert_eq!(logs.check(), 4);
    for log in logs.all() {
        // Each knows nothing of the others.
        let open = Call::Open {
            epoch: 1,
            attempts: 1,
        };
        assert_eq!((log.calls()[0].clone(), log.opened()), (open, 1));
    }
    assert_eq!(rig.traced(Kind::Restarting), 3);
    let ids = rig.reactor.trace().iter().map(Event::connection);
    assert_eq!(ids.filter(|other| *other != u64::from(id)).count(), 0);
}

/// Casts are for the connection, not for one of its handlers: those that wait outlive a restart.
#[test]
fn casts_that_wait_are_for_the_next_handler() {
    let server = Server::start(Transport::Plain, |number, mut peer| {
        if number == 0 {
            peer.reject(403, &[], b"");
            return;
        }
        peer.accept();
        peer.answer_close(1000);
    });
    let logs = Logs::default();
    let factory = logs.factory(|_| {
        Recorder::new().cast(|cx| {
            cx.close();
            Ok(())
        })
    });
    let mut rig = Rig::new();
    let request = server.request().reconnect(ReconnectPolicy::never());
    let supervision = Supervision::default().intensity(OFTEN.0, OFTEN.1);
    let id = rig.reactor.supervise(request, supervision, factory);
    let id = id.expect("a request");
    let remote = rig.reactor.remote();
    for cast in ["a", "b"] {
        remote.cast(id, cast.to_owned()).expect("it is there");
    }
    rig.run();
    assert_eq!(logs.check(), 2);
    let calls = logs.all()[1].calls();
    assert_eq!(
        calls[1..3],
        [Call::Cast("a".into()), Call::Cast("b".into())]
    );
    assert_eq!(rig.traced(Kind::Abandoned), 0);
}

#[test]
fn too_many_restarts_are_the_owners_business_and_no_other_connections() {
    let failing = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.end();
        peer.drain();
    });
    let patient = patient();
    let mut rig = Rig::new();
    let survivor = rig.connect(patient.request(), Recorder::new());
    rig.run_until(|| survivor.is_open());
    let logs = Logs::default();
    let supervision = Supervision::new(Restart::OnFailure).intensity(2, crate::support::LONG);
    let request = failing.request().name("fragile");
    let factory = logs.factory(|_| Recorder::new());
    let id = rig.reactor.supervise(request, supervision, factory);
    let remote = rig.reactor.remote();
    assert_eq!(remote.find("fragile"), id.ok());
    let (name, reason) = ended(rig.reactor.run());
    assert_eq!(name, "fragile");
    assert!(matches!(reason, DisconnectReason::Dropped), "{reason}");
    assert_eq!(logs.check(), 3);
    assert_eq!(rig.traced(Kind::LimitHit), 1);
    assert_eq!(remote.find("fragile"), None);
    // Running again goes on with the other.
    assert!(survivor.is_open());
    let id = survivor.id();
    remote.close(id, CloseCode::NORMAL, "").expect("it is open");
    rig.run();
    assert!(survivor.only_lost().clean);
}

#[test]
fn never_and_always() {
    // Never: not even a failure. Always: a close from this side, too.
    for (restart, handlers) in [(Restart::Never, 1), (Restart::Always, 3)] {
        let failing = restart == Restart::Never;
        let server = Server::start(Transport::Plain, move |_, mut peer| {
            peer.accept();
            if failing {
                peer.end();
                peer.drain();
            } else {
                peer.answer_close(1000);
            }
        });
        let logs = Logs::default();
        let factory = logs.factory(move |_| {
            Recorder::new().open(move |cx, _| {
                if !failing {
                    cx.close();
                }
                Ok(())
            })
        });
        let mut rig = Rig::new();
        let supervision = Supervision::new(restart).intensity(2, crate::support::LONG);
        let id = rig
            .reactor
            .supervise(server.request(), supervision, factory);
        id.expect("a request");
        let result = rig.reactor.run();
        // Even what is no failure is too often in the end.
        assert_eq!(result.is_err(), restart == Restart::Always, "{result:?}");
        assert_eq!(logs.check(), handlers);
        assert_eq!(rig.reactor.connections(), 0);
    }
}

#[test]
fn on_failure_leaves_good_ends_alone() {
    for code in [1000, 1001] {
        let server = Server::start(Transport::Plain, move |_, mut peer| {
            peer.accept();
            peer.close(code, "");
            peer.expect_close(code);
        });
        let logs = Logs::default();
        let factory = logs.factory(|_| Recorder::new());
        let mut rig = Rig::new();
        let supervision = Supervision::default();
        let id = rig
            .reactor
            .supervise(server.request(), supervision, factory);
        id.expect("a request");
        rig.reactor.run().expect("no failure");
        assert_eq!(logs.check(), 1);
    }
}

/// A factory that panics ends what it was to restart, and its owner is told.
#[test]
fn a_factory_that_panics_takes_down_nothing_else() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.end();
        peer.drain();
    });
    let mut rig = Rig::new();
    let mut made = 0;
    let factory = move || {
        made += 1;
        assert_eq!(made, 1, "once is enough");
        Recorder::new()
    };
    let supervision = Supervision::default();
    let id = rig
        .reactor
        .supervise(server.request(), supervision, factory);
    id.expect("a request");
    let (_, reason) = ended(rig.reactor.run());
    assert!(matches!(reason, DisconnectReason::Dropped), "{reason}");
    assert_eq!(rig.reactor.connections(), 0);
    // At the first call the panic is the caller's own; nothing is left of the connection.
    let result = catch_unwind(AssertUnwindSafe(|| {
        let request = server.request().name("stillborn");
        let factory = || -> Recorder { panic!("not even once") };
        rig.reactor.supervise(request, supervision, factory)
    }));
    assert!(result.is_err());
    assert_eq!(rig.reactor.connections(), 0);
    assert_eq!(rig.reactor.remote().find("stillborn"), None);
}

/// Between two handlers the connection is not open, whatever it was before.
#[test]
fn what_is_sent_between_two_handlers_is_refused() {
    let server = Server::start(Transport::Plain, |number, mut peer| {
        if number > 0 {
            return peer.reject(503, &[], b"");
        }
        peer.accept();
        peer.end();
        peer.drain();
    });
    let logs = Logs::default();
    let factory = logs.factory(move |_| {
        Recorder::new().disconnect(move |_, lost| match lost.reason {
            // Not soon.
            DisconnectReason::ConnectFailed(_) => Reconnect::After(crate::support::LONG),
            _ => Reconnect::Never,
        })
    });
    let mut rig = Rig::new();
    let supervision = Supervision::default().intensity(1, crate::support::LONG);
    let id = rig
        .reactor
        .supervise(server.request(), supervision, factory);
    let id = id.expect("a request");
    rig.run_until(|| logs.all().get(1).is_some_and(|log| !log.lost().is_empty()));
    assert_eq!(rig.reactor.remote().send(id, "x"), Err(SendError::NotOpen));
    let remote = rig.reactor.remote();
    remote.close(id, CloseCode::NORMAL, "").expect("it waits");
    rig.run();
    assert_eq!(logs.check(), 2);
}

// ---- links ----

#[test]
fn the_end_of_a_linked_connection_ends_the_run() {
    let failing = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.close(1011, "out of order");
        peer.expect_close(1011);
    });
    let patient = patient();
    let mut rig = Rig::new();
    let survivor = rig.connect(patient.request(), Recorder::new());
    rig.run_until(|| survivor.is_open());
    let linked = rig.connect(failing.request().linked(), Recorder::new());
    let (name, reason) = ended(rig.reactor.run());
    assert_eq!(name, linked.id().to_string());
    assert!(
        matches!(reason, DisconnectReason::Remote { code: Some(code), .. } if code == 1011.into())
    );
    assert!(linked.is_terminated() && survivor.is_open());
    let remote = rig.reactor.remote();
    let id = survivor.id();
    remote.close(id, CloseCode::NORMAL, "").expect("it is open");
    rig.run();
}

/// Each of them is told, one error for each run, though they end in the same turn and nothing else
/// is left to run for.
#[test]
fn every_linked_connection_that_ends_is_told() {
    let (_socket, address) = port_that_refuses();
    let mut rig = Rig::new();
    let names = ["one", "two", "three"];
    for name in names {
        let request = Request::new(format!("ws://{address}/")).expect("a URL");
        rig.connect(trusting(request).linked().name(name), Recorder::new());
    }
    let mut told: Vec<_> = names.iter().map(|_| ended(rig.reactor.run()).0).collect();
    told.sort();
    assert_eq!(told, ["one", "three", "two"]);
    rig.reactor.run().expect("there were no more");
}

#[test]
fn a_linked_connection_that_is_closed_ends_nothing() {
    let server = patient();
    let mut rig = Rig::with(Reactor::builder());
    let recorder = Recorder::new().open(|cx, _| {
        cx.close();
        Ok(())
    });
    rig.connect(server.request().linked(), recorder);
    rig.reactor.run().expect("it was closed from this side");
}

// ---- names ----

#[test]
fn a_name_is_taken_once_and_free_again_after_the_end() {
    let server = patient();
    let mut rig = Rig::new();
    let remote = rig.reactor.remote();
    let request = server.request().name("feed");
    let log = rig.connect(&request, Recorder::new());
    assert_eq!(remote.find("feed"), Some(log.id()));
    assert_eq!(remote.find("food"), None);
    let taken =
        |result: Result<_, Error>| matches!(result, Err(Error::NameTaken(name)) if name == "feed");
    assert!(taken(rig.reactor.connect(&request, Recorder::new())));
    assert!(taken(remote.connect(&request, Recorder::new())));
    assert_eq!(rig.reactor.connections(), 1);
    rig.run_until(|| log.is_open());
    remote
        .close(log.id(), CloseCode::NORMAL, "")
        .expect("it is open");
    rig.run();
    assert_eq!(remote.find("feed"), None);
    let again = rig.connect(&request, Recorder::new());
    assert_eq!(remote.find("feed"), Some(again.id()));
    assert_ne!(again.id(), log.id());
    rig.run_until(|| again.is_open());
    remote
        .close(again.id(), CloseCode::NORMAL, "")
        .expect("it is open");
    rig.run();
}

/// Another request does not give the connection another name, nor lose the one it has.
#[test]
fn a_name_outlives_a_change_of_the_request() {
    let server = Server::start(Transport::Plain, |number, mut peer| {
        peer.accept();
        if number > 0 {
            peer.answer_close(1000);
        }
    });
    let next = server.request().name("other");
    let mut rig = Rig::new();
    let remote = rig.reactor.remote();
    let (told, found) = channel();
    let in_handler = remote.clone();
    let recorder = Recorder::new()
        .open(move |cx, open| {
            told.send((in_handler.find("feed"), in_handler.find("other")))?;
            if open.epoch == 2 {
                cx.close();
            }
            Ok(())
        })
        .disconnect(move |_, lost| match lost.epoch {
            1 => Reconnect::To(Box::new(next.clone())),
            _ => Reconnect::Never,
        });
    let log = rig.connect(server.request().name("feed"), recorder);
    rig.run();
    let found: Vec<_> = found.iter().collect();
    assert_eq!(found, [(Some(log.id()), None); 2]);
    assert_eq!((remote.find("feed"), remote.find("other")), (None, None));
}

/// Restarts keep the name, and the id.
#[test]
fn a_name_outlives_a_restart() {
    let (_socket, address) = port_that_refuses();
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let request = Request::new(format!("ws://{address}/")).expect("a URL");
    let request = trusting(request).name("feed");
    let request = request.reconnect(ReconnectPolicy::fixed(SHORT).max_attempts(2));
    let mut rig = Rig::new();
    let supervision = Supervision::default().intensity(3, crate::support::LONG);
    let id = rig.reactor.supervise(request, supervision, move || {
        let counted = Arc::clone(&counted);
        Recorder::new().disconnect(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            Reconnect::ByPolicy
        })
    });
    let id = id.expect("a request");
    let remote = rig.reactor.remote();
    while attempts.load(Ordering::Relaxed) < 5 {
        assert_eq!(remote.find("feed"), Some(id));
        rig.turn();
    }
    ended(rig.reactor.run());
    assert_eq!(attempts.load(Ordering::Relaxed), 8, "two for each handler");
    assert_eq!(remote.find("feed"), None);
}
