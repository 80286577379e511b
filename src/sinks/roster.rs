//! The sinks that a reactor has, as all threads see them.

use super::writer::{SinkMeter, Tap};
use crate::trace::{Sink, SinkId, SinkStats};
use std::io;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a reactor that ends waits for its sinks to take what is in their queues.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reactors that this process has made.
static REACTORS: AtomicU32 = AtomicU32::new(0);

/// In the order in which they were added.
pub(crate) struct Roster {
    /// The reactor's number, for those who see the events of several.
    reactor: u32,
    entries: Mutex<Entries>,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            reactor: REACTORS.fetch_add(1, Relaxed),
            entries: Mutex::default(),
        }
    }
}

#[derive(Default)]
struct Entries {
    /// How many there were.
    numbered: u64,
    meters: Vec<Arc<SinkMeter>>,
}

impl Roster {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a sink's thread. It has a number from here on, and is listed with [`Self::add`].
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn tap(&self, sink: impl Sink + 'static) -> io::Result<Tap> {
        let mut entries = self.entries();
        let id = SinkId(entries.numbered);
        entries.numbered += 1;
        drop(entries);
        Tap::new(id, self.reactor, sink)
    }

    pub(crate) fn add(&self, meter: Arc<SinkMeter>) {
        self.entries().meters.push(meter);
    }

    pub(crate) fn find(&self, id: SinkId) -> Option<Arc<SinkMeter>> {
        let entries = self.entries();
        entries.meters.iter().find(|meter| meter.id == id).cloned()
    }

    pub(crate) fn remove(&self, id: SinkId) {
        self.entries().meters.retain(|meter| meter.id != id);
    }

    pub(crate) fn stats(&self) -> Vec<SinkStats> {
        let entries = self.entries();
        entries
            .meters
            .iter()
            .map(|meter| meter.snapshot())
            .collect()
    }

    /// Gives all sinks together some time to take what waits; those that need more are left to themselves.
    pub(crate) fn wait_for_ends(&self) {
        let meters = self.entries().meters.clone();
        let deadline = Instant::now() + PATIENCE;
        for meter in meters {
            meter.wait_for_end(deadline.saturating_duration_since(Instant::now()));
        }
    }
}
