//! What the tests of permessage-deflate share: a server that does exactly as it is told, a client
//! that writes down what it is told, and DEFLATE payloads.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use websockex::protocol::frame::{FrameHeader, OpCode};
use websockex::protocol::handshake::{Answer, HandshakeLimits, ServerHandshake, UpgradeRequest};
use websockex::protocol::mask;
use websockex::{
    Compression, Context, Deflate, Disconnect, Error, Handler, HandlerResult, Limits, Message,
    Open, OwnedMessage, ProtocolError, Reactor, Reconnect, ReconnectPolicy, Request,
};
use zlib_rs::{DeflateFlush, Inflate, InflateFlush, Status};

/// The longest time one test may take: a slow machine passes, a hang fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// What a sender takes off the end of a message (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Opcodes with FIN and RSV1 as they stand in the first byte of a frame (RFC 6455 §5.2).
pub(crate) const FIN: u8 = 0x80;
pub(crate) const RSV1: u8 = 0x40;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;

/// An unmasked frame with any first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => bytes.push(length),
        (_, Ok(length)) => {
            bytes.push(126);
            bytes.extend(length.to_be_bytes());
        }
        _ => {
            bytes.push(127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// Close with 1000.
pub(crate) fn close() -> Vec<u8> {
    vec![0x88, 2, 0x03, 0xe8]
}

/// Compresses messages, as a server does.
pub(crate) struct Sender {
    stream: zlib_rs::Deflate,
    takeover: bool,
}

impl Sender {
    pub(crate) fn new(bits: u8, takeover: bool) -> Self {
        Self {
            stream: zlib_rs::Deflate::new(6, false, bits),
            takeover,
        }
    }

    /// The payload of a message.
    pub(crate) fn payload(&mut self, message: &[u8]) -> Vec<u8> {
        if !self.takeover {
            self.stream.reset();
        }
        let mut out = vec![0; message.len() * 2 + 100];
        let before = self.stream.total_out();
        let status = self
            .stream
            .compress(message, &mut out, DeflateFlush::SyncFlush);
        assert_eq!(status, Ok(Status::Ok));
        out.truncate(usize::try_from(self.stream.total_out() - before).unwrap());
        out.strip_suffix(&TAIL).unwrap().to_vec()
    }

    /// A compressed text message in one frame.
    pub(crate) fn text(&mut self, message: &str) -> Vec<u8> {
        frame(FIN | RSV1 | TEXT, &self.payload(message.as_bytes()))
    }
}

/// Inflates one message by itself, with a window of so many bits.
pub(crate) fn inflate(bits: u8, payload: &[u8]) -> Result<Vec<u8>, zlib_rs::InflateError> {
    let mut stream = Inflate::new(false, bits);
    let input = [payload, &TAIL].concat();
    let mut out = vec![0; 1 << 20];
    stream.decompress(&input, &mut out, InflateFlush::SyncFlush)?;
    out.truncate(usize::try_from(stream.total_out()).unwrap());
    Ok(out)
}

/// `size` bytes that do not compress.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let byte = |_| {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..size).map(byte).collect()
}

/// A frame that the client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) opcode: OpCode,
    pub(crate) compressed: bool,
    pub(crate) payload: Vec<u8>,
}

/// What the server saw of one connection.
#[derive(Default)]
pub(crate) struct Seen {
    /// `Sec-WebSocket-Extensions` of the request.
    pub(crate) offer: Option<String>,
    /// Up to and with the Close frame, or the end of the stream.
    pub(crate) frames: Vec<Sent>,
}

impl Seen {
    /// The code of the Close frame.
    pub(crate) fn close_code(&self) -> Option<u16> {
        let close = self.frames.iter().find(|f| f.opcode == OpCode::Close)?;
        let code = close.payload.first_chunk()?;
        Some(u16::from_be_bytes(*code))
    }
}

/// A server for one connection: answers the offer with `answer`, writes the pieces one by one, and
/// reads until the client closes.
pub(crate) fn serve(answer: Option<&str>, pieces: Vec<Vec<u8>>) -> (SocketAddr, JoinHandle<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = answer.map(str::to_owned);
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        Server::new(stream, answer.as_deref()).run(&pieces)
    });
    (address, thread)
}

/// One accepted connection.
pub(crate) struct Server {
    stream: TcpStream,
    received: Vec<u8>,
    seen: Seen,
}

impl Server {
    pub(crate) fn new(stream: TcpStream, answer: Option<&str>) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let mut server = Self {
            stream,
            received: Vec::new(),
            seen: Seen::default(),
        };
        let request = server.request();
        server.seen.offer = request.extensions().next().map(str::to_owned);
        let mut head = Vec::new();
        request
            .write_response(&Answer::default(), &mut head)
            .unwrap();
        if let Some(answer) = answer {
            // By hand, because `write_response` writes no malformed ones.
            head.truncate(head.len() - 2);
            write!(head, "Sec-WebSocket-Extensions: {answer}\r\n\r\n").unwrap();
        }
        server.stream.write_all(&head).unwrap();
        server
    }

    fn request(&mut self) -> UpgradeRequest {
        let mut handshake = ServerHandshake::new(HandshakeLimits::default());
        let mut buffer = [0; 4096];
        loop {
            let length = self.stream.read(&mut buffer).unwrap();
            assert!(length > 0, "no request");
            let received = handshake.receive(&buffer[..length]).unwrap();
            if let Some(request) = received.request {
                self.received.extend(&buffer[received.consumed..length]);
                return request;
            }
        }
    }

    /// Writes; false when the client is gone.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    fn run(mut self, pieces: &[Vec<u8>]) -> Seen {
        // A client that has failed the connection takes no more; its Close frame was sent before.
        let _ = pieces.iter().all(|piece| self.write(piece));
        self.read_to_close()
    }

    /// Reads frames until the client's Close, or the end.
    pub(crate) fn read_to_close(mut self) -> Seen {
        let mut buffer = [0; 65536];
        loop {
            if self.take_frames() {
                let _ = self.stream.shutdown(Shutdown::Both);
                return self.seen;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return self.seen,
                Ok(length) => self.received.extend(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return self.seen,
                Err(error) => panic!("the client neither closes nor ends: {error}"),
            }
        }
    }

    /// True when a Close frame was among them.
    fn take_frames(&mut self) -> bool {
        while let Some((header, start)) = FrameHeader::parse(&self.received).unwrap() {
            let end = start + usize::try_from(header.payload_length).unwrap();
            if self.received.len() < end {
                return false;
            }
            let mut payload = self.received[start..end].to_vec();
            mask::apply(&mut payload, header.mask.expect("clients mask"));
            self.received.drain(..end);
            self.seen.frames.push(Sent {
                opcode: header.opcode,
                compressed: header.rsv1,
                payload,
            });
            if header.opcode == OpCode::Close {
                return true;
            }
        }
        false
    }
}

/// What the client was told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) opened: bool,
    pub(crate) messages: Vec<OwnedMessage>,
    /// The protocol error that ended the connection.
    pub(crate) error: Option<ProtocolError>,
    /// Any other error, in words.
    pub(crate) failure: Option<Error>,
    pub(crate) clean: bool,
}

impl Told {
    /// Text messages; none was of the other kind.
    pub(crate) fn texts(&self) -> Vec<&str> {
        fn text(message: &OwnedMessage) -> &str {
            match message {
                OwnedMessage::Text(text) => text,
                OwnedMessage::Binary(_) => panic!("a binary message"),
            }
        }
        self.messages.iter().map(text).collect()
    }
}

/// Sends what it was given when the connection opens, and writes down the rest.
pub(crate) struct Recorder {
    pub(crate) told: Rc<RefCell<Told>>,
    pub(crate) to_send: Vec<(OwnedMessage, Compression)>,
}

impl Handler for Recorder {
    fn on_open(&mut self, cx: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
        self.told.borrow_mut().opened = true;
        for (message, compression) in &self.to_send {
            let message = match message {
                OwnedMessage::Text(text) => Message::Text(text),
                OwnedMessage::Binary(bytes) => Message::Binary(bytes),
            };
            cx.send_with(message, *compression)?;
        }
        Ok(())
    }

    fn on_message(&mut self, _: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        self.told.borrow_mut().messages.push(match message {
            Message::Text(text) => text.into(),
            Message::Binary(bytes) => bytes.into(),
        });
        Ok(())
    }

    fn on_disconnect(&mut self, _: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        use websockex::DisconnectReason::{ConnectFailed, Failed};
        let mut told = self.told.borrow_mut();
        told.clean = disconnect.clean;
        match disconnect.reason {
            Failed(Error::Protocol(error)) => told.error = Some(*error),
            ConnectFailed(Error::Handshake(error)) => {
                told.failure = Some(Error::Handshake(error.clone()));
            }
            ConnectFailed(error) | Failed(error) => panic!("{error}"),
            _ => {}
        }
        Reconnect::Never
    }
}

/// One connection between a [`Recorder`] and a [`serve`]r, from beginning to end.
pub(crate) struct Exchange {
    pub(crate) offer: Option<Deflate>,
    pub(crate) answer: Option<&'static str>,
    /// What the server sends, write by write.
    pub(crate) pieces: Vec<Vec<u8>>,
    /// What the client sends.
    pub(crate) to_send: Vec<(OwnedMessage, Compression)>,
    pub(crate) limits: Limits,
}

impl Default for Exchange {
    /// The plain offer and the plain answer.
    fn default() -> Self {
        Self {
            offer: Some(Deflate::new()),
            answer: Some("permessage-deflate"),
            pieces: vec![close()],
            to_send: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl Exchange {
    pub(crate) fn run(self) -> (Told, Seen) {
        let (address, server) = serve(self.answer, self.pieces);
        let told = Rc::new(RefCell::new(Told::default()));
        let handler = Recorder {
            told: Rc::clone(&told),
            to_send: self.to_send,
        };
        let mut reactor = Reactor::new().unwrap();
        let request = request(address, self.offer).limits(self.limits);
        reactor.connect(request, handler).unwrap();
        run(&mut reactor);
        drop(reactor);
        let seen = server.join().unwrap();
        (Rc::into_inner(told).unwrap().into_inner(), seen)
    }
}

pub(crate) fn request(address: SocketAddr, offer: Option<Deflate>) -> Request {
    let request = Request::new(format!("ws://{address}/")).unwrap();
    let request = request.reconnect(ReconnectPolicy::never());
    match offer {
        Some(offer) => request.deflate(offer),
        None => request,
    }
}

pub(crate) fn run(reactor: &mut Reactor) {
    let started = Instant::now();
    while reactor.connections() > 0 {
        let left = DEADLINE.checked_sub(started.elapsed());
        assert!(left.is_some(), "not done in {DEADLINE:?}");
        reactor.turn(left).unwrap();
    }
}
