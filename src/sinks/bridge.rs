//! Sinks that hand events to the logging crates of others, each behind a feature of its name.
//!
//! They run on the sink's thread like all others, so a slow subscriber costs events and not time.

use super::file::Missing;
use crate::trace::render::dbg_line;
use crate::trace::{Event, Kind, Level, Record, Sink};
use std::io;

/// How much attention an event deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// Something went wrong.
    Warn,
    /// A step of a connection's life.
    Info,
    /// A frame.
    Trace,
}

fn weight(event: &Event) -> Weight {
    match event.kind() {
        kind if kind.level() == Level::Frames => Weight::Trace,
        Kind::ConnectFailed
        | Kind::TlsAlert
        | Kind::ErrorCloseSent
        | Kind::ClosingError
        | Kind::RemoteDropped
        | Kind::ForcedClosed
        | Kind::LimitHit
        | Kind::SendDropped
        | Kind::Abandoned
        | Kind::HandlerFailed
        | Kind::HandlerPanicked => Weight::Warn,
        _ => Weight::Info,
    }
}

/// What a log line says: the `*DBG*` line without its mark, which loggers have their own for.
fn message(record: &Record) -> String {
    let line = dbg_line(&record.event, record.name()).to_string();
    line.trim_start_matches("*DBG* ").to_owned()
}

/// Hands events to the crate `log`, with the target `websockex`: failures as warnings, steps of a
/// connection's life as infos, frames as traces.
#[cfg(feature = "log")]
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct LogSink;

#[cfg(feature = "log")]
impl Sink for LogSink {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let level = match weight(&record.event) {
            Weight::Warn => log::Level::Warn,
            Weight::Info => log::Level::Info,
            Weight::Trace => log::Level::Trace,
        };
        if log::log_enabled!(target: "websockex", level) {
            log::log!(target: "websockex", level, "{}", message(record));
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        log::logger().flush();
        Ok(())
    }

    fn missing(&mut self, events: u64) -> io::Result<()> {
        log::warn!(target: "websockex", "{}", Missing(events));
        Ok(())
    }
}

/// Hands events to the crate `tracing`, with the target `websockex` and the fields `connection`, `name`,
/// `event` and `time_ns`: failures as warnings, steps of a connection's life as infos, frames as traces.
#[cfg(feature = "tracing")]
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TracingSink;

#[cfg(feature = "tracing")]
impl Sink for TracingSink {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        // The level of a call site must be constant.
        macro_rules! event {
            ($level:ident) => {
                if tracing::enabled!(target: "websockex", tracing::Level::$level) {
                    tracing::event!(
                        target: "websockex",
                        tracing::Level::$level,
                        connection = record.event.connection(),
                        name = record.name(),
                        event = record.event.kind().name(),
                        time_ns = record.event.time_ns(),
                        "{}",
                        message(record)
                    )
                }
            };
        }
        match weight(&record.event) {
            Weight::Warn => event!(WARN),
            Weight::Info => event!(INFO),
            Weight::Trace => event!(TRACE),
        }
        Ok(())
    }

    fn missing(&mut self, events: u64) -> io::Result<()> {
        tracing::warn!(target: "websockex", missing = events, "{}", Missing(events));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Frame;
    use std::sync::{Arc, Mutex};
    use std::time::SystemTime;

    fn records() -> Vec<Record> {
        let ping = Frame {
            opcode: 9,
            fin: true,
            compressed: false,
            length: 0,
            payload: b"",
        };
        let events = [
            Event::connecting(7, 5, 1, "host:80"),
            Event::frame_received(8, 5, ping),
            Event::remote_dropped(9, 5, ""),
        ];
        let record = |event| Record {
            event,
            name: Some("feed".into()),
            started: SystemTime::UNIX_EPOCH,
            reactor: 0,
            missed: 0,
        };
        events.map(record).into()
    }

    #[cfg(feature = "log")]
    #[test]
    fn log_gets_levels_and_words() {
        struct Memory(Mutex<Vec<String>>);
        impl log::Log for Memory {
            fn enabled(&self, _: &log::Metadata<'_>) -> bool {
                true
            }
            fn log(&self, record: &log::Record<'_>) {
                let line = format!("{} {}: {}", record.level(), record.target(), record.args());
                self.0.lock().unwrap().push(line);
            }
            fn flush(&self) {}
        }
        static MEMORY: Memory = Memory(Mutex::new(Vec::new()));
        log::set_logger(&MEMORY).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        for record in records() {
            LogSink.write(&record).unwrap();
        }
        LogSink.missing(17).unwrap();
        LogSink.flush().unwrap();
        assert_eq!(
            *MEMORY.0.lock().unwrap(),
            [
                "INFO websockex: feed attempting to connect to host:80 (attempt 1)",
                "TRACE websockex: feed received frame: ping (0 B)",
                "WARN websockex: feed had the connection closed unexpectedly by the remote server",
                "WARN websockex: 17 events missing",
            ]
        );
    }

    #[cfg(feature = "tracing")]
    #[test]
    fn tracing_gets_levels_fields_and_words() {
        use std::fmt::Write;
        use tracing::field::{Field, Visit};
        use tracing::span;

        #[derive(Clone, Default)]
        struct Memory(Arc<Mutex<Vec<String>>>);
        struct Fields(String);
        impl Visit for Fields {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                write!(self.0, " {field}={value:?}").unwrap();
            }
        }
        impl tracing::Subscriber for Memory {
            fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
                true
            }
            fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
                span::Id::from_u64(1)
            }
            fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
            fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
            fn event(&self, event: &tracing::Event<'_>) {
                let mut fields = Fields(event.metadata().level().to_string());
                event.record(&mut fields);
                self.0.lock().unwrap().push(fields.0);
            }
            fn enter(&self, _: &span::Id) {}
            fn exit(&self, _: &span::Id) {}
        }
        let memory = Memory::default();
        tracing::subscriber::with_default(memory.clone(), || {
            for record in records() {
                TracingSink.write(&record).unwrap();
            }
            TracingSink.missing(17).unwrap();
        });
        let lines = memory.0.lock().unwrap();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[3], "WARN message=17 events missing missing=17");
        assert_eq!(
            lines[2],
            "WARN message=feed had the connection closed unexpectedly by the remote server \
             connection=5 name=\"feed\" event=\"remote_dropped\" time_ns=9"
        );
        assert!(lines[0].starts_with("INFO ") && lines[1].starts_with("TRACE "));
    }
}
