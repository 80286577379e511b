//! The client's end of a simulated TCP connection, with the calls of a socket that does not block.

use super::network::{Network, Status, not_connected};
use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};

/// A TCP connection of the operating system, or a simulated one.
pub(in crate::reactor) enum Stream {
    Real(TcpStream),
    Simulated(Socket),
}

pub(in crate::reactor) struct Socket {
    network: Network,
    number: usize,
}

impl Socket {
    pub(super) fn new(network: Network, number: usize) -> Self {
        Self { network, number }
    }

    fn take_error(&self) -> Option<io::Error> {
        let mut state = self.network.state();
        state.link(self.number).error.take().map(io::Error::from)
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        let mut state = self.network.state();
        let link = state.link(self.number);
        match link.status {
            Status::Open => Ok(link.address),
            Status::Connecting | Status::Failed => Err(not_connected()),
        }
    }

    fn read(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut state = self.network.state();
        let link = state.link(self.number);
        if link.status == Status::Connecting {
            return Err(not_connected());
        }
        if link.down.arrived.is_empty() {
            if let Some(error) = link.error.take() {
                return Err(error.into());
            }
            if link.down.ended || link.status == Status::Failed {
                return Ok(0);
            }
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut length = 0;
        for buffer in buffers {
            let mut room = &mut buffer[..];
            // A read of a queue ends where its storage does, not where it does.
            while !room.is_empty() && !link.down.arrived.is_empty() {
                let taken = link.down.arrived.read(room)?;
                room = &mut room[taken..];
                length += taken;
            }
        }
        state.send_down(self.number);
        Ok(length)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.network.state();
        let link = state.link(self.number);
        if let Some(error) = link.error.take() {
            return Err(error.into());
        }
        match link.status {
            Status::Connecting => return Err(not_connected()),
            Status::Failed => return Err(ErrorKind::BrokenPipe.into()),
            Status::Open if link.finished => return Err(ErrorKind::BrokenPipe.into()),
            Status::Open => {}
        }
        let mut length = link.up.room().min(bytes.len());
        if length == 0 {
            link.blocked = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        let chance = state.faults.short_write;
        if state.random.chance(chance) {
            length = state.random.length(1..length + 1);
        }
        state.send_up(self.number, &bytes[..length]);
        Ok(length)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.network.state().drop_socket(self.number);
    }
}

impl Stream {
    pub(in crate::reactor) fn from_std(stream: std::net::TcpStream) -> Self {
        Self::Real(TcpStream::from_std(stream))
    }

    pub(in crate::reactor) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Real(stream) => stream.take_error(),
            Self::Simulated(socket) => Ok(socket.take_error()),
        }
    }

    pub(in crate::reactor) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Real(stream) => stream.peer_addr(),
            Self::Simulated(socket) => socket.peer_addr(),
        }
    }

    pub(in crate::reactor) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Real(stream) => stream.shutdown(how),
            Self::Simulated(socket) => {
                assert_eq!(how, Shutdown::Write, "a client only ends its own side");
                socket.network.state().finish(socket.number);
                Ok(())
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buffer)])
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Real(stream) => stream.read_vectored(buffers),
            Self::Simulated(socket) => socket.read(buffers),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Real(stream) => stream.write(bytes),
            Self::Simulated(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A simulated socket has no stamps, so none is asked for it.
#[cfg(unix)]
impl std::os::fd::AsRawFd for Stream {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        match self {
            Self::Real(stream) => stream.as_raw_fd(),
            Self::Simulated(_) => panic!("a simulated socket has no descriptor"),
        }
    }
}

/// The simulated poll knows its sockets without being told.
impl Source for Stream {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        match self {
            Self::Real(stream) => stream.register(registry, token, interest),
            Self::Simulated(_) => Ok(()),
        }
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        match self {
            Self::Real(stream) => stream.reregister(registry, token, interest),
            Self::Simulated(_) => Ok(()),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Real(stream) => stream.deregister(registry),
            Self::Simulated(_) => Ok(()),
        }
    }
}
