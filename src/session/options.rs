//! What a connection was asked to do and to keep to. Plain data, shared by all its attempts.

use super::backlog::HoldLimit;
use super::liveness::LivenessOptions;
use super::pace::Pacer;
use super::policy::ReconnectPolicy;
use super::proxy::{Environment, Proxy};
use super::refresh::Refresh;
use crate::error::PolicyError;
use crate::protocol::decoder::Limits;
use crate::protocol::deflate::Deflate;
use crate::protocol::handshake::{HandshakeLimits, RequestHead};
use crate::protocol::url::Url;
use crate::trace::Level;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Where to connect to, and how. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) url: Url,
    pub(crate) options: Arc<Options>,
}

impl Target {
    /// What goes into the opening handshake.
    pub(crate) fn request_head<'a>(&'a self, extensions: Option<&'a str>) -> RequestHead<'a> {
        RequestHead {
            url: &self.url,
            headers: &self.options.headers,
            subprotocols: &self.options.subprotocols,
            origin: self.options.origin.as_deref(),
            extensions,
        }
    }
}

/// What is set on a socket before it connects. Where the operating system has no such option, it is
/// left out; what it refuses fails the attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Sends small segments at once (`TCP_NODELAY`); on by default.
    pub nodelay: bool,
    /// Acknowledges at once (`TCP_QUICKACK`, Linux), which the kernel may take back later.
    pub quickack: bool,
    /// Size of the kernel's receive buffer, in bytes (`SO_RCVBUF`).
    pub receive_buffer: Option<usize>,
    /// Size of the kernel's send buffer, in bytes (`SO_SNDBUF`).
    pub send_buffer: Option<usize>,
    /// Idle time before the kernel probes the peer (`SO_KEEPALIVE`, `TCP_KEEPIDLE`).
    pub keepalive: Option<Duration>,
    /// How long sent data may stay unacknowledged (`TCP_USER_TIMEOUT`, Linux).
    pub user_timeout: Option<Duration>,
    /// The local address to connect from.
    pub source: Option<IpAddr>,
    /// Has the kernel say when bytes arrived (`SO_TIMESTAMPNS`, Linux 4.14), for
    /// [`Context::received_at`](crate::Context::received_at); off by default.
    pub receive_timestamps: Option<ReceiveTimestamps>,
}

/// How a connection is read whose [`SocketOptions::receive_timestamps`] are on.
///
/// The kernel gives one stamp for each read, that of the last packet that the read took bytes of. When
/// messages come faster than they are read, a read brings many of them, and the earlier ones seem to
/// have arrived as late as the last. Smaller reads give finer stamps, for a system call each; beyond
/// that only the kernel knows more: it joins packets of one connection that come closely one after
/// the other, and those have one stamp for all.
///
/// # Cost
/// Each read is a `recvmsg` with a control message instead of a plain `recv`, some 0.2 µs more, and
/// large messages cost what the smaller reads do. As long as any socket of the *machine* wants stamps
/// the kernel looks at the clock for every packet that any program receives. Connections without the
/// option are read as ever.
///
/// ```
/// use websockex::{ReceiveTimestamps, Request, SocketOptions};
///
/// # fn main() -> Result<(), websockex::Error> {
/// let mut options = SocketOptions::default();
/// options.receive_timestamps = Some(ReceiveTimestamps::new().read_at_most(4096));
/// let request = Request::new("wss://stream.example.com/ws")?.socket(options);
/// # let _ = request;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveTimestamps {
    pub(crate) read_at_most: NonZeroU32,
}

impl ReceiveTimestamps {
    /// Reads as much at a time as there is.
    pub const fn new() -> Self {
        Self {
            read_at_most: NonZeroU32::MAX,
        }
    }

    /// Reads at most so many bytes at a time; at least one. With TLS these are bytes of records, and
    /// what arrived of a record waits until it is there as a whole: less than that only costs.
    #[must_use]
    pub const fn read_at_most(mut self, bytes: u32) -> Self {
        self.read_at_most = match NonZeroU32::new(bytes) {
            Some(bytes) => bytes,
            None => NonZeroU32::MIN,
        };
        self
    }
}

impl Default for ReceiveTimestamps {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            quickack: false,
            receive_buffer: None,
            send_buffer: None,
            keepalive: None,
            user_timeout: None,
            source: None,
            receive_timestamps: None,
        }
    }
}

/// The settings of a request; [`Request`](crate::Request) documents each at its setter.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) subprotocols: Vec<String>,
    pub(crate) origin: Option<String>,
    pub(crate) timeouts: Timeouts,
    pub(crate) close_timeout: Duration,
    pub(crate) limits: Limits,
    pub(crate) handshake_limits: HandshakeLimits,
    pub(crate) max_queued: usize,
    /// Below the first of them `on_drained` is called, after the second was reached.
    pub(crate) water_marks: (usize, usize),
    pub(crate) liveness: LivenessOptions,
    /// Instead of looking the name up.
    pub(crate) connect_to: Vec<SocketAddr>,
    pub(crate) socket: SocketOptions,
    pub(crate) proxy: Option<Proxy>,
    /// Where that came from, if it was not given.
    pub(crate) proxy_environment: Option<Arc<Environment>>,
    pub(crate) deflate: Option<Deflate>,
    pub(crate) max_redirects: u8,
    pub(crate) reconnect: ReconnectPolicy,
    /// `None`: what the reactor was built with.
    pub(crate) level: Option<Level>,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) linked: bool,
    pub(crate) fail_first: bool,
    pub(crate) refresh: Option<Refresh>,
    pub(crate) hold: Option<HoldLimit>,
    pub(crate) pacer: Option<Pacer>,
}

/// How long each stage of an attempt may take, and all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) resolve: Duration,
    pub(crate) tcp: Duration,
    pub(crate) proxy: Duration,
    pub(crate) tls: Duration,
    pub(crate) upgrade: Duration,
    pub(crate) whole: Duration,
}

impl Timeouts {
    /// A time in which nothing can be done is refused.
    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        let named = [
            (self.resolve, "the time to look the name up"),
            (self.tcp, "the time for the TCP handshake"),
            (self.proxy, "the proxy's time"),
            (self.tls, "the time for the TLS handshake"),
            (self.upgrade, "the time for the opening handshake"),
            (self.whole, "the time to open"),
        ];
        match named.iter().find(|(timeout, _)| timeout.is_zero()) {
            Some((_, name)) => Err(PolicyError::Zero(name)),
            None => Ok(()),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            resolve: STAGE_TIMEOUT,
            tcp: STAGE_TIMEOUT,
            proxy: STAGE_TIMEOUT,
            tls: STAGE_TIMEOUT,
            upgrade: STAGE_TIMEOUT,
            whole: OPEN_TIMEOUT,
        }
    }
}

/// The seed library's figures were 6 s to connect and 5 s for the rest; ten are kind to slow links
/// and still shorter than what people wait.
const STAGE_TIMEOUT: Duration = Duration::from_secs(10);
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Default for Options {
    fn default() -> Self {
        Self {
            headers: Vec::new(),
            subprotocols: Vec::new(),
            origin: None,
            timeouts: Timeouts::default(),
            close_timeout: CLOSE_TIMEOUT,
            limits: Limits::default(),
            handshake_limits: HandshakeLimits::default(),
            max_queued: 64 << 20,
            water_marks: (0, 1),
            liveness: LivenessOptions::default(),
            connect_to: Vec::new(),
            socket: SocketOptions::default(),
            proxy: None,
            proxy_environment: None,
            deflate: None,
            max_redirects: 0,
            reconnect: ReconnectPolicy::default(),
            level: None,
            name: None,
            linked: false,
            fail_first: false,
            refresh: None,
            hold: None,
            pacer: None,
        }
    }
}

impl std::fmt::Debug for Options {
    /// Without the values of headers, which may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Options")
            .field("headers", &names)
            .field("subprotocols", &self.subprotocols)
            .field("origin", &self.origin)
            .field("timeouts", &self.timeouts)
            .field("close_timeout", &self.close_timeout)
            .field("limits", &self.limits)
            .field("max_queued", &self.max_queued)
            .field("water_marks", &self.water_marks)
            .field("liveness", &self.liveness)
            .field("connect_to", &self.connect_to)
            .field("socket", &self.socket)
            .field("proxy", &self.proxy)
            .field("deflate", &self.deflate)
            .field("max_redirects", &self.max_redirects)
            .field("reconnect", &self.reconnect)
            .field("level", &self.level)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
