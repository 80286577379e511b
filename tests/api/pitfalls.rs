//! Faults that other clients shipped, by their number in the list that this crate keeps. Those that
//! concern one parser only are tested beside it.

use crate::support::{Duet, Recorder, Transport, Why};

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
