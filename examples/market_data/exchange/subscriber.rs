//! One subscriber, from the opening handshake to the closing one.
//!
//! Bytes come from the [`Transport`], go through the upgrade and then through the crate's frame
//! decoder in the server's role; answers are written at once. Which streams exist, and who gets
//! their messages, the server knows.

use super::format::{FIRST_SEQUENCE, Subscribe};
use super::transport::Transport;
use std::io::{self, ErrorKind};
use websockex::protocol::Role;
use websockex::protocol::buffer::Buffer;
use websockex::protocol::close::{CloseCode, CloseFrame};
use websockex::protocol::decoder::{Decoder, Event, Limits, Pool};
use websockex::protocol::encoder::encode;
use websockex::protocol::frame::OpCode;
use websockex::protocol::handshake::{Answer, HandshakeLimits, ServerHandshake, write_rejection};

/// Requests are short; a subscriber that sends more than this at once is refused, in bytes.
const MAX_REQUEST: u64 = 64 * 1024;
/// A server does not mask.
const NO_MASK: [u8; 4] = [0; 4];

pub(crate) struct Subscriber {
    transport: Transport,
    stage: Stage,
    subscriptions: Subscriptions,
}

/// What one subscriber listens to, in the order in which it asked.
#[derive(Default)]
struct Subscriptions {
    streams: Vec<usize>,
    /// The next sequence number of each.
    sequences: Vec<u64>,
}

enum Stage {
    Upgrade(Box<ServerHandshake>),
    Open(Box<Decoder>),
    /// A Close frame was sent; nothing but the end is waited for.
    Closing,
    /// All was sent, and our side of the connection is shut.
    Finished,
}

/// What the subscribers share: storage that one after the other uses.
pub(crate) struct Scratch {
    received: Box<[u8]>,
    pool: Pool,
    answers: Buffer,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            received: vec![0; 64 * 1024].into_boxed_slice(),
            pool: Pool::default(),
            answers: Buffer::new(),
        }
    }
}

/// Finds streams by name, and is told about new listeners.
pub(crate) trait Directory {
    /// The number of the stream called `name`.
    fn find(&self, name: &str) -> Option<usize>;
    /// The subscriber listens to `stream` from now on, as its subscription number `position`.
    fn join(&mut self, stream: usize, position: usize);
}

impl Subscriber {
    pub(crate) fn new(transport: Transport) -> Self {
        Self {
            transport,
            stage: Stage::Upgrade(Box::new(ServerHandshake::new(HandshakeLimits::default()))),
            subscriptions: Subscriptions::default(),
        }
    }

    pub(crate) fn transport(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// The streams it listens to.
    pub(crate) fn streams(&self) -> &[usize] {
        &self.subscriptions.streams
    }

    /// Takes `count` sequence numbers of the subscription at `position` and returns the first.
    pub(crate) fn take_sequence(&mut self, position: usize, count: u64) -> u64 {
        let next = &mut self.subscriptions.sequences[position];
        let first = *next;
        *next += count;
        first
    }

    /// Is it neither before the opening handshake nor behind a Close frame?
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// The socket is ready for something: sends what waits, and takes all that has arrived.
    ///
    /// # Errors
    /// Whatever ends this connection and no other; [`ErrorKind::UnexpectedEof`] if it was its end.
    pub(crate) fn handle_ready(
        &mut self,
        scratch: &mut Scratch,
        directory: &mut impl Directory,
    ) -> io::Result<()> {
        self.transport.flush()?;
        loop {
            let length = match self.transport.read(&mut scratch.received) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let Scratch {
                received,
                pool,
                answers,
            } = scratch;
            answers.clear();
            self.handle_bytes(&received[..length], pool, answers, directory)?;
            self.transport.write(answers.as_slice())?;
        }
        if matches!(self.stage, Stage::Closing) && !self.transport.is_congested() {
            self.stage = Stage::Finished;
            self.transport.finish()?;
        }
        Ok(())
    }

    /// Takes what belongs to the request to upgrade and returns its length.
    fn handle_upgrade(&mut self, bytes: &[u8], answers: &mut Buffer) -> io::Result<usize> {
        let Stage::Upgrade(handshake) = &mut self.stage else {
            return Ok(0);
        };
        let mut answer = Vec::new();
        let consumed = match handshake.receive(bytes) {
            Ok(received) => {
                if let Some(request) = received.request {
                    request
                        .write_response(&Answer::default(), &mut answer)
                        .map_err(io::Error::other)?;
                    let limits = Limits {
                        max_frame: MAX_REQUEST,
                        max_message: MAX_REQUEST,
                    };
                    self.stage = Stage::Open(Box::new(Decoder::new(Role::Server, limits)));
                }
                received.consumed
            }
            Err(error) => {
                let body = error.to_string();
                write_rejection(400, "Bad Request", &[], body.as_bytes(), &mut answer)
                    .map_err(io::Error::other)?;
                self.stage = Stage::Closing;
                bytes.len()
            }
        };
        answers.extend(&answer);
        Ok(consumed)
    }

    fn handle_bytes(
        &mut self,
        mut bytes: &[u8],
        pool: &mut Pool,
        answers: &mut Buffer,
        directory: &mut impl Directory,
    ) -> io::Result<()> {
        if matches!(self.stage, Stage::Upgrade(_)) {
            let consumed = self.handle_upgrade(bytes, answers)?;
            bytes = &bytes[consumed..];
        }
        let Stage::Open(decoder) = &mut self.stage else {
            return Ok(());
        };
        loop {
            match decoder.decode(&mut bytes, pool, &mut ()) {
                Ok(None) => return Ok(()),
                Ok(Some(Event::Text(text))) => {
                    self.subscriptions.handle_request(text, answers, directory);
                }
                Ok(Some(Event::Ping(payload))) => answer(OpCode::Pong, payload, answers),
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Binary(_))) => {
                    close(CloseCode::UNSUPPORTED, answers);
                    break;
                }
                // RFC 6455 §5.5.1: "When sending a Close frame in response, the endpoint typically
                // echos the status code it received."
                Ok(Some(Event::Close(Some(frame)))) => {
                    close(frame.code, answers);
                    break;
                }
                Ok(Some(Event::Close(None))) => {
                    answer(OpCode::Close, &[], answers);
                    break;
                }
                Err(error) => {
                    close(error.close_code(), answers);
                    break;
                }
            }
        }
        self.stage = Stage::Closing;
        Ok(())
    }
}

impl Subscriptions {
    /// Answers a request as the venue does: with its number, and with a null result or an error.
    fn handle_request(&mut self, text: &str, answers: &mut Buffer, directory: &mut impl Directory) {
        let Some(request) = Subscribe::parse(text) else {
            let refusal = br#"{"error":{"code":2,"msg":"Invalid request"},"id":null}"#;
            return answer(OpCode::Text, refusal, answers);
        };
        let id = request.id;
        let numbers: Option<Vec<usize>> = request
            .streams
            .iter()
            .map(|name| directory.find(name))
            .collect();
        let reply = if let Some(numbers) = numbers {
            for stream in numbers {
                // A second subscription to the same stream changes nothing.
                if !self.streams.contains(&stream) {
                    directory.join(stream, self.streams.len());
                    self.streams.push(stream);
                    self.sequences.push(FIRST_SEQUENCE);
                }
            }
            format!(r#"{{"result":null,"id":{id}}}"#)
        } else {
            format!(r#"{{"error":{{"code":-1121,"msg":"Invalid symbol."}},"id":{id}}}"#)
        };
        answer(OpCode::Text, reply.as_bytes(), answers);
    }
}

fn answer(opcode: OpCode, payload: &[u8], answers: &mut Buffer) {
    encode(Role::Server, true, opcode, payload, NO_MASK, answers);
}

fn close(code: CloseCode, answers: &mut Buffer) {
    let mut payload = [0; 125];
    let frame = CloseFrame { code, reason: "" };
    // A received code was checked by the decoder and ours are constants, so this cannot fail; an
    // empty Close frame would still be right.
    let length = frame.encode(&mut payload).unwrap_or(0);
    answer(OpCode::Close, &payload[..length], answers);
}
