//! The one command line of all clients.

use crate::report::unsupported;
use crate::{Result, memory, process};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// What a client is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Connect, send [`GO`](crate::GO), take messages until there are enough.
    Receive,
    /// One message at a time, there and back.
    Echo,
    /// Send messages in batches; the server answers once it has them all.
    Send,
    /// Connect, and say what that cost in memory.
    Idle,
    /// Open and close, again and again.
    Handshakes,
}

impl Mode {
    fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "receive" => Self::Receive,
            "echo" => Self::Echo,
            "send" => Self::Send,
            "idle" => Self::Idle,
            "handshakes" => Self::Handshakes,
            other => return Err(format!("there is no mode {other}").into()),
        })
    }

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Echo => "echo",
            Self::Send => "send",
            Self::Idle => "idle",
            Self::Handshakes => "handshakes",
        }
    }
}

/// The command line.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// `--mode`: what to do.
    pub mode: Mode,
    /// `--url`: `ws://127.0.0.1:PORT/...` or `wss://localhost:PORT/...`, query included; the query
    /// tells the server which workload it is, and means nothing to a client.
    pub url: String,
    /// `--connections`: how many to open; 1 by default.
    pub connections: usize,
    /// `--messages`: of all connections together. In [`Mode::Handshakes`]: how many handshakes.
    pub messages: u64,
    /// `--size`: bytes of a payload that the client makes itself (echo, send).
    pub size: usize,
    /// `--batch`: messages that are sent in one turn, with one flush at its end.
    pub batch: usize,
    /// `--binary`: what the client sends are binary messages, not text.
    pub binary: bool,
    /// `--deflate`: offer permessage-deflate, with context takeover. The server may answer
    /// `server_no_context_takeover`.
    pub deflate: bool,
    /// `--in-flight`: handshakes under way at a time.
    pub in_flight: usize,
    /// `--resumption`: TLS sessions are resumed; otherwise each handshake is a full one.
    pub resumption: bool,
    /// `--spin`: poll without blocking, where the client can.
    pub spin: bool,
    /// `--idle`: so many connections beside the others, opened before them, that get nothing; to
    /// [`Arguments::idle_url`]. In [`Mode::Receive`], of the floor and ours; 0 by default.
    pub idle: usize,
    /// `--stamped`: each payload begins with the time it was due; see [`crate::latency`].
    pub stamped: bool,
    /// `--ca FILE`: the certificate to trust, PEM. Given with every `wss://`.
    pub ca: Option<PathBuf>,
    /// `--cpu`: the core to run on.
    pub cpu: Option<usize>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut arguments = Self {
            mode: Mode::Receive,
            url: String::new(),
            connections: 1,
            messages: 0,
            size: 128,
            batch: 1,
            binary: false,
            deflate: false,
            in_flight: 16,
            resumption: false,
            spin: false,
            idle: 0,
            stamped: false,
            ca: None,
            cpu: None,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--mode" => arguments.mode = Mode::parse(&value()?)?,
                "--url" => arguments.url = value()?,
                "--connections" => arguments.connections = value()?.parse()?,
                "--messages" => arguments.messages = value()?.parse()?,
                "--size" => arguments.size = value()?.parse()?,
                "--batch" => arguments.batch = value()?.parse()?,
                "--binary" => arguments.binary = true,
                "--deflate" => arguments.deflate = true,
                "--in-flight" => arguments.in_flight = value()?.parse()?,
                "--resumption" => arguments.resumption = true,
                "--spin" => arguments.spin = true,
                "--idle" => arguments.idle = value()?.parse()?,
                "--stamped" => arguments.stamped = true,
                "--ca" => arguments.ca = Some(value()?.into()),
                "--cpu" => arguments.cpu = Some(value()?.parse()?),
                other => return Err(format!("unknown argument {other}").into()),
            }
        }
        if arguments.url.is_empty() {
            return Err("--url is missing".into());
        }
        Ok(arguments)
    }

    /// `wss://`?
    pub fn is_tls(&self) -> bool {
        self.url.starts_with("wss://")
    }

    /// Host and port, as the URL has them; what goes into `Host`.
    pub fn authority(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or("")
    }

    /// The host alone; the name in the server's certificate.
    pub fn host(&self) -> &str {
        let authority = self.authority();
        authority
            .split_once(':')
            .map_or(authority, |(host, _)| host)
    }

    /// Path and query.
    pub fn path(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.find('/').map_or("/", |slash| &rest[slash..])
    }

    /// Where a connection gets nothing; it counts for the same run.
    pub fn idle_url(&self) -> String {
        let base = &self.url[..self.url.len() - self.path().len()];
        let (_, query) = self.path().split_once("run=").unwrap_or_default();
        let run = query.split('&').next().unwrap_or_default();
        format!("{base}/idle?run={run}")
    }

    /// Where to connect to, for clients that want a socket made for them. IPv4, always.
    ///
    /// # Errors
    /// The URL has no port, or the host no address.
    pub fn address(&self) -> Result<SocketAddr> {
        let mut addresses = self.authority().to_socket_addrs()?;
        Ok(addresses
            .find(SocketAddr::is_ipv4)
            .ok_or("the host has no address")?)
    }

    /// The payload that [`Mode::Echo`] and [`Mode::Send`] send: ASCII, [`Arguments::size`] bytes.
    pub fn payload(&self) -> String {
        Self::payload_of(self.size)
    }

    /// A payload of so many bytes.
    pub fn payload_of(size: usize) -> String {
        let line = r#"{"e":"trade","s":"BTCUSDT","p":"43250.10","q":"0.00120","T":1700000000000}"#;
        line.chars().cycle().take(size).collect()
    }
}

/// The programs that open what `--idle` says.
const WITH_IDLE: [&str; 2] = ["floor", "websockex"];

/// The beginning of every program: reads the command line, pins the process, raises its limit of open
/// files, and, in [`Mode::Idle`], lets the heap be counted. A program that would leave the idle
/// connections of `--idle` out ends here, and reports that it has no such thing.
///
/// # Errors
/// An argument is wrong, or the operating system refuses the core.
pub fn start() -> Result<Arguments> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    if arguments.idle > 0 {
        let program = std::env::current_exe()?;
        let name = program.file_stem().unwrap_or_default().to_string_lossy();
        if !WITH_IDLE.contains(&&*name) {
            unsupported(
                &name,
                "its program opens no idle connections beside a busy one",
            );
        }
    }
    if let Some(cpu) = arguments.cpu {
        process::pin(cpu)?;
    }
    process::raise_file_limit()?;
    if arguments.mode == Mode::Idle {
        memory::count_heap();
    }
    Ok(arguments)
}
