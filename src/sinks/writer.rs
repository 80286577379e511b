//! The way of an event to its sink: a bounded queue and a thread.

use crate::trace::sink::Outlet;
use crate::trace::{Record, Sink, SinkId, SinkStats};
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// How long the writer gathers events after it has written all there were, unless half of the queue is full
/// before. While it does, the reactor need not wake it for each one.
const GATHER: Duration = Duration::from_millis(5);

/// What became of a sink's events, where its thread and the reactor count them.
pub(crate) struct SinkMeter {
    pub(crate) id: SinkId,
    /// Events that were taken from the queue.
    taken: AtomicU64,
    /// The sink's thread is not to gather. Its token of [`thread::park`] alone does not say it: the queue, and
    /// the sink, may have used it up.
    wanted: AtomicBool,
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
            taken: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
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
    /// Dropped after the queue: who is woken then finds its end.
    alarm: Alarm,
    /// So many events in the queue are half of what it holds.
    half: u64,
    reactor: u32,
    /// Events that were put into the queue.
    offered: Cell<u64>,
    /// Events that were dropped since then.
    missed: Cell<u64>,
    pub(crate) meter: Arc<SinkMeter>,
}

/// Ends the gathering of the sink's thread, at the latest when it is dropped.
struct Alarm {
    thread: Thread,
    meter: Arc<SinkMeter>,
}

impl Alarm {
    /// A system call if it gathers; if not it is kept from gathering the next time.
    fn ring(&self) {
        if !self.meter.wanted.swap(true, Release) {
            self.thread.unpark();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.ring();
    }
}

impl Tap {
    /// Starts a sink's thread.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(super) fn new(id: SinkId, reactor: u32, sink: impl Sink + 'static) -> io::Result<Self> {
        Self::gathering(GATHER, id, reactor, sink)
    }

    fn gathering(
        gather: Duration,
        id: SinkId,
        reactor: u32,
        sink: impl Sink + 'static,
    ) -> io::Result<Self> {
        let capacity = sink.queue_capacity().max(1);
        let (queue, records) = sync_channel(capacity);
        let meter = Arc::new(SinkMeter::new(id));
        let writer = Writer {
            sink: Box::new(sink),
            records,
            gather,
            told: 0,
            meter: Arc::clone(&meter),
            _ending: Ending(Arc::clone(&meter)),
        };
        let thread = thread::Builder::new().name("websockex-trace".to_owned());
        let thread = thread.spawn(move || writer.run())?;
        Ok(Self {
            queue,
            alarm: Alarm {
                thread: thread.thread().clone(),
                meter: Arc::clone(&meter),
            },
            half: capacity.div_ceil(2) as u64,
            reactor,
            offered: Cell::new(0),
            missed: Cell::new(0),
            meter,
        })
    }
}

impl Outlet for Tap {
    fn id(&self) -> SinkId {
        self.meter.id
    }

    fn offer(&self, mut record: Record) {
        record.reactor = self.reactor;
        record.missed = self.missed.get();
        if self.queue.try_send(record).is_err() {
            self.meter.dropped.fetch_add(1, Relaxed);
            self.missed.set(self.missed.get() + 1);
            return;
        }
        self.missed.set(0);
        self.offered.set(self.offered.get() + 1);
        let taken = self.meter.taken.load(Relaxed);
        let waiting = self.offered.get().saturating_sub(taken);
        if waiting >= self.half {
            self.alarm.ring();
        }
    }
}

/// The sink's thread.
struct Writer {
    sink: Box<dyn Sink>,
    records: Receiver<Record>,
    gather: Duration,
    /// Dropped events that it was told of.
    told: u64,
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
            if !self.meter.wanted.swap(false, Acquire) {
                // Woken early for no reason, it has gathered less, and that is all.
                thread::park_timeout(self.gather);
                self.meter.wanted.store(false, Relaxed);
            }
            self.drain();
            self.attempt(|sink| sink.flush());
        }
        let dropped = self.meter.dropped.load(Relaxed);
        if dropped > self.told {
            let missed = dropped - self.told;
            self.attempt(|sink| sink.missing(missed));
            self.attempt(|sink| sink.flush());
        }
    }

    fn drain(&mut self) {
        while let Ok(record) = self.records.try_recv() {
            self.write(&record);
        }
    }

    fn write(&mut self, record: &Record) {
        self.meter.taken.fetch_add(1, Relaxed);
        if record.missed > 0 {
            self.told += record.missed;
            self.attempt(|sink| sink.missing(record.missed));
        }
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
    use crate::sinks::Queued;
    use crate::trace::Event;
    use std::sync::mpsc::{Sender, channel};
    use std::time::SystemTime;

    fn tap(sink: impl Sink + 'static) -> Tap {
        Tap::new(SinkId(0), 0, sink).unwrap()
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
            reactor: 0,
            missed: 0,
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
        const QUEUE: u16 = 1000;
        let (release, stalled) = channel::<()>();
        let sink = move |_: &Record| {
            let _ = stalled.recv();
        };
        let tap = tap(Queued::new(sink, QUEUE.into()));
        // More than the queue holds; none of these waits.
        for number in 0..5000 {
            tap.offer(record(number));
        }
        let dropped = tap.meter.snapshot().dropped;
        assert!(
            [4999, 5000].contains(&(dropped + u64::from(QUEUE))),
            "{dropped}"
        );
        drop(release);
        assert_eq!(finish(tap).written, 5000 - dropped);
    }

    /// As long as it gathers, nobody wakes it but a queue that is half full; and the end does.
    #[test]
    fn a_queue_that_fills_up_wakes_the_sink() {
        let (sender, receiver) = channel();
        let sink = move |record: &Record| sender.send(record.event.value()).unwrap();
        let sink = Queued::new(sink, 64);
        let tap = Tap::gathering(Duration::from_secs(86_400), SinkId(0), 0, sink).unwrap();
        let patience = Duration::from_secs(60);
        for round in 1..=10 {
            (round * 33 - 33..round * 33).for_each(|number| tap.offer(record(number)));
            // Fewer than half of what it holds may be left, so that there is room for the next ones.
            while receiver.recv_timeout(patience).expect("it is woken") < round * 33 - 32 {}
        }
        assert_eq!(finish(tap).dropped, 0);
    }

    #[test]
    fn a_sink_is_told_where_events_are_missing() {
        struct Told {
            words: Sender<String>,
            gate: Receiver<()>,
        }
        impl Sink for Told {
            fn write(&mut self, record: &Record) -> io::Result<()> {
                let (number, missed) = (record.event.value(), record.missed);
                self.words.send(format!("{number} after {missed}")).unwrap();
                let _ = self.gate.recv();
                Ok(())
            }

            fn missing(&mut self, events: u64) -> io::Result<()> {
                self.words.send(format!("missing {events}")).unwrap();
                Ok(())
            }
        }
        let (words, heard) = channel();
        let (release, gate) = channel();
        let tap = tap(Queued::new(Told { words, gate }, 2));
        let hear = || heard.recv_timeout(Duration::from_secs(60)).unwrap();
        tap.offer(record(0));
        assert_eq!(hear(), "0 after 0");
        // Two wait, and three find no room.
        (1..6).for_each(|number| tap.offer(record(number)));
        release.send(()).unwrap();
        assert_eq!(hear(), "1 after 0");
        // One finds room, and one does not.
        (6..8).for_each(|number| tap.offer(record(number)));
        drop(release);
        let stats = finish(tap);
        let rest: Vec<_> = heard.iter().collect();
        assert_eq!(rest, ["2 after 0", "missing 3", "6 after 3", "missing 1"]);
        assert_eq!((stats.written, stats.dropped, stats.failed), (4, 4, 0));
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
