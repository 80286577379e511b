//! The numbers that a reactor publishes, read from other threads while it runs.

#[path = "api/support/mod.rs"]
#[allow(dead_code, reason = "what other tests need of it")]
#[allow(unused_imports, reason = "likewise")]
#[allow(
    clippy::cast_possible_truncation,
    clippy::unused_unit,
    reason = "small numbers; a macro"
)]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use support::{PATIENCE, Recorder, Rig, Server, Transport, frame};
use websockex::trace::Callback;
use websockex::{ConnectionState, Message, Pacer, ReconnectPolicy};

const MESSAGES: usize = 200;
const TEXT: &str = "twelve bytes";

#[test]
fn everything_is_counted_while_others_look() {
    let server = Server::echo(Transport::Plain);
    let mut rig = Rig::new();
    let remote = rig.reactor.remote();
    let logs: Vec<_> = (0..3)
        .map(|number| {
            let recorder = Recorder::new().open(|cx, _| {
                (0..MESSAGES).try_for_each(|_| cx.send_text(TEXT))?;
                Ok(cx.send_ping(b"?")?)
            });
            rig.connect(server.request().name(format!("echo {number}")), recorder)
        })
        .collect();
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (remote, done) = (remote.clone(), Arc::clone(&done));
        thread::spawn(move || {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                let seen = remote.stats().received.messages;
                assert!(seen >= last, "numbers only grow");
                last = seen;
                assert!(remote.connections().len() <= 3);
            }
        })
    };
    rig.run_until(|| {
        let stats = remote.stats();
        stats.received.messages == 3 * MESSAGES as u64 && stats.received.frames.pong == 3
    });
    done.store(true, Ordering::Relaxed);
    reader.join().expect("the reader found nothing wrong");

    let stats = remote.stats();
    assert_eq!((stats.connections, stats.open), (3, 3));
    assert_eq!((stats.attempts, stats.opens, stats.disconnects), (3, 3, 0));
    let bytes = (3 * MESSAGES * TEXT.len()) as u64;
    for traffic in [&stats.received, &stats.sent] {
        assert_eq!((traffic.messages, traffic.message_bytes), (600, bytes));
        assert_eq!((traffic.frames.text, traffic.frame_bytes), (600, bytes + 3));
        assert!(traffic.socket_bytes > bytes + 600 * 2);
    }
    assert_eq!(stats.sent.frames.ping, 3);
    assert_eq!((stats.tcp_ns.count(), stats.upgrade_ns.count()), (3, 3));
    assert_eq!((stats.connect_ns.count(), stats.resolve_ns.count()), (3, 0));
    assert!(stats.turns > 0 && stats.events_per_turn.count() == stats.turns);
    assert!(stats.handler_ns.count() > 6);
    assert!(stats.last_data.expect("there was data") <= stats.uptime);

    let table = remote.connections();
    for (status, number) in table.iter().zip(0..) {
        assert_eq!(status.name.as_deref(), Some(&*format!("echo {number}")));
        assert_eq!(status.state, ConnectionState::Open);
        assert_eq!(status.stats.received.messages, MESSAGES as u64);
        assert!(status.stats.stages.total >= status.stats.stages.tcp);
        assert!(status.since_last_data().is_some());
    }
    let lines: Vec<String> = table.to_string().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[0].starts_with("id ") && lines[0].contains(" msgs in "));
    let expected = format!("echo 2@{}", server.address);
    assert!(
        lines[3].contains(&expected) && lines[3].contains(" open "),
        "{table}"
    );

    let id = table[0].id;
    assert_eq!(
        remote.status(id).expect("it is there").state,
        ConnectionState::Open
    );
    remote.shutdown(PATIENCE).expect("it runs");
    rig.run();
    assert!(remote.status(id).is_none() && remote.connections().is_empty());
    // What has ended still counts.
    let stats = remote.stats();
    assert_eq!((stats.connections, stats.received.messages), (0, 600));
    assert_eq!((stats.disconnects, stats.reconnects.total()), (3, 0));
    drop(logs);
}

#[test]
fn messages_in_pieces_are_counted_as_messages() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        // In three fragments; whole; and one that two writes cut, a ping before its second half.
        let bytes = [
            frame(0x01, b"a"),
            frame(0x00, b"bc"),
            frame(0x80, b"d"),
            frame(0x82, b"binary"),
            frame(0x89, b"?"),
            frame(0x81, &[b'x'; 1000]),
        ]
        .concat();
        let (first, rest) = bytes.split_at(bytes.len() - 500);
        peer.accept_and_send(first);
        // Its pong shows that the first part was read by itself.
        peer.expect(0xA, b"?");
        peer.write(rest);
        peer.drain();
    });
    let mut rig = Rig::new();
    let remote = rig.reactor.remote();
    rig.connect(server.request(), Recorder::new());
    rig.run_until(|| remote.stats().received.messages == 3);
    let received = remote.stats().received;
    let frames = received.frames;
    assert_eq!((received.message_bytes, received.frame_bytes), (1010, 1011));
    assert_eq!((frames.text, frames.binary, frames.continuation), (2, 1, 2));
    assert_eq!(frames.ping, 1);
    remote.shutdown(PATIENCE).expect("it runs");
    rig.run();
}

/// Those before it, the one that the handler fails at, and none behind.
#[test]
fn messages_are_counted_up_to_a_panic() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        let texts = ["one", "two", "three", "four"];
        peer.accept_and_send(&texts.map(|text| frame(0x81, text.as_bytes())).concat());
        peer.drain();
    });
    let mut rig = Rig::new();
    let remote = rig.reactor.remote();
    let recorder = Recorder::new().message(|_, message| match message {
        Message::Text("three") => panic!("on purpose"),
        _ => Ok(()),
    });
    rig.connect(server.request(), recorder);
    rig.run();
    let received = remote.stats().received;
    assert_eq!((received.messages, received.message_bytes), (3, 11));
    assert_eq!((received.frames.text, received.frame_bytes), (3, 11));
}

#[test]
fn reconnects_are_counted_by_reason() {
    let server = Server::start(Transport::Plain, |number, mut peer| match number {
        0 => peer.reject(503, &[], b""),
        1 => {
            peer.accept();
        }
        2 => {
            peer.accept();
            peer.close(1001, "");
            peer.drain();
        }
        3 => {
            // A masked frame.
            peer.accept_and_send(&[0x81, 0x81, 1, 2, 3, 4, 5]);
            peer.drain();
        }
        _ => {
            peer.accept();
            peer.drain();
        }
    });
    let mut rig = Rig::new();
    let remote = rig.reactor.remote();
    let policy = ReconnectPolicy::fixed(Duration::ZERO);
    rig.connect(server.request().reconnect(policy), Recorder::new());
    rig.run_until(|| remote.stats().opens == 4);
    let reconnects = remote.stats().reconnects;
    assert_eq!(reconnects.total(), 4);
    for (name, count) in reconnects.named() {
        let expected = ["refused", "dropped", "closed_by_peer", "protocol"].contains(&name);
        assert_eq!(count, u64::from(expected), "{name}");
    }
    assert_eq!(remote.stats().attempts, 5);
    remote.shutdown(PATIENCE).expect("it runs");
    rig.run();
}

#[test]
fn what_waits_is_counted() {
    let server = Server::echo(Transport::Plain);
    let mut rig = Rig::new();
    let remote = rig.reactor.remote();
    // One text leaves, the other two wait.
    let pacer = Pacer::new(1, Duration::from_secs(3600)).expect("a pace");
    for _ in 0..2 {
        let recorder = Recorder::new().open(|cx, _| {
            cx.send_text(TEXT)?;
            Ok(cx.send_text(TEXT)?)
        });
        rig.connect(server.request().pace(pacer.clone()), recorder);
    }
    rig.run_until(|| remote.stats().open == 2);
    let each = remote.connections().into_iter();
    let sum = each.map(|status| status.stats.queued_bytes).sum();
    let stats = remote.stats();
    assert!(stats.queued_bytes >= 3 * TEXT.len() as u64);
    assert_eq!(stats.queued_bytes, sum);
    assert!((1..sum).contains(&stats.queued_bytes_high));

    assert_eq!(stats.queued_commands, 0);
    remote.print_trace(false).expect("it runs");
    remote.shutdown(Duration::ZERO).expect("it runs");
    assert_eq!(remote.stats().queued_commands, 2);
    rig.run();
    let stats = remote.stats();
    assert_eq!((stats.queued_bytes, stats.queued_commands), (0, 0));
}

/// Names may come from anywhere; the table is printed on terminals.
#[test]
fn a_name_in_the_table_of_connections_is_one_line_of_visible_characters() {
    let mut rig = Rig::new();
    let remote = rig.reactor.remote();
    let server = Server::echo(Transport::Plain);
    let request = server.request().name("\u{1b}[2J it's\n\u{202e}\"me\"");
    rig.connect(request, Recorder::new());
    let table = remote.connections().to_string();
    assert_eq!(table.lines().count(), 2, "{table:?}");
    let shown = "\\u{1b}[2J it's\\n\\u{202e}\"me\"@127.0.0.1";
    assert!(table.contains(shown), "{table:?}");
    remote.shutdown(PATIENCE).expect("it runs");
    rig.run();
}

#[test]
fn the_slowest_handler_is_named() {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept_and_send(&frame(0x81, b"think"));
        peer.drain();
    });
    let mut rig = Rig::new();
    let remote = rig.reactor.remote();
    rig.connect(server.request().name("quick"), Recorder::new());
    let slow = Duration::from_millis(80);
    let recorder = Recorder::new().message(move |_, _| {
        thread::sleep(slow);
        Ok(())
    });
    rig.connect(server.request().name("slow"), recorder);
    rig.run_until(|| remote.stats().received.messages == 2);
    let stats = remote.stats();
    let slowest = stats.slowest_handler.as_ref().expect("there were turns");
    assert_eq!(slowest.name.as_deref(), Some("slow"));
    assert_eq!(slowest.callback, Callback::OnMessage);
    assert!(slowest.took >= slow);
    assert!(stats.busy_ns.largest() >= stats.handler_ns.largest());
    let page = stats.prometheus().to_string();
    assert!(
        page.contains("websockex_messages_total{direction=\"in\"} 2\n"),
        "{page}"
    );
    remote.shutdown(PATIENCE).expect("it runs");
    rig.run();
}
