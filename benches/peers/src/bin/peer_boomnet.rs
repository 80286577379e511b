//! boomnet. It does not validate UTF-8, does not check the server's `Sec-WebSocket-Accept`, and does
//! not mask: its key is always zero. What it delivers are frames; those of a fragmented message are put
//! together here, as every user of it must.
//!
//! It takes any stream. Its own ones for TLS have another provider and an older rustls, and its own
//! `BufferedStream` writes each message by itself, so that it gets streams of ours. Its service polls
//! without ever blocking, so that here mio is used directly.

mod peer_shared {
    pub(crate) mod blocking;
    pub(crate) mod reports;
}

use boomnet::buffer::default_buffer_pool_ref;
use boomnet::stream::{ConnectionInfo, ConnectionInfoProvider, ReadHint};
use boomnet::ws::{Error, Websocket, WebsocketFrame};
use peer_shared::blocking::{Connection, Control, Peer, Transport, run};
use std::cell::Cell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use websockex_peers::{Arguments, Mode, Result};

/// Bytes that are collected before they are written, flushed or not.
const OUT_MAX: usize = 64 * 1024;
/// Bytes of read buffer of one busy connection; by itself it takes 32 KiB.
const IN_CAPACITY: usize = 256 * 1024;

struct Boomnet;

struct Open<S> {
    socket: Websocket<Outbox<S>>,
    is_held: Rc<Cell<bool>>,
    fragments: Vec<u8>,
}

/// Collects what is written until it is flushed, and, while it is held, even then.
struct Outbox<S> {
    stream: S,
    info: ConnectionInfo,
    control: Rc<Control>,
    is_held: Rc<Cell<bool>>,
    out: Vec<u8>,
}

impl<S: Transport> Outbox<S> {
    fn write_out(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }
}

impl<S: Transport> Read for Outbox<S> {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl<S: Transport> Write for Outbox<S> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.out.len() + bytes.len() > OUT_MAX {
            self.write_out()?;
        }
        if bytes.len() > OUT_MAX {
            return self.stream.write(bytes);
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        if self.is_held.get() {
            return Ok(());
        }
        self.write_out()?;
        self.stream.flush()
    }
}

impl<S: Transport> ReadHint for Outbox<S> {
    #[inline]
    fn read_hint(&self) -> bool {
        // TLS may have plaintext in store whatever the socket has.
        S::IS_ENCRYPTED || self.control.may_read.get()
    }
}

impl<S> ConnectionInfoProvider for Outbox<S> {
    fn connection_info(&self) -> &ConnectionInfo {
        &self.info
    }
}

impl Peer for Boomnet {
    const CLIENT: &'static str = "boomnet 1.0.0-rc.8";
    type Connection<S: Transport> = Open<S>;

    fn open<S: Transport>(stream: S, arguments: &Arguments) -> Result<Open<S>> {
        if arguments.mode == Mode::Receive && arguments.connections == 1 {
            enlarge_buffers();
        }
        let is_held = Rc::new(Cell::new(false));
        let outbox = Outbox {
            control: stream.control().clone(),
            stream,
            info: ConnectionInfo::new(arguments.host(), arguments.address()?.port()),
            is_held: is_held.clone(),
            out: Vec::new(),
        };
        let mut socket = Websocket::new(outbox, arguments.path());
        while !socket.handshake_complete() {
            if let Some(result) = socket.receive_next() {
                result?;
            }
        }
        Ok(Open {
            socket,
            is_held,
            fragments: Vec::new(),
        })
    }
}

/// Its read buffers come from a pool, which hands out the first that is large enough: what is taken and
/// given back here is what the handshake takes next, and after it the decoder.
fn enlarge_buffers() {
    let pool = default_buffer_pool_ref();
    let _for_handshake = pool.acquire::<4096, IN_CAPACITY>();
    let _for_decoder = pool.acquire::<4096, IN_CAPACITY>();
}

impl<S: Transport> Connection for Open<S> {
    fn step(&mut self, mut take: impl FnMut(&[u8])) -> Result<bool> {
        let mut is_empty = true;
        for frame in self.socket.read_batch()? {
            is_empty = false;
            match frame? {
                WebsocketFrame::Text(true, payload) | WebsocketFrame::Binary(true, payload) => {
                    take(payload);
                }
                WebsocketFrame::Text(false, payload)
                | WebsocketFrame::Binary(false, payload)
                | WebsocketFrame::Continuation(false, payload) => {
                    self.fragments.extend_from_slice(payload);
                }
                WebsocketFrame::Continuation(true, payload) => {
                    self.fragments.extend_from_slice(payload);
                    take(&self.fragments);
                    self.fragments.clear();
                }
                _ => {}
            }
        }
        Ok(!is_empty)
    }

    fn send(&mut self, payload: &str, is_binary: bool, is_last: bool) -> Result<()> {
        self.is_held.set(!is_last);
        let body = Some(payload.as_bytes());
        let result: std::result::Result<(), Error> = match is_binary {
            true => self.socket.send_binary(true, body),
            false => self.socket.send_text(true, body),
        };
        Ok(result?)
    }
}

fn main() -> Result<()> {
    run::<Boomnet>()
}
