//! What an attempt is that waits to be admitted.

use super::Rig;
use crate::error::{DisconnectReason, Error};
use crate::session::{Stage, Step};
use crate::trace::Kind;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn queued() -> Rig {
    let mut rig = Rig::new(|_| {});
    assert_eq!(rig.handle_time(), Step::Admit);
    rig.with(|life, output| life.queue(output, 7));
    assert_eq!(rig.life.stage, Stage::Queued);
    rig
}

#[test]
fn waiting_uses_up_no_deadline() {
    let mut rig = queued();
    assert_eq!(rig.traced(Kind::ConnectQueued), 1);
    assert_eq!(rig.life.next_deadline(), None);
    rig.pass(HOUR);
    assert_eq!(rig.handle_time(), Step::Wait);
    let step = rig.with(|life, output| life.begin_attempt(output, HOUR));
    assert!(matches!(step, Step::Connect(_)), "{step:?}");
    assert_eq!(rig.life.stage_times().admission, Some(HOUR));
    let timeouts = rig.life.target.options.timeouts;
    assert_eq!(rig.life.next_deadline(), Some(rig.now.after(timeouts.tcp)));
    assert_eq!(rig.life.attempt, 1, "it was one attempt all along");
}

#[test]
fn what_waits_is_closed_without_an_attempt() {
    let mut rig = queued();
    let closed = rig.with(|life, output| life.close(output, None));
    assert_eq!((closed, rig.life.stage), (Ok(()), Stage::Ended));
    let reason = rig.life.take_reason();
    assert!(matches!(reason, DisconnectReason::Local { .. }), "{reason}");
    assert_eq!(rig.traced(Kind::Connecting), 0);
}

/// A timer of the handler's may be due while it waits.
#[test]
fn a_handler_that_fails_while_it_waits_ends_it() {
    let mut rig = queued();
    rig.with(|life, output| life.fail(output, Error::Handler("no".into())));
    assert_eq!(rig.life.stage, Stage::Ended);
    assert!(rig.life.take_reason().is_handler_failure());
}
