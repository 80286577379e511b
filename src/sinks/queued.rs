//! A sink with a queue of another length.

use crate::trace::{Record, Sink};
use std::io;

/// A sink for which more events may wait than [`QUEUE_CAPACITY`](crate::trace::QUEUE_CAPACITY), or fewer.
///
/// A reactor records the frames of one read within some microseconds, which is faster than anything writes
/// lines: with frames recorded, the queue takes what comes at once, and is emptied in between. It needs 256
/// bytes for each event, from when the sink is added until it is removed.
///
/// ```
/// use websockex::Reactor;
/// use websockex::sinks::Queued;
/// use websockex::trace::Record;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sink = |record: &Record| println!("{:?}", record.event);
/// // 16 MiB: some reads of the largest size, with nothing but small frames.
/// let reactor = Reactor::builder().trace_sink(Queued::new(sink, 65_536)).build()?;
/// # drop(reactor);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Queued<S> {
    sink: S,
    capacity: usize,
}

impl<S: Sink> Queued<S> {
    /// `sink`, for which `events` may wait: one at least.
    pub fn new(sink: S, events: usize) -> Self {
        Self {
            sink,
            capacity: events,
        }
    }
}

impl<S: Sink> Sink for Queued<S> {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        self.sink.write(record)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    fn missing(&mut self, events: u64) -> io::Result<()> {
        self.sink.missing(events)
    }

    fn queue_capacity(&self) -> usize {
        self.capacity
    }
}
