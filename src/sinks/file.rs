//! A sink that writes lines to a file, which does not grow without end.

use crate::trace::render::{dbg_line, json_line};
use crate::trace::{Record, Sink};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
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
    /// A JSON line as [`json_line`] documents it, with the time as `"unix_ns"` and the number of the
    /// [reactor](Record::reactor) as `"reactor"` before all else.
    Json,
}

/// Writes events to a file, a line each. When the file is full it is renamed to `FILE.1`, an older one
/// to `FILE.2` and so on, and a new one is begun, which is `FILE.next` until then.
///
/// Where events are missing, dropped because the file was too slow for them or because it could not be
/// written, a line says how many: `*DBG* 17 events missing`, or
/// `{"unix_ns":…,"reactor":0,"event":"missing","events":17}`, with the time of the event before it.
///
/// Where a new file cannot be begun (a full disk, too many open files, a directory that must not be written), all files
/// keep their names, the lines go on in the file there is, and it is tried again when it has grown by as
/// much again; the error is one of [`SinkStats`](crate::trace::SinkStats). A file that was removed or
/// renamed by others is written on until it is full; then one of its name is begun. What is no regular
/// file, such as a pipe or a terminal, is only written to.
///
/// One sink per file, over all threads and processes: two would rename it under each other.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    format: Format,
    max_bytes: u64,
    keep: u32,
    file: BufWriter<File>,
    /// It has a length, and a name that can be given to another.
    is_regular: bool,
    written: u64,
    /// A length at which a rotation failed: it is tried again when so much more is written.
    put_off_at: u64,
    /// Why it did, until somebody is told.
    trouble: Option<io::Error>,
    /// Events that are missing behind the last line.
    missing: u64,
    /// Time and reactor of the last line.
    last: (SystemTime, u32),
    /// That no other sink writes here, where that is not left to the user.
    _claim: Option<Claim>,
}

impl FileSink {
    /// Goes on at the end of the file at `path`, or begins it: as `*DBG*` lines, 64 MiB per file, three
    /// older files kept.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            path,
            format: Format::Dbg,
            max_bytes: MAX_BYTES,
            keep: KEEP,
            file: BufWriter::new(file),
            is_regular: metadata.is_file(),
            written: metadata.len(),
            put_off_at: 0,
            trouble: None,
            missing: 0,
            last: (UNIX_EPOCH, 0),
            _claim: None,
        })
    }

    /// As [`new`](Self::new), but where another sink that was begun here is writing to `path`, in this process
    /// or another, it is `path-2`, or `path-3`, or the first one that is free.
    pub(crate) fn unshared(path: &Path) -> io::Result<Self> {
        let mut number = 1;
        loop {
            let mut name = OsString::from(path);
            if number > 1 {
                name.push(format!("-{number}"));
            }
            let name = PathBuf::from(name);
            match Claim::lay(&name) {
                Laid::Free(claim) => {
                    let sink = Self::new(name)?;
                    return Ok(Self {
                        _claim: claim,
                        ..sink
                    });
                }
                Laid::Taken => number += 1,
            }
        }
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

    /// The file's name with something behind it.
    fn beside(&self, suffix: impl fmt::Display) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{suffix}"));
        name.into()
    }

    fn is_full_with(&self, more: u64) -> bool {
        let since = self.written.saturating_sub(self.put_off_at);
        self.is_regular && self.written > 0 && since.saturating_add(more) > self.max_bytes
    }

    /// Goes on in a new file; where that fails, in the same one, and all is as it was.
    fn rotate_now(&mut self) {
        match self.begin_next() {
            Ok((file, written)) => {
                (self.file, self.written, self.put_off_at) = (BufWriter::new(file), written, 0);
            }
            Err(error) => {
                self.put_off_at = self.written;
                let what = format!("it cannot be put aside: {error}");
                self.trouble = Some(io::Error::new(error.kind(), what));
            }
        }
    }

    /// Puts the file aside and begins a new one, whose length is returned too. What is likely to fail comes
    /// before what changes anything: all lines are in the old file and the new one is open before the first
    /// is renamed.
    fn begin_next(&mut self) -> io::Result<(File, u64)> {
        self.file.flush()?;
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        if !self.path.try_exists()? {
            // Somebody else has put it aside.
            let file = options.open(&self.path)?;
            let written = file.metadata()?.len();
            return Ok((file, written));
        }
        let next = self.beside("next");
        let file = options.open(&next)?;
        let renamed = file.set_len(0).and_then(|()| self.make_way(&next));
        renamed.inspect_err(|_| {
            // It is empty; if it stays, it is the next one all the same.
            let _ = fs::remove_file(&next);
        })?;
        Ok((file, 0))
    }

    /// Gives the name of the file to that of `next`. Those put aside move up only as far as the first number
    /// that is free: where it fails halfway and is tried again, nothing more is pushed out at the end.
    fn make_way(&self, next: &Path) -> io::Result<()> {
        if self.keep > 0 {
            let mut free = 1;
            while free < self.keep && self.beside(free).try_exists()? {
                free += 1;
            }
            for number in (1..free).rev() {
                fs::rename(self.beside(number), self.beside(number + 1))?;
            }
            fs::rename(&self.path, self.beside(1))?;
        }
        fs::rename(next, &self.path).inspect_err(|_| {
            if self.keep > 0 {
                // Should that fail too, a file of this name is begun when it is tried again.
                let _ = fs::rename(self.beside(1), &self.path);
            }
        })
    }
}

/// That a file is one sink's own: a lock on a file beside it, which nobody renames and which stays there. The
/// operating system gives it up with the process, however that ends.
#[derive(Debug)]
struct Claim {
    _lock: File,
}

enum Laid {
    /// With nothing to show for it where files cannot be locked, or none can be made beside it, so that nobody
    /// can put it aside either.
    Free(Option<Claim>),
    Taken,
}

impl Claim {
    fn lay(path: &Path) -> Laid {
        // Nothing is renamed under those who write to a pipe or a terminal.
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Laid::Free(None);
        }
        let mut name = OsString::from(path);
        name.push(".lock");
        let mut options = OpenOptions::new();
        let Ok(lock) = options.create(true).append(true).open(name) else {
            return Laid::Free(None);
        };
        match lock.try_lock() {
            Ok(()) => Laid::Free(Some(Self { _lock: lock })),
            Err(TryLockError::WouldBlock) => Laid::Taken,
            Err(TryLockError::Error(_)) => Laid::Free(None),
        }
    }
}

/// How many events are missing, in words.
pub(super) struct Missing(pub(super) u64);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events missing", self.0)
    }
}

impl FileSink {
    fn line(&self, record: &Record) -> String {
        let time = record.time();
        match self.format {
            Format::Dbg => format!("{} {}\n", Utc(time), dbg_line(&record.event, record.name())),
            Format::Json => {
                let (unix_ns, reactor) = (since_epoch(time).as_nanos(), record.reactor);
                let json = json_line(&record.event, record.name()).to_string();
                let members = &json[1..];
                format!("{{\"unix_ns\":{unix_ns},\"reactor\":{reactor},{members}\n")
            }
        }
    }

    /// The line about missing events; empty if there are none.
    fn line_about_missing(&self) -> String {
        let (missing, (time, reactor)) = (self.missing, self.last);
        match self.format {
            _ if missing == 0 => String::new(),
            Format::Dbg => format!("{} *DBG* {}\n", Utc(time), Missing(missing)),
            Format::Json => {
                let unix_ns = since_epoch(time).as_nanos();
                format!(
                    "{{\"unix_ns\":{unix_ns},\"reactor\":{reactor},\"event\":\"missing\",\"events\":{missing}}}\n"
                )
            }
        }
    }

    fn append(&mut self, lines: &str) -> io::Result<()> {
        self.file.write_all(lines.as_bytes())?;
        self.written += lines.len() as u64;
        self.missing = 0;
        Ok(())
    }
}

impl Sink for FileSink {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let lines = self.line_about_missing() + &self.line(record);
        let length = lines.len() as u64;
        if self.is_full_with(length) {
            self.rotate_now();
        }
        if let Err(error) = self.append(&lines) {
            self.missing += 1;
            return Err(error);
        }
        self.last = (record.time(), record.reactor);
        Ok(())
    }

    fn missing(&mut self, events: u64) -> io::Result<()> {
        self.missing += events;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.missing > 0 {
            self.append(&self.line_about_missing())?;
        }
        self.file.flush()?;
        self.trouble.take().map_or(Ok(()), Err)
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
            reactor: 3,
            missed: 0,
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
             {\"unix_ns\":1709164800002000000,\"reactor\":3,\"time_ns\":2000000,\"sequence\":0,\"ordinal\":0,\
             \"connection\":\"5#0\",\"name\":\"feed\",\"event\":\"handler_timer_fired\",\"token\":2}\n"
        );
    }

    #[test]
    fn lines_say_where_events_are_missing() {
        let directory = Directory::new("missing");
        let path = directory.0.join("trace");
        let mut sink = FileSink::new(&path).unwrap();
        sink.write(&record(1)).unwrap();
        sink.missing(17).unwrap();
        sink.write(&record(2)).unwrap();
        let mut sink = sink.format(Format::Json);
        // At the end, with no event behind it.
        sink.missing(2).unwrap();
        sink.flush().unwrap();
        sink.flush().unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "2024-02-29T00:00:00.001000Z *DBG* feed fired the handler's timer 1\n\
             2024-02-29T00:00:00.001000Z *DBG* 17 events missing\n\
             2024-02-29T00:00:00.002000Z *DBG* feed fired the handler's timer 2\n\
             {\"unix_ns\":1709164800002000000,\"reactor\":3,\"event\":\"missing\",\"events\":2}\n"
        );
    }

    #[test]
    fn no_two_sinks_of_the_environment_write_to_one_file() {
        let directory = Directory::new("unshared");
        let path = directory.0.join("trace");
        let begin = || FileSink::unshared(&path).unwrap();
        let (mut first, second) = (begin(), begin());
        assert_eq!(second.path, directory.0.join("trace-2"));
        // Also when the first one has another file in the meantime.
        first.max_bytes = 1;
        write(&mut first, 0..3);
        first.flush().unwrap();
        assert_eq!(put_aside(&first), ["1", "0", ""]);
        assert_eq!(begin().path, directory.0.join("trace-3"));
        drop(first);
        assert_eq!(begin().path, path);
        assert!(FileSink::unshared(&directory.0.join("none").join("trace")).is_err());
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

    /// A sink whose files hold two lines each.
    fn two_lines_each(path: &Path) -> FileSink {
        let line = dbg_line(&record(0).event, "feed").to_string().len() as u64 + 29;
        FileSink::new(path).unwrap().rotate(2 * line, 3)
    }

    fn write(sink: &mut FileSink, numbers: std::ops::Range<u64>) {
        for number in numbers {
            sink.write(&record(number)).unwrap();
        }
    }

    /// The timers that a file's lines are about; none if it is not there.
    fn timers(path: &Path) -> String {
        let text = fs::read_to_string(path).unwrap_or_default();
        let last = text.lines().map(|line| line.rsplit(' ').next().unwrap());
        last.collect::<Vec<_>>().join(" ")
    }

    fn put_aside(sink: &FileSink) -> [String; 3] {
        [1, 2, 3].map(|number| timers(&sink.beside(number)))
    }

    #[test]
    fn a_file_that_others_took_away_is_begun_anew() {
        let directory = Directory::new("taken");
        let path = directory.0.join("trace");
        let mut sink = two_lines_each(&path);
        write(&mut sink, 0..4);
        fs::rename(&path, directory.0.join("theirs")).unwrap();
        write(&mut sink, 4..6);
        sink.flush().unwrap();
        assert_eq!(timers(&directory.0.join("theirs")), "2 3");
        assert_eq!(timers(&path), "4 5");
        fs::remove_file(&path).unwrap();
        write(&mut sink, 6..9);
        sink.flush().unwrap();
        assert_eq!(timers(&path), "8");
        assert_eq!(put_aside(&sink), ["6 7", "0 1", ""]);
    }

    /// A directory in the place of the new file keeps it from being opened, as too many open files do, or a
    /// directory that must not be written; the tests may run as a user whom nothing is forbidden.
    #[test]
    fn without_a_new_file_the_old_one_goes_on_and_none_is_lost() {
        let directory = Directory::new("unopened");
        let path = directory.0.join("trace");
        let mut sink = two_lines_each(&path);
        write(&mut sink, 0..6);
        let obstacle = sink.beside("next");
        fs::create_dir(&obstacle).unwrap();
        write(&mut sink, 6..9);
        let error = sink.flush().unwrap_err();
        assert!(
            error.to_string().starts_with("it cannot be put aside: "),
            "{error}"
        );
        sink.flush().expect("it was told once");
        assert_eq!(timers(&path), "4 5 6 7 8");
        assert_eq!(put_aside(&sink), ["2 3", "0 1", ""]);
        // It has not grown by as much again.
        fs::remove_dir(&obstacle).unwrap();
        let put_off_at = sink.put_off_at;
        assert!(put_off_at > 0);
        write(&mut sink, 9..10);
        assert_eq!(sink.put_off_at, put_off_at);
        write(&mut sink, 10..11);
        sink.flush().unwrap();
        assert_eq!(timers(&path), "10");
        assert_eq!(put_aside(&sink), ["4 5 6 7 8 9", "2 3", "0 1"]);
    }

    #[test]
    fn a_rotation_that_fails_halfway_pushes_nothing_more_out() {
        let directory = Directory::new("halfway");
        let path = directory.0.join("trace");
        let mut sink = two_lines_each(&path);
        write(&mut sink, 0..8);
        sink.flush().unwrap();
        assert_eq!(put_aside(&sink), ["4 5", "2 3", "0 1"]);
        for _ in 0..3 {
            sink.make_way(&sink.beside("missing")).unwrap_err();
            assert_eq!(timers(&path), "6 7");
            assert_eq!(put_aside(&sink), ["", "4 5", "2 3"]);
        }
        write(&mut sink, 8..9);
        assert_eq!(put_aside(&sink), ["6 7", "4 5", "2 3"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_and_what_is_no_file_are_never_put_aside() {
        let directory = Directory::new("full");
        let path = directory.0.join("trace");
        let mut sink = two_lines_each(&path);
        write(&mut sink, 0..2);
        sink.flush().unwrap();
        // From here on the lines go where there is never any room.
        sink.file = BufWriter::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
        sink.file.write_all(b"unwritten").unwrap();
        write(&mut sink, 2..4);
        assert!(sink.flush().is_err());
        assert_eq!(timers(&path), "0 1");
        assert_eq!(put_aside(&sink), ["", "", ""]);
        let _ = std::mem::replace(&mut sink.file, BufWriter::new(File::open(&path).unwrap()))
            .into_parts();

        let link = directory.0.join("nowhere");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let mut sink = two_lines_each(&link);
        write(&mut sink, 0..9);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/dev/null"));
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 2);
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
