//! Events as text, for people ([`dbg_line`]) and for programs ([`json_line`]), and on a time line ([`chrome`]).
//!
//! The last step: [`super::ring`] hands out events, this module spells them. It runs only when somebody looks,
//! so it may take its time; it allocates nothing of its own either, except in [`print_dbg`] and [`chrome`].
//!
//! Peers choose payloads, close reasons and parts of error texts, so nothing recorded is printed as it is: one
//! event is always one line, and no control character, terminal escape or bidirectional override gets through.

mod chrome;
mod dbg;
mod escape;
mod json;

use std::fmt;
use std::io::{self, Write};

use super::event::Event;
use super::kind::Kind;

pub use chrome::{ChromeTrace, chrome};
pub use dbg::{DbgLine, dbg_line};
pub use json::{JsonLine, json_line};

/// Prints an event's [`dbg_line`] to standard error: one write per line, so that lines of several threads do
/// not mix. Errors are ignored: a closed standard error must not take connections down.
pub fn print_dbg(event: &Event, name: &str) {
    let _ = write_dbg(&mut io::stderr().lock(), event, name);
}

fn write_dbg(output: &mut impl Write, event: &Event, name: &str) -> io::Result<()> {
    let line = format!("{}\n", dbg_line(event, name));
    output.write_all(line.as_bytes())
}

/// Any text on one line of visible characters: for tables and the like.
pub(crate) fn visible(text: &str) -> impl fmt::Display {
    escape::Escaped(text.as_bytes(), escape::Delimiter::Bare)
}

/// A connection's id as `slot#generation`.
pub(crate) struct Id(pub(crate) u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.0 & u64::from(u32::MAX), self.0 >> 32)
    }
}

/// An opcode by its name in RFC 6455, section 5.2, or by its number where that reserves it.
struct Opcode(u8);

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "continuation",
            1 => "text",
            2 => "binary",
            8 => "close",
            9 => "ping",
            10 => "pong",
            reserved => return write!(f, "opcode {reserved:#x}"),
        })
    }
}

/// A TLS protocol version as on the wire, by its usual name.
struct TlsVersion(u16);

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0x0303 => "TLS 1.2",
            0x0304 => "TLS 1.3",
            other => return write!(f, "TLS {other:#06x}"),
        })
    }
}

/// What the event holds of its payload or text, without a character that was cut in two by the event's end.
fn shown(event: &Event) -> &[u8] {
    let detail = event.detail();
    let unfinished = if is_text_frame(event) && is_cut(event) {
        escape::unfinished(detail)
    } else {
        0
    };
    &detail[..detail.len() - unfinished]
}

/// The event holds only the beginning of its payload or text.
fn is_cut(event: &Event) -> bool {
    (event.detail().len() as u64) < event.detail_total()
}

/// The event's detail is a payload that RFC 6455 says is UTF-8.
fn is_text_frame(event: &Event) -> bool {
    let frame = matches!(
        event.kind(),
        Kind::FrameReceived | Kind::FragmentedCompleted | Kind::Replying | Kind::FrameSent
    );
    frame && event.opcode() == 1 && !event.compressed()
}

#[cfg(test)]
mod tests;
