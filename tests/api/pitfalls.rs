//! Faults that other clients shipped, by their number in the list that this crate keeps. Those that
//! concern one parser only are tested beside it, and those that belong to a theme in its file.

use crate::support::{Call, Duet, Peer, Recorder, Rig, Transport, Why, frame};
use std::net::TcpListener;
use std::thread;
use websockex::trace::Kind;
use websockex::{Reactor, Request};

/// While the socket takes nothing one pong is in the queue, and only the newest waits for that.
#[test]
fn pitfall_05_pongs_do_not_queue_up() {
    const LENGTH: usize = 16 << 20;
    const PINGS: usize = 1000;
    for &transport in Transport::ALL {
        let recorder = Recorder::new().open(|cx, _| {
            cx.send_binary(&vec![0; LENGTH])?;
            // The socket has taken what it takes for now, so the rest waits.
            Ok(())
        });
        let mut duet = Duet::open(transport, recorder);
        for ping in 0..PINGS {
            duet.peer.write(&frame(0x89, ping.to_string().as_bytes()));
        }
        let log = duet.log.clone();
        duet.rig
            .run_until(|| log.count(|call| matches!(call, Call::Ping(_))) == PINGS);
        let mut peer = duet.peer;
        let reader = thread::spawn(move || {
            assert_eq!(peer.read_frame().expect("a frame").payload.len(), LENGTH);
            peer.expect(10, b"0");
            peer.expect(10, (PINGS - 1).to_string().as_bytes());
            peer.close(1000, "");
            // No other pong came in between.
            peer.expect_close(1000);
        });
        duet.rig.run();
        reader.join().expect("two pongs");
    }
}

/// The pong leaves although the application never sends anything: the market-data pattern.
#[test]
fn pitfall_13_a_pong_is_flushed_when_the_application_only_reads() {
    for &transport in Transport::ALL {
        let mut duet = Duet::open(transport, Recorder::new());
        duet.deliver(&frame(0x89, b"there?"));
        duet.peer.expect(10, b"there?");
        // Between messages as well.
        let mut bytes = frame(0x81, b"tick");
        bytes.extend(frame(0x89, b"still there?"));
        bytes.extend(frame(0x81, b"tick"));
        duet.deliver(&bytes);
        duet.peer.expect(10, b"still there?");
        assert_eq!(duet.log.messages(), 2);
    }
}

/// The whole answer is taken in one turn, which is a handful of reads.
#[test]
fn pitfall_21_the_opening_handshake_is_not_read_byte_by_byte() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let mut rig = Rig::new();
    let request = Request::new(format!("ws://{address}/")).expect("a URL");
    let log = rig.connect(request, Recorder::new());
    rig.turn();
    let (stream, _) = listener.accept().expect("the client connects");
    rig.turn();
    let mut peer = Peer::new(Transport::Plain, stream);
    peer.accept();
    rig.turn();
    assert!(log.is_open());
}

/// The last message and the end of the stream arrive together, so the socket gives one edge for
/// both, and the read that takes the message is a short one.
#[test]
fn pitfall_22_the_end_of_the_stream_right_behind_a_message_is_seen() {
    for &transport in Transport::ALL {
        let mut duet = Duet::open(transport, Recorder::new());
        duet.peer.text("last");
        duet.peer.end();
        duet.rig.run();
        assert_eq!(duet.log.texts(), ["last"]);
        assert_eq!(duet.log.only_lost().why, Why::Dropped);
    }
}

/// Far more than a turn may read, all of it there before the first look: no further edge comes, and
/// nothing is left lying, neither in the socket nor in the TLS layer.
#[test]
fn pitfall_22_what_is_left_of_a_turn_is_read_without_another_edge() {
    const MESSAGES: usize = 100_000;
    for &transport in Transport::ALL {
        let mut rig = Rig::with(Reactor::builder().receive_buffer(0));
        let (mut peer, log, _server) = rig.open(transport, Recorder::new(), |request| request);
        let writer = thread::spawn(move || {
            peer.write(&frame(0x82, b"0123456789").repeat(MESSAGES));
            // Held, so that no end of the stream wakes anybody.
            peer
        });
        rig.run_until(|| log.messages() == MESSAGES);
        drop(writer.join().expect("it was taken"));
    }
}

/// A connection on which always something is to be read leaves the others their turn.
#[test]
fn pitfall_23_a_chatty_connection_does_not_starve_the_others() {
    const BUFFER: usize = 80 * 1024;
    const READS_PER_TURN: usize = 4;
    const MESSAGE: usize = 1000;
    const TOTAL: usize = 8 << 20;
    let mut rig = Rig::with(Reactor::builder().receive_buffer(BUFFER));
    let (mut chatty, chatter, _chatty_server) =
        rig.open(Transport::Plain, Recorder::new(), |request| request);
    let (mut quiet, word, _quiet_server) =
        rig.open(Transport::Plain, Recorder::new(), |request| request);
    let writer = thread::spawn(move || {
        chatty.write(&frame(0x82, &[0; MESSAGE]).repeat(TOTAL / MESSAGE));
        chatty
    });
    let mut said = 0;
    while chatter.messages() < TOTAL / MESSAGE {
        let before = chatter.messages();
        quiet.text("a word");
        said += 1;
        rig.turn();
        let read = (chatter.messages() - before) * MESSAGE;
        // A turn may read the rest of an earlier one and a turn's share for a new event.
        assert!(
            read <= 2 * BUFFER * READS_PER_TURN,
            "{read} bytes in one turn"
        );
        rig.run_until(|| word.messages() == said);
    }
    drop(writer.join().expect("it was taken"));
}

/// Looking a name up happens elsewhere: the turn that asks does not wait for the answer.
#[test]
fn pitfall_28_names_are_not_looked_up_on_the_reactors_thread() {
    let server = crate::support::Server::echo(Transport::Plain);
    let mut rig = Rig::new();
    let url = format!("ws://localhost:{}/", server.address.port());
    let log = rig.connect(url, Recorder::new());
    rig.turn();
    assert_eq!(rig.traced(Kind::Connecting), 1);
    assert_eq!(rig.traced(Kind::Resolved), 0);
    rig.run_until(|| log.is_open());
    assert_eq!(rig.traced(Kind::Resolved), 1);
}
