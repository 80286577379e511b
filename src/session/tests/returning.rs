//! What an open is told of the time before it.

use super::Rig;
use crate::error::Error;
use crate::session::aside::Comeback::{self, Again, Anew, Elsewhere};
use std::io;

/// What the next open would be told.
fn before(rig: &mut Rig) -> Option<(Comeback, String)> {
    let before = rig.life.take_before()?;
    Some((before.step, before.reason.to_string()))
}

fn dropped(rig: &mut Rig) -> String {
    let mut inbound = std::mem::replace(&mut rig.inbound, crate::session::Inbound::Nobody);
    rig.with(|life, output| life.handle_end_of_stream(output, &mut inbound));
    let reason = "the peer ended the connection without a Close frame";
    reason.to_owned()
}

fn fail_attempt(rig: &mut Rig) -> String {
    rig.pass_to_deadline();
    rig.with(|life, output| {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        life.fail(output, Error::Io(refused));
    });
    "the connection failed: connection refused".to_owned()
}

#[test]
fn the_first_open_has_nothing_before_it_whatever_it_took() {
    let mut rig = Rig::new(|_| {});
    rig.open();
    assert_eq!(before(&mut rig), None);

    let mut rig = Rig::new(|_| {});
    fail_attempt(&mut rig);
    rig.lose(Again);
    rig.open();
    assert_eq!(before(&mut rig), None);
    // An idle connection keeps nothing of it.
    assert!(rig.life.aside.is_none());
}

/// Data is missing since the connection was last open, not since the last attempt.
#[test]
fn failed_attempts_do_not_hide_what_ended_the_last_open() {
    let mut rig = Rig::new(|_| {});
    rig.open();
    let reason = dropped(&mut rig);
    rig.lose(Again);
    for _ in 0..3 {
        fail_attempt(&mut rig);
        rig.lose(Again);
    }
    rig.open();
    assert_eq!(before(&mut rig), Some((Again, reason)));
    assert_eq!(before(&mut rig), None);
    assert!(rig.life.aside.is_none());
}

#[test]
fn another_target_is_said_so() {
    let mut rig = Rig::new(|_| {});
    let failed = fail_attempt(&mut rig);
    rig.lose(Elsewhere);
    rig.open();
    assert_eq!(before(&mut rig), Some((Elsewhere, failed)));

    let reason = dropped(&mut rig);
    rig.lose(Again);
    fail_attempt(&mut rig);
    rig.lose(Elsewhere);
    fail_attempt(&mut rig);
    rig.lose(Again);
    rig.open();
    assert_eq!(before(&mut rig), Some((Elsewhere, reason)));
}

#[test]
fn a_restart_is_said_so_until_it_opens() {
    let mut rig = Rig::new(|_| {});
    let held = rig.life.take_held();
    rig.life
        .succeed(crate::error::DisconnectReason::Dropped, held, 0);
    fail_attempt(&mut rig);
    rig.lose(Again);
    rig.open();
    let reason = crate::error::DisconnectReason::Dropped.to_string();
    assert_eq!(before(&mut rig), Some((Anew, reason)));
    let reason = dropped(&mut rig);
    rig.lose(Again);
    rig.open();
    assert_eq!(before(&mut rig), Some((Again, reason)));
}
