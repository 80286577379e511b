//! A handler that writes down every callback, does what the test tells it to, and checks that the
//! callbacks come in the order that the contract promises.

use std::any::Any;
use std::fmt;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use websockex::protocol::error::ProtocolError;
use websockex::protocol::handshake::HandshakeError;
use websockex::{
    ConnectionId, Context, Disconnect, DisconnectReason, Error, Handler, HandlerResult, Message,
    Open, ProxyError, Reconnect, Stage, Termination, TimerId, Watch,
};

/// One callback.
#[derive(Clone, PartialEq)]
pub(crate) enum Call {
    Open { epoch: u64, attempts: u32 },
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Cast(String),
    Timer(u64),
    BatchEnd,
    Drained,
    Disconnect(Lost),
    Terminate { why: Why, epoch: u64 },
}

/// What `on_disconnect` was told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lost {
    pub(crate) why: Why,
    pub(crate) clean: bool,
    pub(crate) attempt: u32,
    pub(crate) epoch: u64,
    pub(crate) policy: Option<Duration>,
}

/// A [`DisconnectReason`] that can be kept and compared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Why {
    Local(Option<u16>, String),
    Remote(Option<u16>, String),
    Dropped,
    ConnectFailed(Fault),
    Silent(Watch),
    Failed(Fault),
}

/// An [`Error`] that can be kept and compared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    TlsUnavailable,
    Resolve(String),
    Connect(ErrorKind),
    Tls(String),
    Proxy(ProxyError),
    Handshake(HandshakeError),
    Timeout(Stage),
    Protocol(ProtocolError),
    Io(ErrorKind),
    Handler(String),
    Panicked(String),
    Other(String),
}

impl Why {
    fn new(reason: &DisconnectReason) -> Self {
        match reason {
            DisconnectReason::Local { code, reason } => {
                Self::Local(code.map(u16::from), reason.clone())
            }
            DisconnectReason::Remote { code, reason } => {
                Self::Remote(code.map(u16::from), reason.clone())
            }
            DisconnectReason::Dropped => Self::Dropped,
            DisconnectReason::ConnectFailed(error) => Self::ConnectFailed(Fault::new(error)),
            DisconnectReason::Silent { watch, .. } => Self::Silent(*watch),
            DisconnectReason::Failed(error) => Self::Failed(Fault::new(error)),
            other => panic!("a reason unknown to the tests: {other:?}"),
        }
    }

    pub(crate) fn local(code: u16) -> Self {
        Self::Local(Some(code), String::new())
    }

    pub(crate) fn remote(code: u16, reason: &str) -> Self {
        Self::Remote(Some(code), reason.to_owned())
    }

    /// What went wrong, if something did.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        match self {
            Self::ConnectFailed(fault) | Self::Failed(fault) => Some(fault),
            _ => None,
        }
    }
}

impl Fault {
    pub(crate) fn new(error: &Error) -> Self {
        match error {
            Error::TlsUnavailable => Self::TlsUnavailable,
            Error::Resolve { host, .. } => Self::Resolve(host.clone()),
            Error::Connect { source, .. } => Self::Connect(source.kind()),
            Error::Tls(error) => Self::Tls(error.to_string()),
            Error::Proxy(error) => Self::Proxy(error.clone()),
            Error::Handshake(error) => Self::Handshake(error.clone()),
            Error::Timeout { stage, .. } => Self::Timeout(*stage),
            Error::Protocol(error) => Self::Protocol(*error),
            Error::Io(error) => Self::Io(error.kind()),
            Error::Handler(error) => Self::Handler(error.to_string()),
            Error::HandlerPanicked(message) => Self::Panicked(message.clone()),
            other => Self::Other(other.to_string()),
        }
    }
}

impl fmt::Debug for Call {
    /// Long payloads by their length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut payload = |name: &str, bytes: &[u8]| {
            if bytes.len() > 64 {
                write!(f, "{name}({} bytes)", bytes.len())
            } else {
                write!(f, "{name}({:?})", bytes.escape_ascii().to_string())
            }
        };
        match self {
            Self::Text(text) => payload("Text", text.as_bytes()),
            Self::Binary(bytes) => payload("Binary", bytes),
            Self::Ping(bytes) => payload("Ping", bytes),
            Self::Pong(bytes) => payload("Pong", bytes),
            Self::Open { epoch, attempts } => {
                write!(f, "Open {{ epoch: {epoch}, attempts: {attempts} }}")
            }
            Self::Cast(text) => write!(f, "Cast({text:?})"),
            Self::Timer(timer) => write!(f, "Timer({timer})"),
            Self::BatchEnd => f.write_str("BatchEnd"),
            Self::Drained => f.write_str("Drained"),
            Self::Disconnect(lost) => lost.fmt(f),
            Self::Terminate { why, epoch } => write!(f, "Terminate({why:?}, epoch {epoch})"),
        }
    }
}

/// What a connection's handler was called with, shared between the handler and the test.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    id: Option<ConnectionId>,
    calls: Vec<Call>,
    open: bool,
    opened: u64,
    terminated: bool,
    /// Where the contract was broken. Kept, because a panic in a callback would be caught.
    violations: Vec<String>,
}

impl Log {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().expect("no panic while it is locked")
    }

    pub(crate) fn set_id(&self, id: ConnectionId) {
        self.entries().id = Some(id);
    }

    pub(crate) fn id(&self) -> ConnectionId {
        self.entries().id.expect("it was connected")
    }

    /// All callbacks but the ends of batches, whose number depends on how the bytes arrived.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let entries = self.entries();
        let calls = entries.calls.iter();
        calls
            .filter(|call| **call != Call::BatchEnd)
            .cloned()
            .collect()
    }

    pub(crate) fn count(&self, counts: impl Fn(&Call) -> bool) -> usize {
        self.entries()
            .calls
            .iter()
            .filter(|call| counts(call))
            .count()
    }

    pub(crate) fn has(&self, call: &Call) -> bool {
        self.entries().calls.contains(call)
    }

    /// How many messages have come.
    pub(crate) fn messages(&self) -> usize {
        self.count(|call| matches!(call, Call::Text(_) | Call::Binary(_)))
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        let text = |call: &Call| match call {
            Call::Text(text) => Some(text.clone()),
            _ => None,
        };
        self.entries().calls.iter().filter_map(text).collect()
    }

    /// The disconnects, in order.
    pub(crate) fn lost(&self) -> Vec<Lost> {
        let lost = |call: &Call| match call {
            Call::Disconnect(lost) => Some(lost.clone()),
            _ => None,
        };
        self.entries().calls.iter().filter_map(lost).collect()
    }

    /// The only disconnect there was.
    pub(crate) fn only_lost(&self) -> Lost {
        let mut lost = self.lost();
        assert_eq!(lost.len(), 1, "{lost:#?}");
        lost.remove(0)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.entries().open
    }

    pub(crate) fn opened(&self) -> u64 {
        self.entries().opened
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.entries().terminated
    }

    fn push(&self, call: Call) {
        let entries = &mut *self.entries();
        let fits = !entries.terminated
            && match &call {
                Call::Open { epoch, .. } => !entries.open && *epoch == entries.opened + 1,
                Call::Timer(_) => true,
                Call::Disconnect(lost) => {
                    lost.epoch == entries.opened && (lost.attempt == 0) == entries.open
                }
                Call::Terminate { epoch, .. } => !entries.open && *epoch == entries.opened,
                _ => entries.open,
            };
        if !fits {
            entries
                .violations
                .push(format!("{call:?} after {:?}", entries.calls));
        }
        match &call {
            Call::Open { .. } => {
                entries.open = true;
                entries.opened += 1;
            }
            Call::Disconnect(_) => entries.open = false,
            Call::Terminate { .. } => entries.terminated = true,
            _ => {}
        }
        entries.calls.push(call);
    }

    pub(crate) fn check_contract(&self, must_be_terminated: bool) {
        let entries = self.entries();
        assert!(entries.violations.is_empty(), "{:#?}", entries.violations);
        assert!(
            !must_be_terminated || entries.terminated,
            "no on_terminate: {:#?}",
            entries.calls
        );
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.calls().fmt(f)
    }
}

type OnOpen = Box<dyn FnMut(&mut Context<'_>, &Open<'_>) -> HandlerResult + Send>;
type OnMessage = Box<dyn FnMut(&mut Context<'_>, Message<'_>) -> HandlerResult + Send>;
type OnBytes = Box<dyn FnMut(&mut Context<'_>, &[u8]) -> HandlerResult + Send>;
type OnAny = Box<dyn FnMut(&mut Context<'_>) -> HandlerResult + Send>;
type OnDisconnect = Box<dyn FnMut(&mut Context<'_>, &Disconnect<'_>) -> Reconnect + Send>;
type OnTerminate = Box<dyn FnMut() + Send>;

/// The handler. What it does besides recording is put in with the setters.
#[derive(Default)]
pub(crate) struct Recorder {
    log: Log,
    open: Option<OnOpen>,
    message: Option<OnMessage>,
    ping: Option<OnBytes>,
    pong: Option<OnBytes>,
    cast: Option<OnAny>,
    timer: Option<OnAny>,
    batch_end: Option<OnAny>,
    drained: Option<OnAny>,
    disconnect: Option<OnDisconnect>,
    terminate: Option<OnTerminate>,
}

macro_rules! setters {
    ($($name:ident: ($($argument:ty),*) $(-> $result:ty)?;)*) => {
        $(pub(crate) fn $name(
            mut self,
            run: impl FnMut($($argument),*) $(-> $result)? + Send + 'static,
        ) -> Self {
            self.$name = Some(Box::new(run));
            self
        })*
    };
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn log(&self) -> Log {
        self.log.clone()
    }

    setters! {
        open: (&mut Context<'_>, &Open<'_>) -> HandlerResult;
        message: (&mut Context<'_>, Message<'_>) -> HandlerResult;
        ping: (&mut Context<'_>, &[u8]) -> HandlerResult;
        pong: (&mut Context<'_>, &[u8]) -> HandlerResult;
        cast: (&mut Context<'_>) -> HandlerResult;
        timer: (&mut Context<'_>) -> HandlerResult;
        batch_end: (&mut Context<'_>) -> HandlerResult;
        drained: (&mut Context<'_>) -> HandlerResult;
        disconnect: (&mut Context<'_>, &Disconnect<'_>) -> Reconnect;
        terminate: ();
    }

    /// Sends every message back.
    pub(crate) fn echo(self) -> Self {
        self.message(|cx, message| Ok(cx.send(message)?))
    }

    /// Closes from this side after so many messages.
    pub(crate) fn close_after(self, messages: usize) -> Self {
        let mut seen = 0;
        self.message(move |cx, _| {
            seen += 1;
            if seen == messages {
                cx.close();
            }
            Ok(())
        })
    }
}

fn run(hook: &mut Option<OnAny>, cx: &mut Context<'_>) -> HandlerResult {
    hook.as_mut().map_or(Ok(()), |run| run(cx))
}

impl Handler for Recorder {
    fn on_open(&mut self, cx: &mut Context<'_>, open: &Open<'_>) -> HandlerResult {
        self.log.push(Call::Open {
            epoch: open.epoch,
            attempts: open.attempts,
        });
        self.open.as_mut().map_or(Ok(()), |run| run(cx, open))
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        self.log.push(match message {
            Message::Text(text) => Call::Text(text.to_owned()),
            Message::Binary(bytes) => Call::Binary(bytes.to_vec()),
        });
        self.message.as_mut().map_or(Ok(()), |run| run(cx, message))
    }

    fn on_ping(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> HandlerResult {
        /// To have the default callback.
        struct Default;
        impl Handler for Default {}
        self.log.push(Call::Ping(payload.to_vec()));
        match &mut self.ping {
            Some(run) => run(cx, payload),
            None => Default.on_ping(cx, payload),
        }
    }

    fn on_pong(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> HandlerResult {
        self.log.push(Call::Pong(payload.to_vec()));
        self.pong.as_mut().map_or(Ok(()), |run| run(cx, payload))
    }

    fn on_cast(&mut self, cx: &mut Context<'_>, message: Box<dyn Any + Send>) -> HandlerResult {
        let message = message
            .downcast::<String>()
            .expect("the tests cast strings");
        self.log.push(Call::Cast(*message));
        run(&mut self.cast, cx)
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, timer: TimerId) -> HandlerResult {
        self.log.push(Call::Timer(timer.0));
        run(&mut self.timer, cx)
    }

    fn on_batch_end(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.log.push(Call::BatchEnd);
        run(&mut self.batch_end, cx)
    }

    fn on_drained(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.log.push(Call::Drained);
        run(&mut self.drained, cx)
    }

    fn on_disconnect(&mut self, cx: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        self.log.push(Call::Disconnect(Lost {
            why: Why::new(disconnect.reason),
            clean: disconnect.clean,
            attempt: disconnect.attempt,
            epoch: disconnect.epoch,
            policy: disconnect.policy,
        }));
        let run = self.disconnect.as_mut();
        run.map_or(Reconnect::ByPolicy, |run| run(cx, disconnect))
    }

    fn on_terminate(mut self: Box<Self>, termination: &Termination<'_>) {
        self.log.push(Call::Terminate {
            why: Why::new(termination.reason),
            epoch: termination.epoch,
        });
        if let Some(run) = &mut self.terminate {
            run();
        }
    }
}
