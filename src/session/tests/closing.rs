//! How long a close may take, with output in front of the Close frame.

use super::{Rig, SECOND};
use crate::session::Stage;
use crate::session::tests::Kind;

/// An open connection with a close timeout of a second that has begun to close.
fn closing() -> Rig {
    let mut rig = Rig::new(|options| options.close_timeout = SECOND);
    rig.open();
    rig.with(|life, output| life.close(output, None))
        .expect("it is open");
    rig
}

fn handed(rig: &mut Rig, queued: usize, handed: u64) {
    let now = rig.now;
    rig.life.handle_handed(now, queued, handed);
}

/// Seconds until it is given up.
fn patience(rig: &Rig) -> f64 {
    let deadline = rig.life.next_deadline().expect("it is closing");
    deadline.since(rig.now).as_secs_f64()
}

#[test]
fn the_answer_is_awaited_from_when_the_socket_has_the_close_frame() {
    let mut rig = closing();
    handed(&mut rig, 100, 0);
    assert_eq!(patience(&rig), 1.0);
    rig.pass(SECOND / 2);
    handed(&mut rig, 40, 60);
    assert_eq!(patience(&rig), 1.0, "the queue moves");
    rig.pass(SECOND / 2);
    handed(&mut rig, 40, 60);
    assert_eq!(patience(&rig), 0.5, "the queue does not move");
    handed(&mut rig, 0, 100);
    assert_eq!(patience(&rig), 1.0, "it is gone");
    rig.pass(SECOND / 2);
    handed(&mut rig, 0, 100);
    assert_eq!(patience(&rig), 0.5, "nothing more is said");
    assert!(rig.life.aside().handing.is_none());
    rig.pass_to_deadline();
    assert_eq!(rig.life.stage, Stage::Over);
    assert_eq!(rig.traced(Kind::ForcedClosed), 1);
}

#[test]
fn a_queue_that_stands_still_is_given_up() {
    let mut rig = closing();
    handed(&mut rig, 100, 7);
    rig.pass_to_deadline();
    assert_eq!(rig.now.nanoseconds(), 1_000_000_000);
    assert_eq!(rig.life.stage, Stage::Over);
}

#[test]
fn a_queue_that_hardly_moves_is_given_up_in_the_end() {
    let mut rig = closing();
    for byte in 0..12 {
        handed(&mut rig, 100, byte);
        assert_eq!(rig.life.stage, Stage::Closing);
        rig.pass(SECOND / 2);
        rig.handle_deadline();
    }
    assert_eq!(rig.life.stage, Stage::Over);
    // What it was waiting for does not outlive it.
    rig.life.take_reason();
    assert!(rig.life.aside.is_none());
}

/// A peer that closes first gets what was sent before it did, in the same time.
#[test]
fn the_echo_of_a_close_waits_for_the_queue_as_well() {
    let mut rig = Rig::new(|options| options.close_timeout = SECOND);
    rig.open();
    rig.with(|life, output| life.handle_close(output, None));
    assert_eq!(rig.life.stage, Stage::Closed);
    handed(&mut rig, 100, 0);
    rig.pass(SECOND / 2);
    handed(&mut rig, 0, 100);
    assert_eq!(patience(&rig), 1.0);
}
