//! Connections whose frames leave at an even pace, in virtual time.

use super::{Rig, SECOND};
use crate::error::SendError;
use crate::protocol::close::{CloseCode, CloseFrame};
use crate::protocol::frame::OpCode;
use crate::session::aside::Comeback;
use crate::session::backlog::HoldLimit;
use crate::session::liveness::Beat;
use crate::session::outbound::{Compression, Fragment};
use crate::session::pace::Pacer;
use crate::session::{Inbound, Life, Stage};
use crate::trace::Kind;

/// An open connection that may send a frame a second.
fn open(pacer: &Pacer) -> Rig {
    let pacer = Some(pacer.clone());
    let mut rig = Rig::new(|options| {
        options.pacer = pacer;
        options.close_timeout = SECOND * 5;
    });
    rig.open();
    rig
}

fn a_second() -> Pacer {
    Pacer::new(1, SECOND).expect("a pace")
}

fn send(rig: &mut Rig, text: &str) {
    let plain = Compression::BySize;
    rig.with(|life, output| life.send(output, None, plain, OpCode::Text, text.as_bytes()))
        .expect("there is room");
}

fn control(rig: &mut Rig, opcode: OpCode, payload: &str) {
    rig.with(|life, output| life.send_control(output, None, opcode, payload.as_bytes()))
        .expect("it is open");
}

fn close(rig: &mut Rig) {
    let frame = CloseFrame {
        code: CloseCode::NORMAL,
        reason: "done",
    };
    rig.with(|life, output| life.close(output, Some(frame)))
        .expect("it is open");
}

/// What leaves at each deadline, with the seconds since the last one.
fn departures(rig: &mut Rig, count: usize) -> Vec<(f64, Vec<String>)> {
    let mut departures = Vec::new();
    for _ in 0..count {
        let before = rig.now;
        rig.pass_to_deadline();
        let seconds = rig.now.since(before).as_secs_f64();
        departures.push((seconds, rig.frames()));
    }
    departures
}

fn after(seconds: f64, frame: &str) -> (f64, Vec<String>) {
    (seconds, vec![frame.to_owned()])
}

#[test]
fn messages_leave_one_by_one_and_in_order() {
    let mut rig = open(&a_second());
    for text in ["a", "b", "c"] {
        send(&mut rig, text);
    }
    assert_eq!(rig.frames(), ["a"]);
    rig.with(|life, output| {
        life.send_fragment(output, None, OpCode::Text, Fragment::First, b"d")?;
        life.send_fragment(output, None, OpCode::Text, Fragment::Last, b"e")
    })
    .expect("there is room");
    assert_eq!(departures(&mut rig, 2), [after(1.0, "b"), after(1.0, "c")]);
    rig.pass_to_deadline();
    rig.pass_to_deadline();
    assert_eq!(rig.frames(), ["de"]);
    assert_eq!(rig.life.next_deadline(), None);
    assert!(rig.life.aside.is_none(), "an idle connection keeps nothing");
    // The rest was long enough for the next one, whenever it comes.
    rig.pass(SECOND);
    send(&mut rig, "f");
    assert_eq!(rig.frames(), ["f"]);
}

/// Connections that share a pacer take turns, whoever has more to say.
#[test]
fn a_shared_pace_is_shared_fairly() {
    let pacer = a_second();
    let (mut many, mut few) = (open(&pacer), open(&pacer));
    for text in ["1", "2", "3"] {
        send(&mut many, text);
    }
    send(&mut few, "x");
    assert_eq!((many.frames().len(), few.frames().len()), (1, 0));
    let mut order = Vec::new();
    for _ in 0..3 {
        let next = |rig: &Rig| rig.life.next_deadline();
        let first = match (next(&many), next(&few)) {
            (Some(many_at), Some(few_at)) if few_at < many_at => &mut few,
            (None, _) => &mut few,
            _ => &mut many,
        };
        first.pass_to_deadline();
        order.extend(first.frames());
    }
    assert_eq!(order, ["2", "x", "3"]);
    assert_eq!(many.now.nanoseconds(), 3_000_000_000);
}

#[test]
fn control_frames_count_and_go_ahead() {
    let mut rig = open(&a_second());
    control(&mut rig, OpCode::Ping, "1");
    assert_eq!(rig.frames(), ["ping 1"]);
    for text in ["a", "b"] {
        send(&mut rig, text);
    }
    control(&mut rig, OpCode::Ping, "2");
    control(&mut rig, OpCode::Ping, "3");
    // Of pongs only the newest waits.
    control(&mut rig, OpCode::Pong, "old");
    control(&mut rig, OpCode::Pong, "new");
    let expected = ["pong new", "ping 2", "ping 3", "a", "b"].map(|frame| after(1.0, frame));
    assert_eq!(departures(&mut rig, 5), expected);
    control(&mut rig, OpCode::Pong, "next");
    assert_eq!(departures(&mut rig, 1), [after(1.0, "pong next")]);
}

/// A socket that takes nothing gets one pong, and no more on top however long that lasts (pitfall 5).
#[test]
fn pongs_wait_for_the_socket_too() {
    let mut rig = open(&a_second());
    rig.with(|life, output| life.handle_queued(output, 100));
    for payload in ["first", "older", "newest"] {
        control(&mut rig, OpCode::Pong, payload);
        rig.pass(SECOND);
    }
    assert_eq!(rig.frames(), ["pong first"]);
    assert_eq!(rig.life.next_deadline(), None);
    let now = rig.now;
    rig.life.handle_handed(now, 113, 50);
    rig.with(|life, output| life.handle_flushed(output, 162));
    assert!(rig.frames().is_empty());
    rig.with(|life, output| life.handle_flushed(output, 163));
    assert_eq!(rig.frames(), ["pong newest"]);
}

/// Two pings in one read, of which the second finds the first one's pong on its way.
#[test]
fn of_two_pongs_in_a_turn_the_second_has_its_moment() {
    let mut rig = open(&a_second());
    for payload in ["first", "second"] {
        control(&mut rig, OpCode::Pong, payload);
    }
    assert_eq!(rig.frames(), ["pong first"]);
    assert_eq!(departures(&mut rig, 1), [after(1.0, "pong second")]);
}

/// A pong that waits for its moment does not follow the Close frame (RFC 6455 §5.5.1).
#[test]
fn nothing_follows_a_close() {
    let mut rig = open(&a_second());
    for payload in ["first", "second"] {
        control(&mut rig, OpCode::Pong, payload);
    }
    close(&mut rig);
    assert_eq!(rig.frames(), ["pong first", "close 1000"]);
    rig.pass(SECOND * 2);
    rig.handle_deadline();
    assert!(rig.frames().is_empty());
}

/// When all of them are late, they do not make up for it at once: the pace is that of the frames that
/// leave, and each connection has its turn.
#[test]
fn what_was_held_up_leaves_at_the_pace_too() {
    let pacer = a_second();
    let mut rigs: Vec<Rig> = (0..5).map(|_| open(&pacer)).collect();
    for text in ["a", "b", "c"] {
        for rig in &mut rigs {
            send(rig, text);
        }
    }
    let mut left = Vec::new();
    // Nobody looked for ten seconds, in which all five moments have passed; then everybody looks often.
    let start = rigs[0].now.after(SECOND * 10);
    for step in 0..200_u32 {
        let now = start.after(SECOND / 10 * step);
        for (index, rig) in rigs.iter_mut().enumerate() {
            rig.now = now;
            if rig.life.next_deadline().is_some_and(|due| due <= now) {
                rig.handle_deadline();
            }
            for frame in rig.frames() {
                left.push((now.since(start).as_secs_f64(), index, frame));
            }
        }
    }
    // The first of all left ten seconds ago, in its turn.
    assert_eq!((left[0].1, left[0].2.as_str()), (0, "a"), "{left:?}");
    left.remove(0);
    assert_eq!(left.len(), 14, "{left:?}");
    for (index, pair) in left.windows(2).enumerate() {
        let gap = pair[1].0 - pair[0].0;
        assert!(gap > 0.49, "{gap} s after frame {index} of {left:?}");
    }
    let first_seconds = left.iter().filter(|(at, ..)| *at < 4.95).count();
    assert!(first_seconds <= 6, "{left:?}");
    let heard: std::collections::BTreeSet<_> = left[..6].iter().map(|(_, who, _)| who).collect();
    assert_eq!(heard.len(), rigs.len(), "{left:?}");
}

/// Who waits for a message learns what became of it, and its number is nobody else's before.
#[test]
fn what_was_dropped_is_known_while_somebody_waits() {
    let mut rig = open(&a_second());
    for text in ["a", "b", "c"] {
        send(&mut rig, text);
    }
    rig.life.watch(true);
    assert_eq!(rig.frames(), ["a"]);
    assert_eq!(departures(&mut rig, 1), [after(1.0, "b")]);
    rig.with(|life, output| life.handle_close(output, None));
    let outcomes: Vec<_> = rig.life.outcomes().collect();
    assert_eq!(outcomes, [(1, Ok(())), (2, Err(SendError::Gone))]);
    assert_eq!(rig.life.entered(), 2);
    rig.life.watch(false);
    rig.life.take_reason();
    rig.life.tidy();
    assert!(rig.life.aside.is_none());
}

#[test]
fn a_heartbeat_is_not_kept_back_by_messages() {
    let mut rig = Rig::new(|options| {
        options.pacer = Some(a_second());
        let beat = Beat::new(SECOND * 10, SECOND * 5, None).expect("a beat");
        options.liveness.ping = Some(beat);
    });
    rig.open();
    for _ in 0..30 {
        send(&mut rig, "x");
    }
    let mut seconds = 0;
    while !rig.frames().iter().any(|frame| frame.starts_with("ping")) {
        rig.pass_to_deadline();
        seconds += 1;
        assert_eq!(rig.life.stage, Stage::Open);
        assert!(seconds < 14, "the ping waits behind the messages");
    }
}

/// The queue's limit and its water marks know of what waits.
#[test]
fn what_waits_counts_as_queued() {
    let mut rig = Rig::new(|options| {
        options.pacer = Some(a_second());
        options.max_queued = 1000;
        options.water_marks = (0, 200);
    });
    rig.open();
    send(&mut rig, "leaves at once");
    rig.frames();
    let mut sent = 0;
    let plain = Compression::BySize;
    let refused = loop {
        let payload = [0; 100];
        let result =
            rig.with(|life, output| life.send(output, None, plain, OpCode::Binary, &payload));
        match result {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    let SendError::Full { queued, limit } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((queued, limit), (rig.life.waiting_bytes(), 1000));
    assert!((2..10).contains(&sent), "{sent}");
    assert_eq!(rig.traced(Kind::QueueHighWater), 1);
    assert_eq!(rig.tally.drops, 1);
    for _ in 0..sent {
        rig.pass_to_deadline();
    }
    assert_eq!(rig.life.waiting_bytes(), 0);
    assert!(
        rig.with(|life, output| life.handle_queued(output, 0)),
        "low water"
    );
}

#[test]
fn a_close_follows_what_was_sent_before_it() {
    let pacer = a_second();
    let mut rig = open(&pacer);
    for text in ["a", "b"] {
        send(&mut rig, text);
    }
    rig.frames();
    close(&mut rig);
    assert_eq!((rig.life.stage, rig.frames().len()), (Stage::Closing, 0));
    assert_eq!(rig.traced(Kind::CloseSent), 0);
    rig.pass_to_deadline();
    assert_eq!(rig.frames(), ["b", "close 1000"]);
    assert_eq!(rig.traced(Kind::CloseSent), 1);
    // Its answer is awaited from then on, and its turn is taken.
    let deadline = rig.life.next_deadline().expect("the close timeout");
    assert_eq!(deadline.since(rig.now), SECOND * 5);
    let mut other = open(&pacer);
    other.now = rig.now;
    send(&mut other, "x");
    assert_eq!(departures(&mut other, 1), [after(2.0, "x")]);
}

#[test]
fn a_close_waits_no_longer_than_its_timeout() {
    let mut rig = open(&a_second());
    for _ in 0..20 {
        send(&mut rig, "x");
    }
    close(&mut rig);
    let began = rig.now;
    while rig.traced(Kind::CloseSent) == 0 {
        rig.pass_to_deadline();
    }
    assert_eq!(rig.now.since(began), SECOND * 5);
    assert_eq!(rig.frames().last().map(String::as_str), Some("close 1000"));
    assert_eq!(rig.life.stage, Stage::Closing);
    let left = 20 - 6;
    assert_eq!((rig.traced(Kind::Abandoned), rig.tally.drops), (1, left));
    rig.pass_to_deadline();
    assert_eq!(rig.now.since(began), SECOND * 10);
    assert_eq!(rig.life.stage, Stage::Over);
}

/// The peer's Close is answered at once, from whichever side closing began.
#[test]
fn the_peers_close_is_not_kept_waiting() {
    for we_began in [false, true] {
        let mut rig = open(&a_second());
        for text in ["a", "b", "c"] {
            send(&mut rig, text);
        }
        rig.frames();
        if we_began {
            close(&mut rig);
        }
        let frame = Some(CloseFrame {
            code: CloseCode::GOING_AWAY,
            reason: "",
        });
        rig.with(|life, output| life.handle_close(output, frame));
        let answer = if we_began { "close 1000" } else { "close 1001" };
        assert_eq!(rig.frames(), [answer]);
        assert_eq!((rig.life.stage, rig.tally.drops), (Stage::Closed, 2));
        rig.pass_to_deadline();
        assert_eq!((rig.life.stage, rig.frames().len()), (Stage::Over, 0));
    }
}

/// What waited is gone with its connection, and nothing of it disturbs the next one.
#[test]
fn a_lost_connection_drops_what_waits() {
    let mut rig = open(&a_second());
    for text in ["a", "b", "c"] {
        send(&mut rig, text);
    }
    let mut inbound = std::mem::replace(&mut rig.inbound, Inbound::Nobody);
    rig.with(|life, output| life.handle_end_of_stream(output, &mut inbound));
    assert_eq!(rig.life.next_deadline(), None);
    rig.with(Life::drop_paced);
    assert_eq!(rig.tally.drops, 2);
    rig.lose(Comeback::Again);
    rig.frames();
    rig.open();
    rig.pass(SECOND * 9);
    send(&mut rig, "d");
    assert_eq!(rig.frames(), ["d"]);
}

#[test]
fn what_was_held_leaves_at_its_pace() {
    let mut rig = Rig::new(|options| {
        options.pacer = Some(a_second());
        let (messages, bytes) = (9, 99);
        options.hold = Some(HoldLimit { messages, bytes });
        options.water_marks = (0, 1);
    });
    for text in ["a", "b", "c"] {
        send(&mut rig, text);
    }
    rig.life.watch(true);
    rig.open();
    rig.with(Life::release);
    assert_eq!(rig.frames(), ["a"]);
    assert_eq!(rig.traced(Kind::QueueHighWater), 1, "what waits counts");
    let left = |rig: &mut Rig| rig.life.outcomes().collect::<Vec<_>>();
    assert_eq!(left(&mut rig), [(1, Ok(()))]);
    assert_eq!(departures(&mut rig, 1), [after(1.0, "b")]);
    assert_eq!(left(&mut rig), [(2, Ok(()))]);
    assert_eq!(departures(&mut rig, 1), [after(1.0, "c")]);
    assert_eq!(left(&mut rig), [(3, Ok(()))]);
}
