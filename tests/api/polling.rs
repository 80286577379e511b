//! Waiting awake: everything else must come in its time, and a reactor that may sleep must.

use crate::support::{Call, LONG, Recorder, Rig, SHORT, Server, Transport, Why};
use std::thread;
use std::time::Duration;
use websockex::{CloseCode, Polling, Reactor, TimerId};

/// All that wait awake, one of them for less and one for more than a test takes.
const AWAKE: [Polling; 3] = [
    Polling::SpinThenBlock(Duration::from_micros(1)),
    Polling::SpinThenBlock(LONG),
    Polling::Busy,
];

#[test]
fn messages_timers_commands_and_shutdown_come_in_their_time() {
    for polling in AWAKE {
        for &transport in Transport::ALL {
            let server = Server::echo(transport);
            let mut rig = Rig::with(Reactor::builder().polling(polling).stay_alive(true));
            let remote = rig.reactor.remote();
            // Each leads to the next, and only the timer's end to the command's beginning: nothing
            // else happens meanwhile that would wake the reactor.
            let recorder = Recorder::new()
                .open(|cx, _| Ok(cx.send_text("first")?))
                .message(move |cx, message| {
                    match message.as_bytes() {
                        b"first" => cx.set_timer(TimerId(1), SHORT),
                        b"cast" => remote.shutdown(LONG)?,
                        other => panic!("{other:?}"),
                    }
                    Ok(())
                })
                .cast(|cx| Ok(cx.send_text("cast")?));
            let (remote, log) = (rig.reactor.remote(), recorder.log());
            let user = thread::spawn({
                let log = log.clone();
                move || {
                    crate::support::wait_until(|| log.has(&Call::Timer(1)));
                    remote.cast(log.id(), "go".to_owned()).expect("it is open");
                }
            });
            rig.connect(server.request(), recorder);
            rig.reactor.run().expect("it runs until it is shut down");
            user.join().expect("the user is content");
            let lost = log.only_lost();
            let code = u16::from(CloseCode::GOING_AWAY);
            assert_eq!(lost.why, Why::local(code), "{polling:?}");
        }
    }
}

/// How often this thread has gone to sleep of its own accord.
#[cfg(target_os = "linux")]
fn sleeps() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("there is /proc");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    let count = line.expect("Linux counts them").trim();
    count.parse().expect("a number")
}

/// A turn that nothing happens in sleeps where it may, and where it may not stays awake to its end.
#[cfg(target_os = "linux")]
#[test]
fn who_may_sleep_does_and_who_may_not_does_not() {
    const TURNS: u64 = 20;
    let sleeps_in_turns = |rig: &mut Rig| {
        let before = sleeps();
        for _ in 0..TURNS {
            let turn = rig.reactor.turn(Some(Duration::from_millis(1)));
            turn.expect("a turn");
        }
        // A thread may have to wait for something else too, or be kept from its sleep until the time
        // for it is over: now and then, but not in half of all turns.
        sleeps() - before >= TURNS / 2
    };
    let rig = |polling| Rig::with(Reactor::builder().polling(polling));
    assert!(sleeps_in_turns(&mut rig(Polling::Block)));
    assert!(!sleeps_in_turns(&mut rig(Polling::Busy)));
    // Without any news there is nothing to stay awake for.
    let mut patient = rig(Polling::SpinThenBlock(LONG));
    assert!(sleeps_in_turns(&mut patient));
    let (_peer, log, _server) = patient.open(Transport::Plain, Recorder::new(), |request| request);
    assert!(!sleeps_in_turns(&mut patient), "{log:?}");
    let mut brief = rig(Polling::SpinThenBlock(Duration::from_nanos(1)));
    let (_peer, log, _server) = brief.open(Transport::Plain, Recorder::new(), |request| request);
    assert!(sleeps_in_turns(&mut brief), "{log:?}");
}

/// A turn never takes longer than it was given, however long the reactor would stay awake.
#[test]
fn a_turn_without_time_returns() {
    for polling in AWAKE {
        let mut rig = Rig::with(Reactor::builder().polling(polling));
        rig.reactor.turn(Some(Duration::ZERO)).expect("a turn");
        rig.reactor.turn(Some(SHORT)).expect("a turn");
    }
}
