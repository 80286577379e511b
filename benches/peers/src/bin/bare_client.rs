//! The bare client: the least that a client has to do which keeps to RFC 6455, hands out each message in
//! one piece, and waits for more than one thing at a time. No callbacks, no checks, no statistics. Over ws,
//! on one connection, where that is more than the floor does.
//!
//! `receive`: a message that a read cuts is kept, at the front of the one buffer, until it is whole.
//! `echo`: the socket does not block, and is waited for with epoll.
//! `send`: likewise, and each message is masked with a key of its own.

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::time::{Duration, Instant};
use websockex_peers::frames::{self, Header, opcode};
use websockex_peers::{
    Arguments, GO, Meter, Mode, Report, Result, Tally, start, unsupported, upgrade,
};

const NAME: &str = "bare client";

/// As the floor has it. One that a longer message needs has room for the message and this.
const BUFFER: usize = 256 * 1024;
const BEHIND: usize = 16 * 1024;
/// To the beginning of a cache line the kernel copies fastest.
const LINE: usize = 64;
const READS_PER_TURN: usize = 4;

fn main() -> Result<()> {
    let arguments = start()?;
    if arguments.is_tls() || arguments.connections > 1 || arguments.deflate || arguments.spin {
        unsupported(NAME, "the floor says it");
    }
    match arguments.mode {
        Mode::Receive => receive(&arguments)?,
        Mode::Echo => echo(&arguments)?,
        Mode::Send => send(&arguments)?,
        _ => unsupported(NAME, "the floor says it"),
    }
    .print();
    Ok(())
}

/// A socket, and the poll that it is waited for with.
struct Link {
    socket: TcpStream,
    poll: Poll,
    events: Events,
}

impl Link {
    fn open(arguments: &Arguments) -> Result<Self> {
        let mut socket = std::net::TcpStream::connect(arguments.address()?)?;
        socket.set_nodelay(true)?;
        let request = upgrade::request(arguments.authority(), arguments.path(), false);
        socket.write_all(request.as_bytes())?;
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        let poll = Poll::new()?;
        poll.registry().register(
            &mut socket,
            Token(0),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        Ok(Self {
            socket,
            poll,
            events: Events::with_capacity(1024),
        })
    }

    /// Sends all of it, and waits meanwhile where it must.
    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        loop {
            match self.socket.write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.poll.poll(&mut self.events, None)?;
                }
                Err(error) => return Err(error.into()),
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// What is there now.
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        match self.socket.read(bytes) {
            Ok(0) => Err("the server is gone".into()),
            Ok(length) => Ok(length),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

/// Where it is read into, and what of it is not taken yet.
struct Room {
    bytes: Vec<u8>,
    front: usize,
    kept: Range<usize>,
}

impl Room {
    fn new(size: usize) -> Self {
        let bytes = vec![0; size + LINE];
        let front = bytes.as_ptr().align_offset(LINE);
        Self {
            bytes,
            front,
            kept: front..front,
        }
    }

    /// Moves what is kept so that it ends where a cache line begins at the front, if it is not there.
    fn bring_forward(&mut self) {
        let length = self.kept.len();
        let end = self.front + length.next_multiple_of(LINE);
        if self.kept.start >= self.front + LINE {
            self.bytes.copy_within(self.kept.clone(), end - length);
            self.kept = end - length..end;
        } else if length == 0 {
            self.kept = self.front..self.front;
        }
    }

    /// A larger one, if the message at the front needs it.
    fn make_room_for(&mut self, message: usize) {
        let bytes = &self.bytes[self.kept.clone()];
        if message > self.bytes.len() - 2 * LINE {
            let mut larger = Self::new(message + BEHIND + LINE);
            let end = larger.front + bytes.len().next_multiple_of(LINE);
            larger.kept = end - bytes.len()..end;
            larger.bytes[larger.kept.clone()].copy_from_slice(bytes);
            *self = larger;
        }
    }

    /// Takes whole messages; says how long the one is that is left, as far as it is known.
    fn take(&mut self, tally: &mut Tally) -> usize {
        loop {
            let bytes = &self.bytes[self.kept.clone()];
            let Some(header) = Header::parse(bytes) else {
                return 0;
            };
            if !header.is_final() || header.opcode() == opcode::CONTINUATION {
                unsupported(NAME, "the floor says it");
            }
            let end = header.len + header.payload;
            let Some(payload) = bytes.get(header.len..end) else {
                return end;
            };
            tally.take(payload);
            self.kept.start += end;
        }
    }
}

fn receive(arguments: &Arguments) -> Result<Report> {
    let mut link = Link::open(arguments)?;
    let mut tally = Tally::new(arguments.messages, arguments.stamped);
    let mut room = Room::new(BUFFER);
    let mut go = Vec::new();
    frames::write(&mut go, 0x80 | opcode::TEXT, Some([0; 4]), GO.as_bytes());
    let mut has_more = false;
    let meter = Meter::start();
    link.send(&go)?;
    while !tally.is_complete() {
        let timeout = has_more.then_some(Duration::ZERO);
        link.poll.poll(&mut link.events, timeout)?;
        for _ in 0..READS_PER_TURN {
            room.bring_forward();
            let free = &mut room.bytes[room.kept.end..];
            let asked = free.len();
            let length = link.read(free)?;
            room.kept.end += length;
            let message = room.take(&mut tally);
            room.make_room_for(message);
            has_more = length == asked;
            if !has_more {
                break;
            }
        }
    }
    let usage = meter.stop();
    Ok(Report::new(NAME, arguments, &usage, &tally))
}

fn echo(arguments: &Arguments) -> Result<Report> {
    let mut link = Link::open(arguments)?;
    let payload = arguments.payload();
    let mut frame = Vec::new();
    let first = 0x80 | opcode::TEXT;
    frames::write(&mut frame, first, Some([0; 4]), payload.as_bytes());
    let mut tally = Tally::new(arguments.messages, false);
    tally.latencies.reserve(arguments.messages);
    let mut room = Room::new(BUFFER);
    let meter = Meter::start();
    while !tally.is_complete() {
        let sent = Instant::now();
        link.send(&frame)?;
        let wanted = tally.messages + 1;
        while tally.messages < wanted {
            link.poll.poll(&mut link.events, None)?;
            room.bring_forward();
            let length = link.read(&mut room.bytes[room.kept.end..])?;
            room.kept.end += length;
            room.take(&mut tally);
        }
        tally.latencies.push(sent.elapsed().as_nanos() as u64);
    }
    let usage = meter.stop();
    Ok(Report::new(NAME, arguments, &usage, &tally))
}

/// Bytes of a long message that are masked before they are written, so that they are in the cache.
const PIECE: usize = 64 * 1024;

fn send(arguments: &Arguments) -> Result<Report> {
    let mut link = Link::open(arguments)?;
    let payload = arguments.payload();
    let payload = payload.as_bytes();
    let kind = match arguments.binary {
        true => opcode::BINARY,
        false => opcode::TEXT,
    };
    // The header of all of them, without its key.
    let mut header = Vec::new();
    frames::write(&mut header, 0x80 | kind, Some([0; 4]), payload);
    header.truncate(header.len() - payload.len() - 4);
    let mut keys = Keys(0x9e37_79b9_7f4a_7c15);
    let room = (header.len() + 4 + payload.len().min(PIECE)) * arguments.batch;
    let mut out = vec![0; room];
    let meter = Meter::start();
    let mut left = arguments.messages;
    while left > 0 {
        let messages = left.min(arguments.batch as u64);
        let mut end = 0;
        for _ in 0..messages {
            let key = keys.next();
            for bytes in [&header[..], &key] {
                out[end..end + bytes.len()].copy_from_slice(bytes);
                end += bytes.len();
            }
            for piece in payload.chunks(PIECE) {
                mask(piece, key, &mut out[end..end + piece.len()]);
                end += piece.len();
                if payload.len() > PIECE {
                    link.send(&out[..end])?;
                    end = 0;
                }
            }
        }
        if end > 0 {
            link.send(&out[..end])?;
        }
        left -= messages;
    }
    let mut room = vec![0; BUFFER];
    let mut end = 0;
    let answer = loop {
        link.poll.poll(&mut link.events, None)?;
        end += link.read(&mut room[end..])?;
        if let Some(header) = Header::parse(&room[..end])
            && let Some(answer) = room[..end].get(header.len..header.len + header.payload)
        {
            break String::from_utf8_lossy(answer).into_owned();
        }
    };
    let usage = meter.stop();
    Report::new(NAME, arguments, &usage, &Tally::new(0, false)).with_answer(&answer)
}

/// Cheaper than they may be: anybody can guess the next one.
struct Keys(u64);

impl Keys {
    fn next(&mut self) -> [u8; 4] {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 as u32).to_ne_bytes()
    }
}

/// Copies a piece, masked, that begins with the key's first byte.
fn mask(piece: &[u8], key: [u8; 4], out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the line above found what it is compiled for.
        return unsafe { mask_by_32(piece, key, out) };
    }
    mask_words(piece, key, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn mask_by_32(piece: &[u8], key: [u8; 4], out: &mut [u8]) {
    mask_words(piece, key, out);
}

/// In steps that the compiler makes vectors of.
#[inline(always)]
fn mask_words(piece: &[u8], key: [u8; 4], out: &mut [u8]) {
    let (words, rest) = piece.as_chunks::<4>();
    let (out, end) = out.as_chunks_mut::<4>();
    for (out, word) in out.iter_mut().zip(words) {
        *out = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(key)).to_ne_bytes();
    }
    for (out, (byte, key)) in end.iter_mut().zip(rest.iter().zip(key)) {
        *out = byte ^ key;
    }
}
