//! The load server: plain sockets, one thread, and no WebSocket library.
//!
//! The path of a URL says what a connection is for, the query of which kind:
//!
//! - `/receive`: waits for the text `go` on one connection of the run, then sends to all of them. See
//!   [`websockex_peers::stream::Workload`] for the query; `run` tells runs from each other. With TLS the
//!   whole stream is sealed beforehand.
//! - `/echo`: sends back every message.
//! - `/send`: takes `count` messages, and answers with a text, their number and checksum.
//! - `/idle`: does nothing.
//!
//! With `spin=1` the server polls without blocking as long as that connection is there.
//!
//! Prints `listening WS WSS`, the two ports, and runs until its standard input ends. A line with the
//! number of a run on its input is answered with one line of JSON: the upgrades granted to the run, of
//! how many the TLS handshake was full or resumed, and messages and checksum of what was sent.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::{HandshakeKind, ServerConnection};
use serde_json::json;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use websockex_peers::frames::{self, Header, opcode};
use websockex_peers::latency::{self, STAMP_LEN};
use websockex_peers::stream::{Frames, Workload};
use websockex_peers::upgrade::Request;
use websockex_peers::{Result, checksum, monotonic_ns, process, tls};

/// One buffer for whatever is read.
const READ_BUFFER: usize = 1 << 20;
/// Plaintext that is sealed in one go, so that the records are full.
const SEALED_AT_ONCE: u64 = 4096;
/// Chunks that one connection gets before the events are looked at again.
const CHUNKS_PER_TURN: usize = 16;
/// Sealed bytes that are written at once, if no rate is asked for: a write for each small record would be
/// slower than any client, and what is measured then is how often the client goes to sleep.
const SEALED_PER_WRITE: usize = 64 * 1024;
const EVENTS: usize = 4096;
const WS: Token = Token(usize::MAX);
const WSS: Token = Token(usize::MAX - 1);
const INPUT: Token = Token(usize::MAX - 2);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, cpu] = &arguments[..] else {
        return Err("server FOLDER CPU".into());
    };
    process::pin(cpu.parse()?)?;
    process::raise_file_limit()?;
    Server::new(Path::new(folder))?.run()
}

/// What a connection is for.
#[derive(Debug)]
enum Role {
    /// There is no request yet.
    Handshake,
    Receive {
        run: u64,
    },
    Echo,
    Send(Count),
    Idle,
}

/// The messages of a `/send` so far.
#[derive(Debug, Default)]
struct Count {
    wanted: u64,
    messages: u64,
    checksum: u64,
    /// Of the message that is under way: its length, its first and its last eight bytes.
    length: u64,
    first: [u8; 8],
    last: [u8; 8],
}

struct Connection {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    role: Role,
    /// Received, and not complete.
    input: Vec<u8>,
    /// To be written before anything else.
    output: Vec<u8>,
    written: usize,
    /// The socket takes no more.
    blocked: bool,
    /// Shut down once the output is written.
    closing: bool,
    /// The server does not sleep while it is there.
    spins: bool,
    feed: Feed,
}

/// What a connection of a run has got so far.
#[derive(Default)]
struct Feed {
    /// The next message.
    index: u64,
    /// The first message of the chunk before it, and how many bytes of that are not yet written.
    from: u64,
    rest: usize,
    /// With TLS: all of it, and where each chunk ends.
    sealed: Vec<u8>,
    ends: Vec<usize>,
    at: usize,
}

/// What there is to say of a run when it is over.
#[derive(Debug, Default)]
struct Record {
    upgrades: u64,
    full: u64,
    resumed: u64,
    messages: u64,
    checksum: u64,
}

struct Run {
    workload: Workload,
    frames: Frames,
    members: Vec<usize>,
    started: bool,
    messages: u64,
    checksum: u64,
    /// The member whose turn it is.
    cursor: usize,
    /// When the next burst is to be sent, by the clock of the stamps.
    due: u64,
    /// When the last one was over.
    ended: u64,
    reported: bool,
}

struct Server {
    poll: Poll,
    listeners: [(TcpListener, bool); 2],
    config: Arc<rustls::ServerConfig>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    runs: HashMap<u64, Run>,
    records: HashMap<u64, Record>,
    active: Vec<u64>,
    spinning: usize,
    buffer: Vec<u8>,
}

impl Server {
    fn new(folder: &Path) -> Result<Self> {
        let poll = Poll::new()?;
        let any = "127.0.0.1:0".parse()?;
        let mut listeners = [
            (TcpListener::bind(any)?, false),
            (TcpListener::bind(any)?, true),
        ];
        for ((listener, _), token) in listeners.iter_mut().zip([WS, WSS]) {
            poll.registry()
                .register(listener, token, Interest::READABLE)?;
        }
        let [ws, wss] = [&listeners[0].0, &listeners[1].0].map(TcpListener::local_addr);
        println!("listening {} {}", ws?.port(), wss?.port());
        Ok(Self {
            poll,
            listeners,
            config: tls::server_config(folder)?,
            connections: Vec::new(),
            free: Vec::new(),
            runs: HashMap::new(),
            records: HashMap::new(),
            active: Vec::new(),
            spinning: 0,
            buffer: vec![0; READ_BUFFER],
        })
    }

    fn run(&mut self) -> Result<()> {
        let mut input = mio::unix::SourceFd(&0);
        self.poll
            .registry()
            .register(&mut input, INPUT, Interest::READABLE)?;
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let busy = !self.active.is_empty() && self.has_work();
            let timeout = (busy || self.spinning > 0).then_some(Duration::ZERO);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    WS => self.accept(0)?,
                    WSS => self.accept(1)?,
                    INPUT => {
                        // The runner waits for an answer before it asks again: one line at most.
                        let mut line = String::new();
                        if io::stdin().read_line(&mut line)? == 0 {
                            return Ok(());
                        }
                        self.tell(line.trim().parse()?);
                    }
                    Token(index) => self.handle_event(index, event.is_writable()),
                }
            }
            for run in self.active.clone() {
                self.feed(run);
            }
        }
    }

    /// Says what a run was, and forgets it.
    fn tell(&mut self, run: u64) {
        let record = self.records.remove(&run).unwrap_or_default();
        let Record {
            upgrades,
            full,
            resumed,
            messages,
            checksum,
        } = record;
        println!(
            "{}",
            json!({
                "run": run,
                "upgrades": upgrades,
                "full": full,
                "resumed": resumed,
                "messages": messages,
                "checksum": format!("{checksum:016x}"),
            })
        );
    }

    /// Is there a connection that could be written to, now or at a time that is kept by spinning?
    fn has_work(&self) -> bool {
        self.active
            .iter()
            .filter_map(|run| self.runs.get(run))
            .any(|run| {
                run.workload.rate > 0
                    || run.members.iter().any(|&member| {
                        self.connections[member]
                            .as_ref()
                            .is_some_and(|one| !one.blocked)
                    })
            })
    }

    fn accept(&mut self, which: usize) -> Result<()> {
        loop {
            let (listener, is_tls) = &self.listeners[which];
            let mut socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            socket.set_nodelay(true)?;
            let tls = match is_tls {
                true => {
                    let mut tls = ServerConnection::new(Arc::clone(&self.config))?;
                    tls.set_buffer_limit(None);
                    Some(Box::new(tls))
                }
                false => None,
            };
            let index = self.free.pop().unwrap_or(self.connections.len());
            if index == self.connections.len() {
                self.connections.push(None);
            }
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut socket, Token(index), interest)?;
            self.connections[index] = Some(Connection {
                socket,
                tls,
                role: Role::Handshake,
                input: Vec::new(),
                output: Vec::new(),
                written: 0,
                blocked: false,
                closing: false,
                spins: false,
                feed: Feed::default(),
            });
        }
    }

    fn handle_event(&mut self, index: usize, writable: bool) {
        let Some(mut connection) = self.connections.get_mut(index).and_then(Option::take) else {
            return;
        };
        if writable {
            connection.blocked = false;
        }
        let open = self.read(index, &mut connection).is_ok() && connection.flush().is_ok();
        if open && !(connection.closing && connection.output.is_empty()) {
            self.connections[index] = Some(connection);
        } else {
            self.drop_connection(index, connection);
        }
    }

    fn drop_connection(&mut self, index: usize, connection: Connection) {
        self.spinning -= usize::from(connection.spins);
        if let Role::Receive { run: id } = connection.role
            && let Some(run) = self.runs.get_mut(&id)
        {
            run.members.retain(|&member| member != index);
            if run.members.is_empty() {
                self.runs.remove(&id);
                self.active.retain(|&active| active != id);
            }
        }
        if !connection.closing {
            // The client went first: a reset leaves no port in TIME_WAIT behind.
            let _ = process::reset_on_close(&connection.socket);
        }
        self.free.push(index);
    }

    /// Reads all there is. An error is the end.
    fn read(&mut self, index: usize, connection: &mut Connection) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.read_into(index, connection, &mut buffer);
        self.buffer = buffer;
        result
    }

    fn read_into(
        &mut self,
        index: usize,
        connection: &mut Connection,
        buffer: &mut [u8],
    ) -> Result<()> {
        loop {
            let length = match connection.socket.read(buffer) {
                Ok(0) => return Err("the end".into()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if connection.tls.is_some() {
                self.open_records(index, connection, &buffer[..length])?;
            } else if connection.input.is_empty() {
                let taken = self.handle(index, connection, &mut buffer[..length])?;
                connection.input.extend_from_slice(&buffer[taken..length]);
            } else {
                connection.input.extend_from_slice(&buffer[..length]);
                self.handle_input(index, connection)?;
            }
        }
    }

    fn open_records(
        &mut self,
        index: usize,
        connection: &mut Connection,
        mut records: &[u8],
    ) -> Result<()> {
        while !records.is_empty() {
            let Some(tls) = &mut connection.tls else {
                return Ok(());
            };
            tls.read_tls(&mut records)?;
            let state = tls.process_new_packets()?;
            let start = connection.input.len();
            connection
                .input
                .resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut connection.input[start..])?;
            while tls.wants_write() {
                tls.write_tls(&mut connection.output)?;
            }
            self.handle_input(index, connection)?;
        }
        connection.flush()?;
        Ok(())
    }

    fn handle_input(&mut self, index: usize, connection: &mut Connection) -> Result<()> {
        let mut input = std::mem::take(&mut connection.input);
        let taken = self.handle(index, connection, &mut input)?;
        input.drain(..taken);
        connection.input = input;
        Ok(())
    }

    /// Whole requests and frames; returns the bytes taken.
    fn handle(
        &mut self,
        index: usize,
        connection: &mut Connection,
        bytes: &mut [u8],
    ) -> Result<usize> {
        let mut position = 0;
        if let Role::Handshake = connection.role {
            let Some(request) = Request::parse(bytes) else {
                return Ok(0);
            };
            position = request.len;
            self.grant(index, connection, &request)?;
        }
        while let Some(header) = Header::parse(&bytes[position..]) {
            let start = position + header.len;
            let Some(payload) = bytes.get_mut(start..start + header.payload) else {
                break;
            };
            self.handle_frame(index, connection, &header, payload)?;
            position = start + header.payload;
        }
        connection.flush()?;
        Ok(position)
    }

    fn grant(
        &mut self,
        index: usize,
        connection: &mut Connection,
        request: &Request,
    ) -> Result<()> {
        let mut extension = None;
        connection.spins = request.query("spin") == Some("1");
        self.spinning += usize::from(connection.spins);
        let run: u64 = request.query("run").unwrap_or("0").parse()?;
        let record = self.records.entry(run).or_default();
        record.upgrades += 1;
        match connection.tls.as_ref().and_then(|tls| tls.handshake_kind()) {
            Some(HandshakeKind::Resumed) => record.resumed += 1,
            Some(_) => record.full += 1,
            None => {}
        }
        let path = request.target.split('?').next().unwrap_or("");
        connection.role = match path {
            "/echo" => Role::Echo,
            "/send" => Role::Send(Count {
                wanted: request.query("count").ok_or("count?")?.parse()?,
                ..Count::default()
            }),
            "/receive" => {
                let workload = Workload::of(request).ok_or("the query is wrong")?;
                extension = match (request.deflate, workload.takeover) {
                    (true, Some(true)) => Some("permessage-deflate"),
                    (true, Some(false)) => Some("permessage-deflate; server_no_context_takeover"),
                    (false, Some(_)) => return Err("permessage-deflate was not offered".into()),
                    _ => None,
                };
                let entry = self.runs.entry(run).or_insert_with(|| Run {
                    frames: workload.frames(),
                    workload,
                    members: Vec::new(),
                    started: false,
                    messages: 0,
                    checksum: 0,
                    cursor: 0,
                    due: 0,
                    ended: 0,
                    reported: false,
                });
                entry.members.push(index);
                Role::Receive { run }
            }
            _ => Role::Idle,
        };
        connection.queue(request.answer(extension).as_bytes())
    }

    fn handle_frame(
        &mut self,
        index: usize,
        connection: &mut Connection,
        header: &Header,
        payload: &mut [u8],
    ) -> Result<()> {
        let key = header.key.unwrap_or_default();
        if let (Role::Send(count), 0..8) = (&mut connection.role, header.opcode()) {
            if let Some(answer) = count.take(header, key, payload) {
                let mut frame = Vec::new();
                frames::write_message(&mut frame, opcode::TEXT, false, answer.as_bytes(), 1);
                connection.queue(&frame)?;
            }
            return Ok(());
        }
        frames::mask(payload, key, 0);
        let mut frame = Vec::with_capacity(payload.len() + 10);
        match (header.opcode(), &connection.role) {
            (opcode::CLOSE, _) => {
                frames::write(&mut frame, header.first, None, payload);
                connection.closing = true;
            }
            (opcode::PING, _) => frames::write(&mut frame, 0x80 | opcode::PONG, None, payload),
            (0..8, Role::Echo) => frames::write(&mut frame, header.first, None, payload),
            (opcode::TEXT, Role::Receive { run }) => {
                let run = *run;
                self.start(run, index, connection)?;
            }
            _ => {}
        }
        connection.queue(&frame)
    }

    /// All connections are open: seals what is to be sealed, and begins.
    fn start(&mut self, id: u64, index: usize, connection: &mut Connection) -> Result<()> {
        let Some(run) = self.runs.get_mut(&id) else {
            return Ok(());
        };
        if std::mem::replace(&mut run.started, true) {
            return Ok(());
        }
        for &member in &run.members {
            let one = match member == index {
                true => Some(&mut *connection),
                false => self.connections[member].as_mut(),
            };
            if let Some(one) = one {
                one.seal(&run.workload, &run.frames)?;
            }
        }
        run.due = monotonic_ns();
        self.active.push(id);
        Ok(())
    }

    /// Writes to the connections of a run, as much as is due.
    fn feed(&mut self, id: u64) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        let Some((due, mut budget)) = run.next_burst() else {
            return;
        };
        let mut idle = 0;
        while budget > 0 && idle < run.members.len() {
            run.cursor = (run.cursor + 1) % run.members.len();
            let Some(one) = &mut self.connections[run.members[run.cursor]] else {
                idle += 1;
                continue;
            };
            // An error shows at the next read, too.
            match one.feed_one(&run.workload, &run.frames, due) {
                Ok((messages, checksum)) if messages > 0 => {
                    run.messages += messages;
                    run.checksum = run.checksum.wrapping_add(checksum);
                    idle = 0;
                    budget -= 1;
                }
                _ => idle += 1,
            }
        }
        run.ended = monotonic_ns();
        if run.messages == run.workload.count * run.members.len() as u64 && !run.reported {
            run.reported = true;
            let record = self.records.entry(id).or_default();
            (record.messages, record.checksum) = (run.messages, run.checksum);
        }
        let is_written = |&member: &usize| {
            let connection = &self.connections[member];
            connection.as_ref().is_none_or(|one| one.feed.rest == 0)
        };
        if run.reported && run.members.iter().all(is_written) {
            self.active.retain(|&active| active != id);
        }
    }
}

impl Run {
    /// If it is time for one: since when it is due, and the number of chunks in it.
    ///
    /// What is late because the burst before took until then counts from when it was due: that is the
    /// client's doing, as well. What is late although the server did nothing but wait is the machine's,
    /// which gave the core to somebody else; it counts from now, and so do the following.
    fn next_burst(&mut self) -> Option<(u64, usize)> {
        let now = monotonic_ns();
        let rate = self.workload.rate;
        if rate == 0 {
            return Some((now, self.members.len().max(CHUNKS_PER_TURN)));
        }
        if now < self.due {
            return None;
        }
        let due = match self.ended > self.due {
            true => self.due,
            false => now,
        };
        let tick = Duration::from_micros(self.workload.tick);
        self.due = due + tick.as_nanos() as u64;
        let messages = rate as f64 * tick.as_secs_f64();
        let chunks = (messages / self.workload.burst as f64).round().max(1.0);
        Some((due, chunks as usize))
    }
}

impl Count {
    /// A frame of data, still masked; the answer, if it was the last of all.
    fn take(&mut self, header: &Header, key: [u8; 4], payload: &mut [u8]) -> Option<String> {
        if header.opcode() != opcode::CONTINUATION {
            self.length = 0;
            self.first = [0; 8];
        }
        // Only what the checksum reads is unmasked.
        if self.length == 0 {
            let head = payload.len().min(8);
            self.first[..head].copy_from_slice(&payload[..head]);
            frames::mask(&mut self.first[..head], key, 0);
        }
        if let Some(last) = payload.last_chunk::<8>() {
            self.last = *last;
            frames::mask(&mut self.last, key, payload.len() - 8);
        }
        self.length += payload.len() as u64;
        if !header.is_final() {
            return None;
        }
        self.messages += 1;
        let last = if self.length < 8 { [0; 8] } else { self.last };
        self.checksum = self
            .checksum
            .wrapping_add(self.length)
            .wrapping_add(u64::from_le_bytes(self.first))
            .wrapping_add(u64::from_le_bytes(last));
        (self.messages == self.wanted).then(|| format!("{} {:016x}", self.messages, self.checksum))
    }
}

impl Connection {
    /// Plaintext to send before anything else.
    fn queue(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.tls {
            None => self.output.extend_from_slice(bytes),
            Some(tls) => {
                tls.writer().write_all(bytes)?;
                while tls.wants_write() {
                    tls.write_tls(&mut self.output)?;
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.socket.write(&self.output[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// With TLS: the whole stream, as records.
    fn seal(&mut self, workload: &Workload, frames: &Frames) -> Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        let burst = match workload.burst {
            0 => SEALED_AT_ONCE,
            burst => burst as u64,
        };
        let mut index = 0;
        while index < workload.count {
            let chunk = frames.chunk(index, burst.min(workload.count - index));
            tls.writer().write_all(chunk.bytes)?;
            while tls.wants_write() {
                tls.write_tls(&mut self.feed.sealed)?;
            }
            index += chunk.messages;
            self.feed.ends.push(self.feed.sealed.len());
        }
        Ok(())
    }

    /// Writes what is left of the last chunk, or the next; how many messages it begins, and their
    /// checksum. `due` is what a stamp says.
    fn feed_one(&mut self, workload: &Workload, frames: &Frames, due: u64) -> Result<(u64, u64)> {
        if self.blocked || !self.output.is_empty() {
            return Ok((0, 0));
        }
        if self.feed.rest > 0 {
            self.feed_rest(frames)?;
            if self.feed.rest > 0 {
                return Ok((0, 0));
            }
        }
        if self.feed.index == workload.count {
            return Ok((0, 0));
        }
        let burst = match workload.burst {
            0 => SEALED_AT_ONCE,
            burst => burst as u64,
        };
        if self.tls.is_some() && !workload.stamped {
            return self.feed_sealed(workload, frames, burst);
        }
        let chunk = frames.chunk(self.feed.index, burst.min(workload.count - self.feed.index));
        self.feed.from = self.feed.index;
        self.feed.index += chunk.messages;
        if workload.stamped {
            return self.feed_stamped(chunk.bytes, due);
        }
        self.feed.rest = chunk.bytes.len();
        self.write_rest(chunk.bytes)?;
        Ok((chunk.messages, chunk.checksum))
    }

    /// The next chunk of what was sealed; without a rate as many as one write takes.
    fn feed_sealed(
        &mut self,
        workload: &Workload,
        frames: &Frames,
        burst: u64,
    ) -> Result<(u64, u64)> {
        let before = self.feed.at.checked_sub(1);
        let start = before.map_or(0, |before| self.feed.ends[before]);
        let (mut messages, mut checksum) = (0, 0_u64);
        loop {
            let left = workload.count - self.feed.index;
            let chunk = frames.chunk(self.feed.index, burst.min(left));
            self.feed.index += chunk.messages;
            messages += chunk.messages;
            checksum = checksum.wrapping_add(chunk.checksum);
            self.feed.rest = self.feed.ends[self.feed.at] - start;
            self.feed.at += 1;
            let is_full = self.feed.rest >= SEALED_PER_WRITE || workload.rate > 0;
            if is_full || self.feed.index == workload.count {
                self.feed_rest(frames)?;
                return Ok((messages, checksum));
            }
        }
    }

    /// A copy of one frame with a payload of less than 64 KiB, with the time it was due: that of its
    /// burst, so that a client that holds the server up while it writes the burst waits for itself.
    fn feed_stamped(&mut self, frame: &[u8], due: u64) -> Result<(u64, u64)> {
        let header = Header::parse(frame).ok_or("a frame")?;
        let start = self.output.len();
        self.output.extend_from_slice(frame);
        let payload = &mut self.output[start + header.len..];
        if payload.len() < STAMP_LEN {
            return Err("too small for a stamp".into());
        }
        latency::write_stamp(payload, due);
        let sum = checksum(payload);
        self.flush()?;
        Ok((1, sum))
    }

    fn feed_rest(&mut self, frames: &Frames) -> io::Result<()> {
        if self.tls.is_some() {
            let sealed = std::mem::take(&mut self.feed.sealed);
            let result = self.write_rest(&sealed[..self.feed.ends[self.feed.at - 1]]);
            self.feed.sealed = sealed;
            return result;
        }
        let chunk = frames.chunk(self.feed.from, self.feed.index - self.feed.from);
        self.write_rest(chunk.bytes)
    }

    /// Writes the last `rest` bytes of `bytes`.
    fn write_rest(&mut self, bytes: &[u8]) -> io::Result<()> {
        while self.feed.rest > 0 {
            match self.socket.write(&bytes[bytes.len() - self.feed.rest..]) {
                Ok(length) => self.feed.rest -= length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
