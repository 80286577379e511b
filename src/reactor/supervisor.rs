//! What starts a supervised connection anew; when, the session's
//! [`supervision`](crate::session::supervision) says.

use super::Shared;
use super::connection::Connection;
use crate::handler::{ConnectionId, Handler};
use crate::request::Request;
use crate::session::Time;
use crate::session::supervision::{Restarts, Supervision, Verdict};
use crate::trace::{Event, Kind, Limit};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What starts a supervised connection anew.
pub(super) struct Supervisor {
    supervision: Supervision,
    restarts: Restarts,
    /// As it was given; a handler may have changed the target since.
    request: Request,
    factory: Box<dyn FnMut() -> Box<dyn Handler>>,
}

impl Supervisor {
    pub(super) fn new(
        supervision: Supervision,
        request: Request,
        factory: Box<dyn FnMut() -> Box<dyn Handler>>,
    ) -> Self {
        Self {
            supervision,
            restarts: Restarts::default(),
            request,
            factory,
        }
    }

    /// What follows the end of the connection.
    pub(super) fn judge(&mut self, failure: bool, now: Time) -> Verdict {
        self.restarts.judge(&self.supervision, failure, now)
    }

    /// It has failed once more than it may.
    pub(super) fn record_limit(&self, connection: &Connection, shared: &mut Shared) {
        let most = u64::from(self.supervision.most());
        let (mut output, _) = shared.turn.split(None);
        let life = &connection.core.session.life;
        life.record(&mut output, Kind::LimitHit, |time, id| {
            Event::limit_hit(time, id, Limit::Restarts, most + 1, most)
        });
    }

    /// A connection with a fresh handler; `None` if the factory panics, which takes down nothing but
    /// this connection.
    pub(super) fn restart(
        &mut self,
        id: ConnectionId,
        count: usize,
        shared: &mut Shared,
    ) -> Option<Connection> {
        let handler = catch_unwind(AssertUnwindSafe(|| (self.factory)())).ok()?;
        let connection = Connection::new(id, self.request.clone(), handler, shared);
        let most = u64::from(self.supervision.most());
        let (mut output, _) = shared.turn.split(None);
        let life = &connection.core.session.life;
        life.record(&mut output, Kind::Restarting, |time, id| {
            Event::restarting(time, id, count as u64, most)
        });
        Some(connection)
    }
}
