//! Servers and proxies of the simulated network: scripted ones. A random one is a scripted one with a
//! random script.

use super::log::Log;
use super::peer::{End, Line, Peer};
use crate::protocol::Role;
use crate::protocol::buffer::Buffer;
use crate::protocol::close::{CloseCode, CloseFrame};
use crate::protocol::decoder::{Decoder, Event, Limits, Pool};
use crate::protocol::encoder::encode;
use crate::protocol::frame::OpCode;
use crate::protocol::handshake::{Answer, HandshakeLimits, ServerHandshake};
use std::collections::VecDeque;
use std::time::Duration;

/// What a server does by itself, once the connection is open.
#[derive(Clone, Debug)]
pub(super) enum Play {
    Text(String),
    /// A message in fragments of at most so many bytes.
    Fragments(OpCode, Vec<u8>, usize),
    Ping,
    Close(u16, String),
    /// Whatever these bytes mean.
    Raw(Vec<u8>),
    End(End),
    /// From here on it reads what arrives, or does not.
    Read(bool),
}

/// What a server says to the opening handshake.
#[derive(Clone, Debug)]
pub(super) enum Welcome {
    Open,
    /// These bytes; then it ends its side, or not.
    Raw(Vec<u8>, Option<End>),
    Nothing,
}

/// What a server is told of.
pub(super) trait Audience {
    /// A message of the client.
    fn message(&mut self, line: &mut Line<'_>, opcode: OpCode, payload: &[u8]);

    /// A Close frame of the client.
    fn close(&mut self, line: &mut Line<'_>, close: Option<CloseFrame<'_>>);

    /// A Pong of the client.
    fn pong(&mut self, _line: &mut Line<'_>) {}
}

/// Writes what it sees into the diary.
pub(super) struct Diarist;

impl Audience for Diarist {
    fn message(&mut self, line: &mut Line<'_>, _opcode: OpCode, payload: &[u8]) {
        let text = String::from_utf8_lossy(payload);
        line.log.tell(format!("server: message {text}"));
    }

    fn close(&mut self, line: &mut Line<'_>, close: Option<CloseFrame<'_>>) {
        let code = close.map(|close| close.code.value());
        line.log.tell(format!("server: close {code:?}"));
    }

    fn pong(&mut self, line: &mut Line<'_>) {
        line.log.tell("server: pong".to_owned());
    }
}

/// A WebSocket server with one client.
pub(super) struct Server {
    welcome: Welcome,
    /// Each so long after the one before it.
    script: VecDeque<(Duration, Play)>,
    answers_pings: bool,
    answers_close: bool,
    audience: Box<dyn Audience>,
    /// While the client's request is awaited.
    handshake: Option<ServerHandshake>,
    decoder: Option<Decoder>,
    pool: Pool,
    /// The client's Close frame, or ours, ends what we say.
    closing: bool,
}

impl Server {
    pub(super) fn new(welcome: Welcome, audience: Box<dyn Audience>) -> Self {
        Self {
            welcome,
            script: VecDeque::new(),
            answers_pings: true,
            answers_close: true,
            audience,
            handshake: Some(ServerHandshake::new(HandshakeLimits::default())),
            decoder: None,
            pool: Pool::default(),
            closing: false,
        }
    }

    /// One that opens the connection and answers pings and Close frames.
    pub(super) fn open() -> Self {
        Self::new(Welcome::Open, Box::new(Diarist))
    }

    pub(super) fn then(mut self, delay: Duration, play: Play) -> Self {
        self.script.push_back((delay, play));
        self
    }

    pub(super) fn ignoring_pings(mut self) -> Self {
        self.answers_pings = false;
        self
    }

    pub(super) fn ignoring_close(mut self) -> Self {
        self.answers_close = false;
        self
    }

    /// Answers the client's request; the rest of `bytes` are frames.
    fn upgrade<'b>(&mut self, line: &mut Line<'_>, bytes: &'b [u8]) -> &'b [u8] {
        let Some(handshake) = &mut self.handshake else {
            return bytes;
        };
        let received = match handshake.receive(bytes) {
            Ok(received) => received,
            Err(error) => {
                line.log
                    .violation(format!("a request that is none: {error}"));
                return &[];
            }
        };
        let Some(request) = received.request else {
            return &[];
        };
        self.handshake = None;
        match &self.welcome {
            Welcome::Open => {
                request
                    .write_response(&Answer::default(), &mut line.output)
                    .expect("a plain answer can be written");
                self.decoder = Some(Decoder::new(Role::Server, Limits::default()));
                line.wake = self.script.front().map(|(delay, _)| *delay);
            }
            Welcome::Raw(answer, end) => {
                line.output.extend(answer);
                line.end = *end;
            }
            Welcome::Nothing => {}
        }
        &bytes[received.consumed..]
    }

    fn play(&mut self, line: &mut Line<'_>, play: Play) {
        match play {
            Play::Text(text) => send(line, true, OpCode::Text, text.as_bytes()),
            Play::Fragments(opcode, payload, size) => {
                let mut opcode = opcode;
                let mut fragments = payload.chunks(size).peekable();
                while let Some(fragment) = fragments.next() {
                    send(line, fragments.peek().is_none(), opcode, fragment);
                    opcode = OpCode::Continuation;
                }
            }
            Play::Ping => send(line, true, OpCode::Ping, b"are you there"),
            Play::Close(code, reason) => {
                self.closing = true;
                send_close(line, CloseCode::new(code), &reason);
            }
            Play::Raw(bytes) => line.output.extend(bytes),
            Play::End(end) => line.end = Some(end),
            Play::Read(reads) => line.reads = reads,
        }
    }
}

impl Peer for Server {
    fn receive(&mut self, line: &mut Line<'_>, bytes: &[u8]) {
        let mut input = self.upgrade(line, bytes);
        let Some(decoder) = &mut self.decoder else {
            return;
        };
        loop {
            match decoder.decode(&mut input, &mut self.pool, &mut ()) {
                Ok(None) => return,
                Ok(Some(Event::Text(text))) => {
                    self.audience.message(line, OpCode::Text, text.as_bytes());
                }
                Ok(Some(Event::Binary(bytes))) => {
                    self.audience.message(line, OpCode::Binary, bytes);
                }
                Ok(Some(Event::Ping(payload))) => {
                    if self.answers_pings && !self.closing {
                        send(line, true, OpCode::Pong, payload);
                    }
                }
                Ok(Some(Event::Pong(_))) => self.audience.pong(line),
                Ok(Some(Event::Close(close))) => {
                    self.audience.close(line, close);
                    if !self.answers_close {
                        continue;
                    }
                    if !self.closing {
                        self.closing = true;
                        send_close(line, CloseCode::NORMAL, "");
                    }
                    line.end = Some(End::Finished);
                }
                Err(error) => {
                    let number = line.number;
                    line.log.violation(format!("client {number} sent: {error}"));
                    return;
                }
            }
        }
    }

    fn wake(&mut self, line: &mut Line<'_>) {
        if self.closing {
            return;
        }
        if let Some((_, play)) = self.script.pop_front() {
            self.play(line, play);
        }
        line.wake = self.script.front().map(|(delay, _)| *delay);
    }
}

fn send(line: &mut Line<'_>, fin: bool, opcode: OpCode, payload: &[u8]) {
    let mut frame = Buffer::new();
    encode(Role::Server, fin, opcode, payload, [0; 4], &mut frame);
    line.output.extend(frame.as_slice());
}

fn send_close(line: &mut Line<'_>, code: CloseCode, reason: &str) {
    let mut payload = [0; 125];
    let close = CloseFrame { code, reason };
    let length = close.encode(&mut payload).expect("a good Close frame");
    send(line, true, OpCode::Close, &payload[..length]);
}

/// What somebody waits for before he answers.
#[derive(Clone, Copy)]
pub(super) enum Until {
    Bytes(usize),
    BlankLine,
}

/// A proxy: waits, answers, and so on; once all is said, `behind` is the peer.
pub(super) struct Dialogue {
    pub(super) steps: VecDeque<(Until, &'static [u8])>,
    pub(super) behind: Option<Box<dyn Peer>>,
    received: Vec<u8>,
}

impl Dialogue {
    pub(super) fn new(
        steps: impl Into<VecDeque<(Until, &'static [u8])>>,
        behind: Option<Box<dyn Peer>>,
    ) -> Self {
        Self {
            steps: steps.into(),
            behind,
            received: Vec::new(),
        }
    }
}

impl Peer for Dialogue {
    fn receive(&mut self, line: &mut Line<'_>, bytes: &[u8]) {
        self.received.extend(bytes);
        while let Some((until, answer)) = self.steps.front() {
            let length = match until {
                Until::Bytes(length) => Some(*length),
                Until::BlankLine => {
                    let end = self
                        .received
                        .windows(4)
                        .position(|four| four == b"\r\n\r\n");
                    end.map(|end| end + 4)
                }
            };
            let Some(length) = length.filter(|length| *length <= self.received.len()) else {
                return;
            };
            tell_request(line.log, &self.received[..length]);
            line.output.extend(*answer);
            self.received.drain(..length);
            self.steps.pop_front();
        }
        let received = std::mem::take(&mut self.received);
        if let Some(peer) = &mut self.behind
            && !received.is_empty()
        {
            peer.receive(line, &received);
        }
    }

    fn wake(&mut self, line: &mut Line<'_>) {
        if let Some(peer) = &mut self.behind {
            peer.wake(line);
        }
    }
}

/// What a proxy was asked for: the first line of a text, all of anything else.
fn tell_request(log: &Log, request: &[u8]) {
    let request = match request.split(|byte| *byte == b'\r').next() {
        Some(line) if line.is_ascii() && line.starts_with(b"CONNECT") => {
            String::from_utf8_lossy(line).into_owned()
        }
        _ => format!("{request:x?}"),
    };
    log.tell(format!("proxy: {request}"));
}
