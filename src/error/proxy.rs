//! What can go wrong with a proxy, told apart by blame.

use crate::protocol::http::{HeadError, HeadLimit, Headers, MalformedHead};
use std::error::Error;
use std::fmt;

/// Why there is no way through the proxy. The connection is of no more use; the first error sticks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// An HTTP proxy wants credentials, or others than it got (407). Its `Proxy-Authenticate`
    /// headers say which schemes it takes; `Basic` is the one spoken here.
    AuthenticationRequired(Box<ProxyRefusal>),
    /// An HTTP proxy answered CONNECT with anything else that is not 2xx. Some say 401 where they
    /// mean that the credentials are wrong.
    Refused(Box<ProxyRefusal>),
    /// A SOCKS proxy takes none of the methods of authentication that were offered. Without
    /// credentials that is usually because it wants some.
    NoAcceptableMethod,
    /// A SOCKS proxy did not accept user name and password (RFC 1929 §2).
    LoginFailed {
        /// What it said, anything but 0. The RFC gives the values no meaning.
        status: u8,
    },
    /// A SOCKS proxy did not connect to the server, and this is why.
    Socks(SocksReply),
    /// The answer of an HTTP proxy is not HTTP/1.1.
    Malformed(MalformedHead),
    /// The answer of a SOCKS proxy breaks a rule of RFC 1928 or RFC 1929.
    Misbehaved(SocksViolation),
    /// An HTTP proxy sent more than our limits allow.
    Limit(HeadLimit),
    /// The stream ended, or the caller's patience did, before the tunnel was open.
    Incomplete {
        /// Bytes that came from the proxy; 0 if it said nothing at all.
        received: usize,
    },
}

/// The answer of an HTTP proxy that opens no tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyRefusal {
    /// The status code: 101, or 300 to 999.
    pub status: u16,
    /// The reason phrase, often empty; the proxy's words.
    pub reason: Box<str>,
    /// The header lines, `Proxy-Authenticate` and `Retry-After` among them.
    pub headers: Headers,
}

/// Why a SOCKS proxy did not connect: the reply codes of RFC 1928 §6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocksReply {
    /// 1: general SOCKS server failure.
    GeneralFailure,
    /// 2: the proxy's rules do not allow the connection.
    NotAllowed,
    /// 3: the server's network is unreachable.
    NetworkUnreachable,
    /// 4: the server is unreachable, or its name was not found.
    HostUnreachable,
    /// 5: the server refused the connection.
    ConnectionRefused,
    /// 6: the time to live expired on the way.
    TtlExpired,
    /// 7: the proxy does not know CONNECT.
    CommandNotSupported,
    /// 8: the proxy does not know this type of address, for example names or IPv6.
    AddressTypeNotSupported,
    /// 9 to 255: a code without a meaning.
    Unassigned(u8),
}

impl SocksReply {
    /// `None` for 0, "succeeded".
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::GeneralFailure,
            2 => Self::NotAllowed,
            3 => Self::NetworkUnreachable,
            4 => Self::HostUnreachable,
            5 => Self::ConnectionRefused,
            6 => Self::TtlExpired,
            7 => Self::CommandNotSupported,
            8 => Self::AddressTypeNotSupported,
            _ => Self::Unassigned(code),
        })
    }
}

/// Which rule of SOCKS a proxy broke; each comes with the byte that broke it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocksViolation {
    /// An answer does not begin with 5; the peer may speak another protocol.
    Version(u8),
    /// The proxy chose a method of authentication that was not offered.
    MethodNotOffered(u8),
    /// The answer to user name and password does not begin with 1.
    LoginVersion(u8),
    /// The reserved byte of the reply is not 0.
    Reserved(u8),
    /// The type of the bound address is unknown, so that the end of the reply is, too.
    AddressType(u8),
}

impl ProxyError {
    /// Did the proxy try, or may have tried, and not get to the server? Then it may get to the
    /// server's other addresses.
    pub(crate) fn is_unreachable(&self) -> bool {
        match self {
            Self::Socks(reply) => *reply != SocksReply::CommandNotSupported,
            // RFC 9110 §15.6: the server's or the way's fault, not the request's.
            Self::Refused(refusal) => refusal.status >= 500,
            Self::Incomplete { .. } => true,
            _ => false,
        }
    }
}

impl From<HeadError> for ProxyError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Malformed(malformed) => Self::Malformed(malformed),
            HeadError::Limit(limit) => Self::Limit(limit),
        }
    }
}

impl From<SocksViolation> for ProxyError {
    fn from(violation: SocksViolation) -> Self {
        Self::Misbehaved(violation)
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AuthenticationRequired(refusal) => {
                write!(f, "the proxy wants (other) credentials: {refusal}")
            }
            Self::Refused(refusal) => refusal.fmt(f),
            Self::NoAcceptableMethod => f.write_str(
                "the SOCKS proxy takes none of the offered methods of authentication \
                 (RFC 1928 §3)",
            ),
            Self::LoginFailed { status } => write!(
                f,
                "the SOCKS proxy did not accept user name and password: status {status} \
                 (RFC 1929 §2)"
            ),
            Self::Socks(reply) => write!(f, "the SOCKS proxy did not connect: {reply}"),
            Self::Malformed(malformed) => write!(f, "malformed answer of the proxy: {malformed}"),
            Self::Misbehaved(violation) => violation.fmt(f),
            Self::Limit(limit) => write!(f, "the answer of the proxy is too long: {limit}"),
            Self::Incomplete { received: 0 } => f.write_str("the proxy did not answer"),
            Self::Incomplete { received } => {
                write!(f, "the proxy's answer broke off after {received} bytes")
            }
        }
    }
}

/// So much of the proxy's reason phrase is shown, in characters.
const SHOWN_REASON_CHARACTERS: usize = 80;

impl fmt::Display for ProxyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy answered {}", self.status)?;
        // The peer's words go to logs and terminals, so nothing in them may act as a command there.
        let shown = self
            .reason
            .chars()
            .filter(|c| !c.is_control())
            .take(SHOWN_REASON_CHARACTERS);
        let reason: String = shown.collect();
        if !reason.is_empty() {
            write!(f, " ({reason})")?;
        }
        f.write_str(" to CONNECT (RFC 9110 §9.3.6)")
    }
}

impl fmt::Display for SocksReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GeneralFailure => "general failure",
            Self::NotAllowed => "its rules do not allow the connection",
            Self::NetworkUnreachable => "network unreachable",
            Self::HostUnreachable => "host unreachable",
            Self::ConnectionRefused => "connection refused",
            Self::TtlExpired => "TTL expired",
            Self::CommandNotSupported => "it does not support CONNECT",
            Self::AddressTypeNotSupported => "it does not support this type of address",
            Self::Unassigned(code) => return write!(f, "reply code {code}, which has no meaning"),
        })?;
        f.write_str(" (RFC 1928 §6)")
    }
}

impl fmt::Display for SocksViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(byte) => write!(
                f,
                "the proxy's answer begins with {byte} and is not SOCKS version 5 (RFC 1928 §3)"
            ),
            Self::MethodNotOffered(method) => write!(
                f,
                "the proxy chose method {method} of authentication, which was not offered \
                 (RFC 1928 §3)"
            ),
            Self::LoginVersion(byte) => write!(
                f,
                "the proxy's answer to user name and password begins with {byte} instead of 1 \
                 (RFC 1929 §2)"
            ),
            Self::Reserved(byte) => write!(
                f,
                "the reserved byte of the proxy's reply is {byte} instead of 0 (RFC 1928 §6)"
            ),
            Self::AddressType(byte) => write!(
                f,
                "the proxy's reply has an address of the unknown type {byte} (RFC 1928 §6)"
            ),
        }
    }
}

impl Error for ProxyError {}
