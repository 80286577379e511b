//! The gate that attempts pass and the queue of TLS handshakes, kept by the reactor; the policy is the
//! session's [`admission`](crate::session::admission).
//!
//! Between a timer that says an attempt is due and [`connect`](super::connect), and again between a
//! socket that is connected and its handshakes.

use super::connection::Connection;
use super::{Reactor, Shared};
use crate::handler::ConnectionId;
use crate::session::Stage;
use crate::session::admission::{Admitted, Permit};
use std::time::Duration;

impl Reactor {
    /// Lets the attempts begin whose turn it is.
    pub(super) fn handle_admission(&mut self) {
        // Not the time that it takes: others have their turn.
        let now = self.shared.turn.now;
        while let Some(admitted) = self.shared.gate.next(now) {
            let id = ConnectionId(admitted.id);
            self.with(id, |connection, shared| {
                connection.begin(shared, &admitted);
            });
        }
        self.shared.gate.end_turn();
    }

    /// TLS handshakes go on, a turn's share of them, whoever has waited longest first.
    #[cfg(feature = "tls")]
    pub(super) fn handle_handshakes(&mut self) {
        for _ in 0..self.shared.gate.handshakes_per_turn() {
            let Some(id) = self.shared.handshakes.pop_front() else {
                return;
            };
            self.with(id, |connection, shared| {
                if std::mem::take(&mut connection.core.ready) {
                    connection.handle_handshake(shared);
                }
            });
        }
    }
}

impl Connection {
    /// An attempt is due: it begins, or waits to be admitted.
    pub(super) fn ask(&mut self, shared: &mut Shared) {
        let host = self.core.session.life.target.url.host_str();
        let permit = shared
            .gate
            .ask(host, self.core.session.life.id, shared.turn.now);
        self.approach(shared).permit = Some(permit);
        if let Permit::Admitted { .. } = permit {
            self.begin_attempt(shared, Duration::ZERO);
            return;
        }
        let waiting = shared.gate.queue_length(permit);
        let (mut output, _) = shared.turn.split(None);
        self.life().queue(&mut output, waiting);
    }

    /// It was this one's turn.
    fn begin(&mut self, shared: &mut Shared, admitted: &Admitted) {
        debug_assert_eq!(self.life().stage, Stage::Queued);
        self.approach(shared).permit = Some(admitted.permit);
        self.begin_attempt(shared, admitted.waited);
    }

    fn begin_attempt(&mut self, shared: &mut Shared, waited: Duration) {
        let (mut output, _) = shared.turn.split(None);
        let step = self.life().begin_attempt(&mut output, waited);
        self.perform(shared, step);
    }

    /// Gives back what the stage that was reached does not need.
    pub(super) fn settle_permit(&mut self, shared: &mut Shared) {
        let needed = match self.core.session.life.stage {
            Stage::Queued
            | Stage::Resolving
            | Stage::Connecting
            | Stage::Tunnelling
            | Stage::Securing
            | Stage::Upgrading => true,
            Stage::Open
            | Stage::Closing
            | Stage::Closed
            | Stage::Failing
            | Stage::Over
            | Stage::BackOff
            | Stage::Ended => false,
        };
        // By now there are no racers either.
        if !needed && let Some(approach) = self.approach.take() {
            if let Some(permit) = approach.permit {
                shared.gate.give_back(permit);
            }
            shared.approaches.give_back(approach);
        }
    }

    /// There is something to read: now, or for a TLS handshake when it is its turn.
    pub(super) fn handle_readable(&mut self, shared: &mut Shared) {
        #[cfg(feature = "tls")]
        if self.core.session.life.stage == Stage::Securing {
            self.queue_handshake(shared);
            return;
        }
        self.receive(shared);
    }

    /// The TLS handshake is to begin, or to go on.
    #[cfg(feature = "tls")]
    pub(super) fn queue_handshake(&mut self, shared: &mut Shared) {
        if !self.core.ready {
            self.core.ready = true;
            shared.handshakes.push_back(self.core.id());
        }
    }

    #[cfg(feature = "tls")]
    fn handle_handshake(&mut self, shared: &mut Shared) {
        if self.awaits_tls()
            && let Err(error) = self.begin_tls(shared)
        {
            let (mut output, _) = shared.turn.split(None);
            self.life().fail(&mut output, error);
        }
        // Also if it has only begun: what was announced before is not announced again (pitfall 22). But a
        // server has nothing to say before it is spoken to.
        if self.link.as_ref().is_some_and(|link| link.readable) {
            self.receive(shared);
        }
    }

    /// Is it connected, and has not begun with TLS? What the peer may say by now is not for anybody
    /// else.
    #[cfg(feature = "tls")]
    pub(super) fn awaits_tls(&self) -> bool {
        self.core.session.life.stage == Stage::Securing
            && self.link.as_ref().is_some_and(|link| link.tls.is_none())
    }
}
