//! What other places than the ring see of events. Who carries events there is no business of the trace's,
//! which has neither threads nor files: [`crate::sinks`].

use super::event::Event;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// An event on its way to a sink.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// What happened.
    pub event: Event,
    /// The connection's name.
    pub name: Option<Arc<str>>,
    /// When the reactor was made; the event's time counts from there.
    pub started: SystemTime,
    /// Which of this process's reactors recorded it, from 0 in the order in which they were made.
    pub reactor: u32,
    /// How many events were dropped right before this one, because the sink is slow: a hole in what it gets.
    pub missed: u64,
}

impl Record {
    /// When it happened, by the wall clock as it was when the reactor was made.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        self.started + Duration::from_nanos(self.event.time_ns())
    }

    /// The connection's name, empty for none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("")
    }
}

/// Takes events, on a thread of its own, so it may take its time.
///
/// Any `FnMut(&Record) + Send` is one.
///
/// What is recorded faster than the sink takes it waits in a queue of fixed length; what finds that full is
/// dropped. The thread is woken when the queue is half full, and else after some milliseconds, so that the
/// reactor need not wake it for each event.
pub trait Sink: Send {
    /// Takes one event.
    ///
    /// # Errors
    /// They are counted, the last one is kept for [`SinkStats`], and the next event is tried.
    fn write(&mut self, record: &Record) -> io::Result<()>;

    /// All events there were are written; more may come.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// So many events, between the last one and the next, were dropped. Comes before the next one, which
    /// says the same ([`Record::missed`]), or at the end, when there is none. Does nothing by default.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn missing(&mut self, events: u64) -> io::Result<()> {
        let _ = events;
        Ok(())
    }

    /// How many events may wait for it, asked once, when it is added: [`QUEUE_CAPACITY`] by default, 256
    /// bytes of memory each. [`Queued`](crate::sinks::Queued) gives any sink another one.
    fn queue_capacity(&self) -> usize {
        QUEUE_CAPACITY
    }
}

/// How many events may wait for a sink that says nothing else: as many as the ring keeps by default, in
/// 2 MiB of memory.
pub const QUEUE_CAPACITY: usize = 8192;

impl Sink for Box<dyn Sink> {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        (**self).write(record)
    }

    fn flush(&mut self) -> io::Result<()> {
        (**self).flush()
    }

    fn missing(&mut self, events: u64) -> io::Result<()> {
        (**self).missing(events)
    }

    fn queue_capacity(&self) -> usize {
        (**self).queue_capacity()
    }
}

impl<F: FnMut(&Record) + Send> Sink for F {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        self(record);
        Ok(())
    }
}

/// Names a sink of one reactor. Never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SinkId(pub(crate) u64);

impl fmt::Display for SinkId {
    /// As in the label `sink` of [`prometheus`](crate::stats::ReactorStats::prometheus).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What became of the events that were to go to a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkStats {
    /// Which one; [`Remote::remove_trace_sink`](crate::Remote::remove_trace_sink) takes it.
    pub id: SinkId,
    /// Events it has taken.
    pub written: u64,
    /// Events that it had no room for, because it is slow.
    pub dropped: u64,
    /// Events that it failed to take, and other failures of its own, such as to flush what it took.
    pub failed: u64,
    /// How it failed last.
    pub last_error: Option<String>,
}

/// The recorder's end of the way to a sink.
pub(crate) trait Outlet {
    /// Of the sink at the other end.
    fn id(&self) -> SinkId;

    /// Takes a record if there is room. Never waits, never allocates. Fills in what only it knows: the reactor's
    /// number, and what was missed.
    fn offer(&self, record: Record);
}
