//! What the measured programs share, so that they differ in the client alone: the command line, the
//! meter for processor time, the tally of what arrived, memory, latencies, TLS, and the report.
//!
//! A client is a program `src/bin/peer_NAME.rs`:
//!
//! 1. [`start`] reads the command line, pins the process and raises its limit of files.
//! 2. It connects [`Arguments::connections`] times to [`Arguments::url`].
//! 3. [`Meter::start`], once the last handshake is over; only then it sends the text [`GO`] on *one*
//!    connection, upon which the server begins on all of them.
//! 4. Each message goes to [`Tally::take`]; once [`Tally::is_complete`], [`Meter::stop`].
//! 5. [`Report::print`] writes one line of JSON, and the program ends.
//!
//! The README says what each [`Mode`] has to do.

pub mod arguments;
pub mod frames;
pub mod latency;
pub mod memory;
pub mod process;
pub mod report;
pub mod stream;
pub mod tally;
pub mod tls;
pub mod upgrade;

pub use arguments::{Arguments, Mode, start};
pub use latency::Latencies;
pub use memory::{CountingAllocator, live_heap, resident};
pub use process::{Meter, Usage, monotonic_ns};
pub use report::{Granted, Report, unsupported};
pub use tally::{Tally, checksum};

/// What a client sends on one of its connections when all are open.
pub const GO: &str = "go";

/// What all programs return.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Counts the live heap in every program, when asked to.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;
