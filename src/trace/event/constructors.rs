//! One constructor per kind, so that call sites say what happened and the fields of [`Event`] stay private.
//!
//! Every constructor takes the time, in nanoseconds since the reactor's start, and the connection's id first.
//! Texts may be anything that can be displayed; they are formatted in place. A handler's error, whose `Display`
//! is foreign code that may panic, therefore has to be passed where panics are caught.

use std::fmt;
use std::net::SocketAddr;

use super::super::kind::{Callback, Kind, Level, Limit, Stage, Subject, Timer};
use super::address::Address;
use super::{Event, Frame, FrameHead, RECEIVED, RESUMED};

/// What every attempt to connect records, with texts that need no formatting.
impl Event {
    /// An event about the server that is named: [`Kind::Connecting`], [`Kind::Reconnecting`] or
    /// [`Kind::Upgrading`], or about what was agreed with it: [`Kind::Connected`] or [`Kind::Reconnected`].
    #[inline]
    pub(crate) fn of_server(
        time_ns: u64,
        connection: u64,
        kind: Kind,
        value: u64,
        text: &str,
    ) -> Event {
        let event = Event::new(time_ns, connection, kind).with_str(text);
        Event { value, ..event }
    }

    /// [`Kind::TcpConnecting`] or [`Kind::TcpConnected`].
    #[inline]
    pub(crate) fn of_address(
        time_ns: u64,
        connection: u64,
        kind: Kind,
        address: SocketAddr,
    ) -> Event {
        let (event, address) = (Event::new(time_ns, connection, kind), Address(address));
        let written = address.write(|text| event.with_str(text));
        written.unwrap_or_else(|| event.with_text(&address))
    }
}

/// Connecting.
impl Event {
    /// [`Kind::ConnectQueued`]. `server` is host and port, nothing more.
    #[must_use]
    pub fn connect_queued(
        time_ns: u64,
        connection: u64,
        waiting: u64,
        server: impl fmt::Display,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::ConnectQueued).with_text(&server);
        Event {
            value: waiting,
            ..event
        }
    }

    /// [`Kind::Connecting`]. `server` is host and port, nothing more.
    #[must_use]
    pub fn connecting(
        time_ns: u64,
        connection: u64,
        attempt: u64,
        server: impl fmt::Display,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::Connecting).with_text(&server);
        Event {
            value: attempt,
            ..event
        }
    }

    /// [`Kind::Resolved`].
    #[must_use]
    pub fn resolved(
        time_ns: u64,
        connection: u64,
        addresses: u64,
        first: impl fmt::Display,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::Resolved).with_text(&first);
        Event {
            value: addresses,
            ..event
        }
    }

    /// [`Kind::TcpConnecting`].
    #[must_use]
    pub fn tcp_connecting(time_ns: u64, connection: u64, address: impl fmt::Display) -> Event {
        Event::new(time_ns, connection, Kind::TcpConnecting).with_text(&address)
    }

    /// [`Kind::TcpConnected`].
    #[must_use]
    pub fn tcp_connected(time_ns: u64, connection: u64, address: impl fmt::Display) -> Event {
        Event::new(time_ns, connection, Kind::TcpConnected).with_text(&address)
    }

    /// [`Kind::ProxyConnected`]. `proxy` is host and port, without its credentials.
    #[must_use]
    pub fn proxy_connected(time_ns: u64, connection: u64, proxy: impl fmt::Display) -> Event {
        Event::new(time_ns, connection, Kind::ProxyConnected).with_text(&proxy)
    }

    /// [`Kind::TlsEstablished`] by a full handshake. `version` as on the wire: 0x0304 is TLS 1.3.
    #[must_use]
    pub fn tls_established(
        time_ns: u64,
        connection: u64,
        version: u16,
        negotiated: impl fmt::Display,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::TlsEstablished).with_text(&negotiated);
        Event {
            code: version,
            ..event
        }
    }

    /// [`Kind::TlsEstablished`] by resuming an earlier session.
    #[must_use]
    pub fn tls_resumed(
        time_ns: u64,
        connection: u64,
        version: u16,
        negotiated: impl fmt::Display,
    ) -> Event {
        let event = Event::tls_established(time_ns, connection, version, negotiated);
        Event {
            flags: RESUMED,
            ..event
        }
    }

    /// [`Kind::TlsAlert`] that we sent.
    #[must_use]
    pub fn tls_alert_sent(
        time_ns: u64,
        connection: u64,
        alert: u8,
        description: impl fmt::Display,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::TlsAlert).with_text(&description);
        Event {
            code: u16::from(alert),
            ..event
        }
    }

    /// [`Kind::TlsAlert`] from the peer.
    #[must_use]
    pub fn tls_alert_received(
        time_ns: u64,
        connection: u64,
        alert: u8,
        description: impl fmt::Display,
    ) -> Event {
        let event = Event::tls_alert_sent(time_ns, connection, alert, description);
        Event {
            flags: RECEIVED,
            ..event
        }
    }

    /// [`Kind::Upgrading`]. `server` is host and port, nothing more.
    #[must_use]
    pub fn upgrading(time_ns: u64, connection: u64, server: impl fmt::Display) -> Event {
        Event::new(time_ns, connection, Kind::Upgrading).with_text(&server)
    }

    /// [`Kind::Connected`]. `agreed`: subprotocol and extensions, empty for none.
    #[must_use]
    pub fn connected(
        time_ns: u64,
        connection: u64,
        epoch: u64,
        agreed: impl fmt::Display,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::Connected).with_text(&agreed);
        Event {
            value: epoch,
            ..event
        }
    }

    /// [`Kind::ConnectFailed`]. `status`: the HTTP status, where the server answered with one.
    #[must_use]
    pub fn connect_failed(
        time_ns: u64,
        connection: u64,
        stage: Stage,
        status: Option<u16>,
        error: impl fmt::Display,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::ConnectFailed).with_text(&error);
        Event {
            subject: Subject::Stage(stage),
            code: status.unwrap_or(0),
            ..event
        }
    }

    /// [`Kind::ReconnectScheduled`].
    #[must_use]
    pub fn reconnect_scheduled(
        time_ns: u64,
        connection: u64,
        delay_ns: u64,
        reason: impl fmt::Display,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::ReconnectScheduled).with_text(&reason);
        Event {
            value: delay_ns,
            ..event
        }
    }

    /// [`Kind::Reconnecting`]. `server` is host and port, nothing more.
    #[must_use]
    pub fn reconnecting(
        time_ns: u64,
        connection: u64,
        attempt: u64,
        server: impl fmt::Display,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::Reconnecting).with_text(&server);
        Event {
            value: attempt,
            ..event
        }
    }

    /// [`Kind::Reconnected`]. `agreed`: subprotocol and extensions, empty for none.
    #[must_use]
    pub fn reconnected(
        time_ns: u64,
        connection: u64,
        epoch: u64,
        agreed: impl fmt::Display,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::Reconnected).with_text(&agreed);
        Event {
            value: epoch,
            ..event
        }
    }
}

/// Frames, and what else happens per message.
impl Event {
    /// An event about a frame that no ring has a place for.
    pub(crate) fn about_frame(head: FrameHead, frame: &Frame<'_>) -> Event {
        let mut event = Event::EMPTY;
        event.become_frame(head, frame);
        event
    }

    /// [`Kind::FrameReceived`].
    #[inline]
    #[must_use]
    pub fn frame_received(time_ns: u64, connection: u64, frame: Frame<'_>) -> Event {
        Event::new(time_ns, connection, Kind::FrameReceived).with_frame(frame)
    }

    /// [`Kind::FragmentedCompleted`]. `message` describes the whole message.
    #[inline]
    #[must_use]
    pub fn fragmented_completed(time_ns: u64, connection: u64, message: Frame<'_>) -> Event {
        Event::new(time_ns, connection, Kind::FragmentedCompleted).with_frame(message)
    }

    /// [`Kind::CastReceived`]. `label` may be empty.
    #[must_use]
    pub fn cast_received(time_ns: u64, connection: u64, label: impl fmt::Display) -> Event {
        Event::new(time_ns, connection, Kind::CastReceived).with_text(&label)
    }

    /// [`Kind::Replying`].
    #[inline]
    #[must_use]
    pub fn replying(time_ns: u64, connection: u64, callback: Callback, frame: Frame<'_>) -> Event {
        let event = Event::new(time_ns, connection, Kind::Replying).with_frame(frame);
        Event {
            subject: Subject::Callback(callback),
            ..event
        }
    }

    /// [`Kind::FrameSent`].
    #[inline]
    #[must_use]
    pub fn frame_sent(time_ns: u64, connection: u64, frame: Frame<'_>) -> Event {
        Event::new(time_ns, connection, Kind::FrameSent).with_frame(frame)
    }

    /// [`Kind::HandlerTimerFired`].
    #[inline]
    #[must_use]
    pub fn handler_timer_fired(time_ns: u64, connection: u64, token: u64) -> Event {
        Event {
            value: token,
            ..Event::new(time_ns, connection, Kind::HandlerTimerFired)
        }
    }
}

/// Closing.
impl Event {
    /// [`Kind::CloseSent`].
    #[must_use]
    pub fn close_sent(time_ns: u64, connection: u64, code: Option<u16>, reason: &str) -> Event {
        Event::new(time_ns, connection, Kind::CloseSent).with_close(code, reason)
    }

    /// [`Kind::ErrorCloseSent`].
    #[must_use]
    pub fn error_close_sent(
        time_ns: u64,
        connection: u64,
        code: Option<u16>,
        reason: &str,
    ) -> Event {
        Event::new(time_ns, connection, Kind::ErrorCloseSent).with_close(code, reason)
    }

    /// [`Kind::CloseReceived`].
    #[must_use]
    pub fn close_received(time_ns: u64, connection: u64, code: Option<u16>, reason: &str) -> Event {
        Event::new(time_ns, connection, Kind::CloseReceived).with_close(code, reason)
    }

    /// [`Kind::ClosingLocal`].
    #[must_use]
    pub fn closing_local(time_ns: u64, connection: u64, code: Option<u16>, reason: &str) -> Event {
        Event::new(time_ns, connection, Kind::ClosingLocal).with_close(code, reason)
    }

    /// [`Kind::ClosingError`]. `code`: the close code the error maps to, where a Close frame can still be sent.
    #[must_use]
    pub fn closing_error(
        time_ns: u64,
        connection: u64,
        code: Option<u16>,
        error: impl fmt::Display,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::ClosingError).with_text(&error);
        Event {
            code: code.unwrap_or(0),
            ..event
        }
    }

    /// [`Kind::RemoteDropped`]. `error` may be empty.
    #[must_use]
    pub fn remote_dropped(time_ns: u64, connection: u64, error: impl fmt::Display) -> Event {
        Event::new(time_ns, connection, Kind::RemoteDropped).with_text(&error)
    }

    /// [`Kind::ClosedCleanly`].
    #[must_use]
    pub fn closed_cleanly(time_ns: u64, connection: u64) -> Event {
        Event::new(time_ns, connection, Kind::ClosedCleanly)
    }

    /// [`Kind::ForcedClosed`].
    #[must_use]
    pub fn forced_closed(time_ns: u64, connection: u64) -> Event {
        Event::new(time_ns, connection, Kind::ForcedClosed)
    }
}

/// Timers, limits, queues, and the end.
impl Event {
    /// [`Kind::TimerFired`].
    #[must_use]
    pub fn timer_fired(time_ns: u64, connection: u64, timer: Timer) -> Event {
        Event {
            subject: Subject::Timer(timer),
            ..Event::new(time_ns, connection, Kind::TimerFired)
        }
    }

    /// [`Kind::LimitHit`]: `value` was asked for where `allowed` is the most.
    #[must_use]
    pub fn limit_hit(
        time_ns: u64,
        connection: u64,
        limit: Limit,
        value: u64,
        allowed: u64,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::LimitHit);
        Event {
            subject: Subject::Limit(limit),
            value,
            limit: allowed,
            ..event
        }
    }

    /// [`Kind::QueueHighWater`].
    #[must_use]
    pub fn queue_high_water(
        time_ns: u64,
        connection: u64,
        queued_bytes: u64,
        mark_bytes: u64,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::QueueHighWater);
        Event {
            value: queued_bytes,
            limit: mark_bytes,
            ..event
        }
    }

    /// [`Kind::QueueDrained`].
    #[must_use]
    pub fn queue_drained(time_ns: u64, connection: u64) -> Event {
        Event::new(time_ns, connection, Kind::QueueDrained)
    }

    /// [`Kind::SendDropped`].
    #[must_use]
    pub fn send_dropped(
        time_ns: u64,
        connection: u64,
        opcode: u8,
        length: u64,
        reason: impl fmt::Display,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::SendDropped).with_text(&reason);
        Event {
            opcode,
            value: length,
            ..event
        }
    }

    /// [`Kind::ReadingPaused`].
    #[must_use]
    pub fn reading_paused(time_ns: u64, connection: u64) -> Event {
        Event::new(time_ns, connection, Kind::ReadingPaused)
    }

    /// [`Kind::ReadingResumed`].
    #[must_use]
    pub fn reading_resumed(time_ns: u64, connection: u64) -> Event {
        Event::new(time_ns, connection, Kind::ReadingResumed)
    }

    /// [`Kind::HandlerReplaced`].
    #[must_use]
    pub fn handler_replaced(time_ns: u64, connection: u64) -> Event {
        Event::new(time_ns, connection, Kind::HandlerReplaced)
    }

    /// [`Kind::LevelChanged`].
    #[must_use]
    pub fn level_changed(time_ns: u64, connection: u64, level: Level) -> Event {
        Event {
            subject: Subject::Level(level),
            ..Event::new(time_ns, connection, Kind::LevelChanged)
        }
    }

    /// [`Kind::HandlerFailed`].
    #[must_use]
    pub fn handler_failed(
        time_ns: u64,
        connection: u64,
        callback: Callback,
        error: impl fmt::Display,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::HandlerFailed).with_text(&error);
        Event {
            subject: Subject::Callback(callback),
            ..event
        }
    }

    /// [`Kind::HandlerPanicked`].
    #[must_use]
    pub fn handler_panicked(
        time_ns: u64,
        connection: u64,
        callback: Callback,
        message: &str,
    ) -> Event {
        let event = Event::new(time_ns, connection, Kind::HandlerPanicked).with_text(&message);
        Event {
            subject: Subject::Callback(callback),
            ..event
        }
    }

    /// [`Kind::Restarting`]: restart number `restart` of `allowed` in this period.
    #[must_use]
    pub fn restarting(time_ns: u64, connection: u64, restart: u64, allowed: u64) -> Event {
        Event {
            value: restart,
            limit: allowed,
            ..Event::new(time_ns, connection, Kind::Restarting)
        }
    }

    /// [`Kind::Abandoned`].
    #[must_use]
    pub fn abandoned(time_ns: u64, connection: u64, count: u64, what: impl fmt::Display) -> Event {
        let event = Event::new(time_ns, connection, Kind::Abandoned).with_text(&what);
        Event {
            value: count,
            ..event
        }
    }

    /// [`Kind::Terminated`].
    #[must_use]
    pub fn terminated(time_ns: u64, connection: u64, reason: impl fmt::Display) -> Event {
        Event::new(time_ns, connection, Kind::Terminated).with_text(&reason)
    }
}
