//! Seeing inside: what happened on each connection, in order, at the price of one memory store per event.
//!
//! Every floor above calls in here and nothing calls out:
//!
//! ```text
//! reactor, session, protocol users -> Event::frame_received(..) -> Ring::record      (hot: nanoseconds, no allocation)
//! Ring::iter, Ring::of             -> render::dbg_line / render::json_line / print_dbg (cold: when somebody looks)
//! ```
//!
//! - [`kind`]: the vocabulary. Which events exist, from which [`Level`] on each is recorded, and which of
//!   the event's fields it uses.
//! - [`event`]: the fixed-size record, two cache lines, and one constructor per kind.
//! - [`ring`]: the preallocated ring that keeps the newest events of one reactor.
//! - [`render`]: events as `*DBG*` lines, as JSON lines, and as a Chrome trace.
//! - [`Sink`]: where else they go; [`crate::sinks`] has some, and carries events there.
//!
//! The clock is the caller's: times are nanoseconds since the reactor's start.
//!
//! # Secrets
//!
//! Whatever is recorded can end up in a log. Callers never pass header values, the userinfo of a URL or its
//! path and query (exchanges put listen keys there): a server is named by host and port. Payload bytes are
//! recorded only at [`Level::Payload`], which is the user's own choice.
//!
//! # Example
//!
//! ```
//! use websockex::trace::{Event, Frame, Kind, Level, Ring, render};
//!
//! let mut ring = Ring::with_capacity(1024);
//! let (feed, level) = (7, Level::Payload);
//! ring.record(Event::connecting(0, feed, 1, "stream.example.com:443"));
//! if level.records(Kind::FrameReceived) {
//!     let payload = b"hello";
//!     ring.record(Event::frame_received(
//!         1_500,
//!         feed,
//!         Frame { opcode: 1, fin: true, compressed: false, length: 5, payload: level.shown(payload) },
//!     ));
//! }
//! let lines: Vec<String> = ring.of(feed).map(|event| render::dbg_line(event, "trades").to_string()).collect();
//! assert_eq!(lines[0], "*DBG* trades attempting to connect to stream.example.com:443 (attempt 1)");
//! assert_eq!(lines[1], "*DBG* trades received frame: text (5 B): \"hello\"");
//! ```

pub mod event;
mod fair;
pub mod kind;
pub(crate) mod last;
mod newest;
pub(crate) mod recorder;
pub mod render;
pub mod ring;
pub(crate) mod sink;

pub use event::{Event, Frame};
pub use kind::{Callback, Kind, Level, Limit, Stage, Subject, Timer};
pub use last::LastEvents;
pub use ring::{Events, Ring};
pub use sink::{QUEUE_CAPACITY, Record, Sink, SinkId, SinkStats};
