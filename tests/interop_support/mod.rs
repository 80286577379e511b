//! What the interop tests share: the server under test, and a scripted connection to it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use websockex::trace::{Event, Kind, Level};
use websockex::{
    Context, Deflate, Disconnect, DisconnectReason, Handler, HandlerResult, Message, Open, Reactor,
    Reconnect, ReconnectPolicy, Request, TlsConfig, TlsConfigBuilder,
};

/// The longest time one test may take. Far more than any needs, so that a slow machine passes and
/// a hang still fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Events of one test that the trace keeps.
const TRACE_CAPACITY: usize = 1 << 14;

/// The server under test, from the environment that `tests/interop/run` sets.
pub(crate) struct Peer {
    pub(crate) url: String,
    /// It accepts permessage-deflate, and the requests offer it.
    pub(crate) deflate: bool,
    tls: Option<TlsConfig>,
}

impl Peer {
    /// `None`, and a line that says so: there is no server to test against.
    pub(crate) fn from_environment() -> Option<Self> {
        let variable = |name| std::env::var(name).ok();
        let Some(url) = variable("INTEROP_URL") else {
            println!("skipped: INTEROP_URL is not set");
            return None;
        };
        let tls = variable("INTEROP_CA").map(|file| {
            let builder = TlsConfig::builder().root_certificates_file(file);
            builder.and_then(TlsConfigBuilder::build).unwrap()
        });
        Some(Self {
            url,
            deflate: variable("INTEROP_DEFLATE").is_some(),
            tls,
        })
    }

    /// A request for a path of the server, without reconnecting.
    pub(crate) fn request(&self, path: &str) -> Request {
        let request = Request::new(format!("{}{path}", self.url)).unwrap();
        let request = request
            .reconnect(ReconnectPolicy::never())
            // A thousand TLS handshakes with one slow server take their time.
            .handshake_timeout(DEADLINE);
        let request = match &self.tls {
            Some(tls) => request.tls(tls.clone()),
            None => request,
        };
        if self.deflate {
            request.deflate(Deflate::new())
        } else {
            request
        }
    }

    /// Runs one scripted connection to its end.
    pub(crate) fn run(&self, request: Request, script: impl Script) -> Outcome {
        let ended = Rc::new(RefCell::new(None));
        let handler = Scripted {
            script,
            ended: Rc::clone(&ended),
        };
        let mut reactor = reactor();
        reactor.connect(request, handler).unwrap();
        run(&mut reactor);
        let ending = ended.take().expect("on_disconnect comes before the end");
        let events = reactor.trace().iter().copied().collect();
        Outcome { ending, events }
    }
}

/// A reactor that records frames.
pub(crate) fn reactor() -> Reactor {
    Reactor::builder()
        .trace(Level::Frames)
        .trace_capacity(TRACE_CAPACITY)
        .build()
        .unwrap()
}

/// Runs the reactor until no connection is left.
pub(crate) fn run(reactor: &mut Reactor) {
    run_while(reactor, |reactor| reactor.connections() > 0);
}

/// Runs the reactor while there is something to wait for.
pub(crate) fn run_while(reactor: &mut Reactor, waiting: impl Fn(&Reactor) -> bool) {
    let started = Instant::now();
    while waiting(reactor) {
        let left = DEADLINE.checked_sub(started.elapsed());
        assert!(
            left.is_some(),
            "not done in {DEADLINE:?}: {} connections left",
            reactor.connections()
        );
        reactor.turn(left).unwrap();
    }
}

/// What a script is told.
pub(crate) enum Told<'a> {
    Open(&'a Open<'a>),
    Message(Message<'a>),
    /// The answer is the script's business.
    Ping(&'a [u8]),
    Pong(&'a [u8]),
}

/// What a connection does. An `Err` or a failed assertion ends it, and is then its ending.
pub(crate) trait Script:
    FnMut(&mut Context<'_>, Told<'_>) -> HandlerResult + 'static
{
}

impl<S: FnMut(&mut Context<'_>, Told<'_>) -> HandlerResult + 'static> Script for S {}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Closed from this side, with a Close frame of each.
    Local {
        code: u16,
        reason: String,
    },
    /// Closed by the server, with a Close frame of each.
    Remote {
        code: u16,
        reason: String,
    },
    Dropped,
    /// Anything else, in words.
    Other(String),
}

impl Ending {
    pub(crate) fn of(disconnect: &Disconnect<'_>) -> Self {
        let code = disconnect.reason.close_code().value();
        match disconnect.reason {
            DisconnectReason::Local { reason, .. } if disconnect.clean => Self::Local {
                code,
                reason: reason.clone(),
            },
            DisconnectReason::Remote { reason, .. } if disconnect.clean => Self::Remote {
                code,
                reason: reason.clone(),
            },
            DisconnectReason::Dropped => Self::Dropped,
            other => Self::Other(format!("{other} (clean: {})", disconnect.clean)),
        }
    }

    /// Closed by [`Context::close`].
    pub(crate) fn normal() -> Self {
        Self::Local {
            code: 1000,
            reason: String::new(),
        }
    }
}

/// What became of a connection, and what the trace has of it.
pub(crate) struct Outcome {
    pub(crate) ending: Ending,
    pub(crate) events: Vec<Event>,
}

impl Outcome {
    /// Data frames of one direction.
    pub(crate) fn data_frames(&self, kind: Kind) -> impl Iterator<Item = &Event> {
        let data = |event: &&Event| event.opcode() < 8;
        let events = self.events.iter().filter(move |event| event.kind() == kind);
        events.filter(data)
    }
}

struct Scripted<S> {
    script: S,
    ended: Rc<RefCell<Option<Ending>>>,
}

impl<S: Script> Handler for Scripted<S> {
    fn on_open(&mut self, cx: &mut Context<'_>, open: &Open<'_>) -> HandlerResult {
        (self.script)(cx, Told::Open(open))
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        (self.script)(cx, Told::Message(message))
    }

    fn on_ping(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> HandlerResult {
        (self.script)(cx, Told::Ping(payload))
    }

    fn on_pong(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> HandlerResult {
        (self.script)(cx, Told::Pong(payload))
    }

    fn on_disconnect(&mut self, _: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        *self.ended.borrow_mut() = Some(Ending::of(disconnect));
        Reconnect::ByPolicy
    }
}

/// A feed's JSON of exactly `length` bytes, with characters of one to four bytes; it compresses.
pub(crate) fn json(length: usize) -> String {
    let mut text = String::with_capacity(length + 128);
    let mut number = 0_u32;
    while text.len() < length {
        let price = number.wrapping_mul(2_654_435_761) >> 12;
        text.push_str(&format!(
            r#"{{"e":"trade","s":"BTC€","n":{number},"p":"{price}","x":"é市🚀"}},"#
        ));
        number += 1;
    }
    let mut end = length;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.extend(std::iter::repeat_n(' ', length - end));
    text
}

/// `length` bytes that do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
