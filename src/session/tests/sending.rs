//! The short way of a message into the turn's output, which must be the long one but for the time.

use super::{Rig, SECOND};
use crate::protocol::buffer::Buffer;
use crate::protocol::deflate::Agreed;
use crate::protocol::encoder::{PIECE, SHORT};
use crate::protocol::frame::OpCode;
use crate::session::outbound::{Compression, Fragment};
use crate::session::pace::Pacer;
use crate::session::{Options, Stage};
use crate::trace::kind::Level;

/// An open connection whose frames nobody looks at, with room for more of them.
fn rig(configure: impl FnOnce(&mut Options)) -> Rig {
    let mut rig = Rig::new(configure);
    rig.open();
    rig.life.level = Level::Lifecycle;
    rig.with(|_, output| _ = output.frames.room(PIECE));
    rig
}

fn send_short(rig: &mut Rig, payload: &[u8]) -> bool {
    rig.with(|life, output| life.send_short(output, OpCode::Binary, payload))
}

#[test]
fn both_ways_write_the_same() {
    let payload = [b'x'; SHORT];
    let (mut short, mut long) = (rig(|_| ()), rig(|_| ()));
    for length in 0..=SHORT {
        let payload = &payload[..length];
        assert!(send_short(&mut short, payload));
        let plain = Compression::BySize;
        let sent =
            long.with(|life, output| life.send(output, None, plain, OpCode::Binary, payload));
        assert_eq!(sent, Ok(()));
    }
    assert_eq!(short.written(), long.written());
}

/// The long way has to look after it, whatever it then does.
#[test]
fn what_is_not_ordinary_goes_the_long_way() {
    let is_refused = |name: &str, rig: &mut Rig, payload: &[u8]| {
        let before = rig.with(|_, output| output.frames.len());
        assert!(!send_short(rig, payload), "{name}");
        let after = rig.with(|_, output| output.frames.len());
        assert_eq!(after, before, "{name}");
    };
    is_refused("long", &mut rig(|_| ()), &[0; SHORT + 1]);

    let mut closing = rig(|_| ());
    closing.life.stage = Stage::Closing;
    is_refused("closing", &mut closing, b"");

    let mut traced = rig(|_| ());
    traced.life.level = Level::Frames;
    is_refused("traced", &mut traced, b"");

    let mut fragments = rig(|_| ());
    let first = |rig: &mut Rig, fragment| {
        rig.with(|life, output| life.send_fragment(output, None, OpCode::Text, fragment, b""))
    };
    assert_eq!(first(&mut fragments, Fragment::First), Ok(()));
    is_refused("between fragments", &mut fragments, b"");
    assert_eq!(first(&mut fragments, Fragment::Last), Ok(()));
    assert!(send_short(&mut fragments, b""));

    let pacer = Pacer::new(1, SECOND).expect("a pace");
    let mut paced = rig(|options| options.pacer = Some(pacer));
    is_refused("paced", &mut paced, b"");

    let mut full = rig(|options| options.max_queued = 100);
    assert!(send_short(&mut full, &[0; 80]));
    is_refused("full", &mut full, &[0; 80]);
    full.life.queued = 100;
    full.written();
    is_refused("full of what waits", &mut full, b"x");

    let mut deflated = rig(|_| ());
    deflated.life.deflate = Some(Box::new(Agreed {
        server_context_takeover: true,
        server_window_bits: 15,
        client_window_bits: 15,
        threshold: None,
        level: 1,
    }));
    is_refused("deflated", &mut deflated, b"");

    let mut narrow = rig(|_| ());
    narrow.with(|_, output| *output.frames = Buffer::new());
    is_refused("has to grow", &mut narrow, b"");

    let mut piece = rig(|_| ());
    let almost = [0; PIECE - SHORT];
    piece.with(|_, output| output.frames.extend(&almost));
    is_refused("a piece to pass on", &mut piece, b"");
}
