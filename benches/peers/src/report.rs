//! What a client says at its end: one line of JSON on standard output.

use crate::Result;
use crate::arguments::Arguments;
use crate::latency::Percentiles;
use crate::memory;
use crate::process::Usage;
use crate::tally::Tally;
use serde::{Deserialize, Serialize};

/// A run of a client. Fields that a mode has no use for stay at their defaults.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The client's name and version.
    pub client: String,
    /// What it did.
    pub mode: String,
    /// Connections it had.
    pub connections: u64,
    /// Messages it has received (echo: round trips; send: sent; handshakes: handshakes).
    pub messages: u64,
    /// Bytes of payload of these.
    pub bytes: u64,
    /// [`crate::checksum`] over these. As text: not every reader of JSON has integers of 64 bits.
    pub checksum: String,
    /// On the processor, user and system.
    pub cpu_ns: u64,
    /// Of it, in the program.
    pub user_ns: u64,
    /// Of it, in the kernel.
    pub system_ns: u64,
    /// On the clock.
    pub wall_ns: u64,
    /// Resident memory at the end, in bytes.
    pub resident: u64,
    /// The most memory that was resident.
    pub peak_resident: u64,
    /// By which the resident memory grew, in [`Mode::Idle`](crate::Mode::Idle): per connection.
    pub resident_per_connection: f64,
    /// By which the live heap grew, per connection.
    pub heap_per_connection: f64,
    /// Round trips or one-way latencies.
    pub latency: Option<Percentiles>,
    /// What the server counted; the runner adds it.
    #[serde(default)]
    pub granted: Granted,
    /// Why there is nothing to report.
    pub unsupported: Option<String>,
}

/// What the server granted to a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Upgrades.
    pub upgrades: u64,
    /// Of them, over TLS: with a full handshake.
    pub full: u64,
    /// And with a session that was taken up again.
    pub resumed: u64,
}

impl Report {
    /// Of a run with messages. `client` is name and version, as in `tungstenite 0.30`.
    pub fn new(client: &str, arguments: &Arguments, usage: &Usage, tally: &Tally) -> Self {
        let nanoseconds = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(0);
        Self {
            client: client.to_owned(),
            mode: arguments.mode.name().to_owned(),
            connections: arguments.connections as u64,
            messages: tally.messages,
            bytes: tally.bytes,
            checksum: format!("{:016x}", tally.checksum),
            cpu_ns: nanoseconds(usage.cpu()),
            user_ns: nanoseconds(usage.user),
            system_ns: nanoseconds(usage.system),
            wall_ns: nanoseconds(usage.wall),
            resident: memory::resident(),
            peak_resident: memory::peak_resident(),
            latency: tally.latencies.percentiles(),
            ..Self::default()
        }
    }

    /// Of a run that sent: `answer` is what the server said at its end, `MESSAGES CHECKSUM`.
    ///
    /// # Errors
    /// It said something else.
    pub fn with_answer(mut self, answer: &str) -> Result<Self> {
        let (messages, checksum) = answer.split_once(' ').ok_or("that is no answer")?;
        self.messages = messages.parse()?;
        self.checksum = checksum.to_owned();
        Ok(self)
    }

    /// Of [`Mode::Idle`](crate::Mode::Idle), with all connections open. `before` is
    /// [`resident`](crate::resident) and [`live_heap`](crate::live_heap) with one of them open.
    pub fn idle(client: &str, arguments: &Arguments, before: (u64, i64)) -> Self {
        let (resident, heap) = (memory::resident(), memory::live_heap());
        let per_connection = |bytes: f64| bytes / arguments.connections as f64;
        Self {
            resident_per_connection: per_connection(resident as f64 - before.0 as f64),
            heap_per_connection: per_connection((heap - before.1) as f64),
            ..Self::new(client, arguments, &Usage::default(), &Tally::new(0, false))
        }
    }

    /// One line on standard output; the last thing that a client does.
    pub fn print(&self) {
        println!("{}", serde_json::to_string(self).unwrap_or_default());
    }
}

/// For a mode that a client does not have: says why, and ends the program.
pub fn unsupported(client: &str, reason: &str) -> ! {
    Report {
        client: client.to_owned(),
        unsupported: Some(reason.to_owned()),
        ..Report::default()
    }
    .print();
    std::process::exit(0)
}
