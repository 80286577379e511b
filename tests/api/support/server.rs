//! Servers: a listener that runs a script for each connection on a thread of its own, and the peer
//! that scripts are written with, which does whatever bytes can do.

use super::PATIENCE;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use websockex::protocol::frame::FrameHeader;
use websockex::protocol::handshake::{
    Answer, HandshakeLimits, ServerHandshake, UpgradeRequest, write_rejection,
};
use websockex::{ReconnectPolicy, Request};

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
use super::pki;

/// What lies between the client and the server's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Plain,
    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    Tls,
}

impl Transport {
    pub(crate) const ALL: &'static [Self] = &[
        Self::Plain,
        #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
        Self::Tls,
    ];

    fn scheme(self) -> &'static str {
        match self {
            Self::Plain => "ws",
            #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
            Self::Tls => "wss",
        }
    }
}

/// A listener on loopback. A script that panics fails the test that owns it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    transport: Transport,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Runs `script` for each connection, with its number from 0.
    pub(crate) fn start(
        transport: Transport,
        script: impl Fn(usize, Peer) + Send + Sync + 'static,
    ) -> Self {
        Self::start_raw(transport, move |number, stream| {
            script(number, Peer::new(transport, stream));
        })
    }

    /// Likewise, for scripts that want the bare socket.
    pub(crate) fn start_raw(
        transport: Transport,
        script: impl Fn(usize, TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        Self::on(listener, transport, script)
    }

    /// Likewise, on a listener that is there already.
    pub(crate) fn on(
        listener: TcpListener,
        transport: Transport,
        script: impl Fn(usize, TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let script = Arc::new(script);
        let thread = thread::spawn(move || {
            let mut scripts = Vec::new();
            loop {
                let (stream, _) = listener.accept().expect("a connection");
                if stop.load(Ordering::Acquire) {
                    break;
                }
                let (script, number) = (Arc::clone(&script), scripts.len());
                scripts.push(thread::spawn(move || script(number, stream)));
            }
            drop(listener);
            for script in scripts {
                if let Err(panic) = script.join() {
                    resume_unwind(panic);
                }
            }
        });
        Self {
            address,
            transport,
            stopping,
            thread: Some(thread),
        }
    }

    /// Sends back every message, with the server that tungstenite is.
    pub(crate) fn echo(transport: Transport) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        Self::echo_on(listener, transport)
    }

    /// Likewise, on a listener that is there already.
    pub(crate) fn echo_on(listener: TcpListener, transport: Transport) -> Self {
        Self::on(listener, transport, move |_, stream| {
            let peer = Peer::new(transport, stream);
            let config = tungstenite::protocol::WebSocketConfig::default()
                .max_frame_size(None)
                .max_message_size(None);
            let mut socket = tungstenite::accept_with_config(peer.into_stream(), Some(config))
                .expect("a handshake");
            loop {
                match socket.read() {
                    Ok(
                        message @ (tungstenite::Message::Text(_) | tungstenite::Message::Binary(_)),
                    ) => {
                        socket.send(message).expect("an echo");
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        })
    }

    pub(crate) fn url(&self) -> String {
        let scheme = self.transport.scheme();
        match self.transport {
            Transport::Plain => format!("{scheme}://{}/feed", self.address),
            #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
            Transport::Tls => format!("{scheme}://localhost:{}/feed", self.address.port()),
        }
    }

    /// A request that trusts the server, never reconnects, and does not wait for silent peers as
    /// long as a real one would.
    pub(crate) fn request(&self) -> Request {
        trusting(Request::new(self.url()).expect("a URL"))
    }
}

/// Makes a request that trusts the test's certificate authority and never reconnects.
pub(crate) fn trusting(request: Request) -> Request {
    let request = request.reconnect(ReconnectPolicy::never());
    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    let request = request.tls(pki::client_config());
    request
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Wakes the thread; when it is dead already, nobody needs waking.
        let _ = TcpStream::connect(self.address);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

/// A frame as the peer sends it, unmasked, whatever sense it makes. The first byte is given whole,
/// with FIN and the reserved bits.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..126), _) => bytes.push(length),
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

/// Payload of a Close frame.
pub(crate) fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.as_bytes());
    payload
}

/// A frame as the client sent it, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) enum Stream {
    Plain(TcpStream),
    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    Tls(Box<rustls::StreamOwned<rustls::ServerConnection, TcpStream>>),
}

impl Stream {
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// The server's end of one connection.
pub(crate) struct Peer {
    stream: Stream,
    input: Vec<u8>,
}

impl Peer {
    pub(crate) fn new(transport: Transport, stream: TcpStream) -> Self {
        match transport {
            Transport::Plain => Self::over(Stream::Plain(stream)),
            #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
            Transport::Tls => Self::over(pki::accept(stream, pki::server_config())),
        }
    }

    pub(crate) fn over(stream: Stream) -> Self {
        stream.tcp().set_nodelay(true).expect("a socket");
        stream
            .tcp()
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket");
        stream
            .tcp()
            .set_write_timeout(Some(PATIENCE))
            .expect("a socket");
        Self {
            stream,
            input: Vec::new(),
        }
    }

    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        self.stream.tcp()
    }

    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    pub(crate) fn stream_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    // ---- the opening handshake ----

    pub(crate) fn read_request(&mut self) -> UpgradeRequest {
        let mut handshake = ServerHandshake::new(HandshakeLimits::default());
        loop {
            assert!(self.fill(), "the stream ended before the request did");
            let received = handshake.receive(&self.input).expect("a proper request");
            self.input.drain(..received.consumed);
            if let Some(request) = received.request {
                return request;
            }
        }
    }

    /// Answers the request with 101.
    pub(crate) fn accept(&mut self) -> UpgradeRequest {
        self.accept_and_send(&[])
    }

    /// Likewise, with frames right behind it in the same segment.
    pub(crate) fn accept_and_send(&mut self, frames: &[u8]) -> UpgradeRequest {
        let request = self.read_request();
        let mut answer = answer(&request);
        answer.extend(frames);
        self.write(&answer);
        request
    }

    pub(crate) fn reject(&mut self, status: u16, headers: &[(String, String)], body: &[u8]) {
        self.read_request();
        let mut answer = Vec::new();
        write_rejection(status, "No", headers, body, &mut answer).expect("a proper answer");
        // The client does not wait for the end of a long body.
        let _ = self.try_write(&answer);
    }

    // ---- frames ----

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).expect("the client takes it");
    }

    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.write(&frame(0x81, text.as_bytes()));
    }

    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        self.write(&frame(0x88, &close_payload(code, reason)));
    }

    /// The next frame; `None` when the stream has ended, in whichever way.
    pub(crate) fn read_frame(&mut self) -> Option<Received> {
        loop {
            if let Some((header, length)) = FrameHeader::parse(&self.input).expect("a frame") {
                let end = length + usize::try_from(header.payload_length).expect("it fits");
                if self.input.len() >= end {
                    let key = header.mask.expect("clients mask");
                    let payload = self.input[length..end].iter().zip(key.iter().cycle());
                    let payload = payload.map(|(byte, key)| byte ^ key).collect();
                    self.input.drain(..end);
                    return Some(Received {
                        fin: header.fin,
                        opcode: header.opcode as u8,
                        payload,
                    });
                }
            }
            if !self.fill() {
                assert!(self.input.is_empty(), "the stream ended inside a frame");
                return None;
            }
        }
    }

    /// The next frame is this whole one.
    #[track_caller]
    pub(crate) fn expect(&mut self, opcode: u8, payload: &[u8]) {
        let expected = Received {
            fin: true,
            opcode,
            payload: payload.to_vec(),
        };
        assert_eq!(self.read_frame(), Some(expected));
    }

    #[track_caller]
    pub(crate) fn expect_text(&mut self, text: &str) {
        self.expect(1, text.as_bytes());
    }

    /// The next frame is a Close with this code, whatever the reason.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16) {
        let frame = self.read_frame().expect("a Close frame");
        assert_eq!(
            (frame.opcode, frame.payload.get(..2)),
            (8, Some(&code.to_be_bytes()[..])),
            "{frame:?}"
        );
    }

    /// Nothing more comes, and the stream ends.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.read_frame(), None);
    }

    /// Reads frames until there are no more.
    pub(crate) fn drain(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.read_frame()).collect()
    }

    /// Answers the client's Close and ends the connection, as a good server does.
    #[track_caller]
    pub(crate) fn answer_close(&mut self, code: u16) {
        self.expect_close(code);
        self.close(code, "");
        self.end();
    }

    /// Ends this side of the TCP connection, without a word in TLS.
    pub(crate) fn end(&mut self) {
        // The client may have ended it first.
        let _ = self.tcp().shutdown(Shutdown::Write);
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(self.stream.tcp());
        socket.set_linger(Some(Duration::ZERO)).expect("a socket");
    }

    /// More input; false when the stream has ended.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(length) => {
                    self.input.extend(&chunk[..length]);
                    return true;
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::UnexpectedEof
                    | ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::BrokenPipe => return false,
                    _ => panic!("the client said nothing: {error}"),
                },
            }
        }
    }
}

/// The 101 that answers `request`.
pub(crate) fn answer(request: &UpgradeRequest) -> Vec<u8> {
    let mut answer = Vec::new();
    request
        .write_response(&Answer::default(), &mut answer)
        .expect("a proper answer");
    answer
}
