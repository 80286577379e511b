//! When bytes arrived, as the kernel says it.

use crate::support::{Duet, Recorder, Transport, frame};
use std::sync::mpsc::{Receiver, channel};
use std::time::SystemTime;
use websockex::{Context, HandlerResult, Reconnect};

/// What a callback was called for, and the stamp it saw.
type Seen = (&'static str, Option<SystemTime>);

/// Tells what each callback sees.
fn teller() -> (Recorder, Receiver<Seen>) {
    let (told, seen) = channel();
    let tell = move |what| {
        let told = told.clone();
        move |cx: &mut Context<'_>| Ok(told.send((what, cx.received_at()))?)
    };
    let (open, message, ping) = (tell("open"), tell("message"), tell("ping"));
    let disconnect = tell("disconnect");
    let recorder = Recorder::new()
        .open(move |cx, _| open(cx))
        .message(move |cx, _| message(cx))
        .ping(move |cx, _| ping(cx))
        .disconnect(move |cx, _| {
            let told: HandlerResult = disconnect(cx);
            told.expect("the test listens");
            Reconnect::Never
        })
        .batch_end(tell("batch end"));
    (recorder, seen)
}

#[test]
fn without_the_option_there_is_none() {
    for &transport in Transport::ALL {
        let (recorder, seen) = teller();
        let mut duet = Duet::open(transport, recorder);
        duet.peer.write(&frame(0x81, b"text"));
        duet.rig.run_until(|| duet.log.messages() == 1);
        duet.peer.write(&frame(0x89, b""));
        duet.rig.run_until(|| duet.log.calls().len() == 3);
        let seen: Vec<_> = seen.try_iter().collect();
        assert!(seen.len() >= 3);
        assert!(seen.iter().all(|(_, at)| at.is_none()), "{seen:?}");
    }
}

#[cfg(target_os = "linux")]
mod on_linux {
    use super::*;
    use crate::support::{Call, Log, Rig, SHORT, Server};
    use std::time::Duration;
    use websockex::{ReceiveTimestamps, Request, SocketOptions, TimerId};

    /// How far the clock may be set while a test runs.
    const SLACK: Duration = Duration::from_secs(5);

    fn stamped(request: Request, stamps: ReceiveTimestamps) -> Request {
        let mut options = SocketOptions::default();
        options.receive_timestamps = Some(stamps);
        request.socket(options)
    }

    /// Round trips until one is stamped: the kernel begins to stamp when the first socket of the
    /// machine asks for it, and that takes it a moment.
    fn warm_up(duet: &mut Duet, seen: &Receiver<Seen>) {
        let mut sent = 0;
        let mut is_stamped = false;
        while !is_stamped {
            sent += 1;
            duet.peer.write(&frame(0x82, &[]));
            duet.rig.run_until(|| duet.log.messages() == sent);
            is_stamped = seen.try_iter().last().is_some_and(|(_, at)| at.is_some());
        }
    }

    fn open(transport: Transport, stamps: ReceiveTimestamps) -> (Duet, Receiver<Seen>) {
        let (recorder, seen) = teller();
        let mut duet = Duet::open_with(transport, recorder, |request| stamped(request, stamps));
        warm_up(&mut duet, &seen);
        (duet, seen)
    }

    /// The next stamp of a message.
    fn message(duet: &mut Duet, seen: &Receiver<Seen>) -> SystemTime {
        let mut found = None;
        duet.rig.run_until(|| {
            found = found.or_else(|| seen.try_iter().find(|(what, _)| *what == "message"));
            found.is_some()
        });
        found.and_then(|(_, at)| at).expect("a stamp")
    }

    #[test]
    fn a_stamp_lies_between_sending_and_reading() {
        for &transport in Transport::ALL {
            let (mut duet, seen) = open(transport, ReceiveTimestamps::new());
            let before = SystemTime::now();
            duet.peer.write(&frame(0x81, b"text"));
            let first = message(&mut duet, &seen);
            assert!(first >= before - SLACK, "{before:?} {first:?}");
            assert!(first <= SystemTime::now() + SLACK, "{first:?}");
            // The same clock, so without slack, unless it is set in this very moment.
            duet.peer.write(&frame(0x81, b"text"));
            assert!(message(&mut duet, &seen) > first);
        }
    }

    /// Bytes that no message ends in leave no stamp behind, and a message has that of its end.
    #[test]
    fn a_message_that_is_cut_by_reads_has_the_stamp_of_its_end() {
        let sizes = [
            ReceiveTimestamps::new(),
            ReceiveTimestamps::new().read_at_most(1000),
            ReceiveTimestamps::new().read_at_most(7),
        ];
        for &transport in Transport::ALL {
            for stamps in sizes {
                let (mut duet, seen) = open(transport, stamps);
                let cut = frame(0x82, &[7; 5000]);
                let (head, tail) = cut.split_at(3000);
                let mut first = frame(0x81, b"whole");
                first.extend(head);
                duet.peer.write(&first);
                let begun = message(&mut duet, &seen);
                duet.peer.write(tail);
                let ended = message(&mut duet, &seen);
                assert!(ended > begun, "{transport:?} {stamps:?}");
                let binary = Call::Binary(vec![7; 5000]);
                assert!(duet.log.has(&binary), "{:?}", duet.log);
            }
        }
    }

    /// A read of one byte at a time brings everything in the end, whatever turns it takes.
    #[test]
    fn the_smallest_reads_lose_nothing() {
        for &transport in Transport::ALL {
            let stamps = ReceiveTimestamps::new().read_at_most(0);
            let (mut duet, seen) = open(transport, stamps);
            let texts: Vec<_> = (0..50).map(|number| number.to_string()).collect();
            let frames = texts.iter().map(|text| frame(0x81, text.as_bytes()));
            duet.peer.write(&frames.collect::<Vec<_>>().concat());
            duet.rig.run_until(|| duet.log.texts().len() == texts.len());
            assert_eq!(duet.log.texts(), texts);
            let seen: Vec<_> = seen.try_iter().collect();
            let of = |wanted| seen.iter().filter(move |(what, _)| *what == wanted);
            let stamps = of("message").map(|(_, at)| at.expect("a stamp"));
            let stamps: Vec<_> = stamps.collect();
            assert_eq!(stamps.len(), texts.len());
            assert!(stamps.is_sorted(), "{stamps:?}");
            // A turn is a few reads, so of a few bytes; a record is delivered whole.
            if transport == Transport::Plain {
                assert!(of("batch end").count() > texts.len() / 2, "{seen:?}");
            }
        }
    }

    /// Callbacks that are not about bytes see none, also right after some that were.
    #[test]
    fn what_is_not_about_bytes_has_no_stamp() {
        let server = Server::echo(Transport::Plain);
        let mut rig = Rig::new();
        let remote = rig.reactor.remote();
        let (told, seen) = channel();
        let (on_cast, on_timer, on_message) = (told.clone(), told.clone(), told);
        let recorder = Recorder::new()
            .cast(move |cx| {
                on_cast.send(("cast", cx.received_at()))?;
                cx.set_timer(TimerId(1), SHORT);
                Ok(cx.send_text("echo")?)
            })
            .timer(move |cx| Ok(on_timer.send(("timer", cx.received_at()))?))
            .message(move |cx, _| Ok(on_message.send(("message", cx.received_at()))?));
        let log: Log = rig.connect(
            stamped(server.request(), ReceiveTimestamps::new()),
            recorder,
        );
        rig.run_until(|| log.is_open());
        let mut is_stamped = false;
        while !is_stamped {
            let timers = log.count(|call| *call == Call::Timer(1));
            let messages = log.messages();
            remote.cast(log.id(), "go".to_owned()).expect("it is there");
            rig.run_until(|| log.count(|call| *call == Call::Timer(1)) > timers);
            rig.run_until(|| log.messages() > messages);
            for (what, at) in seen.try_iter() {
                match what {
                    "message" => is_stamped |= at.is_some(),
                    other => assert_eq!(at, None, "{other}"),
                }
            }
        }
    }

    /// The last bytes and the end of the connection, which is not about them, in one turn.
    #[test]
    fn the_end_has_no_stamp_of_what_came_before() {
        for &transport in Transport::ALL {
            let (
                Duet {
                    mut peer, mut rig, ..
                },
                seen,
            ) = open(transport, ReceiveTimestamps::new());
            peer.text("the last words");
            peer.reset();
            rig.run();
            let seen: Vec<_> = seen.try_iter().collect();
            let of = |wanted| seen.iter().find(|(what, _)| *what == wanted);
            let (_, message) = of("message").expect("it was there before the reset");
            assert!(message.is_some());
            assert_eq!(of("disconnect"), Some(&("disconnect", None)), "{seen:?}");
        }
    }
}
