//! Where trace events go besides the ring: files, loggers, whatever a user supplies.
//!
//! ```text
//! trace::Recorder -> Tap -> bounded queue -> writer thread -> Sink
//! ```
//!
//! Each [`Sink`](crate::trace::Sink) has a queue and a thread of its own, so a slow or failing one holds up
//! neither the reactor nor another sink: what finds the queue full is dropped and counted,
//! [`ReactorStats::sinks`](crate::stats::ReactorStats::sinks) shows the count, and the sinks in here say where
//! events are missing. [`Queued`] gives a sink a longer queue, or a shorter one. They are added with
//! [`ReactorBuilder::trace_sink`](crate::ReactorBuilder::trace_sink) and
//! [`Remote::add_trace_sink`](crate::Remote::add_trace_sink), and removed with
//! [`Remote::remove_trace_sink`](crate::Remote::remove_trace_sink).
//!
//! - [`FileSink`]: lines in a file that is rotated.
//! - `LogSink`, `TracingSink`: the crates `log` and `tracing`, behind features of these names.
//! - [`VARIABLE`]: the trace of a program that nobody can recompile.

#[cfg(any(feature = "log", feature = "tracing"))]
mod bridge;
mod environment;
mod file;
mod queued;
mod roster;
mod writer;

#[cfg(feature = "log")]
pub use bridge::LogSink;
#[cfg(feature = "tracing")]
pub use bridge::TracingSink;
pub use environment::VARIABLE;
pub(crate) use environment::Wishes;
pub use file::{FileSink, Format};
pub use queued::Queued;
pub(crate) use roster::Roster;
pub(crate) use writer::Tap;
