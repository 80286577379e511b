//! The trace of real sessions: what is recorded, in which order, how it reads, and what must never
//! be in it.

use crate::support::server::close_payload;
use crate::support::{Duet, Recorder, Rig, Server, Transport, frame};
use websockex::trace::{Kind, Level, Subject, render};
use websockex::{Message, Reactor, Reconnect, ReconnectPolicy, Request};

/// A whole small session as a person reads it.
#[test]
fn a_session_in_dbg_lines() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.expect_text("hello");
        let mut bytes = frame(0x81, b"hi");
        bytes.extend(frame(0x89, b"there?"));
        bytes.extend(frame(0x02, &[0, 255]));
        bytes.extend(frame(0x80, &[16]));
        bytes.extend(frame(0x88, &close_payload(1001, "maintenance")));
        peer.write(&bytes);
        peer.expect(10, b"there?");
        peer.expect_close(1001);
    });
    let mut rig = Rig::with(Reactor::builder().trace(Level::Payload));
    let recorder = Recorder::new()
        .open(|cx, _| Ok(cx.send_text("hello")?))
        .disconnect(|cx, _| {
            // Closed already; the trace says nothing of what was not sent.
            assert!(cx.send_text("too late").is_err());
            Reconnect::ByPolicy
        });
    rig.connect(server.request(), recorder);
    rig.run();
    let address = server.address;
    let expected = [
        format!("attempting to connect to {address} (attempt 1)"),
        format!("opening a TCP connection to {address}"),
        format!("opened the TCP connection to {address}"),
        format!("sent the upgrade request to {address}"),
        "successfully connected (epoch 1)".into(),
        r#"replying from on_open with text (5 B): "hello""#.into(),
        r#"sending frame: text (5 B): "hello""#.into(),
        r#"received frame: text (2 B): "hi""#.into(),
        r#"received frame: ping (6 B): "there?""#.into(),
        r#"replying from on_ping with pong (6 B): "there?""#.into(),
        r#"sending frame: pong (6 B): "there?""#.into(),
        "received frame: binary, not final (2 B): 00ff".into(),
        "received frame: continuation (1 B): 10".into(),
        "completed fragmented frame: binary (3 B): 00ff10".into(),
        r#"received frame: close (13 B): 03e96d61696e74656e616e6365"#.into(),
        r#"closing with the remote reason: 1001 "maintenance""#.into(),
        "sending close frame: 1001".into(),
        "sending frame: close (2 B): 03e9".into(),
        "closed the connection successfully".into(),
        r#"terminated: closed by the peer with 1001 "maintenance""#.into(),
    ];
    let lines = rig.dbg_lines();
    let lines: Vec<_> = lines
        .iter()
        .map(|line| line.strip_prefix("*DBG* feed ").expect("the prefix"))
        .collect();
    assert_eq!(lines, expected);
    // Times and sequence never go back.
    let events: Vec<_> = rig.reactor.trace().iter().collect();
    for pair in events.windows(2) {
        assert!(pair[0].time_ns() <= pair[1].time_ns());
        assert_eq!(pair[0].sequence() + 1, pair[1].sequence());
    }
}

/// Frames are recorded from the moment the level says so, and no longer than it does.
#[test]
fn the_level_can_be_changed_while_the_connection_is_open() {
    let frames =
        ["before", "on", "secret", "off", "after"].map(|text| frame(0x81, text.as_bytes()));
    // Each in a read of its own, and all in one.
    for reads in [frames.to_vec(), vec![frames.concat()]] {
        let recorder = Recorder::new().message(|cx, message| {
            match message {
                Message::Text("on") => cx.set_trace(Level::Frames),
                Message::Text("off") => cx.set_trace(Level::Lifecycle),
                _ => {}
            }
            Ok(())
        });
        let mut duet = Duet::open(Transport::Plain, recorder);
        for bytes in reads {
            duet.deliver(&bytes);
        }
        assert_eq!(duet.log.messages(), 5);
        let events = duet.rig.reactor.trace().iter();
        let tail: Vec<_> = events
            .map(|event| (event.kind(), event.subject(), event.detail().len()))
            .skip_while(|(kind, ..)| *kind != Kind::LevelChanged)
            .collect();
        let expected = [
            (Kind::LevelChanged, Subject::Level(Level::Frames), 0),
            // At this level only the header is recorded, of "secret" and of "off".
            (Kind::FrameReceived, Subject::None, 0),
            (Kind::FrameReceived, Subject::None, 0),
            (Kind::LevelChanged, Subject::Level(Level::Lifecycle), 0),
        ];
        assert_eq!(tail, expected);
    }
}

/// From another thread, for one connection and for all.
#[test]
fn the_level_can_be_changed_from_outside() {
    let mut duet = Duet::open(Transport::Plain, Recorder::new());
    let (remote, id) = (duet.rig.reactor.remote(), duet.log.id());
    let received = |duet: &Duet| duet.rig.traced(Kind::FrameReceived);
    duet.deliver(&frame(0x81, b"x"));
    assert_eq!(received(&duet), 0);
    for (id, level, expected) in [
        (Some(id), Level::Payload, 1),
        (Some(id), Level::Off, 1),
        (None, Level::Frames, 2),
        (None, Level::Lifecycle, 2),
    ] {
        remote.set_trace(id, level).expect("it is there");
        duet.rig.turn();
        duet.deliver(&frame(0x81, b"x"));
        assert_eq!(received(&duet), expected, "{level:?}");
    }
}

/// Those that wait for the connection and those that do not are recorded as the handler gets them.
#[test]
fn casts_are_recorded_with_their_types() {
    let server = Server::echo(Transport::Plain);
    let mut rig = Rig::new();
    let remote = rig.reactor.remote();
    let mut casts = 0;
    let recorder = Recorder::new().cast(move |cx| {
        casts += 1;
        if casts == 2 {
            cx.close();
        }
        Ok(())
    });
    let request = server.request().trace(Level::Frames);
    let log = rig.connect(request, recorder);
    remote.cast(log.id(), String::new()).expect("it is there");
    rig.run_until(|| log.is_open());
    remote.cast(log.id(), String::new()).expect("it is there");
    rig.run();
    let lines = rig.dbg_lines();
    let casts: Vec<_> = lines.iter().filter(|line| line.contains("cast")).collect();
    let line = "*DBG* feed received cast msg: alloc::string::String";
    assert_eq!(casts, [line, line]);
}

/// What a request says wins over what the reactor was built with; a switched-off trace is empty.
#[test]
fn levels_per_request_and_no_trace_at_all() {
    let server = Server::echo(Transport::Plain);
    let mut rig = Rig::with(Reactor::builder().trace(Level::Off));
    let close = || {
        Recorder::new().open(|cx, _| {
            assert_eq!(cx.last_events().iter().count() > 0, cx.epoch() > 1);
            cx.close();
            Ok(())
        })
    };
    rig.connect(server.request(), close());
    rig.run();
    assert_eq!(rig.reactor.trace().recorded(), 0);
    let recorder = Recorder::new().open(|cx, _| {
        // The flight recorder: this connection's own events.
        assert!(
            cx.last_events()
                .iter()
                .any(|event| event.kind() == Kind::Connected)
        );
        cx.close();
        Ok(())
    });
    rig.connect(server.request().trace(Level::Frames), recorder);
    rig.run();
    assert!(rig.traced(Kind::FrameSent) > 0);
    let mut rig = Rig::with(Reactor::builder().trace_capacity(0));
    rig.connect(server.request().trace(Level::Payload), close());
    rig.run();
    assert_eq!(rig.reactor.trace().recorded(), 0);
}

/// Credentials are nobody's business, in the trace as in what `Debug` prints; nor are, in the trace,
/// path and query, where some servers have them.
#[test]
fn secrets_are_never_shown() {
    const SECRETS: [&str; 5] = ["hunter2", "aHVudGVyMg", "Bearer", "listenkey", "alice"];
    let server = Server::start(Transport::Plain, |number, mut peer| match number {
        0 => peer.reject(401, &[], b""),
        _ => {
            peer.accept();
            peer.close(1001, "");
            peer.expect_close(1001);
        }
    });
    let address = server.address;
    let url = format!("ws://alice:hunter2@{address}/feed/listenkey?key=listenkey");
    let request = Request::new(url)
        .and_then(|request| request.header("X-Key", "Bearer aHVudGVyMg"))
        .expect("a request")
        .reconnect(ReconnectPolicy::fixed(std::time::Duration::ZERO));
    let mut rig = Rig::with(Reactor::builder().trace(Level::Payload));
    for printed in [format!("{request:?}"), format!("{:?}", request.url())] {
        let secret = SECRETS.iter().find(|secret| printed.contains(**secret));
        assert!(
            secret.is_none_or(|secret| *secret == "listenkey"),
            "{printed}"
        );
    }
    let recorder = Recorder::new().open(|_, _| Ok(())).disconnect(|cx, lost| {
        // Into the trace with what could be shown here.
        let text = format!("{cx:?} {lost:?} {}", lost.reason);
        assert!(
            SECRETS.iter().all(|secret| !text.contains(secret)),
            "{text}"
        );
        if lost.epoch == 0 {
            Reconnect::ByPolicy
        } else {
            Reconnect::Never
        }
    });
    let log = rig.connect(request, recorder);
    rig.run();
    assert_eq!(log.opened(), 1);
    let mut shown = rig.dbg_lines();
    shown.push(format!("{:?}", rig.reactor));
    for event in rig.reactor.trace().iter() {
        shown.push(render::json_line(event, "feed").to_string());
        shown.push(format!("{event:?}"));
    }
    for text in shown {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
