//! tokio-websockets. It validates UTF-8, with simdutf8; messages come as `Bytes`. Its read buffer has
//! 8 KiB at first and cannot be set.

mod peer_shared {
    pub(crate) mod asynchronous;
    pub(crate) mod reports;
}

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use peer_shared::asynchronous::{Connection, Io, Peer, run};
use tokio_websockets::{ClientBuilder, Config, Limits, Message, Payload, WebSocketStream};
use websockex_peers::{Arguments, Result};

struct TokioWebsockets;

impl Peer for TokioWebsockets {
    const CLIENT: &'static str = "tokio-websockets 0.13";
    type Connection<S: Io> = WebSocketStream<S>;

    async fn open<S: Io>(stream: S, arguments: &Arguments) -> Result<WebSocketStream<S>> {
        let (connection, _) = ClientBuilder::new()
            .uri(&arguments.url)?
            .limits(Limits::unlimited())
            .config(Config::default().flush_threshold(64 * 1024))
            .connect_on(stream)
            .await?;
        Ok(connection)
    }
}

impl<S: Io> Connection for WebSocketStream<S> {
    type Payload = Payload;

    async fn receive(&mut self) -> Result<Payload> {
        loop {
            let message = self.next().await.ok_or("the connection has ended")??;
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
        Ok(SinkExt::feed(self, message).await?)
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(SinkExt::flush(self).await?)
    }
}

fn main() -> Result<()> {
    run::<TokioWebsockets>()
}
