//! Casts that wait for a connection to open. They outlive a supervised restart; what waits at the end
//! is counted.

use super::Turn;
use super::dispatch::Core;
use crate::session::{Life, Output};
use crate::trace::event::Event;
use crate::trace::kind::{Kind, Limit};
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Casts that wait for one connection. A sender is told nothing of the connection's stage, so one that
/// never opens must not collect without end; and what is many more than any program means to send
/// before it looks is a program that does not look.
pub(super) const MAX_WAITING: usize = 65_536;

/// What was cast.
pub(super) struct Cast {
    pub(super) message: Box<dyn Any + Send>,
    /// The name of its type, for the trace.
    pub(super) label: &'static str,
}

impl Cast {
    pub(super) fn new<M: Any + Send>(message: M) -> Self {
        Self {
            message: Box::new(message),
            label: std::any::type_name::<M>(),
        }
    }

    /// It goes to the handler now.
    pub(super) fn record(&self, life: &Life, output: &mut Output<'_>) {
        life.record(output, Kind::CastReceived, |time, id| {
            Event::cast_received(time, id, self.label)
        });
    }
}

/// The casts of one connection, first come first served. Nothing is allocated while none waits.
#[derive(Default)]
pub(super) struct Casts(Option<Box<Queue>>);

#[derive(Default)]
struct Queue {
    messages: VecDeque<Cast>,
    /// The limit was hit, and that was recorded.
    full: bool,
}

impl Casts {
    /// Keeps `cast` until the connection opens, or drops it if too many wait already.
    pub(super) fn wait(&mut self, life: &Life, output: &mut Output<'_>, cast: Cast) {
        let queue = self.0.get_or_insert_default();
        let waiting = queue.messages.len();
        if waiting < MAX_WAITING {
            queue.messages.push_back(cast);
            return;
        }
        output.tally.drops += 1;
        if !queue.full {
            queue.full = true;
            life.record(output, Kind::LimitHit, |time, id| {
                let (asked, allowed) = (waiting as u64 + 1, waiting as u64);
                Event::limit_hit(time, id, Limit::WaitingCasts, asked, allowed)
            });
        }
        discard(cast);
    }

    /// Drops them: there is no successor after all, which is escalated.
    pub(super) fn discard(self) {
        discard(self.0);
    }

    /// The next one; those behind it go on waiting.
    pub(super) fn next(&mut self) -> Option<Cast> {
        let cast = self.0.as_mut()?.messages.pop_front();
        if cast.is_none() {
            self.0 = None;
        }
        cast
    }
}

impl Core {
    /// The end, without a successor: what waits for the connection is dropped, and said to be.
    pub(super) fn abandon(&mut self, turn: &mut Turn) {
        let casts = self.casts.0.take();
        let count = casts.as_ref().map_or(0, |casts| casts.messages.len());
        let life = &mut self.session.life;
        let (mut output, _) = turn.split(None);
        let held = life.abandon_held(&mut output);
        if count > 0 {
            output.tally.drops += count as u64;
            life.record(&mut output, Kind::Abandoned, |time, id| {
                Event::abandoned(time, id, count as u64, "casts")
            });
        }
        if count + held > 0 {
            let now = turn.now.nanoseconds();
            let central = &turn.central;
            self.meter.publish(&central.meter, &mut turn.tally, now, 0);
        }
        discard(casts);
    }
}

/// Drops what is not ours; its destructor is foreign code.
pub(super) fn discard<T>(foreign: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(foreign)));
}
