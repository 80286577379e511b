//! What a connection was asked to do and to keep to. Plain data, shared by all its attempts.

use super::policy::ReconnectPolicy;
use crate::protocol::decoder::Limits;
use crate::protocol::deflate::Deflate;
use crate::protocol::handshake::{HandshakeLimits, RequestHead};
use crate::protocol::url::Url;
use crate::trace::Level;
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

/// The settings of a request; [`Request`](crate::Request) documents each at its setter.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) subprotocols: Vec<String>,
    pub(crate) origin: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) limits: Limits,
    pub(crate) handshake_limits: HandshakeLimits,
    pub(crate) max_queued: usize,
    pub(crate) deflate: Option<Deflate>,
    pub(crate) max_redirects: u8,
    pub(crate) reconnect: ReconnectPolicy,
    /// `None`: what the reactor was built with.
    pub(crate) level: Option<Level>,
    pub(crate) name: Option<String>,
}

/// The seed library's figures were 6 s to connect and 5 s for the rest; ten are kind to slow links
/// and still shorter than what people wait.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Default for Options {
    fn default() -> Self {
        Self {
            headers: Vec::new(),
            subprotocols: Vec::new(),
            origin: None,
            connect_timeout: CONNECT_TIMEOUT,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            close_timeout: CLOSE_TIMEOUT,
            limits: Limits::default(),
            handshake_limits: HandshakeLimits::default(),
            max_queued: 64 << 20,
            deflate: None,
            max_redirects: 0,
            reconnect: ReconnectPolicy::default(),
            level: None,
            name: None,
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
            .field("connect_timeout", &self.connect_timeout)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("close_timeout", &self.close_timeout)
            .field("limits", &self.limits)
            .field("max_queued", &self.max_queued)
            .field("deflate", &self.deflate)
            .field("max_redirects", &self.max_redirects)
            .field("reconnect", &self.reconnect)
            .field("level", &self.level)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
