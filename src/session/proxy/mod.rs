//! The way through a proxy: after the TCP connection to the proxy, before TLS and the opening
//! handshake, which both speak to the server and not to the proxy.
//!
//! RFC 6455 §4.1: "If the client is configured to use a proxy when using the WebSocket Protocol to
//! connect to host /host/ and port /port/, then the client SHOULD connect to that proxy and ask it
//! to open a TCP connection to the host given by /host/ and the port given by /port/."
//!
//! ```text
//! resolve -> tcp -> [ Tunnel: "connect me to host:port" -> "done" ] -> tls -> upgrade
//! ```
//!
//! | file | what it does |
//! | --- | --- |
//! | `url` | [`Proxy`]: which proxy, by which protocol, with which credentials |
//! | `environment` | what `https_proxy`, `all_proxy` and `no_proxy` say for a URL |
//! | `connect` | HTTP: the CONNECT method (RFC 9110 §9.3.6) |
//! | `socks5` | SOCKS version 5 (RFC 1928) with user name and password (RFC 1929) |
//!
//! A [`Tunnel`] takes bytes and gives bytes. Whoever drives it sends what it writes, gives up when
//! the deadline has passed, and keeps what comes behind the proxy's last answer: those are the
//! server's first bytes.

mod connect;
mod environment;
mod socks5;
#[cfg(test)]
mod tests;
mod url;

pub(crate) use environment::Environment;
pub use url::{Proxy, ProxyUrlError};

use crate::error::ProxyError;
use crate::protocol::url::{Host, Url};
use connect::Connect;
use socks5::Socks5;
use std::net::{IpAddr, SocketAddr};
use url::ProxyProtocol;

/// Where the proxy is to connect to. Both kinds are well-formed by their type: nothing in them can
/// end a line early or be longer than a length byte can say.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TunnelTarget<'a> {
    /// The host and port of this URL. If the host is a name, the proxy looks it up.
    Url(&'a Url),
    /// An address that was looked up on this side.
    Address(SocketAddr),
}

impl<'a> TunnelTarget<'a> {
    fn host(self) -> Host<'a> {
        match self {
            Self::Url(url) => url.host(),
            Self::Address(address) => match address.ip() {
                IpAddr::V4(address) => Host::Ipv4(address),
                IpAddr::V6(address) => Host::Ipv6(address),
            },
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Url(url) => url.port(),
            Self::Address(address) => address.port(),
        }
    }
}

/// The exchange with a proxy while it is under way. It is dropped when the tunnel is open.
#[derive(Debug)]
pub(crate) struct Tunnel {
    exchange: Exchange,
    /// Bytes of the proxy so far. The limits of both protocols keep it small.
    received: usize,
}

#[derive(Debug)]
enum Exchange {
    Connect(Connect),
    Socks5(Socks5),
    Open,
    Failed(ProxyError),
}

/// What [`Tunnel::receive`] did with its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TunnelReceived {
    /// So many bytes of the input were the proxy's: all of them, unless `done`.
    pub(crate) consumed: usize,
    /// Whether the tunnel is open. The bytes that were not consumed are the server's.
    pub(crate) done: bool,
}

impl Tunnel {
    /// Writes the first request to the end of `out` and waits for its answer.
    pub(crate) fn new(proxy: &Proxy, target: TunnelTarget<'_>, out: &mut Vec<u8>) -> Self {
        let exchange = match proxy.protocol() {
            ProxyProtocol::Http => Exchange::Connect(Connect::new(proxy, target, out)),
            ProxyProtocol::Socks5 | ProxyProtocol::Socks5h => {
                Exchange::Socks5(Socks5::new(proxy, target, out))
            }
        };
        Self {
            exchange,
            received: 0,
        }
    }

    /// Takes the next bytes of the stream and writes what has to be sent next to the end of `out`.
    /// Once the tunnel is open it consumes nothing more.
    ///
    /// # Errors
    /// [`ProxyError`], and the same one again at every further call. The connection is of no more
    /// use.
    pub(crate) fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<TunnelReceived, ProxyError> {
        let outcome = match &mut self.exchange {
            Exchange::Connect(connect) => connect.receive(input),
            Exchange::Socks5(socks5) => socks5.receive(input, out),
            Exchange::Open => Ok(TunnelReceived {
                consumed: 0,
                done: true,
            }),
            Exchange::Failed(error) => Err(error.clone()),
        };
        match &outcome {
            Ok(received) => {
                self.received += received.consumed;
                if received.done {
                    self.exchange = Exchange::Open;
                }
            }
            Err(error) => self.exchange = Exchange::Failed(error.clone()),
        }
        outcome
    }

    /// Gives the exchange up because the stream ended or a deadline passed, and says what it came
    /// to.
    pub(crate) fn finish(self) -> ProxyError {
        match self.exchange {
            Exchange::Failed(error) => error,
            Exchange::Connect(_) | Exchange::Socks5(_) | Exchange::Open => ProxyError::Incomplete {
                received: self.received,
            },
        }
    }
}
