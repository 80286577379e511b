//! The way of an event to its sink: a bounded queue and a thread.

use crate::trace::sink::Outlet;
use crate::trace::{Record, Sink, SinkId, SinkStats};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Events that may wait for a sink: 256 KiB of memory, some milliseconds of a busy reactor's frames.
const QUEUE: usize = 1024;

/// How long the writer gathers events after it has written all there were. While it does, the reactor
/// need not wake it for each one.
const GATHER: Duration = Duration::from_millis(5);

/// What became of a sink's events, where its thread and the reactor count them.
pub(crate) struct SinkMeter {
    pub(crate) id: SinkId,
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// The sink's thread is through with it.
    ended: Mutex<bool>,
    end: Condvar,
}

impl SinkMeter {
    fn new(id: SinkId) -> Self {
        Self {
            id,
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            last_error: Mutex::default(),
            ended: Mutex::new(false),
            end: Condvar::new(),
        }
    }

    /// Waits until the sink has taken all that it was to get, and is dropped. True if it is.
    pub(crate) fn wait_for_end(&self, timeout: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.end.wait_timeout_while(ended, timeout, |ended| !*ended);
        let (ended, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *ended
    }

    pub(crate) fn snapshot(&self) -> SinkStats {
        let last_error = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        SinkStats {
            id: self.id,
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

/// The reactor's end of a sink's queue. When it is dropped, the sink takes what waits, is flushed and
/// dropped; [`SinkMeter::wait_for_end`] waits for that.
pub(crate) struct Tap {
    queue: SyncSender<Record>,
    pub(crate) meter: Arc<SinkMeter>,
}

impl Tap {
    /// Starts a sink's thread.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(super) fn new(id: SinkId, sink: impl Sink + 'static) -> io::Result<Self> {
        let (queue, records) = sync_channel(QUEUE);
        let meter = Arc::new(SinkMeter::new(id));
        let writer = Writer {
            sink: Box::new(sink),
            records,
            meter: Arc::clone(&meter),
            _ending: Ending(Arc::clone(&meter)),
        };
        let thread = thread::Builder::new().name("websockex-trace".to_owned());
        thread.spawn(move || writer.run())?;
        Ok(Self { queue, meter })
    }
}

impl Outlet for Tap {
    fn id(&self) -> SinkId {
        self.meter.id
    }

    fn offer(&self, record: Record) {
        if self.queue.try_send(record).is_err() {
            self.meter.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// The sink's thread.
struct Writer {
    sink: Box<dyn Sink>,
    records: Receiver<Record>,
    meter: Arc<SinkMeter>,
    /// Dropped last: after the sink, which may write in its destructor.
    _ending: Ending,
}

/// Says that a sink's thread is through with it, however that came.
struct Ending(Arc<SinkMeter>);

impl Drop for Ending {
    fn drop(&mut self) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.end.notify_all();
    }
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
    use std::sync::mpsc::channel;
    use std::time::SystemTime;

    fn tap(sink: impl Sink + 'static) -> Tap {
        Tap::new(SinkId(0), sink).unwrap()
    }

    /// Its sink gets what waits, and no more.
    fn finish(tap: Tap) -> SinkStats {
        let meter = Arc::clone(&tap.meter);
        drop(tap);
        assert!(meter.wait_for_end(Duration::from_secs(60)));
        meter.snapshot()
    }

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
        let tap = tap(move |record: &Record| sender.send(record.event.value()).unwrap());
        for number in 0..500 {
            tap.offer(record(number));
        }
        let stats = finish(tap);
        assert_eq!((stats.written, stats.dropped), (500, 0));
        assert_eq!(
            receiver.iter().collect::<Vec<_>>(),
            (0..500).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_sink_that_stalls_costs_events_and_no_time() {
        let (release, stalled) = channel::<()>();
        let tap = tap(move |_: &Record| {
            let _ = stalled.recv();
        });
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
        assert_eq!(finish(tap).written, 5000 - dropped);
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
        let tap = tap(Odd);
        for number in 0..10 {
            tap.offer(record(number));
        }
        let stats = finish(tap);
        assert_eq!((stats.written, stats.failed, stats.dropped), (5, 5, 0));
        assert_eq!(stats.last_error.as_deref(), Some("odd: 9"));
    }
}
