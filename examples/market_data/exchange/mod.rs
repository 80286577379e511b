//! A stock exchange in a thread: real sockets on the loopback, real frames, TLS on request.
//!
//! It publishes best bids and asks, trades and changes of the order book as JSON in the shape that
//! large venues use, bursty as real feeds are, to as many subscribers as connect. Every message
//! carries a sequence number that counts per connection and stream, so that a subscriber can prove
//! that nothing was lost, and the time of sending on a clock that the subscriber shares, so that
//! it can tell the one-way latency. The market opens with a bell, so that connecting can be told
//! apart from listening.
//!
//! ```text
//! market (what happens) -> format (JSON) -> server (to whom) -> subscriber -> transport -> socket
//! ```
//!
//! Nothing here knows the market-data client. It uses the crate's frame codec in the server's role.

mod certificate;
mod clock;
mod format;
mod market;
mod server;
mod subscriber;
mod transport;

pub(crate) use clock::Clock;
pub(crate) use format::StreamKind;
pub(crate) use market::symbols;

use mio::net::TcpListener;
use mio::{Poll, Waker};
use server::Server;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::{self, JoinHandle};

/// Connections that the kernel holds until they are accepted; it may cut this down. Thousands come
/// at once, and one that finds the queue full is tried again only a second later.
const BACKLOG: i32 = 16 * 1024;

/// What kind of exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// wss instead of ws.
    pub(crate) tls: bool,
    /// Messages per second, over all subscribers, on average.
    pub(crate) rate: f64,
    /// The same seed gives the same market.
    pub(crate) seed: u64,
}

/// A running exchange. Dropping it ends it.
pub(crate) struct Exchange {
    address: SocketAddr,
    certificate_authority: Option<String>,
    clock: Clock,
    shared: Arc<Shared>,
    waker: Waker,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// What the exchange's thread and the others both see.
#[derive(Default)]
struct Shared {
    is_open: AtomicBool,
    stop: AtomicBool,
    published: AtomicU64,
    held_back: AtomicU64,
    stalls: AtomicU64,
}

/// What the exchange has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    /// Messages written to subscribers; answers to requests do not count.
    pub(crate) published: u64,
    /// Messages that slow subscribers were not sent. They have no sequence number, and so are not
    /// lost: for that subscriber the market stood still.
    pub(crate) held_back: u64,
    /// How often the exchange fell so far behind that it gave up catching up.
    pub(crate) stalls: u64,
}

impl Exchange {
    /// Starts an exchange on a free port of the loopback, with the market closed.
    ///
    /// # Errors
    /// No socket, no thread, no certificate.
    pub(crate) fn start(settings: Settings) -> io::Result<Self> {
        let listener = listen()?;
        let address = listener.local_addr()?;
        let (tls, certificate_authority) = if settings.tls {
            let issued = certificate::issue(&address.ip().to_string())?;
            (Some(issued.server), Some(issued.authority_pem))
        } else {
            (None, None)
        };
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), server::WAKER)?;
        let clock = Clock::start();
        let shared = Arc::new(Shared::default());
        let mut server = Server::new(poll, listener, tls, settings, clock, Arc::clone(&shared))?;
        let thread = thread::Builder::new()
            .name("exchange".to_owned())
            .spawn(move || server.run())?;
        Ok(Self {
            address,
            certificate_authority,
            clock,
            shared,
            waker,
            thread: Some(thread),
        })
    }

    /// Where to connect to.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.certificate_authority.is_some() {
            "wss"
        } else {
            "ws"
        };
        format!("{scheme}://{}/stream", self.address)
    }

    /// The certificate authority to trust, if the exchange speaks TLS.
    pub(crate) fn certificate_authority_pem(&self) -> Option<&str> {
        self.certificate_authority.as_deref()
    }

    /// The clock that the times of sending are on.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Lets the market begin.
    pub(crate) fn ring_opening_bell(&self) -> io::Result<()> {
        self.shared.is_open.store(true, Relaxed);
        self.waker.wake()
    }

    /// Lets the market end; connections stay.
    pub(crate) fn ring_closing_bell(&self) -> io::Result<()> {
        self.shared.is_open.store(false, Relaxed);
        self.waker.wake()
    }

    /// What it has done so far. Exact once the market has been closed for a moment.
    pub(crate) fn report(&self) -> Report {
        Report {
            published: self.shared.published.load(Relaxed),
            held_back: self.shared.held_back.load(Relaxed),
            stalls: self.shared.stalls.load(Relaxed),
        }
    }

    /// Ends the exchange, and tells why if it had ended by itself.
    ///
    /// # Errors
    /// What made it end before.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.shared.stop.store(true, Relaxed);
        self.waker.wake()?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the exchange panicked")))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Whoever wants to know how it ended calls `stop`.
        let _ = self.end();
    }
}

/// A free port of the loopback, with a longer queue than mio's own `bind` asks for.
fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

#[cfg(test)]
mod tests;
