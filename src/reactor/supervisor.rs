//! The end of a connection, and what starts a supervised one anew; when, the session's
//! [`supervision`](crate::session::supervision) says.

use super::Shared;
use super::casts::discard;
use super::connection::Connection;
use crate::error::Error;
use crate::handler::{ConnectionId, Handler};
use crate::request::Request;
use crate::session::Time;
use crate::session::supervision::{Restarts, Supervision, Verdict, is_failure};
use crate::trace::{Event, Kind, Limit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

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

/// Takes an ended connection out and gives it its last callback. If it is supervised, it may begin
/// anew in its place.
pub(super) fn remove(
    connections: &mut [Option<Box<Connection>>],
    shared: &mut Shared,
    index: usize,
) {
    let Some(mut connection) = connections[index].take() else {
        return;
    };
    let id = connection.core.id();
    let options = Arc::clone(&connection.core.session.life.target.options);
    let name = options.name.as_deref();
    let reason = connection.life().take_reason();
    // What the peer did to one that this side had closed is none, but what its handler did is.
    let failure =
        is_failure(&reason) && (!connection.life().unwanted || reason.is_handler_failure());
    let supervisor = connection.supervisor.take();
    let supervisor = supervisor.filter(|_| !shared.is_shutting_down());
    let (verdict, supervisor) = match supervisor {
        Some(mut supervisor) => {
            let verdict = supervisor.judge(failure, shared.turn.now);
            (verdict, Some(supervisor))
        }
        None => (Verdict::End, None),
    };
    if let Some(supervisor) = supervisor.as_ref().filter(|_| verdict == Verdict::Escalate) {
        supervisor.record_limit(&connection, shared);
    }
    let mut escalates = options.linked && failure || verdict == Verdict::Escalate;
    let restart = match (verdict, supervisor) {
        (Verdict::Restart(count), Some(supervisor)) => Some((supervisor, count)),
        (_, supervisor) => {
            discard(supervisor);
            None
        }
    };
    if restart.is_none() {
        connection.core.abandon(&mut shared.turn);
    }
    let legacy = connection.bequeath();
    let reason = connection.terminate(shared, reason);
    if let Some((mut supervisor, count)) = restart {
        if let Some(mut next) = supervisor.restart(id, count, shared) {
            next.supervisor = Some(supervisor);
            next.inherit(legacy, reason);
            // A turn of its own, in which its first attempt is armed.
            next.core.ready = true;
            shared.ready.push(id);
            // What the last one was, this one is not.
            shared.central.slots().publish(id, next.core.published);
            connections[index] = Some(Box::new(next));
            return;
        }
        discard(supervisor);
        legacy.casts.discard();
        escalates = true;
    }
    shared.central.slots().release(id, name);
    if escalates {
        let connection = name.map_or_else(|| id.to_string(), str::to_owned);
        let reason = Box::new(reason);
        shared
            .escalated
            .push_back(Error::Ended { connection, reason });
    } else {
        discard(reason);
    }
}
