//! The way to an open connection, carried out: look-ups, sockets that race, TLS.
//!
//! What is to be done next the session says, as a [`Step`]; here it is done.

use super::Shared;
use super::connection::Connection;
use super::link::Link;
use super::resolver::Waiter;
use super::system::Readiness;
use crate::error::Error;
use crate::session::admission::Permit;
use crate::session::{Session, Step};
#[cfg(feature = "tls")]
use crate::tls::Tls;
#[cfg(feature = "tls")]
use crate::trace::event::Event as TraceEvent;
#[cfg(feature = "tls")]
use crate::trace::kind::Kind;
use mio::Token;
use std::io;
use std::net::SocketAddr;

/// What a connection needs until it has its socket; an open one keeps nothing of it.
#[derive(Default)]
pub(super) struct Approach {
    /// What it has of the gate.
    pub(super) permit: Option<Permit>,
    /// The look-up whose answer is awaited; they are counted from 1.
    pub(super) lookup: u64,
    /// Sockets that race to be the link (RFC 8305).
    racers: Vec<Racer>,
}

/// What connections that have arrived, or given up, have left for others.
#[derive(Default)]
pub(super) struct Approaches(
    // Boxed on purpose: it is the box that is used again.
    #[allow(clippy::vec_box)] Vec<Box<Approach>>,
);

/// As many as are on their way at a time, where there are not very many.
const MAX_SPARE: usize = 64;

impl Approaches {
    pub(super) fn take(&mut self) -> Box<Approach> {
        self.0.pop().unwrap_or_default()
    }

    /// It has no racers any more.
    pub(super) fn give_back(&mut self, mut approach: Box<Approach>) {
        debug_assert!(approach.racers.is_empty());
        if self.0.len() < MAX_SPARE {
            (approach.permit, approach.lookup) = (None, 0);
            approach.racers.clear();
            self.0.push(approach);
        }
    }
}

struct Racer {
    token: Token,
    address: SocketAddr,
    link: Link,
}

impl Connection {
    /// Does what the session asks for, until it asks for nothing.
    pub(super) fn perform(&mut self, shared: &mut Shared, mut step: Step) {
        loop {
            step = match step {
                Step::Wait => return,
                Step::Admit => return self.ask(shared),
                Step::Resolve => {
                    shared.lookups += 1;
                    self.approach(shared).lookup = shared.lookups;
                    let (host, port) = self.core.session.life.wanted_host();
                    let waiter = Waiter {
                        id: self.core.id(),
                        number: shared.lookups,
                        port,
                    };
                    let now = shared.turn.now;
                    let result = match shared.resolver.resolve(host, waiter, now) {
                        Ok(None) => return,
                        Ok(Some(addresses)) => Ok(addresses),
                        Err(error) => Err(error),
                    };
                    let (mut output, _) = shared.turn.split(None);
                    self.life().handle_resolved(&mut output, result)
                }
                Step::Connect(address) => match self.open_socket(shared, address) {
                    Ok(()) => return,
                    Err(error) => {
                        let (mut output, _) = shared.turn.split(None);
                        self.life()
                            .handle_connect_error(&mut output, address, error)
                    }
                },
            };
        }
    }

    pub(super) fn open_socket(
        &mut self,
        shared: &mut Shared,
        address: SocketAddr,
    ) -> io::Result<()> {
        let options = &self.core.session.life.target.options.socket;
        let token = shared.next_token(self.core.id());
        let stream = shared.network.open(address, options, token)?;
        let racer = Racer {
            token,
            address,
            link: Link::new(stream, options),
        };
        let racers = &mut self.approach(shared).racers;
        if racers.capacity() == 0 {
            // Nearly always there is one.
            racers.reserve_exact(1);
        }
        racers.push(racer);
        Ok(())
    }

    pub(super) fn approach(&mut self, shared: &mut Shared) -> &mut Approach {
        self.approach
            .get_or_insert_with(|| shared.approaches.take())
    }

    /// A socket that tries to connect was reported; true when it has, and so has won the race.
    pub(super) fn handle_racer(&mut self, shared: &mut Shared, readiness: Readiness) -> bool {
        let token = readiness.token;
        // Pitfall 24: an event of a socket that is gone finds nobody here.
        let Some(approach) = &mut self.approach else {
            return false;
        };
        let racers = &mut approach.racers;
        let Some(racer) = racers.iter().position(|racer| racer.token == token) else {
            return false;
        };
        let Some(outcome) = racers[racer].link.connected(readiness) else {
            return false;
        };
        let Racer { address, link, .. } = racers.swap_remove(racer);
        match outcome {
            Ok(()) => {
                self.drop_racers(shared);
                self.token = token;
                self.link = Some(link);
                let (mut output, _) = shared.turn.split(None);
                self.life().handle_connected(&mut output, address);
                let (mut output, _) = shared.turn.split(None);
                let Session { inbound, life } = &mut self.core.session;
                match life.begin_tunnel(&mut output) {
                    Some(tunnel) => *inbound = tunnel,
                    None => self.begin_handshakes(shared),
                }
                true
            }
            Err(error) => {
                shared.network.forget(link.stream);
                let (mut output, _) = shared.turn.split(None);
                let step = self
                    .life()
                    .handle_connect_error(&mut output, address, error);
                self.perform(shared, step);
                false
            }
        }
    }

    pub(super) fn drop_racers(&mut self, shared: &mut Shared) {
        let Some(approach) = &mut self.approach else {
            return;
        };
        approach.lookup = 0;
        for racer in approach.racers.drain(..) {
            shared.network.forget(racer.link.stream);
        }
    }

    pub(super) fn begin_handshakes(&mut self, shared: &mut Shared) {
        #[cfg(feature = "tls")]
        if self.core.session.life.target.url.is_secure() {
            self.queue_handshake(shared);
            return;
        }
        // Refused before any I/O, unless a handler has asked for it with `Reconnect::To`, or a
        // server with a redirect. What is meant for TLS must never be written without.
        #[cfg(not(feature = "tls"))]
        if self.core.session.life.target.url.is_secure() {
            let (mut output, _) = shared.turn.split(None);
            self.life().fail(&mut output, Error::TlsUnavailable);
            return;
        }
        self.begin_upgrade(shared);
    }

    pub(super) fn begin_upgrade(&mut self, shared: &mut Shared) {
        let (mut output, _) = shared.turn.split(None);
        let Session { inbound, life } = &mut self.core.session;
        match life.begin_upgrade(&mut output) {
            Ok(upgrading) => *inbound = upgrading,
            Err(error) => life.fail(&mut output, error),
        }
    }

    #[cfg(feature = "tls")]
    pub(super) fn begin_tls(&mut self, shared: &mut Shared) -> Result<(), Error> {
        let config = match &self.tls {
            Some(config) => config,
            None => shared.tls_config()?,
        };
        let tls = Tls::new(config, self.core.session.life.target.url.host())?;
        let link = self
            .link
            .as_mut()
            .expect("TLS begins on a connected socket");
        link.tls = Some(Box::new(tls));
        link.decrypt(&mut [], &mut shared.spare, |_| {})?;
        Ok(())
    }

    /// On to the opening handshake, if that of TLS is done.
    #[cfg(feature = "tls")]
    pub(super) fn continue_tls(&mut self, shared: &mut Shared) {
        let Some(tls) = self.link.as_ref().and_then(|link| link.tls.as_ref()) else {
            return;
        };
        if tls.is_handshaking() {
            return;
        }
        let ((version, suite), resumed) = (tls.agreed(), tls.is_resumed());
        let (mut output, _) = shared.turn.split(None);
        self.life()
            .record(&mut output, Kind::TlsEstablished, |time, id| {
                if resumed {
                    TraceEvent::tls_resumed(time, id, version, suite)
                } else {
                    TraceEvent::tls_established(time, id, version, suite)
                }
            });
        self.begin_upgrade(shared);
        if let Some(link) = &mut self.link {
            // With the end of TLS's handshake, which waits in the link.
            link.send_frames(shared.turn.frames.as_slice(), &mut shared.spare);
            link.flush(&mut shared.spare);
            shared.turn.frames.clear();
        }
    }
}
