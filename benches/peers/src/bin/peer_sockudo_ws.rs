//! sockudo-ws. It validates UTF-8, with simdutf8; messages come as `Bytes`. Its read buffer has 64 KiB
//! for each connection and cannot be set. Its HTTP/1.1 client does not offer permessage-deflate, so
//! that for deflate the handshake is made of its parts.

mod peer_shared {
    pub(crate) mod asynchronous;
    pub(crate) mod reports;
}

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use peer_shared::asynchronous::{Connection, Io, Peer, run};
use sockudo_ws::client::WebSocketClient;
use sockudo_ws::deflate::{DeflateConfig, parse_deflate_offer};
use sockudo_ws::handshake::{build_request, generate_key, parse_response, validate_accept_key};
use sockudo_ws::{
    CompressedWebSocketStream, Config, DeflateWindowBits, Http1, Message, WebSocketStream,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use websockex_peers::{Arguments, Result};

struct SockudoWs;

/// It has a type of its own for connections with permessage-deflate.
enum Open<S> {
    Plain(WebSocketStream<S>),
    Deflate(CompressedWebSocketStream<S>),
}

impl Peer for SockudoWs {
    const CLIENT: &'static str = "sockudo-ws 3.1";
    const HAS_DEFLATE: bool = true;
    type Connection<S: Io> = Open<S>;

    async fn open<S: Io>(stream: S, arguments: &Arguments) -> Result<Open<S>> {
        // No pings and no deadlines: neither has anybody else here.
        let config = Config::builder()
            .auto_ping(false)
            .idle_timeout(0)
            .max_payload_length(64 * 1024 * 1024)
            .write_buffer_size(64 * 1024)
            .build();
        if arguments.deflate {
            return open_deflate(stream, arguments, config).await;
        }
        let client = WebSocketClient::<Http1>::new(config);
        let (host, path) = (arguments.authority(), arguments.path());
        let (connection, _) = client.connect_raw(stream, host, path, None).await?;
        Ok(Open::Plain(connection))
    }
}

async fn open_deflate<S: Io>(
    mut stream: S,
    arguments: &Arguments,
    config: Config,
) -> Result<Open<S>> {
    let (host, path, key) = (arguments.authority(), arguments.path(), generate_key());
    let request = build_request(host, path, &key, None, Some("permessage-deflate"));
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut buffer = BytesMut::with_capacity(4096);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err("the server has closed the connection".into());
        }
        let Some((response, length)) = parse_response(&buffer)? else {
            continue;
        };
        if !response
            .accept
            .is_some_and(|accept| validate_accept_key(&key, accept))
        {
            return Err("Sec-WebSocket-Accept is wrong".into());
        }
        let agreed = response.extensions.and_then(parse_deflate_offer);
        let agreed = agreed.ok_or("the server has declined permessage-deflate")?;
        let mut deflate = DeflateConfig::from_params(&agreed)?;
        if !agreed
            .iter()
            .any(|(name, _)| *name == "server_max_window_bits")
        {
            deflate.server_max_window_bits = DeflateWindowBits::Bits15;
        }
        let rest = Some(buffer.split_off(length).freeze());
        return Ok(Open::Deflate(
            CompressedWebSocketStream::client_with_leftover(stream, config, deflate, rest),
        ));
    }
}

impl<S: Io> Connection for Open<S> {
    type Payload = Bytes;

    async fn receive(&mut self) -> Result<Bytes> {
        loop {
            let message = match self {
                Self::Plain(connection) => connection.next().await,
                Self::Deflate(connection) => connection.next().await,
            };
            match message.ok_or("the connection has ended")?? {
                Message::Text(payload) | Message::Binary(payload) => return Ok(payload),
                _ => {}
            }
        }
    }

    async fn feed(&mut self, payload: &Bytes, is_binary: bool) -> Result<()> {
        let payload = payload.clone();
        let message = match is_binary {
            true => Message::Binary(payload),
            false => Message::Text(payload),
        };
        match self {
            Self::Plain(connection) => connection.feed(message).await?,
            Self::Deflate(connection) => connection.feed(message).await?,
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        match self {
            Self::Plain(connection) => connection.flush().await?,
            Self::Deflate(connection) => connection.flush().await?,
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    // It measures the clock for up to 200 ms when that is first asked.
    sockudo_ws::init_clock();
    run::<SockudoWs>()
}
