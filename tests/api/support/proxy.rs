//! The proxy's side of CONNECT and of SOCKS5, for scripts that are run by a [`Server`] on the bare
//! socket, and the way on to the server.

use super::{PATIENCE, Server, Transport};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use websockex::Proxy;

/// The answer of an HTTP proxy that opens the way.
pub(crate) const ESTABLISHED: &[u8] =
    b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n";

/// The reply of a SOCKS proxy that has opened it, with a bound address (RFC 1928 §6).
pub(crate) const SUCCEEDED: &[u8] = &[5, 0, 0, 1, 192, 0, 2, 1, 0x12, 0x34];

/// A proxy that runs `script` for each connection, with its number from 0.
pub(crate) fn start(script: impl Fn(usize, Client) + Send + Sync + 'static) -> Server {
    Server::start_raw(Transport::Plain, move |number, stream| {
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        script(number, Client(stream));
    })
}

/// What names the proxy that `server` plays. `scheme` may end in credentials and `@`.
pub(crate) fn named(server: &Server, scheme: &str) -> Proxy {
    Proxy::parse(&format!("{scheme}{}", server.address)).expect("a proxy's URL")
}

/// The proxy's end of a connection from the client under test.
pub(crate) struct Client(TcpStream);

impl Client {
    pub(crate) fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).expect("the client speaks");
        bytes
    }

    fn read_vec(&mut self, length: u8) -> Vec<u8> {
        let mut bytes = vec![0; length.into()];
        self.0.read_exact(&mut bytes).expect("the client speaks");
        bytes
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the client takes it");
    }

    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// A write for each byte, until the client has heard enough.
    pub(crate) fn trickle(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.try_write(&[*byte]).is_err() {
                return;
            }
        }
    }

    /// The lines of a request head, without the empty one.
    pub(crate) fn read_head(&mut self) -> Vec<String> {
        let mut head = Vec::new();
        // One by one, so that nothing behind the head is taken.
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.read::<1>());
        }
        let head = String::from_utf8(head).expect("ASCII");
        let lines = head.trim_end().split("\r\n");
        lines.map(str::to_owned).collect()
    }

    /// Checks that the client offers exactly these methods of authentication (RFC 1928 §3).
    #[track_caller]
    pub(crate) fn expect_methods(&mut self, methods: &[u8]) {
        let [version, count] = self.read();
        assert_eq!(version, 5);
        assert_eq!(self.read_vec(count), methods);
    }

    /// User name and password (RFC 1929 §2).
    pub(crate) fn read_login(&mut self) -> (String, String) {
        let [version] = self.read();
        assert_eq!(version, 1);
        let mut field = || {
            let [length] = self.read();
            String::from_utf8(self.read_vec(length)).expect("UTF-8")
        };
        (field(), field())
    }

    /// Where the SOCKS client wants to go: `host:port` with a literal address, or a name
    /// (RFC 1928 §4).
    pub(crate) fn read_target(&mut self) -> String {
        let [version, command, reserved, kind] = self.read();
        assert_eq!((version, command, reserved), (5, 1, 0));
        let host = match kind {
            1 => Ipv4Addr::from(self.read::<4>()).to_string(),
            3 => {
                let [length] = self.read();
                String::from_utf8(self.read_vec(length)).expect("ASCII")
            }
            4 => format!("[{}]", Ipv6Addr::from(self.read::<16>())),
            other => panic!("address type {other}"),
        };
        format!("{host}:{}", u16::from_be_bytes(self.read()))
    }

    /// The client says nothing more and ends the connection.
    #[track_caller]
    pub(crate) fn expect_end(mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(rest, b"", "more from the client"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }

    /// Ends this side of the connection and waits until the client has ended its own.
    pub(crate) fn end(self) {
        // The client may have ended it first.
        let _ = self.0.shutdown(Shutdown::Write);
        self.drain();
    }

    /// Reads until the client ends the connection, in whichever way.
    pub(crate) fn drain(mut self) {
        let _ = io::copy(&mut self.0, &mut io::sink());
    }

    /// Passes everything on between the client and the server until both have ended.
    pub(crate) fn relay(self, server: SocketAddr) {
        let server = TcpStream::connect(server).expect("the server listens");
        server.set_nodelay(true).expect("a socket");
        server.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
        let (from_server, to_client) = (clone(&server), clone(&self.0));
        let back = thread::spawn(move || pass_on(from_server, to_client));
        pass_on(self.0, server);
        back.join().expect("it does not panic");
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    // Either end may break the connection off; the other one is to see an end, too.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
