//! Output at an even pace, over real sockets. How even it is the session's own tests check, in virtual
//! time; here nothing is measured.

use crate::support::{Call, Duet, LONG, PATIENCE, Recorder, Rig, SHORT, Server, Transport, Why};
use std::thread;
use std::time::Duration;
use websockex::trace::{Event, Kind};
use websockex::{CloseCode, Error, Pacer, PolicyError, Reactor};

#[test]
fn all_of_it_arrives_in_order_and_then_the_close() {
    const COUNT: usize = 12;
    for &transport in Transport::ALL {
        let server = Server::start(transport, |_, mut peer| {
            peer.accept();
            for number in 0..COUNT {
                peer.expect_text(&number.to_string());
            }
            peer.answer_close(1000);
        });
        let pacer = Pacer::with_burst(1, Duration::from_millis(1), 3).expect("a pace");
        let recorder = || {
            Recorder::new().open(|cx, _| {
                for number in 0..COUNT {
                    cx.send_text(&number.to_string())?;
                }
                assert!(cx.queued() > 0);
                cx.close();
                Ok(())
            })
        };
        let mut rig = Rig::new();
        let request = server.request().pace(pacer).close_timeout(LONG);
        let logs = [
            rig.connect(&request, recorder()),
            rig.connect(&request, recorder()),
        ];
        rig.run();
        for log in logs {
            let lost = log.only_lost();
            assert_eq!((lost.why, lost.clean), (Why::local(1000), true));
        }
    }
}

/// The pace is that of all connections together: the second one's first message waits for its turn,
/// which does not come.
#[test]
fn what_waits_is_counted_when_it_is_dropped() {
    let pacer = Pacer::new(1, LONG).expect("a pace");
    let recorder = || Recorder::new().open(|cx, _| Ok(cx.send_text("x")?));
    let mut first = Duet::open_with(Transport::Plain, recorder(), |request| {
        request.pace(pacer.clone()).close_timeout(SHORT)
    });
    first.peer.expect_text("x");
    let (mut peer, second, _server) = first.rig.open(Transport::Plain, recorder(), |request| {
        request.pace(pacer.clone()).close_timeout(SHORT)
    });
    let (remote, id) = (first.rig.reactor.remote(), second.id());
    let queued = || {
        remote
            .status(id)
            .map_or(0, |status| status.stats.queued_bytes)
    };
    first.rig.run_until(|| queued() > 0);
    // Closing does not wait for ever, and the Close frame goes ahead in the end.
    remote.close(id, CloseCode::NORMAL, "").expect("it is open");
    let answering = thread::spawn(move || peer.answer_close(1000));
    first.rig.run_until(|| second.is_terminated());
    answering.join().expect("a Close and nothing before it");
    assert_eq!(second.only_lost().why, Why::local(1000));
    let events = first.rig.reactor.trace().iter();
    let abandoned = events.filter(|event| event.kind() == Kind::Abandoned);
    assert_eq!(abandoned.map(Event::value).collect::<Vec<_>>(), [1]);
    remote
        .close(first.log.id(), CloseCode::NORMAL, "")
        .expect("open");
    first.rig.run();
}

/// A message that waits for its pace is not written, and `on_drained` comes when none waits.
#[test]
fn waiting_for_the_pace_is_waiting_to_be_written() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        for text in ["a", "b", "c"] {
            peer.expect_text(text);
        }
        peer.answer_close(1000);
    });
    let pacer = Pacer::new(1, SHORT).expect("a pace");
    let recorder = Recorder::new().open(|cx, _| {
        cx.send_text("a")?;
        Ok(cx.send_text("b")?)
    });
    let recorder = recorder.drained(|cx| {
        assert_eq!(cx.queued(), 0);
        Ok(())
    });
    let mut rig = Rig::new();
    let log = rig.connect(server.request().pace(pacer), recorder);
    rig.run_until(|| log.is_open());
    let (remote, id) = (rig.reactor.remote(), log.id());
    let waiting = remote.clone();
    let waiter = thread::spawn(move || waiting.send_and_wait(id, "c", PATIENCE));
    rig.run_until(|| waiter.is_finished());
    assert_eq!(waiter.join().expect("no panic"), Ok(()));
    rig.run_until(|| log.has(&Call::Drained));
    remote.close(id, CloseCode::NORMAL, "").expect("it is open");
    rig.run();
}

#[test]
fn a_pacer_that_cannot_work_is_refused() {
    let nothing = Pacer::new(0, SHORT);
    assert!(matches!(nothing, Err(PolicyError::Zero(_))));
    let pacer = Pacer::new(1, SHORT).expect("a pace");
    let server = Server::echo(Transport::Plain);
    let request = server.request().pace(pacer);
    let mut owner = Rig::new();
    let log = owner.connect(&request, Recorder::new());
    let mut other = Reactor::new().expect("a reactor");
    let refused = other.connect(&request, Recorder::new());
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    let refused = other.remote().connect(&request, Recorder::new());
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    assert_eq!(other.connections(), 0);
    let remote = owner.reactor.remote();
    remote
        .close(log.id(), CloseCode::NORMAL, "")
        .expect("it is there");
    owner.run();
}
