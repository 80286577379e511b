//! Watches what a reactor does, from outside and while it runs:
//!
//! ```text
//! cargo run --example metrics -- wss://stream.example.com/ws [URL...]
//! curl http://127.0.0.1:9464/metrics        # for Prometheus
//! curl http://127.0.0.1:9464/connections    # for people
//! curl http://127.0.0.1:9464/trace > t.json # the last events, for ui.perfetto.dev
//! ```
//!
//! A thread answers on a loopback port; the reactor never waits for it.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use websockex::trace::render;
use websockex::{BoxError, Handler, Reactor, Remote, Request};

/// Where Prometheus exporters of this sort usually listen.
const ADDRESS: &str = "127.0.0.1:9464";

/// How long a client of the page may take to ask, and to read.
const PATIENCE: Duration = Duration::from_secs(2);

/// Takes messages and does nothing with them: they are counted all the same.
struct Count;

impl Handler for Count {}

fn main() -> ExitCode {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    if urls.is_empty() {
        eprintln!("usage: metrics URL...");
        return ExitCode::from(2);
    }
    match run(&urls) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("metrics: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(urls: &[String]) -> Result<(), BoxError> {
    let mut reactor = Reactor::new()?;
    for url in urls {
        reactor.connect(Request::new(url)?, Count)?;
    }
    let listener = TcpListener::bind(ADDRESS)?;
    eprintln!("look at http://{ADDRESS}/ with metrics, connections or trace behind it");
    let remote = reactor.remote();
    thread::spawn(move || serve(&listener, &remote));
    reactor.run()?;
    Ok(())
}

/// One client after the other: scrapes are short and seconds apart.
fn serve(listener: &TcpListener, remote: &Remote) {
    for client in listener.incoming().flatten() {
        if let Err(error) = answer(client, remote) {
            eprintln!("metrics: a client of the page: {error}");
        }
    }
}

/// Just enough of HTTP/1.1: reads the head of one request, answers, and closes.
fn answer(mut client: TcpStream, remote: &Remote) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(client.try_clone()?).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    for header in lines {
        if header?.is_empty() {
            break;
        }
    }
    let (status, kind, body) = match request.split(' ').nth(1) {
        Some("/metrics") => {
            let page = remote.stats().prometheus().to_string();
            ("200 OK", "text/plain; version=0.0.4", page)
        }
        Some("/connections") => (
            "200 OK",
            "text/plain; charset=utf-8",
            remote.connections().to_string(),
        ),
        Some("/trace") => match remote.last_events(None, PATIENCE) {
            Ok(events) => {
                let page = render::chrome(&events, |_| None).to_string();
                ("200 OK", "application/json", page)
            }
            Err(error) => (
                "503 Service Unavailable",
                "text/plain",
                format!("{error}\n"),
            ),
        },
        _ => (
            "404 Not Found",
            "text/plain",
            "/metrics, /connections or /trace\n".to_owned(),
        ),
    };
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::SocketAddr;
    use std::sync::mpsc::{self, Sender};
    use websockex::{Client, Context, HandlerResult, Message};

    /// Like `Count`, and says when a message has come.
    struct Tell(Sender<()>);

    impl Handler for Tell {
        fn on_message(&mut self, _: &mut Context<'_>, _: Message<'_>) -> HandlerResult {
            Ok(self.0.send(())?)
        }
    }

    /// Greets one client and waits until it has gone.
    fn start_feed() -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            let (stream, _) = listener.accept().expect("the client connects");
            let mut socket = tungstenite::accept(stream).expect("it speaks WebSocket");
            socket.send("hello".into()).expect("it listens");
            while socket.read().is_ok() {}
        });
        Ok(address)
    }

    /// Head and body of the answer.
    fn get(page: SocketAddr, path: &str) -> (String, String) {
        let mut client = TcpStream::connect(page).unwrap();
        write!(client, "GET {path} HTTP/1.1\r\nHost: {page}\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let length = format!("\r\nContent-Length: {}\r\n", body.len());
        assert!(head.contains(&length), "{head}");
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn each_page_tells_of_a_connection_that_has_had_a_message() {
        let client = Client::start().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let page = listener.local_addr().unwrap();
        let remote = client.remote().clone();
        thread::spawn(move || serve(&listener, &remote));
        let feed = start_feed().unwrap();
        let request = Request::new(format!("ws://{feed}/")).unwrap().name("feed");
        let (tell, told) = mpsc::channel();
        client.connect(request, Tell(tell)).unwrap();
        told.recv().unwrap();

        // The reactor answers this one itself, and so has published the turn of the message by then.
        let (head, trace) = get(page, "/trace");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("application/json"), "{head}");
        assert!(trace.contains("\"traceEvents\":["), "{trace}");

        let (head, metrics) = get(page, "/metrics");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        for line in [
            "websockex_open_connections 1",
            "websockex_messages_total{direction=\"in\"} 1",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{metrics}");
        }

        let (_, connections) = get(page, "/connections");
        let own = format!("feed@{feed} ");
        let row = connections.lines().find(|line| line.contains(&own));
        assert!(
            row.is_some_and(|row| row.contains(" open ")),
            "{connections}"
        );

        // One that asks nothing does not keep the next from being answered.
        drop(TcpStream::connect(page).unwrap());
        let (head, body) = get(page, "/");
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        assert!(body.contains("/metrics"), "{body}");
        client.shutdown().unwrap();
    }
}
