//! tungstenite. It validates UTF-8, with the standard library; messages come as `Bytes`.

mod peer_shared {
    pub(crate) mod blocking;
    pub(crate) mod reports;
}

use peer_shared::blocking::{Connection, Peer, Transport, run};
use std::io;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Bytes, Error, Message, Utf8Bytes, WebSocket, client::client_with_config};
use websockex_peers::{Arguments, Mode, Result};

struct Tungstenite;

/// With the payload that is sent again and again; it is shared, and copied into the write buffer.
struct Open<S> {
    socket: WebSocket<S>,
    payload: Utf8Bytes,
}

impl Peer for Tungstenite {
    const CLIENT: &'static str = "tungstenite 0.30";
    type Connection<S: Transport> = Open<S>;

    fn open<S: Transport>(stream: S, arguments: &Arguments) -> Result<Open<S>> {
        // The read buffer is filled with zeroes before every read, so that more is not always better;
        // its documentation has 4 KiB for many connections, and no read gives more than a TLS record.
        let read_buffer_size = match arguments.mode {
            Mode::Receive if arguments.connections == 1 && arguments.is_tls() => 16 * 1024,
            Mode::Receive if arguments.connections == 1 => 128 * 1024,
            Mode::Idle | Mode::Handshakes => 1024,
            _ => 4 * 1024,
        };
        let config = WebSocketConfig::default().read_buffer_size(read_buffer_size);
        let (socket, _) = client_with_config(arguments.url.as_str(), stream, Some(config))
            .map_err(|error| error.to_string())?;
        Ok(Open {
            socket,
            payload: Utf8Bytes::default(),
        })
    }
}

impl<S: Transport> Connection for Open<S> {
    fn step(&mut self, mut take: impl FnMut(&[u8])) -> Result<bool> {
        match self.socket.read() {
            Ok(Message::Text(text)) => take(text.as_bytes()),
            Ok(Message::Binary(payload)) => take(&payload),
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    fn send(&mut self, payload: &str, is_binary: bool, is_last: bool) -> Result<()> {
        if self.payload.as_str().len() != payload.len() {
            self.payload = payload.into();
        }
        let message = match is_binary {
            true => Message::Binary(Bytes::from(self.payload.clone())),
            false => Message::Text(self.payload.clone()),
        };
        self.socket.write(message)?;
        if is_last {
            self.socket.flush()?;
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    run::<Tungstenite>()
}
