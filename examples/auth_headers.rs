//! Proving who we are in the opening handshake: a token in a header, a name and password in the
//! URL, and what it looks like when the server does not believe it.
//!
//! `cargo run --example auth_headers` needs nothing else: it starts a server in a thread that
//! accepts two credentials and refuses everything else with 401.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::thread;
use tungstenite::handshake::server::{ErrorResponse, Request as Upgrade, Response as Accepted};
use websockex::{
    BoxError, Context, Disconnect, DisconnectReason, Error, Handler, HandlerResult, HandshakeError,
    Message, Open, Reactor, Reconnect, Request,
};

const TOKEN: &str = "Bearer 2YotnFZFEjr1zCsicMWpAA";
/// `alice:open sesame` in base64, as RFC 7617 §2 has it.
const BASIC: &str = "Basic YWxpY2U6b3BlbiBzZXNhbWU=";

/// Waits for the server's greeting.
struct Guest {
    /// What this connection shows, for the output.
    credentials: &'static str,
}

impl Handler for Guest {
    fn on_open(&mut self, _cx: &mut Context<'_>, open: &Open<'_>) -> HandlerResult {
        let status = open.response.status();
        println!("{}: accepted with status {status}", self.credentials);
        Ok(())
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        if let Message::Text(greeting) = message {
            println!("{}: the server says {greeting:?}", self.credentials);
        }
        cx.close();
        Ok(())
    }

    fn on_disconnect(&mut self, _cx: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        // An answer other than 101 comes with its status, its headers and the start of its body.
        if let DisconnectReason::ConnectFailed(Error::Handshake(HandshakeError::Rejected(answer))) =
            disconnect.reason
        {
            println!(
                "{}: refused with status {}, {:?}, {:?}",
                self.credentials,
                answer.status,
                answer.headers.first("WWW-Authenticate").unwrap_or("-"),
                String::from_utf8_lossy(&answer.body),
            );
        } else {
            println!("{}: {}", self.credentials, disconnect.reason);
        }
        // A server that has refused once will refuse again. With a new token at hand, this would
        // be the place for `Reconnect::To(..)`.
        Reconnect::Never
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("auth_headers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), BoxError> {
    let address = start_server()?;
    let mut reactor = Reactor::new()?;

    // A header is checked here, before any I/O: a line break in it would be an error.
    let request = Request::new(format!("ws://{address}/"))?.header("Authorization", TOKEN)?;
    let credentials = "token in a header";
    reactor.connect(request, Guest { credentials })?;

    // Name and password in the URL become Basic authorization; what may not stand there is
    // percent-encoded.
    let credentials = "name and password in the URL";
    let url = format!("ws://alice:open%20sesame@{address}/");
    reactor.connect(url, Guest { credentials })?;

    let credentials = "nothing";
    reactor.connect(format!("ws://{address}/"), Guest { credentials })?;

    reactor.run()?;
    Ok(())
}

/// Serves whoever comes, each in a thread of its own.
fn start_server() -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let Ok(mut socket) = tungstenite::accept_hdr(stream, check) else {
                    return;
                };
                // Both end with an error when the guest has left, which is expected.
                let _ = socket.send("welcome".into());
                while socket.read().is_ok() {}
            });
        }
    });
    Ok(address)
}

/// The server's decision.
// The types are tungstenite's, and so is the size of the error.
#[allow(clippy::result_large_err)]
fn check(upgrade: &Upgrade, accepted: Accepted) -> Result<Accepted, ErrorResponse> {
    let shown = upgrade.headers().get("Authorization");
    if shown.is_some_and(|shown| shown == TOKEN || shown == BASIC) {
        return Ok(accepted);
    }
    let mut refusal = ErrorResponse::new(Some("who are you?".to_owned()));
    *refusal.status_mut() = tungstenite::http::StatusCode::UNAUTHORIZED;
    let scheme = tungstenite::http::HeaderValue::from_static("Bearer");
    refusal.headers_mut().insert("WWW-Authenticate", scheme);
    Err(refusal)
}
