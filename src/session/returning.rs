//! Coming back: what follows the end of a connection or of an attempt to open one.
//!
//! The last part of a connection's [`Life`]. The handler decides; [`policy`](super::policy) says what
//! happens where it leaves that to the request, and [`redirect`](super::redirect) where to.

use super::aside::Comeback;
use super::life::{Life, Stage};
use super::options::Target;
use super::outbound::{Output, Sends};
use super::{policy, redirect};
use crate::error::{DisconnectReason, Error};
use crate::protocol::handshake::HandshakeError;
use crate::stats::StageTimes;
use crate::trace::event::Event;
use crate::trace::kind::{Kind, Limit};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

impl Life {
    /// After an attempt that the server has redirected: the next one goes there, at once and without
    /// asking the handler. False if there was no redirect, or none that may be followed.
    pub(crate) fn follow_redirect(&mut self, output: &mut Output<'_>) -> bool {
        let next = match self.ending() {
            Some(DisconnectReason::ConnectFailed(Error::Handshake(HandshakeError::Rejected(
                rejection,
            )))) if self.redirects < self.target.options.max_redirects => {
                let built = self.aside.as_ref().and_then(|aside| aside.built.as_ref());
                redirect::follow(&self.target, built, rejection)
            }
            _ => None,
        };
        let Some(next) = next else {
            self.redirects = 0;
            self.restore();
            return false;
        };
        self.redirects += 1;
        let url = next.url.clone();
        let from = std::mem::replace(&mut self.target, next);
        self.aside().built.get_or_insert(from);
        self.take_ending();
        self.stage = Stage::BackOff;
        self.deadline = Some(output.now);
        self.record(output, Kind::ReconnectScheduled, |time, id| {
            let server = format_args!("redirected to {}", url.host_header());
            Event::reconnect_scheduled(time, id, 0, server)
        });
        true
    }

    /// Why it ended. The reactor is done with the TCP connection.
    pub(crate) fn take_reason(&mut self) -> DisconnectReason {
        self.sends = Sends::Unknown;
        self.liveness = None;
        self.deadline = None;
        self.queued = 0;
        self.pong = None;
        self.take_last_ending().unwrap_or(DisconnectReason::Dropped)
    }

    /// How long the stages of the attempt took that is under way, or was the last.
    pub(crate) fn stage_times(&self) -> StageTimes {
        self.reach
            .as_ref()
            .map_or_else(StageTimes::default, |reach| reach.times)
    }

    /// Who was reached in the attempt under way: the server, or the proxy before it.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.reach.as_ref()?.peer
    }

    /// The attempt is over, and everybody who wanted to know has been told.
    pub(crate) fn end_attempt(&mut self) {
        self.reach = None;
    }

    /// What the policy would do after `reason`: connect again after this time, or never.
    pub(crate) fn policy_delay(
        &mut self,
        output: &mut Output<'_>,
        reason: &DisconnectReason,
    ) -> Option<Duration> {
        let policy = &self.target.options.reconnect;
        let good = self
            .heard
            .data_span()
            .is_some_and(|span| policy.resets(span));
        let asked = match reason {
            DisconnectReason::Local { .. } => {
                // No failure, and of one that was open no continuation of those before it. During an
                // attempt, what was heard is still that of the connection before.
                if good && self.attempt == 0 {
                    self.failures = 0;
                }
                return None;
            }
            DisconnectReason::ConnectFailed(error) => {
                self.failures = self.failures.saturating_add(1);
                match error {
                    Error::Handshake(HandshakeError::Rejected(rejection)) => {
                        policy::retry_after(rejection)
                    }
                    _ => None,
                }
            }
            _ => {
                self.failures = if good {
                    0
                } else {
                    self.failures.saturating_add(1)
                };
                None
            }
        };
        let failures = self.failures;
        if let Some(most) = policy.has_given_up(failures) {
            self.record(output, Kind::LimitHit, |time, id| {
                let (failures, most) = (u64::from(failures), u64::from(most));
                Event::limit_hit(time, id, Limit::Attempts, failures, most)
            });
            return None;
        }
        let delay = policy.delay(failures, output.entropy)?;
        Some(delay.max(asked.unwrap_or_default()))
    }

    /// From here on it is `target` that is connected to, and traced as that one asks for. The name
    /// stays: other threads know the connection by it.
    pub(crate) fn change_target(&mut self, output: &mut Output<'_>, mut target: Target) {
        if target.options.name != self.target.options.name {
            let name = self.target.options.name.clone();
            Arc::make_mut(&mut target.options).name = name;
        }
        // Nobody waits for the first attempt any more, and the other request's policy begins anew.
        if target.options.fail_first {
            Arc::make_mut(&mut target.options).fail_first = false;
        }
        self.failures = 0;
        if let Some(level) = target.options.level
            && level != self.level
        {
            self.set_level(output, level);
        }
        self.target = target;
    }

    /// There is no next attempt.
    pub(crate) fn plan_end(&mut self, reason: DisconnectReason) {
        self.set_ending(reason);
        self.stage = Stage::Ended;
    }

    /// The next attempt comes after `delay`, or never.
    pub(crate) fn plan(
        &mut self,
        output: &mut Output<'_>,
        delay: Option<Duration>,
        step: Comeback,
        reason: DisconnectReason,
    ) {
        let Some(delay) = delay else {
            self.plan_end(reason);
            return;
        };
        self.stage = Stage::BackOff;
        self.unwanted = false;
        self.deadline = Some(output.now.after(delay));
        let nanoseconds = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.record(output, Kind::ReconnectScheduled, |time, id| {
            Event::reconnect_scheduled(time, id, nanoseconds, &reason)
        });
        self.remember(step, reason);
    }
}
