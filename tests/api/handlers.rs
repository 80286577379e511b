//! Callbacks: those that fail take down their own connection and nothing else. Timers.

use crate::support::{
    Call, Duet, Fault, LONG, Recorder, Rig, SHORT, Server, Transport, Why, frame,
};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use websockex::trace::{Kind, Subject};
use websockex::{
    Context, Handler, HandlerResult, Open, Reconnect, ReconnectPolicy, Termination, TimerId,
};

/// How a callback fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    Error,
    Panic,
}

impl Failure {
    const ALL: [Self; 2] = [Self::Error, Self::Panic];

    fn happen(self) -> HandlerResult {
        match self {
            Self::Error => Err("on purpose".into()),
            Self::Panic => panic!("on purpose"),
        }
    }

    fn fault(self) -> Fault {
        match self {
            Self::Error => Fault::Handler("on purpose".into()),
            Self::Panic => Fault::Panicked("on purpose".into()),
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Error => Kind::HandlerFailed,
            Self::Panic => Kind::HandlerPanicked,
        }
    }
}

const CALLBACKS: [&str; 7] = [
    "on_open",
    "on_message",
    "on_ping",
    "on_pong",
    "on_cast",
    "on_timer",
    "on_batch_end",
];

/// A handler whose callback of that name fails.
fn failing(callback: &str, failure: Failure) -> Recorder {
    let fail = move || failure.happen();
    let recorder = Recorder::new();
    match callback {
        "on_open" => recorder.open(move |_, _| fail()),
        "on_message" => recorder.message(move |_, _| fail()),
        "on_ping" => recorder.ping(move |_, _| fail()),
        "on_pong" => recorder.pong(move |_, _| fail()),
        "on_cast" => recorder.cast(move |_| fail()),
        "on_timer" => recorder.timer(move |_| fail()).open(|cx, _| {
            cx.set_timer(TimerId(1), Duration::ZERO);
            Ok(())
        }),
        "on_batch_end" => recorder.batch_end(move |_| fail()),
        other => unreachable!("{other}"),
    }
}

#[test]
fn a_callback_that_fails_ends_its_own_connection_only() {
    for &transport in Transport::ALL {
        for callback in CALLBACKS {
            for failure in Failure::ALL {
                fail_beside_another(transport, callback, failure);
            }
        }
    }
}

fn fail_beside_another(transport: Transport, callback: &str, failure: Failure) {
    let echo = Server::echo(transport);
    let mut bytes = frame(0x89, b"ping");
    bytes.extend(frame(0x8a, b"pong"));
    bytes.extend(frame(0x81, b"message"));
    let server = Server::start(transport, move |_, mut peer| {
        peer.accept_and_send(&bytes);
        let mut close = peer.read_frame().expect("a frame");
        if close.opcode == 10 {
            close = peer.read_frame().expect("another");
        }
        // 1011, and what went wrong is nobody else's business.
        assert_eq!((close.opcode, close.payload), (8, vec![3, 243]));
        peer.expect_end();
    });
    let mut rig = Rig::new();
    let other = rig.connect(echo.request(), Recorder::new());
    rig.run_until(|| other.is_open());
    // It would come back, but for the failure.
    let request = server
        .request()
        .reconnect(ReconnectPolicy::fixed(Duration::ZERO));
    let log = rig.connect(request, failing(callback, failure));
    let remote = rig.reactor.remote();
    if callback == "on_cast" {
        remote
            .cast(log.id(), "cast".to_owned())
            .expect("it is there");
    }
    rig.run_until(|| log.is_terminated());

    let lost = log.only_lost();
    assert_eq!(lost.why, Why::Failed(failure.fault()), "{callback}");
    assert!(!lost.clean && lost.policy.is_none());
    let calls = log.calls();
    assert!(matches!(calls[calls.len() - 2], Call::Disconnect(_)));
    let end = Call::Terminate {
        why: lost.why,
        epoch: 1,
    };
    assert_eq!(calls[calls.len() - 1], end);
    let mut events = rig.reactor.trace().iter();
    let blamed = events.find(|event| event.kind() == failure.kind());
    let blamed = *blamed.expect("it is in the trace");
    drop(events);
    assert_eq!(blamed.subject().name(), callback);
    assert!(matches!(blamed.subject(), Subject::Callback(_)));

    remote.send(other.id(), "still there").expect("it is open");
    rig.run_until(|| other.messages() == 1);
    assert!(other.is_open() && other.lost().is_empty());
}

#[test]
fn a_failure_in_on_drained() {
    for failure in Failure::ALL {
        let recorder = Recorder::new()
            .open(|cx, _| Ok(cx.send_binary(&vec![0; 16 << 20])?))
            .drained(move |_| failure.happen());
        let mut duet = Duet::open(Transport::Plain, recorder);
        let mut peer = duet.peer;
        let reader = std::thread::spawn(move || {
            assert_eq!(peer.read_frame().expect("a frame").payload.len(), 16 << 20);
            peer.expect_close(1011);
        });
        duet.rig.run();
        reader.join().expect("the peer saw the Close");
        assert_eq!(duet.log.only_lost().why, Why::Failed(failure.fault()));
    }
}

#[test]
fn a_panic_in_on_disconnect_is_the_end() {
    let recorder = Recorder::new().disconnect(|_, _| panic!("on purpose"));
    let mut duet = Duet::open_with(Transport::Plain, recorder, |request| {
        request.reconnect(ReconnectPolicy::fixed(Duration::ZERO))
    });
    duet.peer.end();
    duet.rig.run();
    assert_eq!(duet.log.only_lost().why, Why::Dropped);
    let Some(Call::Terminate { why, epoch: 1 }) = duet.log.calls().pop() else {
        panic!("{:?}", duet.log);
    };
    assert_eq!(why.fault(), Some(&Fault::Panicked("on purpose".into())));
}

#[test]
fn a_panic_in_on_terminate_takes_nothing_down() {
    let echo = Server::echo(Transport::Plain);
    let recorder = Recorder::new().terminate(|| panic!("on purpose"));
    let mut duet = Duet::open(Transport::Plain, recorder);
    let other = duet
        .rig
        .connect(echo.request(), Recorder::new().close_after(1));
    duet.peer.end();
    duet.rig
        .run_until(|| duet.log.is_terminated() && other.is_open());
    let remote = duet.rig.reactor.remote();
    remote.send(other.id(), "still there").expect("it is open");
    duet.rig.run();
    assert!(other.only_lost().clean);
}

/// A failure while a wait for the next attempt is on.
#[test]
fn a_failure_during_back_off() {
    for failure in Failure::ALL {
        let recorder = Recorder::new()
            .disconnect(|cx, _| {
                cx.set_timer(TimerId(1), Duration::ZERO);
                Reconnect::After(LONG)
            })
            .timer(move |_| failure.happen());
        let mut duet = Duet::open(Transport::Plain, recorder);
        duet.peer.end();
        duet.rig.run();
        let Some(Call::Terminate { why, epoch: 1 }) = duet.log.calls().pop() else {
            panic!("{:?}", duet.log);
        };
        assert_eq!(why.fault(), Some(&failure.fault()));
        assert_eq!(duet.log.opened(), 1);
    }
}

/// What was sent before the failure is sent; what was to be decoded after it is not delivered, be it out
/// of the same record or the next one of the same read.
#[test]
fn a_failure_in_the_middle_of_a_batch() {
    for &transport in Transport::ALL {
        for panics in [false, true] {
            let recorder = Recorder::new().message(move |cx, message| {
                cx.send(message)?;
                match message.as_bytes() {
                    b"bad" if panics => panic!("on purpose"),
                    b"bad" => Err("on purpose".into()),
                    _ => Ok(()),
                }
            });
            let mut duet = Duet::open(transport, recorder);
            duet.peer.write(&frame(0x81, b"good"));
            duet.peer
                .write(&[frame(0x81, b"bad"), frame(0x81, b"never seen")].concat());
            duet.peer.write(&frame(0x81, b"nor this"));
            duet.rig.settle();
            duet.peer.expect_text("good");
            duet.peer.expect_text("bad");
            duet.peer.expect_close(1011);
            duet.peer.end();
            duet.rig.run();
            assert_eq!(duet.log.texts(), ["good", "bad"]);
        }
    }
}

/// A batch ends once, behind all messages of a read.
#[test]
fn on_batch_end_comes_once_per_batch() {
    let mut duet = Duet::open(Transport::Plain, Recorder::new());
    let ends = |duet: &Duet| duet.log.count(|call| *call == Call::BatchEnd);
    assert_eq!(ends(&duet), 0);
    let three = frame(0x81, b"x").repeat(3);
    duet.deliver(&three);
    assert_eq!((duet.log.messages(), ends(&duet)), (3, 1));
    duet.deliver(&three);
    assert_eq!((duet.log.messages(), ends(&duet)), (6, 2));
    // No message, no batch.
    duet.deliver(&frame(0x89, b""));
    duet.deliver(&three[..1]);
    assert_eq!((duet.log.messages(), ends(&duet)), (6, 2));
}

#[test]
fn timers_fire_once_in_order_and_can_be_moved_and_cancelled() {
    let (told, cancelled) = channel();
    let recorder = Recorder::new()
        .open(move |cx, _| {
            cx.set_timer(TimerId(1), LONG);
            cx.set_timer(TimerId(2), SHORT * 2);
            cx.set_timer(TimerId(3), SHORT);
            cx.set_timer(TimerId(4), SHORT);
            cx.set_timer(TimerId(1), SHORT * 3);
            told.send((cx.cancel_timer(TimerId(4)), cx.cancel_timer(TimerId(4))))
                .expect("the test listens");
            Ok(())
        })
        .timer(|_| Ok(()));
    let mut duet = Duet::open(Transport::Plain, recorder);
    duet.rig
        .run_until(|| duet.log.count(|call| matches!(call, Call::Timer(_))) == 3);
    assert_eq!(
        duet.log.calls()[1..],
        [Call::Timer(3), Call::Timer(2), Call::Timer(1)]
    );
    assert_eq!(cancelled.recv(), Ok((true, false)));
}

/// Timers go on over a disconnect, and fire between two attempts.
#[test]
fn timers_fire_during_back_off() {
    let recorder = Recorder::new()
        .disconnect(|cx, _| {
            cx.set_timer(TimerId(7), SHORT);
            Reconnect::After(LONG)
        })
        .timer(|cx| {
            cx.close();
            Ok(())
        });
    let mut duet = Duet::open(Transport::Plain, recorder);
    duet.peer.end();
    duet.rig.run();
    assert!(duet.log.has(&Call::Timer(7)));
    assert_eq!(duet.log.opened(), 1);
}

/// A timer that is armed again and again without delay must leave the others their turn.
#[test]
fn a_timer_without_delay_does_not_hold_up_the_reactor() {
    const ENOUGH: usize = 1000;
    let mut fired = 0;
    let recorder = Recorder::new()
        .cast(|cx| {
            cx.set_timer(TimerId(1), Duration::ZERO);
            Ok(())
        })
        .timer(move |cx| {
            fired += 1;
            if fired < ENOUGH {
                cx.set_timer(TimerId(1), Duration::ZERO);
            }
            Ok(())
        });
    let mut duet = Duet::open(Transport::Plain, recorder);
    let (remote, log) = (duet.rig.reactor.remote(), duet.log.clone());
    let fired = || log.count(|call| matches!(call, Call::Timer(_)));
    remote.cast(log.id(), "go".to_owned()).expect("it is open");
    duet.rig.run_until(|| fired() > 0);
    assert!(fired() <= 2, "{} in one turn", fired());
    duet.rig.run_until(|| fired() == ENOUGH);
}

/// An error whose text is foreign code that panics.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("on purpose")
    }
}

impl std::error::Error for Unspeakable {}

struct FailsUnspeakably(Sender<()>);

impl Handler for FailsUnspeakably {
    fn on_open(&mut self, _: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
        Err(Box::new(Unspeakable))
    }

    fn on_terminate(self: Box<Self>, _: &Termination<'_>) {
        self.0.send(()).expect("it is waited for");
    }
}

#[test]
fn an_error_that_cannot_be_displayed_takes_nothing_else_down() {
    let server = Server::echo(Transport::Plain);
    let mut rig = Rig::new();
    let other = Recorder::new().open(|cx, _| Ok(cx.send_text("still here")?));
    let (ended, end) = channel();
    rig.reactor
        .connect(server.request(), FailsUnspeakably(ended))
        .expect("a good request");
    let log = rig.connect(server.request(), other);
    rig.run_until(|| end.try_recv().is_ok());
    rig.run_until(|| log.texts() == ["still here"]);
}

#[test]
fn pitfall_22_paused_and_resumed_within_one_read() {
    const MESSAGES: usize = 4000;
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        // Far more than fits one read.
        peer.write(&frame(0x82, &[7; 1000]).repeat(MESSAGES));
        peer.drain();
    });
    let mut rig = Rig::new();
    let recorder = Recorder::new()
        .message(|cx, _| {
            cx.pause_reading();
            Ok(())
        })
        .batch_end(|cx| {
            cx.resume_reading();
            Ok(())
        });
    let log = rig.connect(server.request(), recorder);
    rig.run_until(|| log.messages() == MESSAGES);
}
