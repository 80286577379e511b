//! The ring with its live tap: what every floor above records into.
//!
//! Comes after [`super::ring`], which keeps the events; adds the switch that also prints each event
//! as a `*DBG*` line the moment it happens, as the seed library's trace does.

use super::event::Event;
use super::render;
use super::ring::Ring;

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

    /// Records `event` of the connection called `name`.
    #[inline]
    pub(crate) fn record(&mut self, event: Event, name: Option<&str>) {
        if self.print {
            render::print_dbg(&event, name.unwrap_or(""));
        }
        self.ring.record(event);
    }
}
