//! The ring with its live tap: what every floor above records into.
//!
//! Comes after [`super::ring`], which keeps the events; adds the switch that also prints each event
//! as a `*DBG*` line the moment it happens, as the seed library's trace does.

use super::event::{Event, Frame, FrameHead};
use super::kind::Level;
use super::render;
use super::ring::Ring;
use super::sink::{Outlet, Record, SinkId};
use std::mem;
use std::sync::Arc;
use std::time::SystemTime;

/// Records events, and prints them where that was asked for.
pub(crate) struct Recorder {
    ring: Ring,
    print: bool,
    outlets: Vec<Box<dyn Outlet>>,
    /// Somebody else than the ring wants events.
    tapped: bool,
    /// When time zero was, for those who have a calendar.
    started: SystemTime,
    /// Lent to the handler whose connection has ended.
    last_events: Vec<Event>,
    /// The level of all connections, whatever else is asked for.
    forced_level: Option<Level>,
}

/// Room for so many events is kept, 8 KiB of it: more than a life without its frames usually has.
const MAX_KEPT_EVENTS: usize = 64;

impl Recorder {
    pub(crate) fn new(capacity: usize, print: bool, started: SystemTime) -> Self {
        Self {
            ring: Ring::with_capacity(capacity),
            print,
            outlets: Vec::new(),
            tapped: print,
            started,
            last_events: Vec::new(),
            forced_level: None,
        }
    }

    /// From here on this is the level of all connections, if it is one.
    pub(crate) fn force_level(&mut self, level: Option<Level>) {
        self.forced_level = level;
    }

    pub(crate) fn forced_level(&self) -> Option<Level> {
        self.forced_level
    }

    /// Adds a sink.
    pub(crate) fn add_outlet(&mut self, outlet: Box<dyn Outlet>) {
        self.outlets.push(outlet);
        self.tapped = true;
    }

    /// Removes a sink, if it is there: it gets what was recorded so far, and nothing more.
    pub(crate) fn remove_outlet(&mut self, id: SinkId) {
        self.outlets.retain(|outlet| outlet.id() != id);
        self.tapped = self.print || !self.outlets.is_empty();
    }

    /// Removes all sinks.
    pub(crate) fn remove_outlets(&mut self) {
        self.outlets.clear();
        self.tapped = self.print;
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Prints every event from now on to standard error, or stops doing so.
    pub(crate) fn set_print(&mut self, print: bool) {
        self.print = print;
        self.tapped = print || !self.outlets.is_empty();
    }

    /// What a connection's handler may want to see at its end, which comes after its last frame: the events
    /// of its life, and its frames if any were recorded. Copied, because the trace goes on meanwhile.
    /// [`give_back`](Self::give_back) keeps the memory for the next one.
    pub(crate) fn last_events(&mut self, connection: u64, framed: bool) -> Vec<Event> {
        let mut events = mem::take(&mut self.last_events);
        events.clear();
        if framed {
            events.extend(self.ring.of(connection).copied());
        } else {
            events.extend(self.ring.lifecycle_of(connection).copied());
        }
        events
    }

    /// A connection has ended, and its level has kept the event of that out.
    pub(crate) fn end(&mut self, connection: u64) {
        self.ring.end(connection);
    }

    /// Its handler has seen them.
    pub(crate) fn give_back(&mut self, events: Vec<Event>) {
        if events.capacity() <= MAX_KEPT_EVENTS {
            self.last_events = events;
        }
    }

    /// Records `event` of the connection called `name`.
    #[inline(always)]
    pub(crate) fn record(&mut self, event: &mut Event, name: Option<&Arc<str>>) {
        self.ring.take(event);
        if self.tapped {
            self.pass_on(event, name);
        }
    }

    /// Records an event about a frame: the way that is taken per message.
    #[inline(always)]
    pub(crate) fn record_frame(
        &mut self,
        head: FrameHead,
        frame: &Frame<'_>,
        name: Option<&Arc<str>>,
    ) {
        let event = self.ring.record_frame(head, frame);
        if self.tapped {
            let event = event
                .copied()
                .unwrap_or_else(|| Event::about_frame(head, frame));
            self.pass_on(&event, name);
        }
    }

    #[cold]
    fn pass_on(&self, event: &Event, name: Option<&Arc<str>>) {
        if self.print {
            render::print_dbg(event, name.map_or("", |name| name));
        }
        for outlet in &self.outlets {
            outlet.offer(Record {
                event: *event,
                name: name.cloned(),
                started: self.started,
                reactor: 0,
                missed: 0,
            });
        }
    }
}
