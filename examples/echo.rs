//! The first program: connect, say something, print what comes back, close.
//!
//! `cargo run --example echo` starts a small echo server in a thread and talks to that;
//! `cargo run --example echo -- ws://host:port/path` talks to a server of your choice.

use std::net::TcpListener;
use std::process::ExitCode;
use std::thread;
use websockex::{
    BoxError, Context, Disconnect, Handler, HandlerResult, Message, Open, Reactor, Reconnect,
};

/// What belongs to one connection: here, how many answers are still to come.
struct Echo {
    awaited: u32,
}

impl Handler for Echo {
    fn on_open(&mut self, cx: &mut Context<'_>, open: &Open<'_>) -> HandlerResult {
        println!("connected to {}", open.peer);
        // Any number of messages may be sent from any callback; they leave in one write.
        cx.send_text("hello")?;
        cx.send_binary(&[1, 2, 3])?;
        self.awaited = 2;
        Ok(())
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        match message {
            Message::Text(text) => println!("received text {text:?}"),
            Message::Binary(bytes) => println!("received binary {bytes:?}"),
        }
        self.awaited = self.awaited.saturating_sub(1);
        if self.awaited == 0 {
            cx.close();
        }
        Ok(())
    }

    fn on_disconnect(&mut self, _cx: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        println!("disconnected: {}", disconnect.reason);
        // Without this the default policy would try again a second after a failure.
        Reconnect::Never
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), BoxError> {
    let url = match std::env::args().nth(1) {
        Some(url) => url,
        None => start_server()?,
    };
    let mut reactor = Reactor::new()?;
    reactor.connect(&url, Echo { awaited: 0 })?;
    // Returns when the last connection has ended.
    reactor.run()?;
    Ok(())
}

/// An echo server for one connection, in a thread, so that the example needs nothing else.
fn start_server() -> Result<String, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("ws://{}/", listener.local_addr()?);
    thread::spawn(move || {
        let Ok((stream, _)) = listener.accept() else {
            return;
        };
        let Ok(mut socket) = tungstenite::accept(stream) else {
            return;
        };
        // `read` fails when the client has closed the connection, and this ends.
        while let Ok(message) = socket.read() {
            if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                return;
            }
        }
    });
    Ok(url)
}
