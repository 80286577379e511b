//! Where trace events go besides the ring: sinks, and what an environment variable asks for.

#[path = "api/support/mod.rs"]
#[allow(dead_code, reason = "what other tests need of it")]
#[allow(unused_imports, reason = "likewise")]
#[allow(
    clippy::cast_possible_truncation,
    clippy::unused_unit,
    reason = "small numbers; a macro"
)]
mod support;

use std::ffi::OsStr;
use std::io;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use support::{PATIENCE, Recorder, Rig, SHORT, Server, Transport, Watchdog, frame};
use websockex::sinks::VARIABLE;
use websockex::trace::{Kind, Level, Record, Sink};
use websockex::{Client, CloseCode, Reactor, Reconnect, SendError};

/// Sends so many texts, and drops the connection.
fn blasting(texts: usize) -> Server {
    Server::start(Transport::Plain, move |_, mut peer| {
        peer.accept_and_send(&frame(0x81, b"tick").repeat(texts));
    })
}

#[test]
fn a_sink_gets_every_event() {
    let server = blasting(3);
    let (sender, records) = mpsc::channel();
    let sink = move |record: &Record| {
        let _ = sender.send(record.clone());
    };
    let mut rig = Rig::with(Reactor::builder().trace(Level::Frames).trace_sink(sink));
    rig.connect(server.request().name("feed"), Recorder::new());
    rig.run();
    let stats = rig.reactor.remote().stats();
    let kept: Vec<_> = rig.reactor.trace().iter().copied().collect();
    drop(rig);
    let records: Vec<Record> = records.iter().collect();
    let events: Vec<_> = records.iter().map(|record| record.event).collect();
    assert_eq!(events, kept);
    assert_eq!(
        events
            .iter()
            .filter(|event| event.kind() == Kind::FrameReceived)
            .count(),
        3
    );
    assert!(records.iter().all(|record| record.name() == "feed"));
    assert_eq!(stats.sinks.len(), 1);
    assert_eq!(stats.sinks[0].dropped, 0);
}

#[test]
fn a_stalled_sink_is_added_and_holds_nothing_up() {
    let texts = 20_000;
    let server = blasting(texts);
    let (release, stalled) = mpsc::channel::<()>();
    let mut rig = Rig::new();
    let remote = rig.reactor.remote();
    let sink = move |_: &Record| {
        let _ = stalled.recv();
    };
    remote.add_trace_sink(sink).expect("it runs");
    let start = Instant::now();
    let log = rig.connect(server.request().trace(Level::Payload), Recorder::new());
    rig.run();
    assert!(start.elapsed() < PATIENCE);
    assert!(log.calls().len() > texts);
    let sink = &remote.stats().sinks[0];
    assert!(
        sink.dropped > texts as u64 / 2 && sink.written == 0,
        "{sink:?}"
    );
    drop(release);
}

/// Hands on what it gets, when it is let: a word for each event, and one when it is flushed.
struct Gated {
    gate: Receiver<()>,
    words: Sender<&'static str>,
}

/// The sink, its gate, which is open when it is gone, and what it got, which ends with the sink.
fn gated() -> (Gated, Sender<()>, Receiver<&'static str>) {
    let (open, gate) = mpsc::channel();
    let (words, got) = mpsc::channel();
    (Gated { gate, words }, open, got)
}

impl Sink for Gated {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let _ = self.gate.recv();
        let word = record.event.kind().name();
        self.words.send(word).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.words.send("flushed").map_err(io::Error::other)
    }
}

/// Closes when the client does.
fn polite() -> Server {
    Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.answer_close(1000);
    })
}

/// As often as it takes until the connection's end is recorded.
fn wait_for_terminated(words: &Receiver<&'static str>) {
    while words.recv_timeout(PATIENCE).expect("it comes") != "terminated" {}
}

#[test]
fn sinks_are_removed_one_by_one_while_the_reactor_runs() {
    let _watchdog = Watchdog::start();
    let (first, open, firsts) = gated();
    drop(open);
    let client = Client::start_with(Reactor::builder().trace_sink(first)).expect("a reactor");
    let remote = client.remote();
    let (second, open, seconds) = gated();
    drop(open);
    let second = remote.add_trace_sink(second).expect("it runs");
    let ids: Vec<_> = remote.stats().sinks.iter().map(|sink| sink.id).collect();
    let [first, also_second] = ids[..] else {
        panic!("{ids:?}");
    };
    assert_eq!(also_second, second);
    let server = polite();
    let id = client
        .connect(server.request(), Recorder::new())
        .expect("it opens");

    let stats = remote.remove_trace_sink(first, PATIENCE).expect("it ends");
    // It ends because the sink is dropped.
    let words: Vec<_> = firsts.iter().collect();
    assert_eq!(words.last(), Some(&"flushed"));
    let events: Vec<_> = words
        .into_iter()
        .filter(|&word| word != "flushed")
        .collect();
    assert_eq!(events.first(), Some(&"connecting"));
    assert_eq!(events.last(), Some(&"connected"));
    assert_eq!((stats.id, stats.written), (first, events.len() as u64));
    assert_eq!((stats.dropped, stats.failed), (0, 0));
    assert_eq!(
        remote.remove_trace_sink(first, PATIENCE),
        Err(SendError::Gone)
    );

    remote.close(id, CloseCode::NORMAL, "").expect("it is open");
    wait_for_terminated(&seconds);
    let sinks = remote.stats().sinks;
    assert_eq!(sinks.len(), 1);
    assert_eq!(sinks[0].id, second);
    // None is named as one before it.
    let third = remote.add_trace_sink(|_: &Record| ()).expect("it runs");
    assert!(third != first && third != second);
    client.shutdown().expect("an orderly end");
}

#[test]
fn a_slow_sink_is_removed_and_gets_what_had_come() {
    let _watchdog = Watchdog::start();
    let client = Client::start().expect("a reactor");
    let remote = client.remote();
    let (slow, open, slows) = gated();
    let slow = remote.add_trace_sink(slow).expect("it runs");
    let server = polite();
    let id = client
        .connect(server.request(), Recorder::new())
        .expect("it opens");
    // The reactor has nothing to wait for: the next sink is added after this one was removed.
    assert_eq!(
        remote.remove_trace_sink(slow, Duration::ZERO),
        Err(SendError::TimedOut)
    );
    let (next, next_open, nexts) = gated();
    drop(next_open);
    remote.add_trace_sink(next).expect("it runs");
    remote.close(id, CloseCode::NORMAL, "").expect("it is open");
    wait_for_terminated(&nexts);
    assert_eq!(
        remote.stats().sinks[0].written,
        0,
        "it is listed until it has ended"
    );
    drop(open);
    let stats = remote.remove_trace_sink(slow, PATIENCE).expect("it ends");
    let events: Vec<_> = slows.iter().filter(|&word| word != "flushed").collect();
    assert_eq!(events.last(), Some(&"connected"));
    assert_eq!((stats.written, stats.dropped), (events.len() as u64, 0));
    assert_eq!(remote.stats().sinks.len(), 1);
    client.shutdown().expect("an orderly end");
}

#[test]
fn a_handler_cannot_wait_for_a_sink_to_be_removed() {
    let server = polite();
    let mut rig = Rig::with(Reactor::builder().trace_sink(|_: &Record| ()));
    let remote = rig.reactor.remote();
    let sink = remote.stats().sinks[0].id;
    let (answer, answered) = mpsc::channel();
    let recorder = Recorder::new().open(move |cx, _| {
        answer.send(remote.remove_trace_sink(sink, PATIENCE))?;
        cx.close();
        Ok(())
    });
    rig.connect(server.request(), recorder);
    rig.run();
    assert_eq!(answered.recv(), Ok(Err(SendError::OwnThread)));
    let remote = rig.reactor.remote();
    assert_eq!(remote.stats().sinks.len(), 1, "it is still there");
    drop(rig);
    assert_eq!(
        remote.remove_trace_sink(sink, PATIENCE),
        Err(SendError::Gone)
    );
}

/// Runs this test's own program again, with the variable set, and returns its standard error.
fn with_variable(value: impl AsRef<OsStr>) -> String {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args([
        "--exact",
        "the_program_that_nobody_can_recompile",
        "--nocapture",
        "--ignored",
    ]);
    let output = command.env(VARIABLE, value).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

/// It says that it wants no trace at all, wherever that can be said.
#[test]
#[ignore = "run by the tests below, in a process of its own"]
fn the_program_that_nobody_can_recompile() {
    let server = blasting(1);
    let mut rig = Rig::with(Reactor::builder().trace(Level::Off));
    let request = server
        .request()
        .trace(Level::Off)
        .name("old")
        .close_timeout(SHORT);
    let again = request.clone();
    let recorder = Recorder::new()
        .open(|cx, _| {
            cx.set_trace(Level::Off);
            Ok(())
        })
        .disconnect(move |_, disconnect| match disconnect.epoch {
            1 => Reconnect::To(Box::new(again.clone())),
            _ => Reconnect::Never,
        });
    let id = rig.connect(request, recorder).id();
    let remote = rig.reactor.remote();
    remote.set_trace(None, Level::Off).expect("it runs");
    remote.set_trace(Some(id), Level::Off).expect("it runs");
    // Another one at the same time, which ends at once.
    let other = Reactor::builder().trace(Level::Off).build();
    other.expect("a reactor").run().expect("an orderly end");
    rig.run();
}

#[test]
fn the_environment_overrules_the_program() {
    let silent = with_variable("");
    assert!(!silent.contains("*DBG*"), "{silent}");
    let printed = with_variable("payload,print");
    for line in [
        "*DBG* old successfully connected (epoch 1)\n",
        "*DBG* old received frame: text (4 B): \"tick\"\n",
        "*DBG* old successfully reconnected (epoch 2)\n",
        "*DBG* old terminated: ",
    ] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
    assert_eq!(printed.matches("received frame").count(), 2, "{printed}");
    assert!(!printed.contains("changed the trace level"), "{printed}");
    let lifecycle = with_variable("lifecycle,print");
    assert!(lifecycle.contains("successfully connected") && !lifecycle.contains("received frame"));
    let wrong = with_variable("verbose");
    assert!(
        wrong.contains("WEBSOCKEX_TRACE has \"verbose\", which means nothing"),
        "{wrong}"
    );
}

#[cfg(unix)]
#[test]
fn an_environment_that_is_no_text_is_not_ignored_in_silence() {
    use std::os::unix::ffi::OsStrExt;
    let wrong = with_variable(OsStr::from_bytes(b"print,file=\xff"));
    assert!(
        wrong.contains("WEBSOCKEX_TRACE has \"print,file=\u{fffd}\", which means nothing"),
        "{wrong}"
    );
}

#[test]
fn the_environment_names_a_file() {
    let name = format!("websockex-environment-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir(&directory).expect("it is not there yet");
    let path = directory.join("trace");
    let silent = with_variable(format!("frames,json,file={}", path.display()));
    assert!(!silent.contains("*DBG*"), "{silent}");
    let text = std::fs::read_to_string(&path).expect("the file is there");
    // The other reactor, to which nothing happens.
    let second = std::fs::read_to_string(directory.join("trace-2"));
    assert_eq!(second.expect("the file is there"), "");
    std::fs::remove_dir_all(&directory).expect("it is there");
    let events: Vec<&str> = text
        .lines()
        .map(|line| {
            assert!(
                line.starts_with("{\"unix_ns\":") && line.contains(",\"reactor\":0,"),
                "{line}"
            );
            let rest = line
                .split("\"event\":\"")
                .nth(1)
                .expect("every line has it");
            rest.split('"').next().expect("there is a first part")
        })
        .collect();
    assert_eq!(events.first(), Some(&"connecting"));
    assert!(events.contains(&"frame_received"));
    assert_eq!(events.last(), Some(&"terminated"));
}
