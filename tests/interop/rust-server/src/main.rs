//! Interop peer: the crate `fastwebsockets` on hyper. `../README.md` says what each path does.

use std::{
    collections::HashMap,
    error::Error,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, WebSocketError, upgrade};
use http_body_util::Empty;
use hyper::{
    Request, Response, StatusCode, body::Incoming, header::SEC_WEBSOCKET_PROTOCOL,
    server::conn::http1, service::service_fn, upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

type Socket = FragmentCollector<TokioIo<Upgraded>>;

const PING_PAYLOAD: &[u8] = b"interop";
const PONG_TIMEOUT: Duration = Duration::from_secs(5);
const PATHS: [&str; 7] = [
    "/echo",
    "/close",
    "/ping",
    "/fragments",
    "/subprotocol",
    "/big",
    "/drop",
];

/// What a connection asked for in its opening request.
struct Wish {
    path: String,
    query: HashMap<String, String>,
    subprotocol: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = parse_arguments()?;
    let port: u16 = options.get("--port").map_or(Ok(0), |port| port.parse())?;
    let tls = match (options.get("--cert"), options.get("--key")) {
        (Some(cert), Some(key)) => Some(tls_acceptor(cert, key)?),
        _ => None,
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening {}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let tls = tls.clone();
        tokio::spawn(async move {
            match tls {
                // A handshake that fails is the client's test's to judge.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(Flushing {
                            stream,
                            unflushed: false,
                        })
                        .await;
                    }
                }
                None => serve(stream).await,
            }
        });
    }
}

/// Flushes what was written. TLS keeps the end of it when the socket takes no more, and `fastwebsockets`
/// never asks for the rest: without this a large message now and then lacks its last record for ever.
struct Flushing<S> {
    stream: S,
    unflushed: bool,
}

impl<S: AsyncWrite + Unpin> Flushing<S> {
    /// What cannot leave now wakes the task when it can, whatever the task waits for by then.
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.unflushed
            && let Poll::Ready(result) = Pin::new(&mut self.stream).poll_flush(cx)
        {
            self.unflushed = false;
            return result;
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Flushing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.flush(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Flushing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes)?;
        self.unflushed = true;
        self.flush(cx)?;
        written.map(Ok)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Pairs of `--name value`.
fn parse_arguments() -> Result<HashMap<String, String>, String> {
    let mut options = HashMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if !["--port", "--cert", "--key"].contains(&name.as_str()) {
            return Err(format!("unknown option {name}"));
        }
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        options.insert(name, value);
    }
    Ok(options)
}

fn tls_acceptor(cert: &str, key: &str) -> Result<TlsAcceptor, Box<dyn Error>> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let connection = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(handle_request))
        .with_upgrades();
    // However the client ends the connection, judging it is the test's task.
    let _ = connection.await;
}

async fn handle_request(
    mut request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    if !PATHS.contains(&request.uri().path()) {
        let mut response = Response::new(Empty::new());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let wish = Wish::of(&request);
    let (mut response, upgraded) = upgrade::upgrade(&mut request)?;
    if let Some(name) = wish.subprotocol.as_ref().and_then(|name| name.parse().ok()) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    tokio::spawn(async move {
        let mut socket = FragmentCollector::new(upgraded.await?);
        wish.fulfil(&mut socket).await
    });
    Ok(response)
}

impl Wish {
    fn of(request: &Request<Incoming>) -> Self {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default();
        let query = query.split('&').filter_map(|pair| pair.split_once('='));
        let query = query.map(|(name, value)| (name.to_owned(), percent_decode(value)));
        let offered = request.headers().get(SEC_WEBSOCKET_PROTOCOL);
        let first = offered.and_then(|names| names.to_str().ok()?.split(',').next());
        let subprotocol = first
            .filter(|_| path == "/subprotocol")
            .map(|name| name.trim().into());
        Self {
            query: query.collect(),
            path,
            subprotocol,
        }
    }

    async fn fulfil(&self, socket: &mut Socket) -> Result<(), WebSocketError> {
        match self.path.as_str() {
            "/close" => return self.close(socket).await,
            "/drop" => return Ok(()),
            "/ping" => match tokio::time::timeout(PONG_TIMEOUT, ping(socket)).await {
                Ok(result) => result?,
                Err(_) => return socket.write_frame(Frame::close(1002, b"no pong")).await,
            },
            "/subprotocol" => {
                let name = self.subprotocol.as_deref().unwrap_or_default();
                socket.write_frame(text(name.into())).await?;
            }
            "/big" => socket.write_frame(text(self.big())).await?,
            _ => {}
        }
        while let Some((opcode, data)) = next_message(socket).await? {
            match self.path.as_str() {
                "/fragments" => send_in_fragments(socket, opcode, &data).await?,
                _ => {
                    socket
                        .write_frame(Frame::new(true, opcode, None, data.into()))
                        .await?
                }
            }
        }
        Ok(())
    }

    async fn close(&self, socket: &mut Socket) -> Result<(), WebSocketError> {
        let code = self
            .query
            .get("code")
            .and_then(|code| code.parse().ok())
            .unwrap_or(1000);
        let reason = self.query.get("reason").map_or("", String::as_str);
        socket
            .write_frame(Frame::close(code, reason.as_bytes()))
            .await?;
        // The closing handshake is done when the client's Close has come.
        while next_message(socket).await?.is_some() {}
        Ok(())
    }

    fn big(&self) -> Vec<u8> {
        let size = self
            .query
            .get("n")
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        (b'a'..=b'z').cycle().take(size).collect()
    }
}

fn percent_decode(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (byte, behind) = match (first, escaped) {
            (b'%', Some(byte)) => (byte, &tail[2..]),
            (b'+', _) => (b' ', tail),
            _ => (first, tail),
        };
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn text(data: Vec<u8>) -> Frame<'static> {
    Frame::text(Payload::Owned(data))
}

/// The next text or binary message; `None` when the client's Close has come (it is answered by
/// the library, as pings are).
async fn next_message(socket: &mut Socket) -> Result<Option<(OpCode, Vec<u8>)>, WebSocketError> {
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(None),
            OpCode::Text | OpCode::Binary => return Ok(Some((frame.opcode, frame.payload.into()))),
            OpCode::Ping | OpCode::Pong | OpCode::Continuation => {}
        }
    }
}

/// Pings, waits for the right pong, says so. Messages that come before the pong are echoed behind.
async fn ping(socket: &mut Socket) -> Result<(), WebSocketError> {
    let frame = Frame::new(true, OpCode::Ping, None, Payload::Borrowed(PING_PAYLOAD));
    socket.write_frame(frame).await?;
    let mut early = Vec::new();
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Pong if *frame.payload == *PING_PAYLOAD => break,
            OpCode::Close => return Err(WebSocketError::ConnectionClosed),
            OpCode::Text | OpCode::Binary => early.push((frame.opcode, Vec::from(frame.payload))),
            _ => {}
        }
    }
    socket.write_frame(text(b"pong received".into())).await?;
    for (opcode, data) in early {
        socket
            .write_frame(Frame::new(true, opcode, None, data.into()))
            .await?;
    }
    Ok(())
}

/// Sends quarters of the bytes: text is cut inside code points, too.
async fn send_in_fragments(
    socket: &mut Socket,
    opcode: OpCode,
    data: &[u8],
) -> Result<(), WebSocketError> {
    let size = data.len().div_ceil(4).max(1);
    // `chunks` of nothing yields nothing, but an empty message is one frame.
    let count = data.len().div_ceil(size).max(1);
    for index in 0..count {
        let piece = &data[index * size..data.len().min((index + 1) * size)];
        let opcode = if index == 0 {
            opcode
        } else {
            OpCode::Continuation
        };
        let frame = Frame::new(index + 1 == count, opcode, None, Payload::Borrowed(piece));
        socket.write_frame(frame).await?;
    }
    Ok(())
}
