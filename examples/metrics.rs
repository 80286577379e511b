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
