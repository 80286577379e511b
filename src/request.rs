//! What to connect to, and how: built by the user, checked before any I/O.

use crate::error::{BoxError, Error, PolicyError};
use crate::protocol::decoder::Limits;
#[cfg(feature = "deflate")]
use crate::protocol::deflate::Deflate;
use crate::protocol::handshake::{self, HandshakeLimits};
use crate::protocol::url::Url;
use crate::session::backlog::HoldLimit;
use crate::session::liveness::Beat;
use crate::session::options::SocketOptions;
use crate::session::pace::Pacer;
use crate::session::policy::ReconnectPolicy;
use crate::session::proxy::{Environment, Proxy, ProxyUrlError};
use crate::session::refresh::{Attempt, Refresh};
use crate::session::{Options, Target};
#[cfg(feature = "tls")]
use crate::tls::TlsConfig;
use crate::trace::Level;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A WebSocket URL and everything that may be said about the connection to it.
///
/// ```
/// use std::time::Duration;
/// use websockex::{ReconnectPolicy, Request};
///
/// # fn main() -> Result<(), websockex::Error> {
/// let request = Request::new("wss://stream.example.com/ws")?
///     .header("Authorization", "Bearer 2YotnFZFEjr1zCsicMWpAA")?
///     .subprotocol("v2.feed.example.com")?
///     .handshake_timeout(Duration::from_secs(5))
///     .reconnect(ReconnectPolicy::fixed(Duration::from_millis(250)));
/// # let _ = request;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) target: Target,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<TlsConfig>,
}

impl Request {
    /// A request for `url`: `ws://` or `wss://`, without a fragment (RFC 6455 §3). Userinfo
    /// (`wss://user:password@host/`) becomes Basic authorization.
    ///
    /// # Errors
    /// [`Error::Url`] says what is wrong with it.
    pub fn new(url: impl AsRef<str>) -> Result<Self, Error> {
        // Most requests of a program with very many have the same settings: they share them.
        static DEFAULT: OnceLock<Arc<Options>> = OnceLock::new();
        let url = Url::parse(url.as_ref())?;
        let options = Arc::clone(DEFAULT.get_or_init(Arc::default));
        Ok(Self {
            target: Target { url, options },
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// The URL.
    pub fn url(&self) -> &Url {
        &self.target.url
    }

    /// Can the opening handshake be written?
    pub(crate) fn validate(&self) -> Result<(), Error> {
        self.target.options.timeouts.check()?;
        Ok(self.target.request_head(None).validate()?)
    }

    fn options(&mut self) -> &mut Options {
        Arc::make_mut(&mut self.target.options)
    }

    /// Adds a header to the opening handshake.
    ///
    /// # Errors
    /// [`Error::Request`]: a name that is no token, a value with a control character, or a header
    /// that the handshake writes itself.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, Error> {
        handshake::validate_header(name, value)?;
        let header = (name.to_owned(), value.to_owned());
        self.options().headers.push(header);
        Ok(self)
    }

    /// Lets `change` change the request before each attempt: a token that has expired, a signature with
    /// the time in it, a query. It begins each time with the request as it is built here. An error of
    /// its fails that attempt with [`Error::Refresh`], and the policy goes on; a panic ends the
    /// connection.
    ///
    /// It runs on the reactor's thread and holds up every connection: what takes long, such as asking
    /// for a token, is done elsewhere and fetched here. After a redirect it is not asked again, and
    /// headers that it has set do not go to another host, port or scheme.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use websockex::Request;
    ///
    /// # fn main() -> Result<(), websockex::Error> {
    /// // Another thread keeps it fresh.
    /// let token = Arc::new(Mutex::new(String::from("2YotnFZFEjr1zCsicMWpAA")));
    /// let request = Request::new("wss://stream.example.com/ws")?.refresh(move |attempt| {
    ///     let token = token.lock().map_err(|_| "no token")?;
    ///     attempt.set_header("Authorization", &format!("Bearer {token}"))?;
    ///     attempt.set_query(&format!("attempt={}", attempt.number()))?;
    ///     Ok(())
    /// });
    /// # let _ = request;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn refresh(
        mut self,
        change: impl Fn(&mut Attempt<'_>) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.options().refresh = Some(Refresh::new(change));
        self
    }

    /// Offers a subprotocol, in order of preference (RFC 6455 §1.9). The server may choose one of
    /// those offered, and [`Response::subprotocol`](handshake::Response::subprotocol) says which.
    ///
    /// # Errors
    /// [`Error::Request`]: a name that is no token, or offered already.
    pub fn subprotocol(mut self, name: &str) -> Result<Self, Error> {
        self.options().subprotocols.push(name.to_owned());
        self.validate()?;
        Ok(self)
    }

    /// Sets the `Origin` header (RFC 6454), which servers meant for browsers ask for.
    ///
    /// # Errors
    /// [`Error::Request`]: a control character in it.
    pub fn origin(mut self, origin: &str) -> Result<Self, Error> {
        handshake::validate_header("Origin", origin)?;
        self.options().origin = Some(origin.to_owned());
        Ok(self)
    }

    /// Offers permessage-deflate (RFC 7692). Without this it is not offered; the server may decline.
    ///
    /// ```
    /// use websockex::{Deflate, Request};
    ///
    /// # fn main() -> Result<(), websockex::Error> {
    /// let deflate = Deflate::new().server_no_context_takeover();
    /// let request = Request::new("wss://stream.example.com/ws")?.deflate(deflate);
    /// # let _ = request;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn deflate(mut self, deflate: Deflate) -> Self {
        self.options().deflate = Some(deflate);
        self
    }

    /// Uses this TLS configuration instead of the reactor's.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Follows up to `count` redirects in a row (status 301, 302, 303, 307 or 308 with a
    /// `Location`); by default none, and the answer is an error like any other refusal. RFC 6455
    /// §4.1 leaves it to the client: "The server might redirect the client using a 3xx status code
    /// (but clients are not required to follow them)".
    ///
    /// A redirect from `wss` to `ws` is never followed. To another host, port or scheme, the headers
    /// `Authorization`, `Proxy-Authorization`, `Cookie` and `Host` of this request and the userinfo of
    /// its URL do not go along. Reconnects start again from the request's own URL. The request's TLS
    /// configuration does go along, a client's certificate with it.
    #[must_use]
    pub fn follow_redirects(mut self, count: u8) -> Self {
        self.options().max_redirects = count;
        self
    }

    /// How long looking up the name may take; 10 s by default, as every stage has.
    #[must_use]
    pub fn resolve_timeout(mut self, timeout: Duration) -> Self {
        self.options().timeouts.resolve = timeout;
        self
    }

    /// How long the TCP handshake may take, over all addresses that are tried; 10 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options().timeouts.tcp = timeout;
        self
    }

    /// How long a proxy may take to open the way; 10 s by default.
    #[must_use]
    pub fn proxy_timeout(mut self, timeout: Duration) -> Self {
        self.options().timeouts.proxy = timeout;
        self
    }

    /// How long the TLS handshake may take; 10 s by default.
    #[must_use]
    pub fn tls_timeout(mut self, timeout: Duration) -> Self {
        self.options().timeouts.tls = timeout;
        self
    }

    /// How long the opening handshake may take (RFC 6455 §4.1); 10 s by default.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.options().timeouts.upgrade = timeout;
        self
    }

    /// How long all stages may take together, redirects included; 30 s by default.
    #[must_use]
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.options().timeouts.whole = timeout;
        self
    }

    /// How long the peer may take to answer a Close frame, from when the operating system has it, and
    /// again to end the TCP connection after that; 5 s by default.
    ///
    /// What was sent before the Close frame leaves before it. For that it has this long whenever the
    /// peer takes some of it, and six times as long at most; then the TCP connection is dropped.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.options().close_timeout = timeout;
        self
    }

    /// Limits on incoming frames and messages; 64 MiB each by default.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.options().limits = limits;
        self
    }

    /// Limits on the server's answer to the opening handshake.
    #[must_use]
    pub fn handshake_limits(mut self, limits: HandshakeLimits) -> Self {
        self.options().handshake_limits = limits;
        self
    }

    /// How many bytes of output may wait for the socket, 64 MiB by default; a message beyond that
    /// is refused with [`SendError::Full`](crate::SendError::Full).
    #[must_use]
    pub fn max_queued(mut self, bytes: usize) -> Self {
        self.options().max_queued = bytes;
        self
    }

    /// Holds messages that are sent while the connection is not open, up to so many and so many bytes,
    /// and sends them when it opens next: after what [`Handler::on_open`](crate::Handler::on_open)
    /// sends, in the order in which they came, and before the casts that wait. By default, and for
    /// pings, pongs and fragments, it is [`SendError::NotOpen`](crate::SendError::NotOpen).
    ///
    /// Beyond the limit it is [`SendError::HoldFull`](crate::SendError::HoldFull). They are held from
    /// the start, between two attempts, over a supervised restart, and while a connection ends that
    /// this side has not closed; when it ends for good they are dropped and counted in
    /// [`ConnectionStats::drops`](crate::stats::ConnectionStats::drops), and the trace records their
    /// number. Messages that a connection had taken and not yet written when it was lost are not sent
    /// again. What exceeds [`max_queued`](Self::max_queued) when it opens is dropped and counted.
    ///
    /// # Errors
    /// [`Error::Policy`]: a zero.
    pub fn hold_sends(mut self, messages: usize, bytes: usize) -> Result<Self, Error> {
        if messages == 0 || bytes == 0 {
            return Err(PolicyError::Zero("what may be held").into());
        }
        self.options().hold = Some(HoldLimit { messages, bytes });
        Ok(self)
    }

    /// Sends at an even pace, alone or together with the other connections of the reactor whose
    /// requests have a clone of `pacer`. A request with a pacer of another reactor is refused.
    ///
    /// A heartbeat's ping has its turn before messages that wait, and its text behind them; their
    /// deadlines run meanwhile.
    #[must_use]
    pub fn pace(mut self, pacer: Pacer) -> Self {
        self.options().pacer = Some(pacer);
        self
    }

    /// Calls [`Handler::on_drained`](crate::Handler::on_drained) when, after at least `high` bytes of
    /// output have waited for the socket, no more than `low` do. By default 0 and 1: whenever the
    /// socket had refused something and has taken all of it.
    ///
    /// # Errors
    /// [`Error::Policy`]: `low` above `high`.
    pub fn water_marks(mut self, low: usize, high: usize) -> Result<Self, Error> {
        if low > high {
            return Err(PolicyError::Marks.into());
        }
        self.options().water_marks = (low, high.max(1));
        Ok(self)
    }

    /// Sends a ping about every `interval` (up to a tenth earlier, so that the pings of many
    /// connections spread), and takes the peer for dead when no pong answers within `deadline`.
    ///
    /// # Errors
    /// [`Error::Policy`]: a zero, or a deadline longer than the interval.
    pub fn ping_every(mut self, interval: Duration, deadline: Duration) -> Result<Self, Error> {
        self.options().liveness.ping = Some(Beat::new(interval, deadline, None)?);
        Ok(self)
    }

    /// Sends `text` as a message about every `interval`, for servers that want a heartbeat of their
    /// own kind, and takes the peer for dead when no message follows within `deadline`.
    ///
    /// # Errors
    /// As [`ping_every`](Self::ping_every).
    pub fn text_every(
        mut self,
        text: &str,
        interval: Duration,
        deadline: Duration,
    ) -> Result<Self, Error> {
        self.options().liveness.text = Some(Beat::new(interval, deadline, Some(text))?);
        Ok(self)
    }

    /// Takes the peer for dead when nothing at all arrives for `limit`, not even a pong.
    ///
    /// # Errors
    /// [`Error::Policy`]: zero. So for the other watchdogs.
    pub fn watch_bytes(mut self, limit: Duration) -> Result<Self, Error> {
        self.options().liveness.any_byte = Some(not_zero(limit)?);
        Ok(self)
    }

    /// Takes the peer for dead when no message arrives for `limit`; pings and pongs do not count.
    ///
    /// # Errors
    /// [`Error::Policy`]: zero.
    pub fn watch_data(mut self, limit: Duration) -> Result<Self, Error> {
        self.options().liveness.data = Some(not_zero(limit)?);
        Ok(self)
    }

    /// Takes the peer for dead when the first message does not arrive within `limit` after the
    /// connection opened.
    ///
    /// # Errors
    /// [`Error::Policy`]: zero.
    pub fn watch_first_data(mut self, limit: Duration) -> Result<Self, Error> {
        self.options().liveness.first_data = Some(not_zero(limit)?);
        Ok(self)
    }

    /// Connects to these addresses instead of looking the URL's host up, which still names the
    /// server in TLS and in the `Host` header. A [`Self::proxy`] is told one
    /// after the other, until it gets to one. A redirect
    /// to another host, port or scheme is looked up as ever.
    ///
    /// # Errors
    /// [`Error::Policy`]: none is given.
    pub fn connect_to(
        mut self,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Self, Error> {
        let addresses: Vec<_> = addresses.into_iter().collect();
        if addresses.is_empty() {
            return Err(PolicyError::NoAddress.into());
        }
        self.options().connect_to = addresses;
        Ok(self)
    }

    /// Connects through a proxy: HTTP CONNECT or SOCKS5.
    ///
    /// ```
    /// use websockex::{Proxy, Request};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let proxy = Proxy::parse("socks5h://user:password@proxy.example.com:1080")?;
    /// let request = Request::new("wss://stream.example.com/ws")?.proxy(proxy);
    /// # let _ = request;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        let options = self.options();
        options.proxy = Some(proxy);
        options.proxy_environment = None;
        self
    }

    /// Connects through the proxy that the environment names for this URL, if it names one:
    /// `https_proxy` for `wss`, `http_proxy` for `ws`, `all_proxy` for both, unless `no_proxy`
    /// exempts the host; read now, in upper case too where that is safe. A redirect to another host,
    /// port or scheme goes through the proxy that they name for that.
    ///
    /// # Errors
    /// A variable that applies and does not name a proxy.
    pub fn proxy_from_environment(mut self) -> Result<Self, ProxyUrlError> {
        let lookup = |name: &str| std::env::var(name).ok();
        let environment = Environment::read(lookup);
        let proxy = environment.proxy_for(&self.target.url)?;
        let options = self.options();
        options.proxy = proxy;
        options.proxy_environment = Some(Arc::new(environment));
        Ok(self)
    }

    /// Sets options of the socket.
    #[must_use]
    pub fn socket(mut self, options: SocketOptions) -> Self {
        self.options().socket = options;
        self
    }

    /// When to connect again, where the handler leaves it to the request.
    #[must_use]
    pub fn reconnect(mut self, policy: ReconnectPolicy) -> Self {
        self.options().reconnect = policy;
        self
    }

    /// How much of this connection the trace records; by default what the reactor was built with.
    #[must_use]
    pub fn trace(mut self, level: Level) -> Self {
        self.options().level = Some(level);
        self
    }

    /// Ends [`Reactor::run`](crate::Reactor::run) with [`Error::Ended`] when this connection ends for
    /// good in any way but a close from this side, or one of the peer's with 1000, 1001 or no code. The
    /// other connections are still there then.
    #[must_use]
    pub fn linked(mut self) -> Self {
        self.options().linked = true;
        self
    }

    /// Gives a first attempt that fails to whoever waits for the connection, instead of to
    /// [`on_disconnect`](crate::Handler::on_disconnect): [`Client::connect`](crate::Client::connect)
    /// returns the error and the connection ends. Without this it is the policy's business like any
    /// other failure, and `Client::connect` waits until the connection is open, or has ended.
    #[must_use]
    pub fn fail_first(mut self) -> Self {
        self.options().fail_first = true;
        self
    }

    /// A name for the trace, and for [`Remote::find`](crate::Remote::find). No two connections of a
    /// reactor have the same.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.options().name = Some(name.into());
        self
    }
}

fn not_zero(limit: Duration) -> Result<Duration, PolicyError> {
    if limit.is_zero() {
        return Err(PolicyError::Zero("a watchdog's limit"));
    }
    Ok(limit)
}

/// What can be connected to: a URL, or a [`Request`].
pub trait IntoRequest {
    /// Makes a request of it.
    ///
    /// # Errors
    /// As [`Request::new`].
    fn into_request(self) -> Result<Request, Error>;
}

impl IntoRequest for Request {
    fn into_request(self) -> Result<Request, Error> {
        Ok(self)
    }
}

impl IntoRequest for &Request {
    fn into_request(self) -> Result<Request, Error> {
        Ok(self.clone())
    }
}

impl IntoRequest for &str {
    fn into_request(self) -> Result<Request, Error> {
        Request::new(self)
    }
}

impl IntoRequest for &String {
    fn into_request(self) -> Result<Request, Error> {
        Request::new(self)
    }
}

impl IntoRequest for String {
    fn into_request(self) -> Result<Request, Error> {
        Request::new(self)
    }
}
