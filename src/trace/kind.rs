//! The vocabulary of the trace: which events exist, from which level on, and what their fields mean.
//!
//! Comes before everything else in `trace/`: [`super::event`] stores these words, [`super::render`] spells them.

/// How much of a connection's life is recorded. Ordered: each level includes the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum Level {
    /// Nothing. Only for those who ask for it: the flight recorder has nothing to hand out then.
    Off,
    /// Connecting, opening, closing, deadlines, limits, failures: a handful of events per connection.
    #[default]
    Lifecycle,
    /// Also every frame, cast and handler timer; of a frame only its opcode, flags and length.
    Frames,
    /// Also the first bytes of every frame's payload.
    Payload,
}

impl Level {
    /// Whether events of this kind are recorded at this level. With a constant kind this is one comparison.
    #[inline]
    #[must_use]
    pub const fn records(self, kind: Kind) -> bool {
        // benches/trace.rs compares with a build that has no trace.
        !cfg!(websockex_no_trace) && self as u8 >= kind.level() as u8
    }

    /// The part of a payload that this level shows: all of it at [`Level::Payload`], else nothing.
    /// The event keeps as many of its first bytes as fit.
    #[inline]
    #[must_use]
    pub const fn shown(self, payload: &[u8]) -> &[u8] {
        match self {
            Level::Payload => payload,
            Level::Off | Level::Lifecycle | Level::Frames => &[],
        }
    }

    /// The level of that [`name`](Self::name).
    #[must_use]
    pub fn named(name: &str) -> Option<Level> {
        let all = [Level::Off, Level::Lifecycle, Level::Frames, Level::Payload];
        all.into_iter().find(|level| level.name() == name)
    }

    /// The level's name in rendered events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Level::Off => "off",
            Level::Lifecycle => "lifecycle",
            Level::Frames => "frames",
            Level::Payload => "payload",
        }
    }
}

/// Declares a field-less enum together with the list of its variants and their names, so that neither list
/// can lag behind the enum.
macro_rules! named {
    ($(#[$outer:meta])* pub enum $Enum:ident { $($(#[$inner:meta])* $Variant:ident = $name:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum $Enum {
            $($(#[$inner])* $Variant,)+
        }

        impl $Enum {
            /// Every variant, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$Variant),+];

            /// The name used in rendered events; stable.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$Variant => $name,)+
                }
            }
        }
    };
}

named! {
    /// What happened. Each kind says which of the event's fields it uses; the others are zero or empty.
    ///
    /// "Frame fields" stands for: `opcode`, the flags `fin` and `compressed`, `value` (payload length in bytes),
    /// and in `detail` the payload's first bytes, at [`Level::Payload`] only.
    /// "Close fields" stands for: `code` (close code, 0 for none) and `detail` (the reason).
    pub enum Kind {
        /// An attempt to connect is due and waits to be admitted. `value`: how many wait for the same host, this
        /// one included. `detail`: host and port.
        ConnectQueued = "connect_queued",
        /// The first attempt to connect begins. `value`: attempt, from 1. `detail`: host and port.
        Connecting = "connecting",
        /// The host's name was resolved. `value`: number of addresses. `detail`: the address tried first.
        Resolved = "resolved",
        /// A TCP connection to one address was started. `detail`: the address.
        TcpConnecting = "tcp_connecting",
        /// The TCP connection stands. `detail`: the peer's address.
        TcpConnected = "tcp_connected",
        /// The proxy opened the way to the server. `detail`: the proxy's host and port.
        ProxyConnected = "proxy_connected",
        /// The TLS handshake is done. `code`: protocol version as on the wire. Flag `resumed`.
        /// `detail`: what else was negotiated (cipher suite, ALPN).
        TlsEstablished = "tls_established",
        /// A fatal TLS alert. `code`: its number. Flag `received`, else it was sent. `detail`: its name. Of one
        /// that was sent encrypted the number is known if it is about a certificate or a malformed message;
        /// others are not recorded, and the error that follows says what was wrong.
        TlsAlert = "tls_alert",
        /// The upgrade request was sent. `detail`: host and port.
        Upgrading = "upgrading",
        /// Open for the first time. `value`: epoch. `detail`: the agreed subprotocol and extensions.
        Connected = "connected",
        /// An attempt to connect failed. `subject`: [`Stage`]. `code`: HTTP status, 0 for none. `detail`: the error.
        ConnectFailed = "connect_failed",
        /// It was decided to reconnect. `value`: delay in nanoseconds. `detail`: the reason.
        ReconnectScheduled = "reconnect_scheduled",
        /// An attempt to connect again begins. `value`: attempt, from 1. `detail`: host and port.
        Reconnecting = "reconnecting",
        /// Open again. `value`: epoch. `detail`: the agreed subprotocol and extensions.
        Reconnected = "reconnected",

        /// A frame arrived. Frame fields.
        FrameReceived = "frame_received",
        /// The last fragment of a message arrived. Frame fields, of the whole message.
        FragmentedCompleted = "fragmented_completed",
        /// A cast from another thread is handed to the handler. `detail`: the name of its type.
        CastReceived = "cast_received",
        /// A callback sends. `subject`: [`Callback`]. Frame fields.
        Replying = "replying",
        /// A frame was encoded for the socket. Frame fields.
        FrameSent = "frame_sent",
        /// A timer the handler set fired. `value`: the handler's token.
        HandlerTimerFired = "handler_timer_fired",

        /// Our Close frame was sent. Close fields.
        CloseSent = "close_sent",
        /// Our Close frame was sent because of an error. Close fields.
        ErrorCloseSent = "error_close_sent",
        /// The peer's Close frame arrived. Close fields.
        CloseReceived = "close_received",
        /// We began to close. Close fields.
        ClosingLocal = "closing_local",
        /// An error closes the connection. `code`: the close code it maps to, 0 for none. `detail`: the error.
        ClosingError = "closing_error",
        /// The peer ended the TCP connection without a Close frame. `detail`: the I/O error, if there was one.
        RemoteDropped = "remote_dropped",
        /// The closing handshake was completed and the TCP connection is gone.
        ClosedCleanly = "closed_cleanly",
        /// The peer took too long to close, so the TCP connection was cut.
        ForcedClosed = "forced_closed",

        /// A deadline, watchdog or schedule of the library fired. `subject`: [`Timer`].
        TimerFired = "timer_fired",
        /// A limit was hit. `subject`: [`Limit`]. `value`: what was asked for. `limit`: what is allowed.
        LimitHit = "limit_hit",
        /// The output queue passed its high-water mark. `value`: queued bytes. `limit`: the mark in bytes.
        QueueHighWater = "queue_high_water",
        /// The output queue was written out after a high water.
        QueueDrained = "queue_drained",
        /// A message was not accepted for sending; of a run of drops only the first is recorded, so that it
        /// cannot wash out the ring. `opcode`, `value`: payload length in bytes. `detail`: why.
        SendDropped = "send_dropped",
        /// Reading was paused; the socket's window fills up from here on.
        ReadingPaused = "reading_paused",
        /// Reading goes on.
        ReadingResumed = "reading_resumed",
        /// Another handler took the place of the connection's handler.
        HandlerReplaced = "handler_replaced",
        /// The trace level was changed; frames before this event may be missing. `subject`: the new [`Level`].
        LevelChanged = "level_changed",

        /// A callback returned an error. `subject`: [`Callback`]. `detail`: the error.
        HandlerFailed = "handler_failed",
        /// A callback panicked. `subject`: [`Callback`]. `detail`: the panic's message.
        HandlerPanicked = "handler_panicked",
        /// Supervision starts the connection anew. `value`: restarts in this period. `limit`: how many are allowed.
        Restarting = "restarting",
        /// What waited for the connection to open was dropped at its end. `value`: how many. `detail`: what.
        Abandoned = "abandoned",
        /// The end: `on_terminate` was called. `detail`: the reason.
        Terminated = "terminated",
    }
}

impl Kind {
    /// The lowest level at which this kind is recorded: [`Level::Frames`] for what happens per message,
    /// [`Level::Lifecycle`] for everything else.
    #[inline]
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Kind::FrameReceived
            | Kind::FragmentedCompleted
            | Kind::CastReceived
            | Kind::Replying
            | Kind::FrameSent
            | Kind::HandlerTimerFired => Level::Frames,
            _ => Level::Lifecycle,
        }
    }
}

named! {
    /// A stage of connecting, in the order they are passed.
    pub enum Stage {
        /// Looking up the host's name.
        Resolve = "resolve",
        /// Opening the TCP connection.
        Tcp = "tcp",
        /// Asking a proxy for the way to the server.
        Proxy = "proxy",
        /// The TLS handshake.
        Tls = "tls",
        /// The WebSocket opening handshake.
        Upgrade = "upgrade",
    }
}

named! {
    /// A callback of the handler.
    pub enum Callback {
        /// The connection is open.
        OnOpen = "on_open",
        /// A complete message.
        OnMessage = "on_message",
        /// A Ping frame.
        OnPing = "on_ping",
        /// A Pong frame.
        OnPong = "on_pong",
        /// A cast from another thread.
        OnCast = "on_cast",
        /// A timer of the handler's own.
        OnTimer = "on_timer",
        /// The last message of a read was delivered.
        OnBatchEnd = "on_batch_end",
        /// The output queue was written out.
        OnDrained = "on_drained",
        /// The connection was lost or an attempt failed.
        OnDisconnect = "on_disconnect",
        /// The end.
        OnTerminate = "on_terminate",
        /// No callback of the handler's: what another thread ran on it.
        WithHandler = "with_handler",
    }
}

named! {
    /// A timer of the library's own.
    pub enum Timer {
        /// Connecting, all stages together, took too long.
        ConnectDeadline = "connect_deadline",
        /// The opening handshake took too long.
        HandshakeDeadline = "handshake_deadline",
        /// The peer took too long to close.
        CloseDeadline = "close_deadline",
        /// A protocol ping was not answered in time.
        PongDeadline = "pong_deadline",
        /// An application-level ping was not answered in time.
        ApplicationPongDeadline = "application_pong_deadline",
        /// No byte of any sort for too long.
        AnyByteWatchdog = "any_byte_watchdog",
        /// No application data for too long.
        DataWatchdog = "data_watchdog",
        /// No application data at all since the connection opened.
        FirstDataWatchdog = "first_data_watchdog",
        /// The wait before the next attempt to connect is over.
        BackOff = "back_off",
        /// An orderly shutdown took too long.
        DrainDeadline = "drain_deadline",
    }
}

named! {
    /// A limit of the policy.
    pub enum Limit {
        /// Bytes of the handshake answer's header block.
        HeaderBlock = "header_block",
        /// Payload bytes of one frame.
        Frame = "frame",
        /// Bytes of one message, all its fragments together, inflated if it is compressed.
        Message = "message",
        /// Bytes queued for sending.
        QueuedOutput = "queued_output",
        /// Attempts to connect.
        Attempts = "attempts",
        /// Restarts by supervision within its period.
        Restarts = "restarts",
        /// Messages, or their bytes, that are held for a connection to open.
        HeldSends = "held_sends",
        /// Casts that wait for a connection to open.
        WaitingCasts = "waiting_casts",
    }
}

/// What an event is about, where its kind alone does not say it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Subject {
    /// The kind says it all.
    #[default]
    None,
    /// The stage at which connecting failed.
    Stage(Stage),
    /// The callback that replied, failed or panicked.
    Callback(Callback),
    /// The timer that fired.
    Timer(Timer),
    /// The limit that was hit.
    Limit(Limit),
    /// The new trace level.
    Level(Level),
}

impl Subject {
    /// The name of what is inside; empty for [`Subject::None`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Subject::None => "",
            Subject::Stage(stage) => stage.name(),
            Subject::Callback(callback) => callback.name(),
            Subject::Timer(timer) => timer.name(),
            Subject::Limit(limit) => limit.name(),
            Subject::Level(level) => level.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_snake_case() {
        for (index, kind) in Kind::ALL.iter().enumerate() {
            let name = kind.name();
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{name}"
            );
            assert!(
                Kind::ALL[..index]
                    .iter()
                    .all(|earlier| earlier.name() != name),
                "{name}"
            );
        }
    }

    #[test]
    fn levels_include_the_ones_below() {
        for &kind in Kind::ALL {
            assert!(!Level::Off.records(kind));
            assert!(Level::Frames.records(kind) && Level::Payload.records(kind));
            assert_eq!(
                Level::Lifecycle.records(kind),
                kind.level() == Level::Lifecycle
            );
        }
        assert!(!Level::Lifecycle.records(Kind::FrameReceived));
        assert!(Level::default().records(Kind::CloseReceived));
    }

    #[test]
    fn only_the_payload_level_shows_payload() {
        assert_eq!(Level::Payload.shown(b"secret"), b"secret");
        for level in [Level::Off, Level::Lifecycle, Level::Frames] {
            assert!(level.shown(b"secret").is_empty());
        }
    }
}
