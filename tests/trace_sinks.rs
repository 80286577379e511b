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

use std::process::Command;
use std::sync::mpsc;
use std::time::Instant;
use support::{PATIENCE, Recorder, Rig, SHORT, Server, Transport, frame};
use websockex::Reactor;
use websockex::sinks::VARIABLE;
use websockex::trace::{Kind, Level, Record};

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

/// Runs this test's own program again, with the variable set, and returns its standard error.
fn with_variable(value: &str) -> String {
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

/// It says that it wants no trace at all.
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
    rig.connect(request, Recorder::new());
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
        "*DBG* old terminated: ",
    ] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
    let lifecycle = with_variable("lifecycle,print");
    assert!(lifecycle.contains("successfully connected") && !lifecycle.contains("received frame"));
    let wrong = with_variable("verbose");
    assert!(
        wrong.contains("WEBSOCKEX_TRACE has \"verbose\", which means nothing"),
        "{wrong}"
    );
}

#[test]
fn the_environment_names_a_file() {
    let name = format!("websockex-environment-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let silent = with_variable(&format!("frames,json,file={}", path.display()));
    assert!(!silent.contains("*DBG*"), "{silent}");
    let text = std::fs::read_to_string(&path).expect("the file is there");
    std::fs::remove_file(&path).expect("the file is there");
    let events: Vec<&str> = text
        .lines()
        .map(|line| {
            assert!(
                line.starts_with("{\"unix_ns\":") && line.ends_with('}'),
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
