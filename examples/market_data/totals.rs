//! What all connections have counted together. They live on one thread, so a `RefCell` is all the
//! synchronisation that is needed.

use super::histogram::Histogram;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use websockex::{Disconnect, DisconnectReason, Open};

/// The totals as every handler holds them.
pub(crate) type SharedTotals = Rc<RefCell<Totals>>;

#[derive(Default)]
pub(crate) struct Totals {
    /// Connections that are open now.
    pub(crate) open: usize,
    /// Connections whose subscription the exchange has confirmed.
    pub(crate) subscribed: usize,
    /// Opened again after having been open.
    pub(crate) reconnects: u64,
    /// Attempts that failed and connections that ended on their own, and why the first did.
    pub(crate) failures: u64,
    pub(crate) first_failure: Option<String>,
    pub(crate) messages: u64,
    /// Bytes of payload.
    pub(crate) bytes: u64,
    /// Sequence numbers that never came.
    pub(crate) lost: u64,
    /// Messages whose sequence number had come before.
    pub(crate) repeated: u64,
    /// One-way latency in nanoseconds, since the meter last took it.
    pub(crate) latency: Histogram,
    pub(crate) instruments: Vec<Instrument>,
    numbers: HashMap<String, usize>,
}

pub(crate) struct Instrument {
    pub(crate) name: String,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Totals {
    /// The number under which `name` is counted from now on.
    pub(crate) fn instrument(&mut self, name: &str) -> usize {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.instruments.len();
        self.numbers.insert(name.to_owned(), number);
        self.instruments.push(Instrument {
            name: name.to_owned(),
            messages: 0,
            bytes: 0,
        });
        number
    }

    pub(crate) fn count(&mut self, instrument: Option<usize>, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
        if let Some(number) = instrument {
            let instrument = &mut self.instruments[number];
            instrument.messages += 1;
            instrument.bytes += bytes as u64;
        }
    }

    pub(crate) fn handle_open(&mut self, open: &Open<'_>) {
        self.open += 1;
        if open.epoch > 1 {
            self.reconnects += 1;
        }
    }

    pub(crate) fn handle_disconnect(&mut self, disconnect: &Disconnect<'_>) {
        // No attempt had failed: this ends a connection that was open.
        if disconnect.attempt == 0 {
            self.open -= 1;
        }
        if !matches!(disconnect.reason, DisconnectReason::Local { .. }) {
            self.failures += 1;
            self.first_failure
                .get_or_insert_with(|| disconnect.reason.to_string());
        }
    }
}
