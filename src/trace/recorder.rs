//! The ring with its live tap: what every floor above records into.
//!
//! Comes after [`super::ring`], which keeps the events; adds the switch that also prints each event
//! as a `*DBG*` line the moment it happens, as the seed library's trace does.

use super::event::Event;
use super::kind::{Kind, Level};
use super::render;
use super::ring::Ring;
use std::sync::Arc;

/// Records events, and prints them where that was asked for.
pub(crate) struct Recorder {
    ring: Ring,
    print: bool,
}

impl Recorder {
    pub(crate) fn new(capacity: usize, print: bool) -> Self {
        Self {
            ring: Ring::with_capacity(capacity),
            print,
        }
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Prints every event from now on to standard error, or stops doing so.
    pub(crate) fn set_print(&mut self, print: bool) {
        self.print = print;
    }

    /// What a connection's handler may want to see at its end, which comes after its last frame: the events
    /// of its life, and its frames if these are recorded. Copied, because the trace goes on meanwhile.
    pub(crate) fn last_events(&self, connection: u64, level: Level) -> Vec<Event> {
        let events = if level.records(Kind::FrameReceived) {
            self.ring.of(connection)
        } else {
            self.ring.lifecycle_of(connection)
        };
        events.copied().collect()
    }

    /// Records `event` of the connection called `name`.
    #[inline]
    pub(crate) fn record(&mut self, event: Event, name: Option<&Arc<str>>) {
        if self.print {
            render::print_dbg(&event, name.map_or("", |name| name));
        }
        self.ring.record(event);
    }
}
