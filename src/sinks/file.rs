//! A sink that writes lines to a file, which does not grow without end.

use crate::trace::render::{dbg_line, json_line};
use crate::trace::{Record, Sink};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes after which a file is put aside.
const MAX_BYTES: u64 = 64 << 20;
/// Files kept beside the one that is written.
const KEEP: u32 = 3;

/// How a [`FileSink`] writes an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The time (UTC), and the `*DBG*` line.
    #[default]
    Dbg,
    /// A JSON line as [`json_line`] documents it, with the time as `"unix_ns"`
    /// before all else.
    Json,
}

/// Writes events to a file, a line each. When the file is full it is renamed to `FILE.1`, an older one
/// to `FILE.2` and so on, and a new one is begun.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    format: Format,
    max_bytes: u64,
    keep: u32,
    file: BufWriter<File>,
    written: u64,
}

impl FileSink {
    /// Goes on at the end of the file at `path`, or begins it: as `*DBG*` lines, 64 MiB per file, three
    /// older files kept.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let (file, written) = open(&path)?;
        Ok(Self {
            path,
            format: Format::Dbg,
            max_bytes: MAX_BYTES,
            keep: KEEP,
            file,
            written,
        })
    }

    /// How events are written.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// A file is put aside rather than made longer than `max_bytes`, and `keep` of those put aside are kept.
    #[must_use]
    pub fn rotate(mut self, max_bytes: u64, keep: u32) -> Self {
        (self.max_bytes, self.keep) = (max_bytes, keep);
        self
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }

    /// Puts the file aside and begins a new one.
    fn begin_next(&mut self) -> io::Result<()> {
        self.file.flush()?;
        for number in (1..self.keep).rev() {
            match fs::rename(self.aside(number), self.aside(number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.keep > 0 {
            fs::rename(&self.path, self.aside(1))?;
        } else {
            fs::remove_file(&self.path)?;
        }
        (self.file, self.written) = open(&self.path)?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let written = file.metadata()?.len();
    Ok((BufWriter::new(file), written))
}

impl Sink for FileSink {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let time = record.time();
        let line = match self.format {
            Format::Dbg => format!("{} {}\n", Utc(time), dbg_line(&record.event, record.name())),
            Format::Json => {
                let unix_ns = since_epoch(time).as_nanos();
                let json = json_line(&record.event, record.name()).to_string();
                format!("{{\"unix_ns\":{unix_ns},{}\n", &json[1..])
            }
        };
        let length = line.len() as u64;
        if self.written > 0 && self.written + length > self.max_bytes {
            self.begin_next()?;
        }
        self.written += length;
        self.file.write_all(line.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Zero for times before 1970.
fn since_epoch(time: SystemTime) -> std::time::Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A time as RFC 3339 has it, in UTC and with microseconds.
struct Utc(SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = since_epoch(self.0);
        let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let micros = since.subsec_micros();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        )
    }
}

/// Year, month and day of a day counted from 1970-01-01. The year is taken to begin in March, so that
/// the leap day is its last and months have lengths in a pattern of five: 31, 30, 31, 30, 31.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // From 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, after) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + after, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Event;
    use std::time::Duration;

    /// A directory of this test's own, gone afterwards.
    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            let name = format!("websockex-{test}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn record(number: u64) -> Record {
        Record {
            event: Event::handler_timer_fired(number * 1_000_000, 5, number),
            name: Some("feed".into()),
            started: UNIX_EPOCH + Duration::from_secs(1_709_164_800),
        }
    }

    #[test]
    fn lines_say_when_and_what() {
        let directory = Directory::new("lines");
        let path = directory.0.join("trace");
        let mut sink = FileSink::new(&path).unwrap();
        sink.write(&record(1)).unwrap();
        drop(sink);
        let mut sink = FileSink::new(&path).unwrap().format(Format::Json);
        sink.write(&record(2)).unwrap();
        sink.flush().unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "2024-02-29T00:00:00.001000Z *DBG* feed fired the handler's timer 1\n\
             {\"unix_ns\":1709164800002000000,\"time_ns\":2000000,\"sequence\":0,\"ordinal\":0,\
             \"connection\":\"5#0\",\"name\":\"feed\",\"event\":\"handler_timer_fired\",\"token\":2}\n"
        );
    }

    #[test]
    fn full_files_are_put_aside_and_the_oldest_goes() {
        let directory = Directory::new("rotation");
        let path = directory.0.join("trace");
        let line = dbg_line(&record(0).event, "feed").to_string().len() as u64 + 29;
        let mut sink = FileSink::new(&path).unwrap().rotate(2 * line, 2);
        for number in 0..9 {
            sink.write(&record(number)).unwrap();
        }
        sink.flush().unwrap();
        let numbers = |name: &str| {
            let text = fs::read_to_string(directory.0.join(name)).unwrap();
            let last = text
                .lines()
                .map(|line| line.rsplit(' ').next().unwrap().to_owned());
            last.collect::<Vec<_>>().join(" ")
        };
        let files = fs::read_dir(&directory.0).unwrap().count();
        assert_eq!(files, 3);
        assert_eq!(
            [numbers("trace"), numbers("trace.1"), numbers("trace.2")],
            ["8", "6 7", "4 5"]
        );
        let mut none_kept = FileSink::new(&path).unwrap().rotate(line, 0);
        none_kept.write(&record(9)).unwrap();
        none_kept.flush().unwrap();
        assert_eq!(numbers("trace"), "9");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_453, (2025, 12, 31)),
            (20_454, (2026, 1, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), date, "{days}");
        }
    }
}
