//! The way of an event to its sink: a bounded queue and a thread.

use crate::trace::sink::Outlet;
use crate::trace::{Record, Sink, SinkStats};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Events that may wait for a sink: 256 KiB of memory, some milliseconds of a busy reactor's frames.
const QUEUE: usize = 1024;

/// How long the writer gathers events after it has written all there were. While it does, the reactor
/// need not wake it for each one.
const GATHER: Duration = Duration::from_millis(5);

/// How long a reactor that ends waits for a sink to take what is in its queue.
const PATIENCE: Duration = Duration::from_secs(1);

/// What became of a sink's events, where its thread and the reactor count them.
#[derive(Default)]
pub(crate) struct SinkMeter {
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl SinkMeter {
    pub(crate) fn snapshot(&self) -> SinkStats {
        let last_error = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        SinkStats {
            written: self.written.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            failed: self.failed.load(Relaxed),
            last_error: last_error.clone(),
        }
    }

    fn fail(&self, error: String) {
        self.failed.fetch_add(1, Relaxed);
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// The reactor's end of a sink's queue.
pub(crate) struct Tap {
    /// There until it is dropped.
    queue: Option<SyncSender<Record>>,
    /// Says when the writer has ended.
    ended: Receiver<()>,
    pub(crate) meter: Arc<SinkMeter>,
}

impl Tap {
    /// Starts a sink's thread.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn new(sink: impl Sink + 'static) -> io::Result<Self> {
        let (queue, records) = sync_channel(QUEUE);
        let (ending, ended) = channel();
        let meter = Arc::new(SinkMeter::default());
        let writer = Writer {
            sink: Box::new(sink),
            records,
            meter: Arc::clone(&meter),
            _ending: ending,
        };
        let thread = thread::Builder::new().name("websockex-trace".to_owned());
        thread.spawn(move || writer.run())?;
        Ok(Self {
            queue: Some(queue),
            ended,
            meter,
        })
    }
}

impl Outlet for Tap {
    fn offer(&self, record: Record) {
        if let Some(queue) = &self.queue
            && queue.try_send(record).is_err()
        {
            self.meter.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Tap {
    /// Gives the sink some time to take what waits.
    fn drop(&mut self) {
        self.queue = None;
        // Either it ends in time, or it is left to itself.
        let _: Result<(), RecvTimeoutError> = self.ended.recv_timeout(PATIENCE);
    }
}

/// The sink's thread.
struct Writer {
    sink: Box<dyn Sink>,
    records: Receiver<Record>,
    meter: Arc<SinkMeter>,
    /// Dropped last: after the sink, which may write in its destructor.
    _ending: Sender<()>,
}

impl Writer {
    fn run(mut self) {
        while let Ok(first) = self.records.recv() {
            self.write(&first);
            self.drain();
            self.attempt(|sink| sink.flush());
            thread::sleep(GATHER);
            self.drain();
            self.attempt(|sink| sink.flush());
        }
    }

    fn drain(&mut self) {
        while let Ok(record) = self.records.try_recv() {
            self.write(&record);
        }
    }

    fn write(&mut self, record: &Record) {
        if self.attempt(|sink| sink.write(record)) {
            self.meter.written.fetch_add(1, Relaxed);
        }
    }

    /// A sink that panics has failed at this one event; whether it can go on is its own affair.
    fn attempt(&mut self, act: impl FnOnce(&mut dyn Sink) -> io::Result<()>) -> bool {
        let result = catch_unwind(AssertUnwindSafe(|| act(&mut *self.sink)));
        match result {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => self.meter.fail(error.to_string()),
            Err(_) => self.meter.fail("it panicked".to_owned()),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Event;
    use std::time::SystemTime;
    fn record(number: u64) -> Record {
        Record {
            event: Event::handler_timer_fired(number, 0, number),
            name: None,
            started: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn events_arrive_in_order_and_all_before_the_end() {
        let (sender, receiver) = channel();
        let tap =
            Tap::new(move |record: &Record| sender.send(record.event.value()).unwrap()).unwrap();
        let meter = Arc::clone(&tap.meter);
        for number in 0..500 {
            tap.offer(record(number));
        }
        drop(tap);
        assert_eq!(
            receiver.iter().collect::<Vec<_>>(),
            (0..500).collect::<Vec<_>>()
        );
        assert_eq!(
            (meter.snapshot().written, meter.snapshot().dropped),
            (500, 0)
        );
    }

    #[test]
    fn a_sink_that_stalls_costs_events_and_no_time() {
        let (release, stalled) = channel::<()>();
        let tap = Tap::new(move |_: &Record| {
            let _ = stalled.recv();
        })
        .unwrap();
        // More than the queue holds; none of these waits.
        for number in 0..5000 {
            tap.offer(record(number));
        }
        let dropped = tap.meter.snapshot().dropped;
        assert!(
            (5000 - 1 - QUEUE as u64..=5000 - QUEUE as u64).contains(&dropped),
            "{dropped}"
        );
        drop(release);
        let meter = Arc::clone(&tap.meter);
        drop(tap);
        assert_eq!(meter.snapshot().written, 5000 - dropped);
    }

    #[test]
    fn a_sink_that_fails_is_tried_again() {
        struct Odd;
        impl Sink for Odd {
            fn write(&mut self, record: &Record) -> io::Result<()> {
                match record.event.value() {
                    7 => panic!("seven"),
                    number if number % 2 == 1 => Err(io::Error::other(format!("odd: {number}"))),
                    _ => Ok(()),
                }
            }
        }
        let tap = Tap::new(Odd).unwrap();
        let meter = Arc::clone(&tap.meter);
        for number in 0..10 {
            tap.offer(record(number));
        }
        drop(tap);
        let stats = meter.snapshot();
        assert_eq!((stats.written, stats.failed, stats.dropped), (5, 5, 0));
        assert_eq!(stats.last_error.as_deref(), Some("odd: 9"));
    }
}
