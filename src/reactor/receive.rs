//! From the socket into the decoder: reading, decrypting, and knowing when there is no more.
//!
//! Between the poll and [`dispatch`](super::dispatch).

use super::Shared;
use super::connection::Connection;
use super::link::{LinkWire, More};
use crate::error::Error;
use crate::session::{Inbound, Session, Stage, Wire};
#[cfg(feature = "tls")]
use crate::trace::event::Event;
#[cfg(feature = "tls")]
use crate::trace::kind::Kind;
use std::io::{self, ErrorKind};

/// Reads of one connection in one turn; then the others have theirs (pitfall 23).
const READS_PER_TURN: usize = 4;

/// Bytes read behind the room of a message under way.
const BEHIND_ROOM: usize = 16 * 1024;

impl Connection {
    /// Reads what there is, up to a turn's share, and delivers it.
    pub(super) fn receive(&mut self, shared: &mut Shared) {
        // Lent out of `shared` for the time, so that both can be used.
        let mut buffer = std::mem::take(&mut shared.receive);
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
            match self.receive_once(shared, &mut buffer) {
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
        shared.receive = buffer;
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
        let (missing, room) = match &mut self.core.session.inbound {
            Inbound::Open(decoder) => (decoder.missing(), decoder.room()),
            _ => (0, None),
        };
        let (in_room, buffer) = match &room {
            None => (0, buffer),
            // What lies behind a long message is read with its end, but not so much that of the next one
            // more than a little has to be copied to where it will lie.
            Some(room) if room.len() as u64 == missing => (room.len(), &mut buffer[..BEHIND_ROOM]),
            Some(room) => (room.len(), &mut buffer[..0]),
        };
        let asked = link.asked(in_room + buffer.len());
        let length = link.read(room, buffer, &mut shared.stamps)?;
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
        let input = &buffer[..length - direct];
        let more = wire.link.more_after(length, asked);
        let last = matches!(more, More::Drained);
        let turn = &mut shared.turn;
        self.core.deliver(turn, Some(&mut wire), input, last);
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
        let start = partial.len();
        buffer[..start].copy_from_slice(partial);
        let asked = link.asked(buffer.len() - start);
        if asked == 0 {
            // A handshake message in so many small records that it does not fit.
            let error = Error::Tls("a handshake message is too long".into());
            let (mut output, _) = shared.turn.split(None);
            self.life().fail(&mut output, error);
            return Ok(More::Drained);
        }
        let length = link.read(None, &mut buffer[start..], &mut shared.stamps)?;
        shared.turn.tally.received_at = shared.stamps.last.take();
        shared.turn.tally.inbound.socket_bytes += length as u64;
        if length == 0 {
            return Ok(More::Ended);
        }
        link.partial.give_back(&mut shared.spare);
        let incoming = &mut buffer[..start + length];
        let (core, turn) = (&mut self.core, &mut shared.turn);
        let received = link.decrypt(incoming, &mut shared.spare, |plain| {
            core.deliver(turn, None, plain, false);
        });
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
