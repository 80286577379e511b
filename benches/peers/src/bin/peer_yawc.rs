//! yawc. It validates UTF-8 when asked to, with simdutf8; messages come as `Bytes`.

mod peer_shared {
    pub(crate) mod asynchronous;
    pub(crate) mod reports;
}

use bytes::Bytes;
use futures_util::SinkExt;
use peer_shared::asynchronous::{Connection, Io, Peer, read_buffer_size, run};
use websockex_peers::{Arguments, Mode, Result};
use yawc::{Frame, OpCode, Options, WebSocket};

const MESSAGE_MAX: usize = 64 * 1024 * 1024;

struct Yawc;

impl Peer for Yawc {
    const CLIENT: &'static str = "yawc 0.5";
    const HAS_DEFLATE: bool = true;
    type Connection<S: Io> = WebSocket<S>;

    async fn open<S: Io>(stream: S, arguments: &Arguments) -> Result<WebSocket<S>> {
        let mut options = Options::default()
            .with_utf8()
            .with_limits(MESSAGE_MAX, 2 * MESSAGE_MAX)
            .with_read_buffer_capacity(read_buffer_size(arguments));
        options = match arguments.mode {
            Mode::Send => options
                .with_write_buffer_capacity(64 * 1024)
                .with_backpressure_boundary(64 * 1024),
            _ => options.with_write_buffer_capacity(1024),
        };
        if arguments.deflate {
            options = options.with_low_latency_compression();
        }
        Ok(WebSocket::handshake(arguments.url.parse()?, stream, options).await?)
    }
}

impl<S: Io> Connection for WebSocket<S> {
    type Payload = Bytes;

    async fn receive(&mut self) -> Result<Bytes> {
        loop {
            let frame = self.next_frame().await?;
            if matches!(frame.opcode(), OpCode::Text | OpCode::Binary) {
                return Ok(frame.into_payload());
            }
        }
    }

    async fn feed(&mut self, payload: &Bytes, is_binary: bool) -> Result<()> {
        let payload = payload.clone();
        let frame = match is_binary {
            true => Frame::binary(payload),
            false => Frame::text(payload),
        };
        Ok(SinkExt::feed(self, frame).await?)
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(SinkExt::flush(self).await?)
    }
}

fn main() -> Result<()> {
    run::<Yawc>()
}
