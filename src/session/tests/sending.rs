//! The short way of a message into the turn's output, which must be the long one but for the time.

use super::{Rig, SECOND};
use crate::error::SendError;
use crate::protocol::buffer::Buffer;
use crate::protocol::deflate::Agreed;
use crate::protocol::encoder::{PIECE, SHORT};
use crate::protocol::frame::{MAX_HEADER_LENGTH, OpCode};
use crate::session::Options;
use crate::session::outbound::{Compression, Fragment, Sends};
use crate::session::pace::Pacer;
use crate::trace::kind::Level;

/// An open connection whose frames nobody looks at, with room for more of them; where it can, it has found
/// out that messages are ordinary.
fn rig(configure: impl FnOnce(&mut Options)) -> Rig {
    let mut rig = Rig::new(configure);
    rig.open();
    rig.with(|life, output| {
        life.set_level(output, Level::Lifecycle);
        output.frames.room(PIECE);
    });
    assert_eq!(send(&mut rig, b""), Ok(()));
    rig.written();
    rig
}

fn send(rig: &mut Rig, payload: &[u8]) -> Result<(), SendError> {
    let plain = Compression::BySize;
    rig.with(|life, output| life.send(output, None, plain, OpCode::Binary, payload))
}

fn send_short(rig: &mut Rig, payload: &[u8]) -> bool {
    rig.with(|life, output| life.send_short(output, OpCode::Binary, payload))
}

fn send_ordinary(rig: &mut Rig, payload: &[u8]) -> bool {
    rig.with(|life, output| life.send_ordinary(output, OpCode::Binary, payload))
}

#[test]
fn all_ways_write_the_same() {
    let payload = [b'x'; 4 * SHORT];
    let (mut short, mut ordinary, mut long) = (rig(|_| ()), rig(|_| ()), rig(|_| ()));
    for length in 0..=payload.len() {
        let payload = &payload[..length];
        if length <= SHORT {
            assert!(send_short(&mut short, payload));
        } else {
            assert!(send_ordinary(&mut short, payload));
        }
        assert!(send_ordinary(&mut ordinary, payload));
        assert_eq!(send(&mut long, payload), Ok(()));
        let (short, long) = (short.written(), long.written());
        assert_eq!(short, long);
        assert_eq!(ordinary.written(), long);
    }
}

/// The long way has to look after it, whatever it then does.
#[test]
fn what_is_not_ordinary_goes_the_long_way() {
    let is_refused = |name: &str, rig: &mut Rig, payload: &[u8]| {
        let before = rig.with(|_, output| output.frames.len());
        assert!(!send_short(rig, payload), "{name}");
        assert!(!send_ordinary(rig, payload), "{name}");
        let after = rig.with(|_, output| output.frames.len());
        assert_eq!(after, before, "{name}");
    };
    let mut closing = rig(|_| ());
    assert!(send_short(&mut closing, b""));
    let closed = closing.with(|life, output| life.close(output, None));
    assert_eq!(closed, Ok(()));
    is_refused("closing", &mut closing, b"");

    let mut traced = rig(|_| ());
    traced.with(|life, output| life.set_level(output, Level::Frames));
    is_refused("traced", &mut traced, b"");
    assert_eq!(send(&mut traced, b""), Ok(()));
    is_refused("still traced", &mut traced, b"");

    let mut fragments = rig(|_| ());
    let part = |rig: &mut Rig, fragment| {
        rig.with(|life, output| life.send_fragment(output, None, OpCode::Text, fragment, b""))
    };
    assert_eq!(part(&mut fragments, Fragment::First), Ok(()));
    is_refused("between fragments", &mut fragments, b"");
    assert_eq!(part(&mut fragments, Fragment::Last), Ok(()));
    assert_eq!(send(&mut fragments, b""), Ok(()));
    assert!(send_short(&mut fragments, b""));

    let pacer = Pacer::new(1, SECOND).expect("a pace");
    let mut paced = rig(|options| options.pacer = Some(pacer));
    is_refused("paced", &mut paced, b"");

    let mut deflated = rig(|_| ());
    deflated.life.deflate = Some(Box::new(Agreed {
        server_context_takeover: true,
        server_window_bits: 15,
        client_window_bits: 15,
        threshold: None,
        level: 1,
    }));
    // As when it is opened.
    deflated.life.sends.doubt();
    assert_eq!(send(&mut deflated, b""), Ok(()));
    is_refused("deflated", &mut deflated, b"");
}

/// Where the limit could be reached, the long way keeps it, to the byte.
#[test]
fn a_full_queue_is_told_by_the_long_way() {
    for way in [send_short, send_ordinary] {
        let mut small = rig(|options| options.max_queued = PIECE - 1);
        assert!(!way(&mut small, b""), "it could be exceeded");

        // What waits for the socket counts.
        let mut full = rig(|options| options.max_queued = PIECE);
        assert!(way(&mut full, b"x"));
        full.written();
        full.with(|life, output| life.handle_queued(output, PIECE));
        assert!(!way(&mut full, b"x"));
        let error = SendError::Full {
            queued: PIECE,
            limit: PIECE,
        };
        assert_eq!(send(&mut full, b"x"), Err(error));
        assert_eq!(send(&mut full, b""), Ok(()));
        full.written();
        assert!(!way(&mut full, b""), "something waits before it");
        full.with(|life, output| life.handle_queued(output, 0));
        assert!(!way(&mut full, b"x"), "it is not known yet");
        assert_eq!(send(&mut full, b"x"), Ok(()));
        assert!(way(&mut full, b"x"));
    }
}

/// A run of refusals is recorded once, and ends with a message that is sent.
#[test]
fn a_refusal_is_told_to_the_next_message() {
    let mut full = rig(|options| options.max_queued = PIECE);
    for _ in 0..2 {
        assert!(send(&mut full, &[0; PIECE + 1]).is_err());
        assert_eq!(full.life.sends, Sends::Dropping);
        assert!(!send_short(&mut full, b"x"));
        assert_eq!(send(&mut full, b"x"), Ok(()));
        assert_ne!(full.life.sends, Sends::Dropping);
        full.written();
        assert!(send_short(&mut full, b"x"));
        full.written();
    }
}

#[test]
fn the_short_way_does_not_make_room() {
    let mut narrow = rig(|_| ());
    narrow.with(|_, output| *output.frames = Buffer::new());
    assert!(!send_short(&mut narrow, b""));
    assert!(send_ordinary(&mut narrow, b""));
    assert!(send_short(&mut narrow, b""));
}

/// A piece is passed on when it is full, not in the midst of an ordinary message.
#[test]
fn a_message_that_fills_a_piece_goes_the_long_way() {
    let mut piece = rig(|_| ());
    let almost = [0; PIECE - MAX_HEADER_LENGTH - SHORT];
    piece.with(|_, output| output.frames.extend(&almost));
    assert!(
        !send_short(&mut piece, b""),
        "where the longest has no room"
    );
    assert!(!send_ordinary(&mut piece, &[0; SHORT]));
    assert!(send_ordinary(&mut piece, &[0; SHORT - 1]));
    assert!(piece.with(|_, output| output.frames.len()) < PIECE);
}
