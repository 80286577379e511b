//! An open connection: signs of life, back-pressure, and its end.

use super::super::peer::End;
use super::super::server::{Play, Server};
use super::super::world::World;
use super::{ADDRESS, Diary, URL, check, check_diary, once};
use crate::session::pace::Pacer;
use crate::session::policy::ReconnectPolicy;
use crate::session::timers::TimerId;
use std::rc::Rc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn text(text: &str) -> Play {
    Play::Text(text.to_owned())
}

/// The time of the first line that begins so.
fn time_of(world: &World, line: &str) -> u64 {
    let diary = world.log.diary();
    let found = diary.iter().find(|(_, written)| written.starts_with(line));
    found
        .unwrap_or_else(|| panic!("no {line:?} in {diary:#?}"))
        .0
}

#[test]
fn a_ping_without_a_pong() {
    let mut world = World::new();
    world.serve(ADDRESS, || Server::open().ignoring_pings());
    let request = once(URL).ping_every(10 * SECOND, 2 * SECOND).unwrap();
    let diary = Diary::new(&world);
    world.connect(request, diary);
    world.run();
    world.check_end();
    let silent = time_of(&world, "disconnect 0: the peer is silent: no pong for 2s");
    // Sent when at most a tenth of the interval is left.
    assert!((11_040..=12_040).contains(&silent), "{silent}");
}

#[test]
fn a_ping_with_a_pong_is_a_round_trip() {
    let mut world = World::new();
    world.serve(ADDRESS, Server::open);
    let request = once(URL).ping_every(10 * SECOND, 2 * SECOND).unwrap();
    let diary = Diary::new(&world)
        .when_open(|cx| {
            cx.set_timer(TimerId(0), 35 * SECOND);
            Ok(())
        })
        .when_due(|cx| {
            assert_eq!(cx.round_trip(), Some(Duration::from_millis(20)));
            cx.close();
            Ok(())
        });
    world.connect(request, diary);
    let expected = [
        (40, "open 1: 10.0.0.1:80"),
        (35_040, "timer"),
        (35_050, "server: close Some(1000)"),
        (35_060, "disconnect 0: closed from this side with 1000"),
        (35_060, "end"),
    ];
    check_diary(world, &expected);
}

#[test]
fn a_text_heartbeat_without_an_answer() {
    let mut world = World::new();
    world.serve(ADDRESS, Server::open);
    let request = once(URL)
        .text_every("ping?", 10 * SECOND, 2 * SECOND)
        .unwrap();
    let diary = Diary::new(&world);
    world.connect(request, diary);
    world.run();
    world.check_end();
    let asked = time_of(&world, "server: message ping?");
    let silent = time_of(&world, "disconnect 0: the peer is silent: no answer");
    assert!((9_050..=10_050).contains(&asked), "{asked}");
    // It was on its way for 10 ms.
    assert_eq!(silent - (asked - 10), 2000);
}

#[test]
fn no_byte_for_too_long() {
    let world = World::new();
    world.serve(ADDRESS, || Server::open().then(SECOND, Play::Ping));
    let request = once(URL).watch_bytes(5 * SECOND).unwrap();
    let expected = [
        (40, "open 1: 10.0.0.1:80"),
        (1050, "server: pong"),
        (6040, "disconnect 0: the peer is silent: no byte for 5s"),
        (6040, "end"),
    ];
    check(world, request, &expected);
}

/// A handler that takes longer than any watchdog makes nobody silent: neither its own peer nor another
/// one, whose messages lie in the socket by then. And a timer that it arms has all of its delay.
#[test]
fn a_slow_handler_costs_no_connection() {
    const OTHER: &str = "10.0.0.2:80";
    // Five milliseconds after each tick there is another, which is on its way when the first arrives.
    const SOON: Duration = Duration::from_millis(5);
    let ticking = |mut server: Server| {
        for _ in 0..10 {
            server = server.then(SECOND - SOON, text("tick"));
            server = server.then(SOON, text("tick"));
        }
        server
    };
    let mut world = World::new();
    world.serve(ADDRESS, move || ticking(Server::open()));
    world.serve(OTHER, move || {
        let mut server = Server::open().then(SOON, text("tick"));
        for _ in 1..20 {
            server = server.then(SECOND, text("tick"));
        }
        server
    });
    let clock = Rc::clone(&world.clock);
    let mut told = 0;
    let slow = Diary::new(&world)
        .when_told(move |cx| {
            told += 1;
            if told == 11 {
                clock.set(clock.get().after(6 * SECOND));
                cx.set_timer(TimerId(1), SECOND);
            }
            if told == 20 {
                cx.close();
            }
            Ok(())
        })
        .when_due(|_| Ok(()));
    let watched = |url| once(url).watch_bytes(5 * SECOND).unwrap();
    world.connect(watched(URL), slow);
    let mut told = 0;
    let quick = Diary::new(&world).when_told(move |cx| {
        told += 1;
        if told == 20 {
            cx.close();
        }
        Ok(())
    });
    world.connect(watched("ws://10.0.0.2/"), quick);
    world.run();
    world.check_end();
    let diary = world.log.diary();
    let closed = "disconnect 0: closed from this side with 1000";
    let ends: Vec<_> = diary
        .iter()
        .filter(|(_, line)| line.starts_with("disconnect"))
        .collect();
    assert!(ends.iter().all(|(_, line)| line == closed), "{ends:?}");
    assert_eq!(ends.len(), 2);
    // It was told at 6,035, and done six seconds later.
    assert_eq!(time_of(&world, "timer"), 13_035);
}

/// Pings keep the connection, but they are no data.
#[test]
fn no_message_for_too_long() {
    let world = World::new();
    world.serve(ADDRESS, || {
        let server = Server::open().then(SECOND, text("a"));
        let server = server.then(SECOND, Play::Ping);
        server.then(SECOND, Play::Ping).then(SECOND, Play::Ping)
    });
    let request = once(URL).watch_data(3 * SECOND).unwrap();
    let request = request.watch_bytes(2 * SECOND).unwrap();
    let expected = [
        (40, "open 1: 10.0.0.1:80"),
        (1040, "message a"),
        (2050, "server: pong"),
        (3050, "server: pong"),
        (4040, "disconnect 0: the peer is silent: no message for 3s"),
        (4040, "end"),
        (4050, "server: pong"),
    ];
    check(world, request, &expected);
}

#[test]
fn no_first_message() {
    let world = World::new();
    world.serve(ADDRESS, || Server::open().then(SECOND, Play::Ping));
    let request = once(URL).watch_first_data(2 * SECOND).unwrap();
    let expected = [
        (40, "open 1: 10.0.0.1:80"),
        (1050, "server: pong"),
        (
            2040,
            "disconnect 0: the peer is silent: no first message for 2s",
        ),
        (2040, "end"),
    ];
    check(world, request, &expected);
}

/// What arrives meanwhile stays with TCP, which holds the server back; then it all comes.
#[test]
fn reading_paused_and_resumed() {
    let mut world = World::new();
    world.serve(ADDRESS, || {
        let large = Play::Raw([&[0x82, 127, 0, 0, 0, 0, 0, 2, 0, 0][..], &[7; 131_072]].concat());
        let server = Server::open().then(SECOND, text("a")).then(SECOND, large);
        server
            .then(SECOND, text("b"))
            .then(SECOND, Play::Close(1001, String::new()))
    });
    let diary = Diary::new(&world)
        .when_told(|cx| {
            cx.pause_reading();
            cx.set_timer(TimerId(0), 10 * SECOND);
            Ok(())
        })
        .when_due(|cx| {
            cx.resume_reading();
            Ok(())
        });
    world.connect(once(URL), diary);
    world.run_until(11 * SECOND);
    assert!(world.network.is_held_back(0), "all of it fits between");
    let expected = [
        (40, "open 1: 10.0.0.1:80"),
        (1040, "message a"),
        (11_040, "timer"),
        // What did not fit into the 64 KiB between sets off now, 64 KiB at a time.
        (11_060, "131072 bytes"),
        // Read with the end of that, and so delivered though reading is paused once more.
        (11_060, "message b"),
        (11_070, "server: close Some(1001)"),
        (11_080, "disconnect 0: closed by the peer with 1001"),
        (11_080, "end"),
    ];
    check_diary(world, &expected);
}

/// A server that does not read: what the socket does not take waits, and when it has gone the
/// handler is told.
#[test]
fn a_slow_reader() {
    let mut world = World::new();
    world.serve(ADDRESS, || {
        let server = Server::open().then(Duration::ZERO, Play::Read(false));
        let server = server.then(SECOND, Play::Read(true));
        server.then(SECOND, Play::Close(1000, String::new()))
    });
    let diary = Diary::new(&world).when_open(|cx| {
        cx.send_text(&"x".repeat(300_000))?;
        Ok(())
    });
    let request = once(URL).water_marks(1000, 100_000).unwrap();
    world.connect(request, diary);
    world.run();
    world.check_end();
    // It reads 64 KiB when it begins at 1,030, and then every 10 ms, which makes room for as much.
    assert_eq!(time_of(&world, "drained: 0 left"), 1060);
    assert_eq!(time_of(&world, "server: message xxx"), 1070);
}

/// A pong goes behind what is in the queue; others wait for it, of which the newest is sent when the
/// socket has it, though the queue is never empty (pitfall 5).
#[test]
fn pings_of_a_slow_reader_are_answered_behind_output_that_never_ends() {
    let mut world = World::new();
    world.serve(ADDRESS, || {
        let mut server = Server::open().then(Duration::ZERO, Play::Read(false));
        for _ in 0..5 {
            server = server.then(SECOND, Play::Ping);
        }
        let server = server.then(SECOND, Play::Read(true));
        server.then(SECOND, Play::End(End::Reset))
    });
    let sent = "x".repeat(300_000);
    let more = sent.clone();
    let diary = Diary::new(&world)
        .when_open(move |cx| Ok(cx.send_text(&sent)?))
        .when_drained(move |cx| Ok(cx.send_text(&more)?));
    let request = once(URL).water_marks(100_000, 200_000).unwrap();
    world.connect(request, diary);
    world.run();
    let diary = world.log.diary();
    let said = |line: &str| diary.iter().filter(|(_, said)| said == line).count();
    assert_eq!(said("drained: 0 left"), 0, "{diary:?}");
    assert_eq!(said("server: pong"), 2, "{diary:?}");
}

/// What waited for its pace is let go, and the queue with it has fallen to its low mark, above zero.
#[test]
fn a_pace_that_lets_the_queue_fall() {
    let mut world = World::new();
    world.serve(ADDRESS, Server::open);
    let diary = Diary::new(&world)
        .when_open(|cx| {
            for _ in 0..4 {
                cx.send_text(&"x".repeat(1000))?;
            }
            Ok(())
        })
        .when_drained(|cx| Ok(cx.send_text("the last")?))
        .when_due(|cx| {
            cx.close();
            Ok(())
        });
    let pacer = Pacer::new(1, SECOND).expect("a pace");
    let request = once(URL).pace(pacer).water_marks(1500, 3000).unwrap();
    world.connect(request, diary);
    world.run_until(10 * SECOND);
    let diary = world.log.diary();
    let drained: Vec<_> = diary
        .iter()
        .filter(|(_, line)| line.starts_with("drained"))
        .collect();
    // One of four left at once, and one each second: after two there is one.
    assert_eq!(drained.len(), 1, "{diary:?}");
    assert_eq!(drained[0].0, 2040);
    assert!(drained[0].1.ends_with(" left"), "{}", drained[0].1);
    assert_eq!(time_of(&world, "server: message the last"), 4050);
}

#[test]
fn a_close_that_is_answered() {
    let mut world = World::new();
    world.serve(ADDRESS, Server::open);
    let diary = Diary::new(&world).when_open(|cx| {
        cx.close();
        Ok(())
    });
    world.connect(once(URL), diary);
    let expected = [
        (40, "open 1: 10.0.0.1:80"),
        (50, "server: close Some(1000)"),
        (60, "disconnect 0: closed from this side with 1000"),
        (60, "end"),
    ];
    check_diary(world, &expected);
}

#[test]
fn a_close_that_is_not_answered() {
    let mut world = World::new();
    world.serve(ADDRESS, || Server::open().ignoring_close());
    let diary = Diary::new(&world).when_open(|cx| {
        cx.close();
        Ok(())
    });
    world.connect(once(URL).close_timeout(2 * SECOND), diary);
    let expected = [
        (40, "open 1: 10.0.0.1:80"),
        (50, "server: close Some(1000)"),
        (2040, "disconnect 0: closed from this side with 1000"),
        (2040, "end"),
    ];
    check_diary(world, &expected);
}

#[test]
fn the_end_of_the_stream_without_a_close_frame() {
    let world = World::new();
    world.serve(ADDRESS, || {
        let server = Server::open().then(SECOND, text("last words"));
        server.then(Duration::ZERO, Play::End(End::Finished))
    });
    let ended = "the peer ended the connection without a Close frame";
    let expected = [
        (40, "open 1: 10.0.0.1:80"),
        (1040, "message last words"),
        (1040, &format!("disconnect 0: {ended}")),
        (1040, "end"),
    ];
    check(world, once(URL), &expected);
}

/// It is a reset, though the write that met it first has taken the error from the socket and all that
/// a read finds afterwards is the end of the stream.
#[test]
fn a_reset_that_a_write_meets_first() {
    let mut world = World::new();
    world.serve(ADDRESS, || {
        let server = Server::open().then(Duration::ZERO, Play::Read(false));
        server.then(SECOND, Play::End(End::Reset))
    });
    // More than TCP takes, so that there is something to be written when the reset comes.
    let diary = Diary::new(&world).when_open(|cx| {
        cx.send_text(&"x".repeat(100_000))?;
        Ok(())
    });
    world.connect(once(URL), diary);
    let expected = [
        (40, "open 1: 10.0.0.1:80"),
        (
            1040,
            "disconnect 0: the connection failed: connection reset",
        ),
        (1040, "end"),
    ];
    check_diary(world, &expected);
}

/// Ways to end a connection right behind a message, in the same read.
fn ends() -> [Vec<u8>; 2] {
    // A Close frame with 1000, and a frame of a kind that there is not.
    [vec![0x88, 2, 3, 0xe8], vec![0x83, 0]]
}

fn last_words(end: &[u8]) -> Play {
    Play::Raw([&b"\x81\x01a"[..], end].concat())
}

/// The batch ends before the connection does, so an answer to the last message is not refused.
#[test]
fn an_answer_at_the_end_of_the_last_batch() {
    for (number, end) in ends().into_iter().enumerate() {
        let mut world = World::new();
        world.serve(ADDRESS, move || {
            Server::open().then(SECOND, last_words(&end))
        });
        let diary = Diary::new(&world).when_batch_ends(|cx| Ok(cx.send_text("thanks")?));
        world.connect(once(URL), diary);
        world.run_until(Duration::from_millis(1055));
        assert_eq!(time_of(&world, "server: message thanks"), 1050, "{number}");
    }
    let mut world = World::new();
    world.serve(ADDRESS, || {
        let server = Server::open().then(SECOND, last_words(&[]));
        server.then(Duration::ZERO, Play::End(End::Finished))
    });
    let diary = Diary::new(&world).when_batch_ends(|cx| Ok(cx.send_text("thanks")?));
    world.connect(once(URL), diary);
    let expected = [
        (40, "open 1: 10.0.0.1:80"),
        (1040, "message a"),
        (
            1040,
            "disconnect 0: the peer ended the connection without a Close frame",
        ),
        (1040, "end"),
        (1050, "server: message thanks"),
    ];
    check_diary(world, &expected);
}

/// A handler that fails then is not connected again, however the connection ended.
#[test]
fn a_failure_at_the_end_of_the_last_batch() {
    let policy = ReconnectPolicy::fixed(SECOND);
    for end in ends().into_iter().chain([vec![]]) {
        let mut world = World::new();
        world.serve(ADDRESS, move || {
            let server = Server::open().then(SECOND, last_words(&end));
            server.then(Duration::ZERO, Play::End(End::Finished))
        });
        let diary = Diary::new(&world).when_batch_ends(|_| Err("no".into()));
        world.connect(once(URL).reconnect(policy), diary);
        world.run_until(20 * SECOND);
        world.check_end();
        time_of(&world, "disconnect 0: the handler failed: no");
        let opened = |(_, line): &&(u64, String)| line.starts_with("open");
        let count = world.log.diary().iter().filter(opened).count();
        assert_eq!(count, 1, "it was connected again");
    }
}

/// Between its failure and the end of its connection nothing is asked of a handler.
#[test]
fn no_timer_after_a_failure() {
    let mut world = World::new();
    // It does not end the TCP connection, so that there is some time between.
    world.serve(ADDRESS, || {
        Server::open().then(Duration::ZERO, Play::Read(false))
    });
    let diary = Diary::new(&world).when_open(|cx| {
        cx.set_timer(TimerId(0), Duration::from_millis(100));
        Err("no".into())
    });
    world.connect(once(URL), diary);
    let expected = [
        (40, "open 1: 10.0.0.1:80"),
        (1040, "disconnect 0: the handler failed: no"),
        (1040, "end"),
    ];
    check_diary(world, &expected);
}

/// It takes down its own connection, with 1011, and nothing else.
#[test]
fn a_handler_that_panics() {
    let mut world = World::new();
    world.serve(ADDRESS, || {
        let server = Server::open().then(SECOND, text("a"));
        server.then(SECOND, Play::Close(1000, String::new()))
    });
    // The hook that prints panics has nothing to print here.
    let panics = Diary::new(&world)
        .when_told(|_| std::panic::resume_unwind(Box::new("it is told too much")));
    world.connect(once(URL), panics);
    let lives = Diary::new(&world);
    world.connect(once(URL), lives);
    let expected = [
        (40, "open 1: 10.0.0.1:80"),
        (40, "open 1: 10.0.0.1:80"),
        (1040, "message a"),
        (1040, "message a"),
        (1050, "server: close Some(1011)"),
        (
            1060,
            "disconnect 0: the handler panicked: it is told too much",
        ),
        (1060, "end"),
        (2050, "server: close Some(1000)"),
        (2060, "disconnect 0: closed by the peer with 1000"),
        (2060, "end"),
    ];
    check_diary(world, &expected);
}
