//! A TCP socket that has begun to connect, with its options set before.

use super::kernel;
use super::system::Stream;
use crate::session::options::SocketOptions;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use std::io;
use std::net::SocketAddr;

/// Begins to connect to `address`. The poll says when it is done.
pub(super) fn connect(address: SocketAddr, options: &SocketOptions) -> io::Result<Stream> {
    let domain = Domain::for_address(address);
    let socket = socket(domain)?;
    configure(&socket, options)?;
    if let Some(source) = options.source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&SockAddr::from(address)) {
        Ok(()) => {}
        Err(error) if is_under_way(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(Stream::from_std(socket.into()))
}

/// One that does not block, in one call where the system has that.
fn socket(domain: Domain) -> io::Result<Socket> {
    let tcp = Some(Protocol::TCP);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return Socket::new(domain, Type::STREAM.nonblocking(), tcp);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let socket = Socket::new(domain, Type::STREAM, tcp)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

fn configure(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(options.nodelay)?;
    // Before connecting, because the window's scale is settled with the first segment.
    if let Some(bytes) = options.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(idle) = options.keepalive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    if options.receive_timestamps.is_some() {
        kernel::stamp(socket)?;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        if options.user_timeout.is_some() {
            socket.set_tcp_user_timeout(options.user_timeout)?;
        }
        if options.quickack {
            socket.set_tcp_quickack(true)?;
        }
    }
    Ok(())
}

/// A socket that does not block answers so, each system in its own way (pitfall 28: by the system's
/// name for it, not by its number).
fn is_under_way(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::EINPROGRESS) {
        return true;
    }
    error.kind() == io::ErrorKind::WouldBlock
}
