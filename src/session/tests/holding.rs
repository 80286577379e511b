//! Messages that are sent while there is no connection, for requests that have them held.

use super::{Rig, SECOND};
use crate::error::{DisconnectReason, SendError};
use crate::protocol::frame::OpCode;
use crate::session::aside::Comeback;
use crate::session::backlog::{Hold, HoldLimit};
use crate::session::outbound::{Compression, Fragment};
use crate::session::pace::Pacer;
use crate::session::{Inbound, Life, Stage};
use crate::trace::Kind;

fn rig(messages: usize, bytes: usize) -> Rig {
    Rig::new(|options| options.hold = Some(HoldLimit { messages, bytes }))
}

fn send(rig: &mut Rig, text: &str) -> Result<(), SendError> {
    let plain = Compression::BySize;
    rig.with(|life, output| life.send(output, None, plain, OpCode::Text, text.as_bytes()))
}

fn release(rig: &mut Rig) {
    rig.with(Life::release);
}

#[test]
fn what_is_sent_while_there_is_no_connection_follows_on_open_in_order() {
    let mut rig = rig(8, 800);
    for text in ["a", "b"] {
        send(&mut rig, text).expect("there is room");
    }
    rig.open();
    send(&mut rig, "from on_open").expect("it is open");
    release(&mut rig);
    assert_eq!(rig.frames(), ["from on_open", "a", "b"]);
    assert!(rig.life.aside.is_none(), "nothing is kept");

    // The end of the stream is not the end of it.
    let mut inbound = std::mem::replace(&mut rig.inbound, Inbound::Nobody);
    rig.with(|life, output| life.handle_end_of_stream(output, &mut inbound));
    send(&mut rig, "c").expect("there is room");
    rig.lose(Comeback::Again);
    send(&mut rig, "d").expect("there is room");
    rig.open();
    release(&mut rig);
    assert_eq!(rig.frames(), ["c", "d"]);
}

#[test]
fn the_limit_counts_messages_and_bytes() {
    let mut rig = rig(3, 10);
    for text in ["1234", "5678"] {
        send(&mut rig, text).expect("there is room");
    }
    assert_eq!(send(&mut rig, "9abc"), Err(SendError::HoldFull));
    assert_eq!(rig.life.can_hold(), Hold::Room);
    send(&mut rig, "9").expect("there is room");
    assert_eq!(rig.life.can_hold(), Hold::Full);
    for _ in 0..2 {
        assert_eq!(send(&mut rig, ""), Err(SendError::HoldFull));
    }
    assert_eq!(rig.tally.drops, 3);
    assert_eq!(rig.traced(Kind::LimitHit), 2, "the first of each run");
    rig.open();
    release(&mut rig);
    assert_eq!(rig.frames(), ["1234", "5678", "9"]);
}

#[test]
fn only_messages_are_held_and_only_for_a_connection_that_comes_back() {
    let mut rig = rig(8, 800);
    let ping = rig.with(|life, output| life.send_control(output, None, OpCode::Ping, b""));
    assert_eq!(ping, Err(SendError::NotOpen));
    let piece = rig
        .with(|life, output| life.send_fragment(output, None, OpCode::Text, Fragment::First, b""));
    assert_eq!(piece, Err(SendError::NotOpen));
    rig.open();
    rig.with(|life, output| life.close(output, None))
        .expect("it is open");
    assert_eq!(send(&mut rig, "late"), Err(SendError::Closing));
    // Not so when it was the peer who closed.
    let mut rig = self::rig(8, 800);
    rig.open();
    rig.with(|life, output| life.handle_close(output, None));
    assert_eq!(rig.life.stage, Stage::Closed);
    send(&mut rig, "for the next").expect("there is room");

    let mut unasked = Rig::new(|_| {});
    assert_eq!(send(&mut unasked, "x"), Err(SendError::NotOpen));
    assert!(unasked.life.aside.is_none());
}

/// A fragmented message that the handler has begun in `on_open` is not broken by what was held, and
/// nothing of that is lost silently. With a pacer it is refused at once, and not when its time comes.
#[test]
fn what_is_held_does_not_break_a_message_in_fragments() {
    for pacer in [None, Some(Pacer::new(1, SECOND).expect("a pace"))] {
        let mut rig = Rig::new(|options| {
            let (messages, bytes) = (8, 800);
            options.hold = Some(HoldLimit { messages, bytes });
            options.pacer = pacer;
        });
        for text in ["a", "b"] {
            send(&mut rig, text).expect("there is room");
        }
        rig.life.watch(true);
        rig.open();
        let piece = |rig: &mut Rig, fragment, payload| {
            rig.with(|life, output| {
                life.send_fragment(output, None, OpCode::Text, fragment, payload)
            })
            .expect("it is open");
        };
        piece(&mut rig, Fragment::First, &b"begun"[..]);
        rig.with(Life::release);
        let refused = Err(SendError::FragmentOrder);
        let outcomes: Vec<_> = rig.life.outcomes().collect();
        assert_eq!(outcomes, [(1, refused), (2, refused)]);
        // Of a run only the first is recorded.
        assert_eq!((rig.tally.drops, rig.traced(Kind::SendDropped)), (2, 1));
        piece(&mut rig, Fragment::Last, b" and ended");
        if rig.life.departure().is_some() {
            rig.pass_to_deadline();
        }
        assert_eq!(rig.frames(), ["begun and ended"]);
    }
}

/// What an abort throws away in the turn in which it left has not been written.
#[test]
fn what_is_aborted_has_not_left() {
    let mut rig = rig(8, 800);
    send(&mut rig, "a").expect("there is room");
    rig.life.watch(true);
    rig.open();
    rig.with(Life::release);
    rig.with(Life::abort);
    assert!(rig.frames().is_empty());
    let outcomes: Vec<_> = rig.life.outcomes().collect();
    assert_eq!(outcomes, [(1, Err(SendError::Gone))]);
}

#[test]
fn a_successor_goes_on_with_what_is_held_and_otherwise_it_is_counted() {
    let mut first = rig(8, 800);
    send(&mut first, "a").expect("there is room");
    let (entered, held) = (first.life.entered(), first.life.take_held());
    assert!(first.life.aside.is_none());
    let mut second = rig(8, 800);
    let reason = DisconnectReason::Dropped;
    second.life.succeed(reason, held, entered);
    send(&mut second, "b").expect("there is room");
    assert_eq!(second.life.entered(), 2, "the numbers go on");
    assert_eq!(second.with(Life::abandon_held), 2);
    assert_eq!((second.tally.drops, second.traced(Kind::Abandoned)), (2, 1));
}
