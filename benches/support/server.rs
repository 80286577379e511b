//! The server's side of the opening handshake, on a blocking stream.

use std::io::{self, Read, Write};
use websockex::HandshakeLimits;
use websockex::protocol::handshake::{Answer, ServerHandshake};

/// Reads a request to upgrade and grants it. Nothing may follow the request before the answer.
pub(crate) fn upgrade(stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut handshake = ServerHandshake::new(HandshakeLimits::default());
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let received = handshake.receive(&buffer[..length]);
        let received = received.map_err(io::Error::other)?;
        if let Some(request) = received.request {
            let mut answer = Vec::new();
            let written = request.write_response(&Answer::default(), &mut answer);
            written.map_err(io::Error::other)?;
            stream.write_all(&answer)?;
            return stream.flush();
        }
    }
}
