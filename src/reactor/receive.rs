//! From the socket into the decoder: reading, decrypting, and knowing when there is no more.
//!
//! Between the poll and [`dispatch`](super::dispatch).

use super::Shared;
use super::connection::Connection;
use super::delivery::Input;
use super::link::{LinkWire, More};
use crate::error::Error;
use crate::handler::ConnectionId;
use crate::session::{Inbound, Session, Stage, Wire};
#[cfg(feature = "tls")]
use crate::trace::event::Event;
#[cfg(feature = "tls")]
use crate::trace::kind::Kind;
use std::io::{self, ErrorKind};
use std::ops::Range;

/// Reads of one connection in one turn; then the others have theirs (pitfall 23).
const READS_PER_TURN: usize = 4;

/// A message that a read cuts is left where it lies if it has at most this part of the buffer: it may be
/// moved, and takes the room of what could be read.
const WORTH_LEAVING: usize = 4;

/// Bytes read behind the room of a message under way.
const BEHIND_ROOM: usize = 16 * 1024;

/// A multiple of this, in bytes, is where the kernel is asked to write: what it copies to the inside of a
/// cache line takes a tenth longer.
const LINE: usize = 64;

/// Where all connections of a reactor receive, one after the other.
pub(super) struct ReceiveBuffer {
    bytes: Vec<u8>,
    /// Where the first whole cache line begins, and with it the buffer.
    front: usize,
    /// The beginning of a message whose rest has not arrived, and whose it is. It lies here until that
    /// connection is read again, and never outlasts its socket; before any other has a turn, it is
    /// gathered where it belongs.
    cut: Option<(ConnectionId, Range<usize>)>,
}

impl ReceiveBuffer {
    pub(super) fn new(length: usize) -> Self {
        let bytes = vec![0; length + LINE];
        let front = bytes.as_ptr().align_offset(LINE).min(LINE);
        Self {
            bytes,
            front,
            cut: None,
        }
    }

    /// Whose message is cut, if it is another connection than the one in `slot`.
    #[inline]
    pub(super) fn cut_by_another(&self, slot: usize) -> Option<ConnectionId> {
        let (id, _) = self.cut.as_ref()?;
        (id.slot() as usize != slot).then_some(*id)
    }

    /// Moves what was cut to the front of `buffer`, which is this one, and returns where it lies now.
    /// It is moved once, in however many pieces the rest comes.
    #[inline]
    fn bring_forward(&mut self, buffer: &mut [u8]) -> Range<usize> {
        let Some((_, range)) = &mut self.cut else {
            return 0..0;
        };
        if range.start >= LINE {
            let place = before_a_line(range.len());
            buffer.copy_within(range.clone(), place.start);
            *range = place;
        }
        range.clone()
    }

    /// Whose message is cut.
    #[cfg(test)]
    pub(super) fn owner(&self) -> Option<ConnectionId> {
        self.cut.as_ref().map(|(id, _)| *id)
    }

    /// Forgets what `id` has left.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        self.cut.take_if(|(owner, _)| *owner == id);
    }
}

/// Where `length` bytes lie at the front of the buffer so that a read behind them begins with a line.
fn before_a_line(length: usize) -> Range<usize> {
    let end = length.next_multiple_of(LINE);
    end - length..end
}

impl Connection {
    /// What was cut of a message goes to the decoder: the buffer is needed for another connection.
    #[cold]
    pub(super) fn gather(&mut self, shared: &mut Shared) {
        if let Some((_, range)) = shared.receive.cut.take() {
            let bytes = std::mem::take(&mut shared.receive.bytes);
            let input = Input::to_take(&bytes[shared.receive.front..][range]);
            self.core.deliver(&mut shared.turn, None, input);
            shared.receive.bytes = bytes;
        }
    }

    /// Reads what there is, up to a turn's share, and delivers it.
    pub(super) fn receive(&mut self, shared: &mut Shared) {
        // Lent out of `shared` for the time, so that both can be used.
        let mut bytes = std::mem::take(&mut shared.receive.bytes);
        let buffer = &mut bytes[shared.receive.front..];
        let mut reads = 0;
        while self.reads() {
            if reads == READS_PER_TURN {
                // No edge will come for what is left: remember it (pitfall 22).
                if !self.core.ready {
                    self.core.ready = true;
                    shared.ready.push(self.core.id());
                }
                break;
            }
            reads += 1;
            self.core.session.life.heard.any_byte = shared.turn.now;
            match self.receive_once(shared, buffer) {
                Ok(More::Perhaps) => {}
                Ok(More::Drained) => break,
                Ok(More::Ended) => {
                    self.end_batch(shared);
                    // A write that met a reset before has taken the error from the socket, which
                    // from then on looks as if the peer had ended the stream in good order.
                    if !self.handle_link_error(shared) {
                        let (mut output, _) = shared.turn.split(None);
                        let Session { inbound, life } = &mut self.core.session;
                        life.handle_end_of_stream(&mut output, inbound);
                    }
                    break;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.end_batch(shared);
                    let (mut output, _) = shared.turn.split(None);
                    self.life().handle_io_error(&mut output, error);
                    break;
                }
            }
        }
        shared.receive.bytes = bytes;
        // Paused in the middle of this: if the end of the batch resumes it, there is no edge for what
        // was left (pitfall 22).
        let life = &self.core.session.life;
        self.core.paused |= life.paused && life.stage == Stage::Open;
        self.end_batch(shared);
        // What is called next is not for these bytes.
        shared.turn.tally.received_at = None;
    }

    /// What was delivered is a batch. If the connection has come to its end, the batch ends first: what
    /// the handler does then, it does on an open connection.
    #[inline]
    fn end_batch(&mut self, shared: &mut Shared) {
        if !self.core.session.life.batch {
            return;
        }
        let mut wire = self.link.as_mut().map(|link| LinkWire {
            link,
            spare: &mut shared.spare,
        });
        let wire = wire.as_mut().map(|wire| wire as &mut dyn Wire);
        self.core.end_batch(&mut shared.turn, wire);
    }

    /// Is there anybody to read for?
    pub(super) fn reads(&self) -> bool {
        #[cfg(feature = "tls")]
        if self.awaits_tls() {
            return false;
        }
        self.link.is_some()
            && !(self.core.session.life.paused && self.core.session.life.stage == Stage::Open)
            && matches!(
                self.core.session.life.stage,
                Stage::Tunnelling
                    | Stage::Securing
                    | Stage::Upgrading
                    | Stage::Open
                    | Stage::Closing
                    | Stage::Closed
                    | Stage::Failing
            )
    }

    /// One read. Not part of the loop: there is mostly one, and the compiler would prepare for more.
    #[inline(never)]
    pub(super) fn receive_once(
        &mut self,
        shared: &mut Shared,
        buffer: &mut [u8],
    ) -> io::Result<More> {
        let link = self.link.as_mut().expect("`reads` has checked it");
        #[cfg(feature = "tls")]
        if link.tls.is_some() {
            return self.receive_tls(shared, buffer);
        }
        let cut = shared.receive.bring_forward(buffer);
        let (missing, room) = match &mut self.core.session.inbound {
            Inbound::Open(decoder) => (decoder.missing(), decoder.room()),
            _ => (0, None),
        };
        let (in_room, free) = match &room {
            None => (0, &mut buffer[cut.end..]),
            // What lies behind a long message is read with its end, but not so much that of the next one
            // more than a little has to be copied to where it will lie.
            Some(room) if room.len() as u64 == missing => (room.len(), &mut buffer[..BEHIND_ROOM]),
            Some(room) => (room.len(), &mut buffer[..0]),
        };
        let asked = link.asked(in_room + free.len());
        let length = link.read(room, free, &mut shared.stamps)?;
        shared.turn.tally.received_at = shared.stamps.last.take();
        shared.turn.tally.inbound.socket_bytes += length as u64;
        if length == 0 {
            return Ok(More::Ended);
        }
        let direct = length.min(in_room);
        if direct > 0
            && let Inbound::Open(decoder) = &mut self.core.session.inbound
            && let Err(error) = decoder.received(direct)
        {
            let outcome = Ok(Err(Error::Protocol(error)));
            self.core.conclude(&mut shared.turn, None, outcome);
        }
        let mut wire = LinkWire {
            link,
            spare: &mut shared.spare,
        };
        let more = wire.link.more_after(length, asked);
        let end = cut.end + length - direct;
        let input = Input {
            bytes: &buffer[cut.start..end],
            is_last: matches!(more, More::Drained),
            // With others about, it would only be gathered later.
            may_leave: if shared.turn.is_lone {
                buffer.len() / WORTH_LEAVING
            } else {
                0
            },
        };
        let left = self.core.deliver(&mut shared.turn, Some(&mut wire), input);
        shared.receive.cut = (left > 0).then(|| (self.core.id(), end - left..end));
        if self.core.session.life.stage == Stage::Securing {
            // Only a proxy that has just opened the way leads here. What is still to be said to it
            // goes in front of the first bytes for the server.
            self.write_out(shared);
            self.begin_handshakes(shared);
        }
        Ok(more)
    }

    #[cfg(feature = "tls")]
    #[inline(never)]
    pub(super) fn receive_tls(
        &mut self,
        shared: &mut Shared,
        buffer: &mut [u8],
    ) -> io::Result<More> {
        let link = self.link.as_mut().expect("`reads` has checked it");
        let partial = link.partial.as_slice();
        let kept = before_a_line(partial.len());
        if kept.end >= buffer.len() {
            // A handshake message in so many small records that it does not fit.
            let error = Error::Tls("a handshake message is too long".into());
            let (mut output, _) = shared.turn.split(None);
            self.life().fail(&mut output, error);
            return Ok(More::Drained);
        }
        buffer[kept.clone()].copy_from_slice(partial);
        let asked = link.asked(buffer.len() - kept.end);
        let length = link.read(None, &mut buffer[kept.end..], &mut shared.stamps)?;
        shared.turn.tally.received_at = shared.stamps.last.take();
        shared.turn.tally.inbound.socket_bytes += length as u64;
        if length == 0 {
            return Ok(More::Ended);
        }
        link.partial.give_back(&mut shared.spare);
        let incoming = &mut buffer[kept.start..kept.end + length];
        let (core, turn) = (&mut self.core, &mut shared.turn);
        let spare = &mut shared.spare;
        let received = core.deliver_pieces(turn, |deliver| link.decrypt(incoming, spare, deliver));
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                self.end_batch(shared);
                self.record_alert(shared);
                let (mut output, _) = shared.turn.split(None);
                self.life().fail(&mut output, error);
                return Ok(More::Perhaps);
            }
        };
        let rest = &incoming[received.consumed..];
        link.partial.extend(rest, &mut shared.spare);
        if self.core.session.life.stage == Stage::Securing {
            self.continue_tls(shared);
        }
        if received.ended {
            return Ok(More::Ended);
        }
        let link = self.link.as_ref().expect("only `settle` drops it");
        Ok(link.more_after(length, asked))
    }

    /// Of the error that TLS has met.
    #[cfg(feature = "tls")]
    fn record_alert(&mut self, shared: &mut Shared) {
        let tls = self.link.as_ref().and_then(|link| link.tls.as_ref());
        let Some(alert) = tls.and_then(|tls| tls.alert) else {
            return;
        };
        let (mut output, _) = shared.turn.split(None);
        self.life().record(&mut output, Kind::TlsAlert, |time, id| {
            let (number, name) = (alert.number, alert.name());
            if alert.received {
                Event::tls_alert_received(time, id, number, name)
            } else {
                Event::tls_alert_sent(time, id, number, name)
            }
        });
    }
}
