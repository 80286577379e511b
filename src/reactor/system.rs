//! The operating system as the reactor sees it: sockets, what the poll says of them, and the time.
//!
//! All of it comes in here, so that there is one place where something else can be put beneath: in
//! the crate's own tests, the simulator.

use super::kernel::{Stopwatch, Timer};
use super::socket;
use crate::session::Time;
use crate::session::options::SocketOptions;
use mio::event::Event;
use mio::{Interest, Registry, Token};
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

#[cfg(test)]
pub(super) use super::simulator::Stream;
#[cfg(not(test))]
pub(super) use mio::net::TcpStream as Stream;

/// What the poll says of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readiness {
    pub(super) token: Token,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer has ended its side, or the socket has failed.
    pub(super) ended: bool,
}

impl From<&Event> for Readiness {
    fn from(event: &Event) -> Self {
        let ended = event.is_read_closed() || event.is_error();
        Self {
            token: event.token(),
            readable: event.is_readable() || ended,
            writable: event.is_writable() || event.is_error(),
            ended,
        }
    }
}

/// Does the poll forget a socket that is closed? epoll(7) says so, of one that has no other descriptor, and
/// ours have none. A child of the process has one for a moment, between `fork` and `exec`; an event of that
/// time names a token that nobody has any more (pitfall 24).
const CLOSING_DEREGISTERS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Sockets that are closed together at most: each of them keeps a descriptor from somebody.
const MOST_ENDED: usize = 64;

/// Where sockets come from, and go.
pub(super) struct Network {
    registry: Registry,
    /// Sockets that nobody needs any more.
    ended: Vec<Stream>,
    #[cfg(test)]
    pub(super) simulated: Option<super::simulator::Network>,
}

impl Network {
    pub(super) fn new(registry: Registry) -> Self {
        Self {
            registry,
            ended: Vec::new(),
            #[cfg(test)]
            simulated: None,
        }
    }

    /// A socket that has begun to connect to `address`. The poll reports it under `token`.
    pub(super) fn open(
        &mut self,
        address: SocketAddr,
        options: &SocketOptions,
        token: Token,
    ) -> io::Result<Stream> {
        // A peer that allows so many connections, and the limit of descriptors, count them until then.
        self.close_ended();
        #[cfg(test)]
        if let Some(network) = &self.simulated {
            return Ok(Stream::Simulated(network.open(address, token)));
        }
        let mut stream = socket::connect(address, options)?;
        // Edge-triggered, once for the socket's life (pitfall 31).
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut stream, token, interest)?;
        Ok(stream)
    }

    /// The socket is done with, and closed before another one is opened or the turn of the loop is over.
    ///
    /// To close it takes the kernel longer than anything else in the life of a connection but to connect,
    /// and has the peer look: on the same machine that is to wake it. Closed one behind the other, several
    /// wake it once.
    pub(super) fn forget(&mut self, mut stream: Stream) {
        if !CLOSING_DEREGISTERS {
            let _ = self.registry.deregister(&mut stream);
        }
        self.ended.push(stream);
        if self.ended.len() >= MOST_ENDED {
            self.close_ended();
        }
    }

    /// Closes those that are done with.
    pub(super) fn close_ended(&mut self) {
        self.ended.clear();
    }
}

/// The time since the reactor was made.
pub(super) struct Clock {
    stopwatch: Stopwatch,
    #[cfg(test)]
    pub(super) simulated: Option<std::rc::Rc<std::cell::Cell<Time>>>,
}

impl Clock {
    pub(super) fn starting_at(start: Instant) -> Self {
        Self {
            stopwatch: Stopwatch::started_at(start),
            #[cfg(test)]
            simulated: None,
        }
    }

    #[inline]
    pub(super) fn now(&self) -> Time {
        #[cfg(test)]
        if let Some(now) = &self.simulated {
            return now.get();
        }
        Time::from_nanoseconds(self.stopwatch.elapsed())
    }

    /// Has `timer` end at `time`. False if it does not.
    pub(super) fn set(&self, timer: &Timer, time: Time) -> bool {
        timer.set(&self.stopwatch, time.nanoseconds()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    /// Its peer finds the end without a turn of the loop having ended.
    #[test]
    fn what_is_done_with_is_closed_before_another_is_opened() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("bound");
        let poll = mio::Poll::new().expect("a poll");
        let registry = poll.registry().try_clone().expect("a registry");
        let mut network = Network::new(registry);
        let options = SocketOptions::default();
        let first = network.open(address, &options, Token(1)).expect("a socket");
        let (mut peer, _): (TcpStream, _) = listener.accept().expect("it connects");
        peer.set_nonblocking(true).expect("a socket");
        network.forget(first);
        let still_open = peer.read(&mut [0]).expect_err("nothing was sent");
        assert_eq!(still_open.kind(), io::ErrorKind::WouldBlock);
        let _second = network.open(address, &options, Token(2)).expect("a socket");
        let (_other, _) = listener.accept().expect("it connects, too");
        assert_eq!(peer.read(&mut [0]).expect("the end"), 0);
    }
}
