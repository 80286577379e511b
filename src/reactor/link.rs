//! One TCP connection: the socket, TLS if there is any, and the output that the socket did not take.
//!
//! Outbound the last step before the kernel, inbound the first after it.

use super::kernel::Stamps;
use super::system::{Readiness, Stream};
use crate::error::Error;
use crate::protocol::buffer::Buffer;
use crate::session::Wire;
use crate::session::options::SocketOptions;
#[cfg(feature = "tls")]
use crate::tls::Tls;
use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::num::NonZeroU32;

/// There is one for every open connection, so it is small: buffers are lent to it while there is
/// something in them.
pub(super) struct Link {
    pub(super) stream: Stream,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Box<Tls>>,
    /// The beginning of a TLS record or handshake message whose rest has not arrived.
    #[cfg(feature = "tls")]
    pub(super) partial: Lent,
    /// What the socket did not take yet; the first `sent` bytes of it are gone already.
    pending: Lent,
    sent: usize,
    /// Bytes that the socket took since it connected.
    pub(super) handed: u64,
    /// Our side was ended; nothing can be sent any more.
    ended: bool,
    /// The poll has said that the peer's side is ended. It says so once: what it announced lies
    /// behind the data that is still to be read, and must be read for.
    pub(super) peer_ended: bool,
    /// The poll has said, since it connected, that there is something to read.
    pub(super) readable: bool,
    /// The kernel says when bytes arrived, and is asked for at most so many at a time.
    stamped: Option<NonZeroU32>,
    error: Option<Box<Error>>,
}

/// Does a read that fills less than it could say that the socket is drained, as epoll(7) promises
/// of stream sockets? It saves the read that finds nothing, half of all.
const SHORT_READ_DRAINS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Does a socket that connects become writable, and nothing else, only when it has connected? Linux reads
/// its state anew for every report, finds nothing before it knows the outcome, and calls a failure an end.
/// It saves asking for an error and for the peer's name.
const WRITABLE_IS_CONNECTED: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Is there more to read?
pub(super) enum More {
    Perhaps,
    Drained,
    Ended,
}

/// A buffer out of [`Spare`], there only while something is in it.
#[derive(Default)]
pub(super) struct Lent(Option<Box<Buffer>>);

impl Lent {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |buffer| buffer.as_slice())
    }

    #[cfg(feature = "tls")]
    fn as_mut_slice(&mut self) -> &mut [u8] {
        self.0
            .as_mut()
            .map_or(&mut [], |buffer| buffer.as_mut_slice())
    }

    pub(super) fn extend(&mut self, bytes: &[u8], spare: &mut Spare) {
        if !bytes.is_empty() {
            self.0.get_or_insert_with(|| spare.take()).extend(bytes);
        }
    }

    /// Removes the first `length` bytes.
    fn consume(&mut self, length: usize) {
        if let Some(buffer) = &mut self.0 {
            buffer.consume(length);
        }
    }

    pub(super) fn give_back(&mut self, spare: &mut Spare) {
        if let Some(buffer) = self.0.take() {
            spare.give(buffer);
        }
    }
}

/// Buffers that reactor and links exchange, so that none is allocated in the steady state.
#[derive(Default)]
pub(super) struct Spare {
    // Boxed on purpose: a link holds a thin pointer, and the box itself is what is reused.
    #[allow(clippy::vec_box)]
    buffers: Vec<Box<Buffer>>,
    /// Bytes of memory in them.
    kept: usize,
    /// Bytes that the sockets took and the statistics have not seen: those of the connection whose turn
    /// it is.
    pub(super) written: u64,
    /// Ciphertext of this turn.
    #[cfg(feature = "tls")]
    cipher: Buffer,
}

/// Buffers kept, and the bytes in them. One that a slow peer has let grow beyond that is not.
const MAX_SPARE: usize = 64;
const MAX_KEPT: usize = 4 << 20;

impl Spare {
    fn take(&mut self) -> Box<Buffer> {
        let Some(buffer) = self.buffers.pop() else {
            return Box::default();
        };
        self.kept -= buffer.capacity();
        buffer
    }

    fn give(&mut self, mut buffer: Box<Buffer>) {
        let kept = self.kept + buffer.capacity();
        if kept <= MAX_KEPT && self.buffers.len() < MAX_SPARE {
            buffer.clear();
            self.kept = kept;
            self.buffers.push(buffer);
        }
    }
}

impl Link {
    pub(super) fn new(stream: Stream, options: &SocketOptions) -> Self {
        Self {
            stream,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            partial: Lent::default(),
            pending: Lent::default(),
            sent: 0,
            handed: 0,
            ended: false,
            peer_ended: false,
            readable: false,
            stamped: options.receive_timestamps.map(|stamps| stamps.read_at_most),
            error: None,
        }
    }

    /// Has the TCP handshake succeeded, now that the poll has reported the socket? `None`: it is still
    /// under way, the event was spurious.
    pub(super) fn connected(&self, readiness: Readiness) -> Option<io::Result<()>> {
        if WRITABLE_IS_CONNECTED && readiness.writable && !readiness.ended {
            return Some(Ok(()));
        }
        match self.stream.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Some(Err(error)),
        }
        match self.stream.peer_addr() {
            Ok(_) => Some(Ok(())),
            Err(error) if error.kind() == ErrorKind::NotConnected => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Bytes that wait for the socket.
    pub(super) fn queued(&self) -> usize {
        self.pending.as_slice().len() - self.sent
    }

    /// Does something wait for the socket?
    #[inline]
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The first error that a write met.
    pub(super) fn take_error(&mut self) -> Option<Error> {
        self.error.take().map(|error| *error)
    }

    /// Has a write failed?
    pub(super) fn has_failed(&self) -> bool {
        self.error.is_some()
    }

    /// How many bytes a read asks for that has room for so many.
    pub(super) fn asked(&self, room: usize) -> usize {
        match self.stamped {
            None => room,
            Some(most) => room.min(most.get() as usize),
        }
    }

    /// Reads into `buffer`, or first into the `room` of a message under way and then into `buffer`.
    pub(super) fn read(
        &mut self,
        room: Option<&mut [u8]>,
        buffer: &mut [u8],
        stamps: &mut Stamps,
    ) -> io::Result<usize> {
        if self.stamped.is_some() {
            return self.read_stamped(room.unwrap_or_default(), buffer, stamps);
        }
        match room {
            None => self.stream.read(buffer),
            Some(room) => self
                .stream
                .read_vectored(&mut [IoSliceMut::new(room), IoSliceMut::new(buffer)]),
        }
    }

    /// Likewise, and has the kernel say when it arrived.
    #[cold]
    fn read_stamped(
        &mut self,
        room: &mut [u8],
        buffer: &mut [u8],
        stamps: &mut Stamps,
    ) -> io::Result<usize> {
        let in_room = self.asked(room.len());
        let in_buffer = self.asked(in_room + buffer.len()) - in_room;
        let (room, buffer) = (&mut room[..in_room], &mut buffer[..in_buffer]);
        let mut buffers = [IoSliceMut::new(room), IoSliceMut::new(buffer)];
        stamps.read(&mut self.stream, &mut buffers)
    }

    /// What a read that was asked for `asked` bytes and brought `length` says of the next one.
    pub(super) fn more_after(&self, length: usize, asked: usize) -> More {
        if SHORT_READ_DRAINS && length < asked && !self.peer_ended {
            More::Drained
        } else {
            More::Perhaps
        }
    }

    /// Ends our side: the peer reads to the end of what was sent.
    pub(super) fn end(&mut self) {
        if !self.ended && self.queued() == 0 {
            self.ended = true;
            // It may be gone already; then there is nothing to end.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self, spare: &mut Spare) {
        if self.pending.is_empty() {
            return;
        }
        let Self {
            stream,
            pending,
            sent,
            handed,
            error,
            ..
        } = self;
        let taken = write(stream, &pending.as_slice()[*sent..], error);
        *sent += taken;
        *handed += taken as u64;
        spare.written += taken as u64;
        let left = pending.as_slice().len() - *sent;
        if left > 0 {
            // A queue that never empties must not keep what it has sent. No more is moved than was
            // sent since the last time.
            if *sent >= left {
                pending.consume(*sent);
                *sent = 0;
            }
            return;
        }
        *sent = 0;
        pending.give_back(spare);
    }

    /// Sends wire bytes, or keeps what the socket does not take.
    fn send(&mut self, bytes: &[u8], spare: &mut Spare) {
        if self.ended || self.error.is_some() {
            return;
        }
        let taken = if self.pending.is_empty() {
            write(&mut self.stream, bytes, &mut self.error)
        } else {
            0
        };
        self.handed += taken as u64;
        spare.written += taken as u64;
        self.pending.extend(&bytes[taken..], spare);
    }

    /// Encrypts `frames` if there is TLS, and sends them.
    pub(super) fn send_frames(&mut self, frames: &[u8], spare: &mut Spare) {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            let mut cipher = std::mem::take(&mut spare.cipher);
            cipher.clear();
            match tls.encrypt(frames, self.partial.as_mut_slice(), &mut cipher) {
                Ok(()) => self.send(cipher.as_slice(), spare),
                Err(error) => self.error = self.error.take().or(Some(Box::new(error))),
            }
            spare.cipher = cipher;
            return;
        }
        self.send(frames, spare);
    }

    /// Takes ciphertext and passes plaintext to `deliver`; answers of the TLS layer itself leave
    /// at once, but for that which ends its handshake: it waits for a [`flush`](Self::flush), so that
    /// the request that follows leaves with it, in one write and one packet. Returns how much was taken,
    /// and whether the peer ended its side.
    #[cfg(feature = "tls")]
    pub(super) fn decrypt(
        &mut self,
        incoming: &mut [u8],
        spare: &mut Spare,
        deliver: impl FnMut(&[u8]),
    ) -> Result<crate::tls::Received, Error> {
        let tls = self.tls.as_mut().expect("only called on a TLS connection");
        let mut cipher = std::mem::take(&mut spare.cipher);
        cipher.clear();
        let was_handshaking = tls.is_handshaking();
        let received = tls.receive(incoming, &mut cipher, deliver);
        if was_handshaking && !tls.is_handshaking() && received.is_ok() {
            self.pending.extend(cipher.as_slice(), spare);
        } else if !cipher.is_empty() {
            self.send(cipher.as_slice(), spare);
        }
        spare.cipher = cipher;
        received
    }

    /// Before the socket is dropped: says in TLS that nothing more comes, if the socket takes it.
    #[cfg(feature = "tls")]
    pub(super) fn close_notify(&mut self, spare: &mut Spare) {
        if let Some(tls) = &mut self.tls
            && !tls.is_handshaking()
            && !self.ended
            && self.pending.is_empty()
        {
            let mut cipher = std::mem::take(&mut spare.cipher);
            cipher.clear();
            let partial = self.partial.as_mut_slice();
            if tls.close_notify(partial, &mut cipher).is_ok() {
                let taken = write(&mut self.stream, cipher.as_slice(), &mut self.error);
                spare.written += taken as u64;
            }
            spare.cipher = cipher;
        }
    }
}

/// Writes as much of `bytes` as the socket takes now and returns how much that was. An error other
/// than "not now" is kept.
fn write(stream: &mut Stream, bytes: &[u8], error: &mut Option<Box<Error>>) -> usize {
    let mut taken = 0;
    while taken < bytes.len() {
        match stream.write(&bytes[taken..]) {
            // Pitfall 26: a socket that takes nothing and says so is broken, not to be asked again.
            Ok(0) => {
                *error = Some(Box::new(Error::Io(ErrorKind::WriteZero.into())));
                break;
            }
            Ok(length) => taken += length,
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => break,
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(cause) => {
                *error = Some(Box::new(Error::Io(cause)));
                break;
            }
        }
    }
    taken
}

/// A link as the session writes to it.
pub(super) struct LinkWire<'a> {
    pub(super) link: &'a mut Link,
    pub(super) spare: &'a mut Spare,
}

impl Wire for LinkWire<'_> {
    fn write(&mut self, frames: &[u8]) {
        self.link.send_frames(frames, self.spare);
    }

    fn queued(&self) -> usize {
        self.link.queued()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    /// Pitfall 6: a queue that is never empty is no longer than what waits in it.
    #[test]
    fn pitfall_6_a_queue_that_never_empties_keeps_nothing_that_was_sent() {
        const PIECE: usize = 64 * 1024;
        // More than the system takes at once, and far less than all that is sent.
        const WAITING: usize = 96 * PIECE;
        const ALL: usize = 1000 * PIECE;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        stream.set_nonblocking(true).expect("a socket");
        let (mut peer, _) = listener.accept().expect("it has connected");
        let stream = Stream::Real(mio::net::TcpStream::from_std(stream));
        let (mut link, mut spare) = (
            Link::new(stream, &SocketOptions::default()),
            Spare::default(),
        );
        // What goes through is numbered by its place, so that nothing can be lost or doubled.
        let byte = |place: usize| u8::try_from(place % 251).expect("below 251");
        let (mut sent, mut received) = (0, 0);
        let mut arrived = vec![0; PIECE];
        let mut most = 0;
        while received < ALL {
            while link.queued() < WAITING {
                let piece: Vec<u8> = (sent..sent + PIECE).map(byte).collect();
                link.send(&piece, &mut spare);
                sent += PIECE;
            }
            peer.read_exact(&mut arrived).expect("it was sent");
            assert!(
                arrived
                    .iter()
                    .enumerate()
                    .all(|(place, got)| *got == byte(received + place))
            );
            received += PIECE;
            link.flush(&mut spare);
            let buffer = link.pending.0.as_ref();
            most = most.max(buffer.map_or(0, |buffer| buffer.capacity()));
        }
        assert_eq!(link.handed + link.queued() as u64, sent as u64);
        assert!(most <= 4 * WAITING, "{most} bytes for {WAITING} that wait");
    }
}
