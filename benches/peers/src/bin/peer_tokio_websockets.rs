//! tokio-websockets. It validates UTF-8, with simdutf8; messages come as `Bytes`. Its read buffer has
//! 8 KiB at first and cannot be set.
//!
//! It writes vectored, 32 messages at most at a time, a header and a payload each, so that it is given
//! a `BufWriter` where it has many to send.

mod peer_shared {
    pub(crate) mod asynchronous;
    pub(crate) mod reports;
}

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use peer_shared::asynchronous::{Connection, Io, Peer, run};
use tokio::io::BufWriter;
use tokio_websockets::{ClientBuilder, Config, Limits, Message, Payload, WebSocketStream};
use websockex_peers::{Arguments, Mode, Result};

/// Bytes that are collected before they are written.
const OUT_MAX: usize = 64 * 1024;

struct TokioWebsockets;

/// On the stream itself, or on a writer above it.
enum Open<S> {
    Direct(WebSocketStream<S>),
    Buffering(Box<WebSocketStream<BufWriter<S>>>),
}

impl Peer for TokioWebsockets {
    const CLIENT: &'static str = "tokio-websockets 0.13";
    type Connection<S: Io> = Open<S>;

    async fn open<S: Io>(stream: S, arguments: &Arguments) -> Result<Open<S>> {
        let builder = ClientBuilder::new()
            .uri(&arguments.url)?
            .limits(Limits::unlimited())
            .config(Config::default().flush_threshold(OUT_MAX));
        Ok(if arguments.mode == Mode::Send {
            let stream = BufWriter::with_capacity(OUT_MAX, stream);
            Open::Buffering(Box::new(builder.connect_on(stream).await?.0))
        } else {
            Open::Direct(builder.connect_on(stream).await?.0)
        })
    }
}

impl<S: Io> Connection for Open<S> {
    type Payload = Payload;

    async fn receive(&mut self) -> Result<Payload> {
        loop {
            let message = match self {
                Self::Direct(connection) => connection.next().await,
                Self::Buffering(connection) => connection.next().await,
            };
            let message = message.ok_or("the connection has ended")??;
            if message.is_text() || message.is_binary() {
                return Ok(message.into_payload());
            }
        }
    }

    async fn feed(&mut self, payload: &Bytes, is_binary: bool) -> Result<()> {
        let payload = payload.clone();
        let message = match is_binary {
            true => Message::binary(payload),
            false => Message::text(payload),
        };
        match self {
            Self::Direct(connection) => connection.feed(message).await?,
            Self::Buffering(connection) => connection.feed(message).await?,
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        match self {
            Self::Direct(connection) => connection.flush().await?,
            Self::Buffering(connection) => connection.flush().await?,
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    run::<TokioWebsockets>()
}
