//! The flight recorder as a handler gets it: the last events of its connection, ready to be printed.

use std::fmt;

use super::event::Event;
use super::render::dbg_line;
use super::ring::Events;

/// The last events of one connection, oldest first.
///
/// Its `Display` prints them as `*DBG*` lines with their times, one event per line, and says how many
/// earlier ones were overwritten.
#[derive(Clone, Debug)]
pub struct LastEvents<'a> {
    events: Events<'a>,
    name: &'a str,
}

impl<'a> LastEvents<'a> {
    pub(crate) fn new(events: Events<'a>, name: Option<&'a str>) -> Self {
        Self {
            events,
            name: name.unwrap_or(""),
        }
    }

    /// The events, oldest first.
    pub fn iter(&self) -> Events<'a> {
        self.events.clone()
    }

    /// How many events of this connection were recorded and are no longer there.
    #[must_use]
    pub fn overwritten(&self) -> u64 {
        self.events.overwritten()
    }

    /// The connection's name, empty for none.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }
}

impl<'a> IntoIterator for LastEvents<'a> {
    type Item = &'a Event;
    type IntoIter = Events<'a>;

    fn into_iter(self) -> Events<'a> {
        self.events
    }
}

impl<'a> IntoIterator for &LastEvents<'a> {
    type Item = &'a Event;
    type IntoIter = Events<'a>;

    fn into_iter(self) -> Events<'a> {
        self.iter()
    }
}

impl fmt::Display for LastEvents<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut expected = 0;
        let mut lines = self.iter().peekable();
        while let Some(event) = lines.next() {
            if event.ordinal() > expected {
                let missing = event.ordinal() - expected;
                writeln!(f, "({missing} earlier events were overwritten)")?;
            }
            expected = event.ordinal() + 1;
            write!(f, "{:#}", dbg_line(event, self.name))?;
            if lines.peek().is_some() {
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Frame, Ring};

    #[test]
    fn prints_as_lines_and_says_what_is_missing() {
        let mut ring = Ring::with_capacity(1);
        ring.record(Event::connecting(5, 3, 1, "host:80").with_ordinal(0));
        for ordinal in 1..4 {
            let frame = Frame {
                opcode: 9,
                fin: true,
                compressed: false,
                length: 0,
                payload: b"",
            };
            ring.record(
                Event::frame_received(ordinal * 1_000_000_000, 3, frame).with_ordinal(ordinal),
            );
        }
        let last = LastEvents::new(ring.of(3), Some("feed"));
        assert_eq!(last.overwritten(), 2);
        assert_eq!(
            last.to_string(),
            "*DBG* feed attempting to connect to host:80 (attempt 1) [+0.000000005 s]\n\
             (2 earlier events were overwritten)\n\
             *DBG* feed received frame: ping (0 B) [+3.000000000 s]"
        );
        assert_eq!(LastEvents::new(ring.of(4), None).to_string(), "");
    }
}
