//! The exchange's end of a socket, with TLS or without.

use mio::net::TcpStream;
use rustls::ServerConnection;
use std::io::{self, ErrorKind, Read, Write};

/// A non-blocking byte stream that keeps what the kernel did not take.
pub(crate) struct Transport {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    /// Written without TLS and not taken by the kernel yet. With TLS the rest stays in there.
    unsent: Vec<u8>,
}

impl Transport {
    pub(crate) fn new(socket: TcpStream, tls: Option<ServerConnection>) -> Self {
        Self {
            socket,
            tls: tls.map(Box::new),
            unsent: Vec::new(),
        }
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Reads; `Ok(0)` is the end, [`ErrorKind::WouldBlock`] that there is nothing more for now.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return retry(|| self.socket.read(buffer));
        };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A peer that ends without close_notify is at its end all the same.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            if retry(|| tls.read_tls(&mut self.socket))? == 0 {
                return Ok(0);
            }
            let processed = tls.process_new_packets();
            // The handshake's answers, or the alert that tells what was wrong.
            write_tls(tls, &mut self.socket)?;
            processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
    }

    /// Writes `bytes`, after all that was written before; what the kernel does not take is kept.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes)?;
            return write_tls(tls, &mut self.socket);
        }
        let taken = if self.unsent.is_empty() {
            write_some(&mut self.socket, bytes)?
        } else {
            0
        };
        self.unsent.extend_from_slice(&bytes[taken..]);
        Ok(())
    }

    /// Tries again to send what was kept.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => write_tls(tls, &mut self.socket),
            None => {
                let taken = write_some(&mut self.socket, &self.unsent)?;
                self.unsent.drain(..taken);
                Ok(())
            }
        }
    }

    /// Is something kept that the kernel did not take?
    pub(crate) fn is_congested(&self) -> bool {
        match &self.tls {
            Some(tls) => tls.wants_write(),
            None => !self.unsent.is_empty(),
        }
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush()?;
        self.socket.shutdown(std::net::Shutdown::Write)
    }
}

fn write_tls(tls: &mut ServerConnection, socket: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        match retry(|| tls.write_tls(socket)) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes until the kernel takes no more; returns how much it took.
fn write_some(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match retry(|| socket.write(&bytes[taken..])) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => taken += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

fn retry<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
