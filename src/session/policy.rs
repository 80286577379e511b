//! What happens after a connection has ended, where the handler leaves it to the request.

use std::time::Duration;

/// When to connect again, set with [`Request::reconnect`](crate::Request::reconnect) and used
/// wherever [`Handler::on_disconnect`](crate::Handler::on_disconnect) leaves the decision to it.
///
/// The default is [`fixed`](Self::fixed) with one second. A connection that was closed from this
/// side is not opened again by any policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconnectPolicy {
    delay: Option<Duration>,
}

impl ReconnectPolicy {
    /// Never connect again: the first disconnect, or the first attempt that fails, is the end.
    pub const fn never() -> Self {
        Self { delay: None }
    }

    /// Connect again after `delay`, as often as it takes.
    pub const fn fixed(delay: Duration) -> Self {
        Self { delay: Some(delay) }
    }

    /// The wait before the next attempt; `None` ends the connection.
    pub(crate) fn delay(&self) -> Option<Duration> {
        self.delay
    }
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self::fixed(Duration::from_secs(1))
    }
}
