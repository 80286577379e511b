//! fastwebsockets. It validates UTF-8: whole frames with simdutf8, fragments with another crate. Its
//! read buffer has 8 KiB at first and cannot be set; for a larger message it makes room for that one
//! alone, so that it is given a `BufReader` for one busy connection.
//!
//! It shakes hands with hyper and would go on through hyper's stream, which is a trait object; here it
//! gets its own stream back. It writes each frame by itself, so that it is given a `BufWriter` where
//! several are to leave together, and it masks in place, so that it is given a buffer to do it in.

mod peer_shared {
    pub(crate) mod asynchronous;
    pub(crate) mod reports;
}

use bytes::Bytes;
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, Role, WebSocket, handshake};
use http_body_util::Empty;
use hyper::Request;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper_util::rt::TokioIo;
use peer_shared::asynchronous::{Connection, Io, Peer, run};
use std::future::Future;
use std::ops::Deref;
use tokio::io::BufWriter;
use websockex_peers::{Arguments, Mode, Result};

struct FastWebsockets;

/// Only its collector of fragments delivers messages, but has no flush; only the other one has.
enum Socket<S> {
    Collecting(FragmentCollector<S>),
    Buffering(WebSocket<BufWriter<S>>),
}

struct Open<S> {
    socket: Socket<S>,
    scratch: Vec<u8>,
}

impl Peer for FastWebsockets {
    const CLIENT: &'static str = "fastwebsockets 0.10";
    const WANTS_READER: bool = true;
    type Connection<S: Io> = Open<S>;

    async fn open<S: Io>(stream: S, arguments: &Arguments) -> Result<Open<S>> {
        let request = Request::builder()
            .uri(arguments.path())
            .header(HOST, arguments.authority())
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "upgrade")
            .header("Sec-WebSocket-Key", handshake::generate_key())
            .header("Sec-WebSocket-Version", "13")
            .body(Empty::<Bytes>::new())?;
        let (upgraded, _) = handshake::client(&Spawn, request, stream).await?;
        let upgraded = upgraded.into_inner().into_inner();
        let parts = upgraded
            .downcast::<TokioIo<S>>()
            .map_err(|_| "hyper has another stream than it was given")?;
        if !parts.read_buf.is_empty() {
            return Err("the server has sent something before it was asked".into());
        }
        let stream = parts.io.into_inner();
        let socket = if arguments.mode == Mode::Send && arguments.batch > 1 {
            let stream = BufWriter::with_capacity(64 * 1024, stream);
            Socket::Buffering(WebSocket::after_handshake(stream, Role::Client))
        } else {
            let socket = WebSocket::after_handshake(stream, Role::Client);
            Socket::Collecting(FragmentCollector::new(socket))
        };
        Ok(Open {
            socket,
            scratch: Vec::new(),
        })
    }
}

struct Spawn;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

/// Its payload, to which `Deref` leads all programs alike.
struct Message(Payload<'static>);

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<S: Io> Connection for Open<S> {
    type Payload = Message;

    async fn receive(&mut self) -> Result<Message> {
        loop {
            let frame: Frame<'static> = match &mut self.socket {
                Socket::Collecting(socket) => socket.read_frame().await?,
                Socket::Buffering(socket) => socket.read_frame().await?,
            };
            if matches!(frame.opcode, OpCode::Text | OpCode::Binary) {
                return Ok(Message(frame.payload));
            }
            if frame.opcode == OpCode::Close {
                return Err("the server has closed the connection".into());
            }
        }
    }

    async fn feed(&mut self, payload: &Bytes, is_binary: bool) -> Result<()> {
        let opcode = if is_binary {
            OpCode::Binary
        } else {
            OpCode::Text
        };
        self.scratch.clear();
        self.scratch.extend_from_slice(payload);
        let frame = Frame::new(true, opcode, None, Payload::BorrowedMut(&mut self.scratch));
        match &mut self.socket {
            Socket::Collecting(socket) => socket.write_frame(frame).await?,
            Socket::Buffering(socket) => socket.write_frame(frame).await?,
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        if let Socket::Buffering(socket) = &mut self.socket {
            socket.flush().await?;
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    run::<FastWebsockets>()
}
