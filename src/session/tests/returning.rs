//! What an open is told of the time before it.

use super::{Rig, SECOND};
use crate::error::{DisconnectReason, Error};
use crate::session::Life;
use crate::session::aside::Comeback::{self, Again, Anew, Elsewhere};
use crate::session::policy::ReconnectPolicy;
use std::io;
use std::time::Duration;

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
    rig.life.succeed(DisconnectReason::Dropped, held, 0);
    fail_attempt(&mut rig);
    rig.lose(Again);
    rig.open();
    let reason = DisconnectReason::Dropped.to_string();
    assert_eq!(before(&mut rig), Some((Anew, reason)));
    let reason = dropped(&mut rig);
    rig.lose(Again);
    rig.open();
    assert_eq!(before(&mut rig), Some((Again, reason)));
}

/// What the policy says of the end that is there; the next attempt comes whatever it says.
fn policy_delay(rig: &mut Rig, reason: &DisconnectReason) -> Option<Duration> {
    let delay = rig.with(|life, output| life.policy_delay(output, reason));
    rig.lose(Again);
    delay
}

/// A connection that the handler ends is no failure. Nor do those before it count any more, if it was good.
#[test]
fn a_good_connection_that_this_side_ends_is_the_end_of_failures_in_a_row() {
    for (life, again) in [(SECOND, true), (SECOND / 2, false)] {
        let mut rig = Rig::new(|options| {
            let policy = ReconnectPolicy::fixed(SECOND).reset_after(SECOND);
            options.reconnect = policy.max_attempts(2);
        });
        let refused = || {
            let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
            DisconnectReason::ConnectFailed(Error::Io(refused))
        };
        fail_attempt(&mut rig);
        assert!(policy_delay(&mut rig, &refused()).is_some());
        rig.open();
        rig.life.heard.message(rig.now);
        rig.pass(life);
        rig.life.heard.message(rig.now);
        rig.with(Life::abort);
        let reason = String::new();
        let local = DisconnectReason::Local { code: None, reason };
        assert_eq!(policy_delay(&mut rig, &local), None);
        fail_attempt(&mut rig);
        assert_eq!(policy_delay(&mut rig, &refused()).is_some(), again);
    }
}
