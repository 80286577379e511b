//! How long a close may take, with output in front of the Close frame.

use super::{Rig, SECOND};
use crate::error::{DisconnectReason, Error};
use crate::protocol::close::CloseCode;
use crate::protocol::frame::OpCode;
use crate::session::outbound::Compression;
use crate::session::tests::Kind;
use crate::session::{Life, Stage, Step};

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
    rig.life.tidy();
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

/// Pitfall 15: the end was a clean one, whatever follows it.
#[test]
fn what_tls_meets_behind_both_close_frames_changes_nothing() {
    let mut rig = Rig::new(|_| {});
    rig.open();
    rig.with(|life, output| life.handle_close(output, None));
    rig.with(|life, output| life.fail(output, Error::Tls("a truncated record".into())));
    assert_eq!(rig.life.stage, Stage::Over);
    assert!(rig.life.clean);
    let reason = rig.life.take_reason();
    assert!(matches!(reason, DisconnectReason::Remote { .. }));
    assert_eq!(rig.traced(Kind::ClosedCleanly), 1);
}

fn send(rig: &mut Rig, text: &str) {
    let payload = text.as_bytes();
    let text = OpCode::Text;
    rig.with(|life, output| life.send(output, None, Compression::Never, text, payload))
        .expect("it is open");
}

/// It is over without a code, and nothing brings it back but the handler.
fn expect_aborted(rig: &mut Rig) {
    assert_eq!(rig.life.stage, Stage::Over);
    assert_eq!(rig.life.next_deadline(), None);
    let reason = rig.life.take_reason();
    assert!(matches!(reason, DisconnectReason::Local { code: None, .. }));
    assert_eq!(reason.close_code(), CloseCode::ABNORMAL);
    let delay = rig.with(|life, output| life.policy_delay(output, &reason));
    assert_eq!(delay, None);
}

#[test]
fn an_abort_says_nothing_and_waits_for_nothing() {
    let mut rig = Rig::new(|_| {});
    rig.open();
    send(&mut rig, "lost");
    rig.life.batch = true;
    rig.with(Life::abort);
    assert_eq!(rig.written(), b"");
    assert!(!rig.life.batch);
    // The peer's Close is not listened to any more, nor is a second abort.
    rig.with(|life, output| life.handle_close(output, None));
    rig.with(Life::abort);
    expect_aborted(&mut rig);
    let told = [Kind::ClosingLocal, Kind::CloseSent, Kind::CloseReceived];
    assert_eq!(told.map(|kind| rig.traced(kind)), [1, 0, 0]);
}

#[test]
fn an_abort_while_closing_ends_the_waiting_and_keeps_the_reason() {
    let mut rig = Rig::new(|_| {});
    rig.open();
    rig.with(|life, output| life.handle_close(output, None));
    rig.with(Life::abort);
    assert_eq!(rig.frames(), ["close 0"]);
    assert_eq!(rig.life.stage, Stage::Over);
    let reason = rig.life.take_reason();
    assert!(matches!(
        reason,
        DisconnectReason::Remote { code: None, .. }
    ));
    assert_eq!(rig.traced(Kind::ForcedClosed), 1);
}

#[test]
fn an_abort_without_a_connection_gives_up_the_attempt_or_the_wait() {
    let mut rig = Rig::new(|_| {});
    assert!(matches!(rig.pass_to_deadline(), Step::Connect(_)));
    rig.with(Life::abort);
    expect_aborted(&mut rig);
    let mut rig = Rig::new(|_| {});
    assert_eq!(rig.life.stage, Stage::BackOff);
    rig.with(Life::abort);
    assert_eq!(rig.life.stage, Stage::Ended);
}
