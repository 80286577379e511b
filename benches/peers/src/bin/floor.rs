//! The floors: what the kernel, the crypto library and the inflater alone cost for the same bytes.
//!
//! The same command line as a client's, and the same report.
//!
//! - `receive`: one epoll, edge-triggered, and one large buffer for all sockets. It finds where each
//!   frame ends and tallies its payload; no UTF-8, no reassembly, no callback. Of a long frame that a
//!   read cuts it only remembers how much is to come. A read that does not fill the buffer has drained
//!   the socket. With TLS the same behind rustls's unbuffered API. With
//!   permessage-deflate it is the inflater alone, on a stream that is in memory already.
//! - `echo`: a blocking socket, or with `--spin` one that is polled, and a frame that was made before.
//! - `send`: a frame that was made before, its key zero, as many per write as a turn sends.
//! - `idle`: the sockets in an epoll, with TLS their sessions, and nothing else.
//! - `handshakes`: a fixed request on a blocking socket, and the end of the answer; no check. One after
//!   the other, so that it is a measure to compare with, and no floor.

use mio::{Events, Interest, Poll, Token};
use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use websockex_peers::frames::{self, Header, opcode};
use websockex_peers::{
    Arguments, GO, Meter, Mode, Report, Result, Tally, Usage, live_heap, process, resident, start,
    tls, upgrade,
};
use zlib_rs::{Inflate, InflateFlush};

/// The receive buffer, in bytes: little enough for a second-level cache.
const BUFFER: usize = 256 * 1024;
/// Room for one record that is sent.
const RECORD: usize = 17 * 1024;
/// Reads of one socket before the others have their turn.
const READS_PER_TURN: usize = 4;
const NAME: &str = "floor";

fn main() -> Result<()> {
    let arguments = start()?;
    match arguments.mode {
        Mode::Receive if arguments.deflate => inflate(&arguments)?,
        Mode::Receive => receive(&arguments)?,
        Mode::Echo => echo(&arguments)?,
        Mode::Send => send(&arguments)?,
        Mode::Idle => idle(&arguments)?,
        Mode::Handshakes => handshakes(&arguments)?,
    }
    .print();
    Ok(())
}

/// A socket with its session, if there is one.
struct Link {
    socket: TcpStream,
    tls: Option<Box<UnbufferedClientConnection>>,
    /// What came with the last read and is no whole record or frame yet; of `partial`, plaintext.
    records: Vec<u8>,
    partial: Vec<u8>,
}

/// Where sockets are read into. What is kept lies right in front of a cache line: to the beginning of
/// one the kernel copies fastest.
struct Room {
    bytes: Vec<u8>,
    /// The first cache line.
    front: usize,
    /// Of several sockets: what one leaves is taken out of the way of the others. Otherwise it is
    /// moved to the front and waits there.
    is_shared: bool,
    kept: Range<usize>,
}

const LINE: usize = 64;

impl Room {
    fn new(size: usize, is_shared: bool) -> Self {
        let bytes = vec![0; size + LINE];
        let front = bytes.as_ptr().align_offset(LINE);
        Self {
            bytes,
            front,
            is_shared,
            kept: front..front,
        }
    }

    /// Where so many bytes are kept.
    fn place(&self, length: usize) -> Range<usize> {
        let end = self.front + length.next_multiple_of(LINE);
        end - length..end
    }

    /// Puts to the front what was left; returns where it is.
    fn begin(&mut self, held: &mut Vec<u8>) -> Range<usize> {
        if !held.is_empty() {
            self.kept = self.place(held.len());
            self.bytes[self.kept.clone()].copy_from_slice(held);
            held.clear();
        }
        self.kept.clone()
    }

    /// Keeps what was not taken.
    fn end(&mut self, left: Range<usize>, held: &mut Vec<u8>) {
        if self.is_shared {
            held.extend_from_slice(&self.bytes[left]);
            self.kept = self.place(0);
        } else {
            self.kept = self.place(left.len());
            self.bytes.copy_within(left, self.kept.start);
        }
    }
}

/// Memory that one handshake after the other works in, so that none pays for zeroing it.
struct Workshop {
    room: Room,
    output: Vec<u8>,
}

impl Workshop {
    fn new() -> Self {
        Self {
            room: Room::new(RECORD, true),
            output: vec![0; RECORD],
        }
    }
}

fn tls_config(arguments: &Arguments) -> Result<Option<Arc<ClientConfig>>> {
    match (&arguments.ca, arguments.is_tls()) {
        (Some(ca), true) => Ok(Some(tls::client_config(ca, arguments.resumption)?)),
        (None, true) => Err("--ca is missing".into()),
        (_, false) => Ok(None),
    }
}

impl Link {
    /// Blocking, until the connection is upgraded.
    fn open(
        arguments: &Arguments,
        config: Option<&Arc<ClientConfig>>,
        workshop: &mut Workshop,
    ) -> Result<Self> {
        let socket = TcpStream::connect(arguments.address()?)?;
        socket.set_nodelay(true)?;
        let mut link = Self {
            socket,
            tls: None,
            records: Vec::new(),
            partial: Vec::new(),
        };
        if let Some(config) = config {
            let name = ServerName::try_from(arguments.host().to_owned())?;
            let mut tls = Box::new(UnbufferedClientConnection::new(Arc::clone(config), name)?);
            link.shake_hands(&mut tls, workshop)?;
            link.tls = Some(tls);
        }
        let request = upgrade::request(arguments.authority(), arguments.path(), arguments.deflate);
        link.send(request.as_bytes())?;
        loop {
            if let Some(end) = link.partial.windows(4).position(|four| four == b"\r\n\r\n") {
                link.partial.drain(..end + 4);
                link.partial.shrink_to_fit();
                return Ok(link);
            }
            let mut plain = Vec::new();
            link.read(&mut workshop.room, |bytes| {
                plain.extend_from_slice(bytes);
                bytes.len()
            })?;
            link.partial.extend_from_slice(&plain);
        }
    }

    fn shake_hands(
        &mut self,
        tls: &mut UnbufferedClientConnection,
        workshop: &mut Workshop,
    ) -> Result<()> {
        let mut input: Vec<u8> = Vec::new();
        let output = &mut workshop.output;
        let mut encoded = 0;
        loop {
            let UnbufferedStatus { discard, state } = tls.process_tls_records(&mut input);
            let mut is_done = false;
            let mut is_hungry = false;
            match state? {
                ConnectionState::EncodeTlsData(mut data) => {
                    encoded += match data.encode(&mut output[encoded..]) {
                        Err(EncodeError::InsufficientSize(need)) => {
                            output.resize(encoded + need.required_size, 0);
                            data.encode(&mut output[encoded..])?
                        }
                        result => result?,
                    };
                }
                ConnectionState::TransmitTlsData(data) => {
                    self.socket.write_all(&output[..encoded])?;
                    encoded = 0;
                    data.done();
                }
                ConnectionState::BlockedHandshake => is_hungry = true,
                ConnectionState::WriteTraffic(_) => is_done = true,
                _ => return Err("that is not a handshake".into()),
            }
            input.drain(..discard);
            if is_done {
                self.records = input;
                self.records.shrink_to_fit();
                return Ok(());
            }
            if is_hungry {
                let length = self.socket.read(&mut workshop.room.bytes)?;
                if length == 0 {
                    return Err("the server is gone".into());
                }
                input.extend_from_slice(&workshop.room.bytes[..length]);
            }
        }
    }

    /// Sends all of it; the socket is to block, or to have room.
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(tls) = &mut self.tls else {
            self.socket.write_all(bytes)?;
            return Ok(());
        };
        let UnbufferedStatus { discard, state } = tls.process_tls_records(&mut []);
        let ConnectionState::WriteTraffic(mut traffic) = state? else {
            return Err("there is something to read first".into());
        };
        assert_eq!(discard, 0, "nothing came in");
        let mut out = vec![0; bytes.len() + 64 * bytes.len().div_ceil(16384)];
        let length = traffic
            .encrypt(bytes, &mut out)
            .map_err(|error: EncryptError| error.to_string())?;
        self.socket.write_all(&out[..length])?;
        Ok(())
    }

    /// One read; `take` gets the plaintext, all that there is, and says how much of it it took.
    /// Returns whether the socket may have more.
    fn read(&mut self, room: &mut Room, mut take: impl FnMut(&[u8]) -> usize) -> Result<bool> {
        let kept = room.begin(self.held());
        let length = match self.socket.read(&mut room.bytes[kept.end..]) {
            Ok(0) => return Err("the server is gone".into()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        let end = kept.end + length;
        let bytes = &mut room.bytes[kept.start..end];
        let taken = match &mut self.tls {
            None => take(bytes),
            Some(tls) => open_records(tls, bytes, &mut self.partial, &mut take)?,
        };
        let is_full = end == room.bytes.len();
        room.end(kept.start + taken..end, self.held());
        Ok(is_full)
    }

    /// What came off the socket and is to be read again with what follows.
    fn held(&mut self) -> &mut Vec<u8> {
        match self.tls {
            Some(_) => &mut self.records,
            None => &mut self.partial,
        }
    }
}

/// Decrypts whole records; the plaintext that `take` leaves goes to `partial`, and comes again with
/// what follows. Returns the bytes of the records.
fn open_records(
    tls: &mut UnbufferedClientConnection,
    bytes: &mut [u8],
    partial: &mut Vec<u8>,
    take: &mut impl FnMut(&[u8]) -> usize,
) -> Result<usize> {
    let mut position = 0;
    loop {
        let UnbufferedStatus { mut discard, state } =
            tls.process_tls_records(&mut bytes[position..]);
        let mut is_hungry = false;
        match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    take_record(partial, record.payload, take);
                }
            }
            ConnectionState::WriteTraffic(_) => is_hungry = true,
            ConnectionState::PeerClosed | ConnectionState::Closed => {
                return Err("the server closes".into());
            }
            _ => return Err("no handshake is due".into()),
        }
        position += discard;
        if is_hungry && discard == 0 {
            return Ok(position);
        }
    }
}

/// The plaintext of one record: of a frame that began in another, only as much is copied as [`walk`]
/// needs to go on.
fn take_record(partial: &mut Vec<u8>, payload: &[u8], take: &mut impl FnMut(&[u8]) -> usize) {
    let mut payload = payload;
    while !partial.is_empty() && !payload.is_empty() {
        let wanted = match Header::parse(partial) {
            Some(header) if header.payload > SHORT => header.len + 8 - partial.len(),
            Some(header) => header.len + header.payload - partial.len(),
            None => 1,
        };
        let (head, tail) = payload.split_at(wanted.min(payload.len()));
        partial.extend_from_slice(head);
        payload = tail;
        let taken = take(partial);
        partial.drain(..taken);
    }
    let taken = take(payload);
    partial.extend_from_slice(&payload[taken..]);
}

/// A payload longer than this is walked over as it comes, from its first eight bytes on, and nothing
/// of it is copied; a shorter one waits for its end, which is less work.
const SHORT: usize = 512;

/// A message that is under way: in fragments, or longer than what has come of it.
#[derive(Default)]
struct Fragments {
    length: u64,
    first: u64,
    last: [u8; 8],
    /// Of the payload of a long frame, still to come, and whether the message ends with it.
    left: usize,
    is_final: bool,
}

impl Fragments {
    /// As much of a long payload as is there; returns the bytes taken.
    fn skip(&mut self, bytes: &[u8], tally: &mut Tally) -> usize {
        let length = self.left.min(bytes.len());
        let bytes = &bytes[..length];
        match bytes.last_chunk::<8>() {
            Some(last) => self.last = *last,
            None => {
                self.last.rotate_left(length);
                self.last[8 - length..].copy_from_slice(bytes);
            }
        }
        self.left -= length;
        if self.left == 0 && self.is_final {
            tally.take_sum(self.length, self.first, u64::from_le_bytes(self.last));
            self.length = 0;
        }
        length
    }
}

/// Walks over whole frames; returns the bytes taken. Fragments are tallied as one message: the
/// length of all, the first bytes of the first and the last bytes of the last.
#[inline(always)]
fn walk(bytes: &[u8], fragments: &mut Fragments, tally: &mut Tally) -> usize {
    let mut position = 0;
    if fragments.left > 0 {
        position = fragments.skip(bytes, tally);
    }
    while let Some(header) = Header::parse(&bytes[position..]) {
        let start = position + header.len;
        let Some(payload) = bytes.get(start..start + header.payload) else {
            return position + begin_long(&bytes[position..], &header, fragments, tally);
        };
        position = start + header.payload;
        if header.is_final() && header.opcode() != opcode::CONTINUATION {
            tally.take(payload);
            continue;
        }
        let word = |word: Option<&[u8; 8]>| word.map_or(0, |word| u64::from_le_bytes(*word));
        if header.opcode() != opcode::CONTINUATION {
            fragments.first = word(payload.first_chunk());
        }
        fragments.length += payload.len() as u64;
        if header.is_final() {
            tally.take_sum(
                fragments.length,
                fragments.first,
                word(payload.last_chunk()),
            );
            fragments.length = 0;
        }
    }
    position
}

/// A frame that is not complete: if it is a long one, takes its header and what there is of it.
fn begin_long(
    bytes: &[u8],
    header: &Header,
    fragments: &mut Fragments,
    tally: &mut Tally,
) -> usize {
    let payload = &bytes[header.len..];
    let Some(first) = payload.first_chunk().filter(|_| header.payload > SHORT) else {
        return 0;
    };
    if header.opcode() != opcode::CONTINUATION {
        fragments.first = u64::from_le_bytes(*first);
    }
    fragments.length += header.payload as u64;
    fragments.left = header.payload;
    fragments.is_final = header.is_final();
    header.len + fragments.skip(payload, tally)
}

fn open_all(arguments: &Arguments) -> Result<Vec<Link>> {
    let config = tls_config(arguments)?;
    let mut workshop = Workshop::new();
    (0..arguments.connections)
        .map(|_| Link::open(arguments, config.as_ref(), &mut workshop))
        .collect()
}

fn open_idle(arguments: &Arguments) -> Result<Vec<Link>> {
    let arguments = Arguments {
        url: arguments.idle_url(),
        connections: arguments.idle,
        ..arguments.clone()
    };
    open_all(&arguments)
}

fn receive(arguments: &Arguments) -> Result<Report> {
    let idle = open_idle(arguments)?;
    let mut links = open_all(arguments)?;
    // Behind the busy ones, so that these are counted from 0.
    links.extend(idle);
    let mut poll = Poll::new()?;
    for (index, link) in links.iter().enumerate() {
        link.socket.set_nonblocking(true)?;
        register(&poll, link, index)?;
    }
    let mut fragments: Vec<Fragments> = links.iter().map(|_| Fragments::default()).collect();
    let mut tally = Tally::new(arguments.messages, arguments.stamped);
    let mut events = Events::with_capacity(1024);
    let mut room = Room::new(BUFFER, arguments.connections > 1);
    let mut again: Vec<usize> = Vec::new();
    let mut turn: Vec<usize> = Vec::new();
    let mut go = Vec::new();
    frames::write(&mut go, 0x80 | opcode::TEXT, Some([0; 4]), GO.as_bytes());
    let meter = Meter::start();
    links[0].send(&go)?;
    while !tally.is_complete() {
        let timeout = (arguments.spin || !again.is_empty()).then_some(Duration::ZERO);
        poll.poll(&mut events, timeout)?;
        turn.append(&mut again);
        turn.extend(events.iter().map(|event| event.token().0));
        for index in turn.drain(..) {
            let fragments = &mut fragments[index];
            let mut has_more = true;
            for _ in 0..READS_PER_TURN {
                let take = |bytes: &[u8]| walk(bytes, fragments, &mut tally);
                has_more = links[index].read(&mut room, take)?;
                if !has_more {
                    break;
                }
            }
            if has_more {
                again.push(index);
            }
        }
    }
    let usage = meter.stop();
    Ok(Report::new(NAME, arguments, &usage, &tally))
}

fn register(poll: &Poll, link: &Link, index: usize) -> Result<()> {
    use std::os::fd::AsRawFd;
    let descriptor = link.socket.as_raw_fd();
    let mut source = mio::unix::SourceFd(&descriptor);
    poll.registry()
        .register(&mut source, Token(index), Interest::READABLE)?;
    Ok(())
}

/// Takes the stream to memory first, and then inflates it: no socket, no frames in the measurement.
fn inflate(arguments: &Arguments) -> Result<Report> {
    let mut link = Link::open(arguments, None, &mut Workshop::new())?;
    // The answer says whether the window outlives a message; so does the query.
    let is_fresh = arguments.url.contains("deflate=fresh");
    let mut go = Vec::new();
    frames::write(&mut go, 0x80 | opcode::TEXT, Some([0; 4]), GO.as_bytes());
    link.send(&go)?;
    let mut stream: Vec<u8> = std::mem::take(&mut link.partial);
    // Of each message: where its payload is, with the tail of RFC 7692 §7.2.2 behind it.
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let mut buffer = vec![0; BUFFER];
    while (messages.len() as u64) < arguments.messages {
        let length = link.socket.read(&mut buffer)?;
        if length == 0 {
            return Err("the server is gone".into());
        }
        stream.extend_from_slice(&buffer[..length]);
        let mut position = 0;
        while let Some(header) = Header::parse(&stream[position..]) {
            let start = position + header.len;
            let Some(payload) = stream.get(start..start + header.payload) else {
                break;
            };
            messages.push([payload, &[0, 0, 0xff, 0xff]].concat());
            position = start + header.payload;
        }
        stream.drain(..position);
    }
    let mut tally = Tally::new(arguments.messages, false);
    let mut inflater = Inflate::new(false, 15);
    let mut room = vec![0; 64 * 1024];
    let meter = Meter::start();
    for message in &messages {
        if is_fresh {
            inflater.reset(false);
        }
        let before = inflater.total_out();
        inflater
            .decompress(message, &mut room, InflateFlush::SyncFlush)
            .map_err(|error| error.as_str())?;
        tally.take(&room[..(inflater.total_out() - before) as usize]);
    }
    let usage = meter.stop();
    Ok(Report::new(NAME, arguments, &usage, &tally))
}

fn echo(arguments: &Arguments) -> Result<Report> {
    let config = tls_config(arguments)?;
    let mut link = Link::open(arguments, config.as_ref(), &mut Workshop::new())?;
    link.socket.set_nonblocking(arguments.spin)?;
    let payload = arguments.payload();
    let mut frame = Vec::new();
    frames::write(
        &mut frame,
        0x80 | opcode::TEXT,
        Some([0; 4]),
        payload.as_bytes(),
    );
    let mut tally = Tally::new(arguments.messages, false);
    tally.latencies.reserve(arguments.messages);
    let mut room = Room::new(RECORD.max(arguments.size * 2), false);
    let mut fragments = Fragments::default();
    let meter = Meter::start();
    while !tally.is_complete() {
        let sent = Instant::now();
        link.send(&frame)?;
        let wanted = tally.messages + 1;
        while tally.messages < wanted {
            link.read(&mut room, |bytes| walk(bytes, &mut fragments, &mut tally))?;
        }
        tally.latencies.push(sent.elapsed().as_nanos() as u64);
    }
    let usage = meter.stop();
    Ok(Report::new(NAME, arguments, &usage, &tally))
}

fn send(arguments: &Arguments) -> Result<Report> {
    let config = tls_config(arguments)?;
    let mut link = Link::open(arguments, config.as_ref(), &mut Workshop::new())?;
    let kind = if arguments.binary {
        opcode::BINARY
    } else {
        opcode::TEXT
    };
    let mut frame = Vec::new();
    frames::write(
        &mut frame,
        0x80 | kind,
        Some([0; 4]),
        arguments.payload().as_bytes(),
    );
    let batch = frame.repeat(arguments.batch);
    let meter = Meter::start();
    let mut left = arguments.messages;
    while left > 0 {
        let messages = left.min(arguments.batch as u64);
        link.send(&batch[..frame.len() * messages as usize])?;
        left -= messages;
    }
    let mut answer = String::new();
    let mut room = Room::new(RECORD, false);
    while answer.is_empty() {
        link.read(&mut room, |bytes| match Header::parse(bytes) {
            Some(header) if bytes.len() == header.len + header.payload => {
                answer = String::from_utf8_lossy(&bytes[header.len..]).into_owned();
                bytes.len()
            }
            _ => 0,
        })?;
    }
    let usage = meter.stop();
    let tally = Tally::new(0, false);
    Report::new(NAME, arguments, &usage, &tally).with_answer(&answer)
}

fn idle(arguments: &Arguments) -> Result<Report> {
    let config = tls_config(arguments)?;
    let poll = Poll::new()?;
    let mut workshop = Workshop::new();
    let mut links = vec![Link::open(arguments, config.as_ref(), &mut workshop)?];
    register(&poll, &links[0], 0)?;
    let before = (resident(), live_heap());
    for index in 0..arguments.connections {
        let link = Link::open(arguments, config.as_ref(), &mut workshop)?;
        register(&poll, &link, index + 1)?;
        links.push(link);
    }
    let report = Report::idle(NAME, arguments, before);
    drop(links);
    Ok(report)
}

fn handshakes(arguments: &Arguments) -> Result<Report> {
    let config = tls_config(arguments)?;
    let mut workshop = Workshop::new();
    // The first has more to do than the others: a session to resume, code to be paged in.
    close(Link::open(arguments, config.as_ref(), &mut workshop)?)?;
    let meter = Meter::start();
    for _ in 0..arguments.messages {
        close(Link::open(arguments, config.as_ref(), &mut workshop)?)?;
    }
    let usage: Usage = meter.stop();
    let mut tally = Tally::new(0, false);
    tally.messages = arguments.messages;
    Ok(Report::new(NAME, arguments, &usage, &tally))
}

/// One at a time; without the closing handshake, and with no port left behind.
fn close(link: Link) -> Result<()> {
    process::reset_on_close(&link.socket)?;
    Ok(())
}
