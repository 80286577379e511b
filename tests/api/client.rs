//! The blocking start, and waiting for what was sent.

use crate::support::{
    Call, Duet, Fault, LONG, PATIENCE, Recorder, Rig, SHORT, Server, Transport, Why,
    port_that_refuses, server::trusting,
};
use std::io::ErrorKind;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use websockex::{
    Client, DisconnectReason, Error, Pacer, Reactor, Reconnect, ReconnectPolicy, Request,
    SendError, SocketOptions,
};

/// A client, and what ends the process when it does not return.
fn client() -> (Client, crate::support::Watchdog) {
    (
        Client::start().expect("a reactor"),
        crate::support::Watchdog::start(),
    )
}

#[test]
fn connect_returns_when_the_connection_is_open() {
    for &transport in Transport::ALL {
        let server = Server::echo(transport);
        let (client, _watchdog) = client();
        let (told, echoes) = channel();
        let recorder = Recorder::new().message(move |_, message| {
            let bytes = message.as_bytes().to_vec();
            Ok(told.send(bytes)?)
        });
        let log = recorder.log();
        let id = client
            .connect(server.request(), recorder)
            .expect("it opens");
        // Not "perhaps soon".
        client.remote().send(id, "hello").expect("it is open");
        assert_eq!(echoes.recv_timeout(PATIENCE).expect("an echo"), b"hello");
        client.shutdown().expect("an orderly end");
        log.check_contract(true);
        assert_eq!(log.only_lost().why, Why::local(1001));
    }
}

#[test]
fn dropping_a_client_closes_its_connections() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.answer_close(1001);
    });
    let (client, _watchdog) = client();
    let recorder = Recorder::new();
    let log = recorder.log();
    client
        .connect(server.request(), recorder)
        .expect("it opens");
    drop(client);
    log.check_contract(true);
    assert!(log.only_lost().clean);
}

#[test]
fn what_fails_first_is_told_to_the_caller() {
    let (_socket, address) = port_that_refuses();
    let request = Request::new(format!("ws://{address}/")).expect("a URL");
    let (client, _watchdog) = client();
    // At once, whatever the policy; the handler is given back, and asked nothing.
    let policy = ReconnectPolicy::fixed(LONG);
    let first = trusting(request.clone()).reconnect(policy).fail_first();
    let recorder = Recorder::new();
    let log = recorder.log();
    let error = client.connect(first, recorder).expect_err("it is refused");
    let refused = Fault::Connect(ErrorKind::ConnectionRefused);
    assert_eq!(Fault::new(&error), refused);
    // The policy gives up, and before that the handler is asked.
    let never = trusting(request.clone());
    let asked = Recorder::new();
    let asked_log = asked.log();
    let error = client.connect(never, asked).expect_err("it is refused");
    assert_eq!(Fault::new(&error), refused);
    // The handler gives up, at the second attempt.
    let policy = ReconnectPolicy::fixed(Duration::ZERO);
    let again = trusting(request).reconnect(policy);
    let stubborn = Recorder::new().disconnect(|_, lost| match lost.attempt {
        1 => Reconnect::ByPolicy,
        _ => Reconnect::Never,
    });
    let stubborn_log = stubborn.log();
    let error = client.connect(again, stubborn).expect_err("it is refused");
    assert_eq!(Fault::new(&error), refused);
    // What is wrong before any I/O.
    let error = client.connect("no url", Recorder::new());
    assert!(matches!(error, Err(Error::Url(_))), "{error:?}");
    client.shutdown().expect("an orderly end");
    for (log, asked) in [(log, 0), (asked_log, 1), (stubborn_log, 2)] {
        log.check_contract(true);
        assert_eq!(log.lost().len(), asked);
    }
}

/// Only the first attempt is the caller's; later ones are the handler's as ever.
#[test]
fn fail_first_is_over_once_the_connection_was_open() {
    let server = Server::start(Transport::Plain, |number, mut peer| match number {
        0 => {
            peer.accept();
            peer.end();
            peer.drain();
        }
        1 => peer.reject(503, &[], b""),
        _ => {
            peer.accept();
            peer.answer_close(1000);
        }
    });
    let recorder = Recorder::new().open(|cx, open| {
        if open.epoch == 2 {
            cx.close();
        }
        Ok(())
    });
    let policy = ReconnectPolicy::fixed(Duration::ZERO);
    let request = server.request().reconnect(policy).fail_first();
    let mut rig = Rig::new();
    let log = rig.connect(request, recorder);
    rig.run();
    assert_eq!((log.opened(), log.lost().len()), (2, 3));
}

/// It would wait for itself.
#[test]
fn the_reactors_own_thread_does_not_wait_for_it() {
    let server = Server::echo(Transport::Plain);
    let (client, _watchdog) = client();
    let (remote, request) = (client.remote().clone(), server.request());
    let (told, results) = channel();
    let recorder = Recorder::new().open(move |cx, _| {
        let connected = remote.connect_blocking(&request, Recorder::new());
        let sent = remote.send_and_wait(cx.id(), "x", LONG);
        Ok(told.send((connected, sent))?)
    });
    client
        .connect(server.request(), recorder)
        .expect("it opens");
    let (connected, sent) = results.recv_timeout(PATIENCE).expect("a result");
    assert!(matches!(connected, Err(Error::Refused(_))), "{connected:?}");
    assert_eq!(sent, Err(SendError::OwnThread));
    client.shutdown().expect("an orderly end");
}

/// Nor between two turns, when there is nobody else who would do it.
#[test]
fn a_reactor_that_does_not_turn_is_not_waited_for() {
    let server = Server::echo(Transport::Plain);
    let mut reactor = Reactor::new().expect("a reactor");
    let remote = reactor.remote();
    let connected = remote.connect_blocking(server.request(), Recorder::new());
    assert!(matches!(connected, Err(Error::Refused(_))), "{connected:?}");
    let events = remote.last_events(None, LONG);
    assert_eq!(events, Err(SendError::OwnThread));
    reactor.run().expect("there is nothing to do");
}

/// A handler that owns its client: dropping that does not wait for the thread which it is on.
#[test]
fn a_client_dropped_by_its_own_handler_ends() {
    let server = Server::echo(Transport::Plain);
    let (client, _watchdog) = client();
    let (given, owned) = channel::<Client>();
    let (told, dropped) = channel();
    let remote = client.remote().clone();
    let recorder = Recorder::new().message(move |_, _| {
        drop(owned.recv().expect("the client"));
        Ok(told.send(())?)
    });
    let id = client
        .connect(server.request(), recorder)
        .expect("it opens");
    given.send(client).expect("the handler is there");
    remote.send(id, "drop it").expect("it is open");
    dropped.recv_timeout(PATIENCE).expect("it was dropped");
    crate::support::wait_until(|| remote.send(id, "x") == Err(SendError::Gone));
}

#[test]
fn nothing_is_left_of_a_reactor_that_was_dropped() {
    let server = Server::echo(Transport::Plain);
    let mut rig = Rig::new();
    let request = server.request().name("feed");
    let log = rig.connect(&request, Recorder::new());
    rig.run_until(|| log.is_open());
    let remote = rig.reactor.remote();
    assert!(remote.status(log.id()).is_some());
    drop(rig);
    assert!(remote.status(log.id()).is_none());
    assert_eq!(remote.find("feed"), None);
    assert_eq!(remote.connections().iter().count(), 0);
}

/// The end of a linked connection ends them all, in an orderly way, however many fail with it.
#[test]
fn a_linked_connection_ends_the_client() {
    let failing = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        // All of them at the same time, when the test says so.
        peer.expect_text("fail");
        peer.end();
        peer.drain();
    });
    let patient = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.answer_close(1001);
    });
    let (client, _watchdog) = client();
    let survivor = Recorder::new();
    let log = survivor.log();
    client
        .connect(patient.request(), survivor)
        .expect("it opens");
    let ids: Vec<_> = (0..3)
        .map(|_| {
            let request = failing.request().linked();
            client.connect(request, Recorder::new()).expect("it opens")
        })
        .collect();
    for id in ids {
        // The first to fail may have ended the others by now.
        let _ = client.remote().send(id, "fail");
    }
    crate::support::wait_until(|| log.is_terminated());
    match client.shutdown() {
        Err(Error::Ended { reason, .. }) => {
            assert!(matches!(*reason, DisconnectReason::Dropped), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    log.check_contract(true);
    assert_eq!(log.only_lost().why, Why::local(1001));
}

// ---- after the end ----

/// A reactor that was shut down and is still there is as good as gone.
#[test]
fn after_a_shutdown_every_command_is_refused() {
    let server = Server::echo(Transport::Plain);
    // Run to its end, and turned to its end.
    for by_turns in [false, true] {
        let mut rig = Rig::with(Reactor::builder().stay_alive(true));
        let log = rig.connect(server.request(), Recorder::new());
        rig.run_until(|| log.is_open());
        let remote = rig.reactor.remote();
        remote.shutdown(LONG).expect("it runs");
        if by_turns {
            rig.run();
        } else {
            rig.reactor.run().expect("it ends");
        }
        let id = log.id();
        assert_eq!(remote.shutdown(LONG), Err(SendError::Gone));
        assert_eq!(remote.send(id, "x"), Err(SendError::Gone));
        assert_eq!(remote.pause_reading(id), Err(SendError::Gone));
        assert_eq!(remote.resume_reading(id), Err(SendError::Gone));
        for result in [
            remote.connect(server.request(), Recorder::new()),
            remote.connect_blocking(server.request().name("late"), Recorder::new()),
        ] {
            assert!(matches!(result, Err(Error::Refused(_))), "{result:?}");
        }
        // No slot is taken, and no name.
        assert_eq!(rig.reactor.connections(), 0);
        assert_eq!(remote.find("late"), None);
        rig.reactor.run().expect("there is nothing to do");
    }
}

// ---- waiting for what was sent ----

#[test]
fn send_and_wait_returns_when_all_is_written() {
    for &transport in Transport::ALL {
        let duet = Duet::open(transport, Recorder::new());
        let Duet {
            mut peer,
            mut rig,
            log,
            ..
        } = duet;
        let (remote, id) = (rig.reactor.remote(), log.id());
        let reader = thread::spawn(move || {
            peer.expect(2, &vec![7; 8 << 20]);
            peer.expect_text("small");
            peer.answer_close(1000);
        });
        let user = thread::spawn(move || {
            let large = remote.send_and_wait(id, vec![7; 8 << 20], PATIENCE);
            let small = remote.send_and_wait(id, "small", PATIENCE);
            let code = websockex::CloseCode::NORMAL;
            remote.close(id, code, "").expect("it is open");
            (large, small)
        });
        rig.run();
        assert_eq!(user.join().expect("no panic"), (Ok(()), Ok(())));
        reader.join().expect("all came");
    }
}

/// A peer that does not read takes nothing; and when it goes, whoever still waits is told.
#[test]
fn send_and_wait_does_not_wait_for_ever() {
    let mut options = SocketOptions::default();
    options.send_buffer = Some(1 << 16);
    let duet = Duet::open_with(Transport::Plain, Recorder::new(), |request| {
        request.socket(options)
    });
    let Duet {
        peer, mut rig, log, ..
    } = duet;
    let (remote, id) = (rig.reactor.remote(), log.id());
    let (told, timed_out) = channel();
    let first = remote.clone();
    let user = thread::spawn(move || {
        let result = first.send_and_wait(id, vec![0; 32 << 20], SHORT);
        told.send(result).expect("the test listens");
        first.send_and_wait(id, "behind it", LONG)
    });
    let mut result = None;
    rig.run_until(|| {
        result = timed_out.try_recv().ok();
        result.is_some()
    });
    assert_eq!(result, Some(Err(SendError::TimedOut)));
    peer.reset();
    rig.run();
    let waited = user.join().expect("no panic");
    assert_eq!(waited, Err(SendError::Gone));
    assert_eq!(remote.send_and_wait(id, "x", LONG), Err(SendError::Gone));
}

/// A message that waits for its pace is dropped when the peer closes. It was not written.
#[test]
fn send_and_wait_for_a_message_that_is_dropped() {
    for &transport in Transport::ALL {
        let pacer = Pacer::new(1, LONG).expect("a pace");
        let recorder = Recorder::new().open(|cx, _| Ok(cx.send_text("first")?));
        let mut duet = Duet::open_with(transport, recorder, |request| request.pace(pacer));
        duet.peer.expect_text("first");
        let (remote, id) = (duet.rig.reactor.remote(), duet.log.id());
        let watching = remote.clone();
        let user = thread::spawn(move || remote.send_and_wait(id, "second", LONG));
        let waits = || {
            watching
                .status(id)
                .is_some_and(|status| status.stats.queued_bytes > 0)
        };
        duet.rig.run_until(waits);
        let mut peer = duet.peer;
        peer.close(1000, "");
        let answer = thread::spawn(move || peer.expect_close(1000));
        duet.rig.run();
        answer.join().expect("an answer and nothing before it");
        assert_eq!(user.join().expect("no panic"), Err(SendError::Gone));
    }
}

#[test]
fn send_and_wait_on_what_is_not_open() {
    let (_socket, address) = port_that_refuses();
    let request = Request::new(format!("ws://{address}/")).expect("a URL");
    let request = trusting(request).reconnect(ReconnectPolicy::fixed(LONG));
    let mut rig = Rig::new();
    let log = rig.connect(request, Recorder::new());
    rig.run_until(|| log.lost().len() == 1);
    let remote = rig.reactor.remote();
    let result = remote.send_and_wait(log.id(), "x", LONG);
    assert_eq!(result, Err(SendError::NotOpen));
    remote.shutdown(Duration::ZERO).expect("it runs");
    rig.run();
    let end = log.count(|call| matches!(call, Call::Terminate { .. }));
    assert_eq!(end, 1);
}
