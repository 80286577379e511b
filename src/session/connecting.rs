//! From nothing to an open connection: look up, TCP, TLS, the opening handshake.
//!
//! The first part of a connection's [`Life`], and of each attempt; [`reach`](super::reach) knows which
//! address is tried when.

use super::life::{Life, Stage, Step};
use super::liveness::{Heard, Liveness};
use super::options::Target;
use super::outbound::Output;
use super::proxy::{Proxy, Tunnel, TunnelTarget};
use super::reach::{Next, Reach};
use super::{Inbound, Time};
use crate::error::{DisconnectReason, Error, Stage as ErrorStage};
use crate::protocol::Role;
use crate::protocol::decoder::Decoder;
use crate::protocol::handshake::{ClientHandshake, Misbehaviour, Response};
use crate::protocol::url::Host;
use crate::trace::event::Event;
use crate::trace::event::address::Address;
use crate::trace::kind::Kind;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

impl Life {
    /// An attempt is due, and is to wait until it is admitted: one of `waiting` for its host.
    pub(crate) fn queue(&mut self, output: &mut Output<'_>, waiting: usize) {
        self.stage = Stage::Queued;
        let server = self.target.url.host_header();
        self.record(output, Kind::ConnectQueued, |time, id| {
            Event::connect_queued(time, id, waiting as u64, server)
        });
    }

    /// Begins an attempt to connect, which has waited so long to be admitted.
    pub(crate) fn begin_attempt(&mut self, output: &mut Output<'_>, waited: Duration) -> Step {
        if self.redirects == 0 {
            self.attempt = self.attempt.saturating_add(1);
        }
        self.clean = false;
        self.sending = None;
        self.queued = 0;
        self.pong = None;
        self.take_ending();
        let attempt = u64::from(self.attempt);
        let server = self.target.url.host_header();
        let kind = if self.epoch == 0 && self.attempt == 1 {
            Kind::Connecting
        } else {
            Kind::Reconnecting
        };
        self.record(output, kind, |time, id| {
            Event::of_server(time, id, kind, attempt, server)
        });
        let mut reach = match &self.reach {
            Some(reach) if self.redirects > 0 => reach.redirected(output.now, waited),
            _ => Reach::new(output.now),
        };
        reach.times.admission = (!waited.is_zero()).then_some(waited);
        self.reach = Some(Box::new(reach));
        self.limit_stage(output.now, self.target.options.timeouts.resolve);
        if let Err(error) = self.refresh() {
            self.stage = Stage::Resolving;
            self.fail(output, error);
            return Step::Wait;
        }
        match self.target.options.proxy.clone() {
            None => self.approach(output),
            Some(proxy) if proxy.resolves_remotely() => {
                // The user's word on where the server is goes before the proxy's look-up.
                let given = self.target.options.connect_to.clone();
                self.set_behind_proxy(given);
                self.approach_proxy(output, &proxy)
            }
            // The proxy is to be told an address, so the server's name comes first.
            Some(proxy) => match self.known_addresses() {
                None => self.resolve(),
                Some(addresses) => {
                    self.set_behind_proxy(addresses);
                    self.approach_proxy(output, &proxy)
                }
            },
        }
    }

    /// The host and port whose addresses are wanted: the server's, or those of the proxy.
    pub(crate) fn wanted_host(&self) -> (&str, u16) {
        let asked = self
            .reach
            .as_ref()
            .is_some_and(|reach| reach.behind_proxy.is_some());
        match &self.target.options.proxy {
            Some(proxy) if asked || proxy.resolves_remotely() => (proxy.host(), proxy.port()),
            _ => (self.target.url.host_str(), self.target.url.port()),
        }
    }

    /// The server's addresses, if they need not be looked up.
    fn known_addresses(&self) -> Option<Vec<SocketAddr>> {
        let given = &self.target.options.connect_to;
        if !given.is_empty() {
            return Some(given.clone());
        }
        let url = &self.target.url;
        let address = match url.host() {
            Host::Ipv4(address) => IpAddr::V4(address),
            Host::Ipv6(address) => IpAddr::V6(address),
            Host::Name(_) => return None,
        };
        Some(vec![SocketAddr::new(address, url.port())])
    }

    fn set_behind_proxy(&mut self, addresses: Vec<SocketAddr>) {
        if let Some(reach) = &mut self.reach {
            reach.set_behind_proxy(addresses);
        }
    }

    /// The proxy did not get to the server at the address that it was told. If there are others, it is
    /// told the next one, in the same attempt and over a new connection.
    pub(crate) fn retry_behind_proxy(&mut self, output: &mut Output<'_>) -> Option<Step> {
        let unreached = match self.ending() {
            Some(DisconnectReason::ConnectFailed(Error::Proxy(error))) => error.is_unreachable(),
            Some(DisconnectReason::ConnectFailed(Error::Timeout { stage, .. })) => {
                *stage == ErrorStage::Proxy
            }
            _ => false,
        };
        let proxy = self.target.options.proxy.clone()?;
        let reach = self.reach.as_mut().filter(|_| unreached)?;
        let over = output.now.since(reach.began()) >= self.target.options.timeouts.whole;
        if over || !reach.next_behind_proxy() {
            return None;
        }
        self.take_ending();
        self.limit_stage(output.now, self.target.options.timeouts.resolve);
        Some(self.approach_proxy(output, &proxy))
    }

    fn resolve(&mut self) -> Step {
        self.stage = Stage::Resolving;
        Step::Resolve
    }

    fn approach(&mut self, output: &mut Output<'_>) -> Step {
        match self.known_addresses() {
            None => self.resolve(),
            Some(addresses) => self.connect_to(output, addresses),
        }
    }

    fn approach_proxy(&mut self, output: &mut Output<'_>, proxy: &Proxy) -> Step {
        match proxy.host().parse() {
            Ok(address) => self.connect_to(output, vec![SocketAddr::new(address, proxy.port())]),
            Err(_) => self.resolve(),
        }
    }

    /// The name was looked up.
    pub(crate) fn handle_resolved(
        &mut self,
        output: &mut Output<'_>,
        result: io::Result<Vec<SocketAddr>>,
    ) -> Step {
        if self.stage != Stage::Resolving {
            return Step::Wait;
        }
        match result {
            Ok(addresses) if !addresses.is_empty() => {
                let (count, first) = (addresses.len() as u64, addresses[0]);
                self.record(output, Kind::Resolved, |time, id| {
                    Event::resolved(time, id, count, Address(first))
                });
                if let Some(proxy) = self.target.options.proxy.clone()
                    && !proxy.resolves_remotely()
                    && self
                        .reach
                        .as_ref()
                        .is_some_and(|reach| reach.behind_proxy.is_none())
                {
                    self.set_behind_proxy(addresses);
                    return self.approach_proxy(output, &proxy);
                }
                if let Some(reach) = &mut self.reach {
                    reach.times.resolve = reach.lap(output.now);
                }
                self.connect_to(output, addresses)
            }
            result => {
                let none = || io::Error::new(io::ErrorKind::NotFound, "it has none");
                let source = result.err().unwrap_or_else(none);
                let host = self.wanted_host().0.to_owned();
                self.fail(output, Error::Resolve { host, source });
                Step::Wait
            }
        }
    }

    /// The stage that begins has this long, if the whole attempt has.
    fn limit_stage(&mut self, now: Time, limit: Duration) {
        let whole = self.target.options.timeouts.whole;
        let end = self
            .reach
            .as_ref()
            .map_or(now, |reach| reach.began())
            .after(whole);
        self.deadline = Some(now.after(limit).min(end));
    }

    fn connect_to(&mut self, output: &mut Output<'_>, addresses: Vec<SocketAddr>) -> Step {
        self.stage = Stage::Connecting;
        self.limit_stage(output.now, self.target.options.timeouts.tcp);
        let reach = self.reach.as_mut().expect("an attempt is under way");
        match reach.race(addresses, output.now) {
            Ok(first) => self.connect(output, first),
            Err(error) => {
                self.fail(output, Error::Io(error));
                Step::Wait
            }
        }
    }

    pub(super) fn connect(&mut self, output: &mut Output<'_>, address: SocketAddr) -> Step {
        self.record(output, Kind::TcpConnecting, |time, id| {
            Event::of_address(time, id, Kind::TcpConnecting, address)
        });
        Step::Connect(address)
    }

    /// The TCP connection to `address` did not come about: on to the next one, if there is one.
    pub(crate) fn handle_connect_error(
        &mut self,
        output: &mut Output<'_>,
        address: SocketAddr,
        source: io::Error,
    ) -> Step {
        let Some(reach) = &mut self.reach else {
            return Step::Wait;
        };
        match reach.handle_error(output.now) {
            Next::Connect(address) => self.connect(output, address),
            Next::Wait => Step::Wait,
            Next::Failed => {
                self.fail(output, Error::Connect { address, source });
                Step::Wait
            }
        }
    }

    /// The TCP connection to `address` stands; the handshakes have their own deadline.
    pub(crate) fn handle_connected(&mut self, output: &mut Output<'_>, address: SocketAddr) {
        if let Some(reach) = &mut self.reach {
            reach.handle_connected();
            reach.peer = Some(address);
            reach.times.tcp = reach.lap(output.now);
        }
        self.begin_securing(output.now);
        self.record(output, Kind::TcpConnected, |time, id| {
            Event::of_address(time, id, Kind::TcpConnected, address)
        });
    }

    fn begin_securing(&mut self, now: Time) {
        self.stage = Stage::Securing;
        self.limit_stage(now, self.target.options.timeouts.tls);
    }

    /// Asks the proxy for the way, if there is one to ask.
    pub(crate) fn begin_tunnel(&mut self, output: &mut Output<'_>) -> Option<Inbound> {
        let proxy = self.target.options.proxy.clone()?;
        self.stage = Stage::Tunnelling;
        self.limit_stage(output.now, self.target.options.timeouts.proxy);
        let address = self.reach.as_ref().and_then(|reach| reach.behind_proxy);
        let target = match address {
            Some(address) => TunnelTarget::Address(address),
            None => TunnelTarget::Url(&self.target.url),
        };
        let mut request = Vec::new();
        let tunnel = Tunnel::new(&proxy, target, &mut request);
        output.frames.extend(&request);
        Some(Inbound::Tunnelling(Box::new(tunnel)))
    }

    /// The proxy says something. Once the way is open, it is as if the server had been reached.
    ///
    /// # Errors
    /// The proxy refuses, or speaks out of turn.
    pub(crate) fn handle_proxy(
        &mut self,
        output: &mut Output<'_>,
        tunnel: &mut Tunnel,
        input: &[u8],
    ) -> Result<bool, Error> {
        let mut answer = Vec::new();
        let received = tunnel.receive(input, &mut answer).map_err(Error::Proxy)?;
        output.frames.extend(&answer);
        if !received.done {
            return Ok(false);
        }
        if received.consumed < input.len() {
            // Neither in TLS nor in HTTP does the server speak first.
            let early = io::Error::new(io::ErrorKind::InvalidData, "the server spoke unasked");
            return Err(Error::Io(early));
        }
        if let Some(reach) = &mut self.reach {
            reach.times.proxy = reach.lap(output.now);
        }
        self.begin_securing(output.now);
        if let Some(proxy) = &self.target.options.proxy {
            let server = format_args!("{}:{}", proxy.host(), proxy.port());
            self.record(output, Kind::ProxyConnected, |time, id| {
                Event::proxy_connected(time, id, server)
            });
        }
        Ok(true)
    }

    /// The way is free, through TLS or without: writes the request of RFC 6455 §4.1.
    ///
    /// # Errors
    /// A request that cannot be written; the user's setters have refused it before.
    pub(crate) fn begin_upgrade(&mut self, output: &mut Output<'_>) -> Result<Inbound, Error> {
        self.stage = Stage::Upgrading;
        self.limit_stage(output.now, self.target.options.timeouts.upgrade);
        if let Some(reach) = &mut self.reach
            && self.target.url.is_secure()
        {
            reach.times.tls = reach.lap(output.now);
        }
        let Target { url, options } = &self.target;
        let offer = options.deflate.map(|deflate| deflate.offer());
        let head = self.target.request_head(offer.as_deref());
        let nonce = output.entropy.take();
        let limits = options.handshake_limits;
        let handshake = ClientHandshake::begin(&head, nonce, limits, output.frames)?;
        let server = url.host_header();
        self.record(output, Kind::Upgrading, |time, id| {
            Event::of_server(time, id, Kind::Upgrading, 0, server)
        });
        Ok(Inbound::Upgrading(Box::new(handshake)))
    }

    /// The opening handshake is done: frames from here on.
    ///
    /// # Errors
    /// An answer to the offer of permessage-deflate that does not fit it.
    pub(crate) fn handle_upgraded(
        &mut self,
        output: &mut Output<'_>,
        response: &Response,
    ) -> Result<Inbound, Error> {
        let options = &self.target.options;
        let decoder = Decoder::new(Role::Client, options.limits);
        self.deflate = match &options.deflate {
            None => None,
            Some(offer) => offer
                .accept(response.extensions())
                .map_err(|error| Error::Handshake(Misbehaviour::Deflate(error).into()))?
                .map(Box::new),
        };
        self.stage = Stage::Open;
        self.sends.doubt();
        self.deadline = None;
        self.redirects = 0;
        self.attempt = 0;
        self.paused = false;
        self.high_water = false;
        self.heard = Heard::open(output.now);
        if let Some(reach) = &mut self.reach {
            reach.times.upgrade = reach.lap(output.now);
            reach.times.total = Some(output.now.since(reach.began()));
        }
        let liveness = &self.target.options.liveness;
        self.liveness = (!liveness.is_empty())
            .then(|| Box::new(Liveness::new(liveness, output.now, output.entropy)));
        self.restore();
        self.epoch = self.epoch.saturating_add(1);
        let (epoch, agreed) = (self.epoch(), response.subprotocol().unwrap_or(""));
        let kind = if epoch == 1 {
            Kind::Connected
        } else {
            Kind::Reconnected
        };
        self.record(output, kind, |time, id| {
            Event::of_server(time, id, kind, epoch, agreed)
        });
        Ok(Inbound::Open(match &self.deflate {
            None => decoder,
            Some(agreed) => decoder.with_deflate(agreed),
        }))
    }
}
