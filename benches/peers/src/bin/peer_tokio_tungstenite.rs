//! tokio-tungstenite. It validates UTF-8, with the standard library; messages come as `Bytes`.

mod peer_shared {
    pub(crate) mod asynchronous;
    pub(crate) mod reports;
}

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use peer_shared::asynchronous::{Connection, Io, Peer, read_buffer_size, run};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use websockex_peers::{Arguments, Result};

struct TokioTungstenite;

impl Peer for TokioTungstenite {
    const CLIENT: &'static str = "tokio-tungstenite 0.30";
    type Connection<S: Io> = WebSocketStream<S>;

    async fn open<S: Io>(stream: S, arguments: &Arguments) -> Result<WebSocketStream<S>> {
        // Its read buffer is filled with zeroes before every read, so that more is not always better;
        // its documentation has 4 KiB for many connections, and no read gives more than a TLS record.
        let largest = if arguments.is_tls() {
            16 * 1024
        } else {
            usize::MAX
        };
        let read_buffer_size = read_buffer_size(arguments).min(largest);
        let config = WebSocketConfig::default().read_buffer_size(read_buffer_size);
        let url = arguments.url.as_str();
        let (connection, _) = client_async_with_config(url, stream, Some(config)).await?;
        Ok(connection)
    }
}

impl<S: Io> Connection for WebSocketStream<S> {
    type Payload = Bytes;

    async fn receive(&mut self) -> Result<Bytes> {
        loop {
            match self.next().await.ok_or("the connection has ended")?? {
                Message::Text(text) => return Ok(text.into()),
                Message::Binary(payload) => return Ok(payload),
                _ => {}
            }
        }
    }

    async fn feed(&mut self, payload: &Bytes, is_binary: bool) -> Result<()> {
        let payload = payload.clone();
        let message = match is_binary {
            true => Message::Binary(payload),
            // SAFETY: the payload was made from a `String`, or is the word that begins the sending.
            false => Message::Text(unsafe { Utf8Bytes::from_bytes_unchecked(payload) }),
        };
        Ok(SinkExt::feed(self, message).await?)
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(SinkExt::flush(self).await?)
    }
}

fn main() -> Result<()> {
    run::<TokioTungstenite>()
}
