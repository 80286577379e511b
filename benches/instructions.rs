//! Instructions per message on the receive path, and on that of sending, counted and not timed: the same on every run and on
//! every machine of one architecture, however busy it is.
//!
//! Needs valgrind: `cargo bench --bench instructions`. The program runs itself under callgrind, for
//! each workload with few rounds and with many, and divides the difference by the messages between
//! them, so that nothing of start-up is in the figure. valgrind has no AVX-512, so these are the
//! AVX2 paths.
//!
//! `benches/instructions.txt` holds the counts that are kept to. `-- --check` fails when one has grown by
//! more than [`TOLERANCE`]; `-- --update` writes the file anew, for a change that is meant.

#[path = "support/frames.rs"]
mod frames;
#[path = "support/server.rs"]
mod server;

use frames::TRADE;
use std::cell::Cell;
use std::error::Error;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::rc::Rc;
use std::thread;
use std::time::Duration;
use websockex::protocol::Role;
use websockex::protocol::buffer::Buffer;
use websockex::protocol::decoder::{Decoder, Event, Limits, Pool};
use websockex::protocol::encoder;
use websockex::protocol::frame::OpCode;
use websockex::{Context, Handler, HandlerResult, Message, Open, Reactor, TimerId};

const RECEIVE_BUFFER: usize = 128 * 1024;
/// What a count may grow by: another version of the compiler moves it a little.
const TOLERANCE: f64 = 0.03;
const COUNTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
const FEW: u32 = 1;
const MANY: u32 = 21;

/// One way through a buffer: `walk` and `walk_utf8` are the floors, `decode` is the decoder with a
/// callback behind it as the reactor has one, and `reactor` is everything, over loopback. The other
/// end of that is counted too, but it only writes the whole buffer at once.
const WAYS: [&str; 4] = ["walk", "walk_utf8", "decode", "reactor"];
const WORKLOADS: [&str; 4] = ["text_128", "binary_128", "text_32", "fragments_4x256"];

/// What is sent over the reactor, so many at a time, to a server that only reads: its kind and length.
const SENT: [(&str, OpCode, usize); 3] = [
    ("text_32", OpCode::Text, 32),
    ("text_128", OpCode::Text, 128),
    ("binary_1024", OpCode::Binary, 1024),
];
const SEND: &str = "send";
const SENT_PER_ROUND: u32 = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next().unwrap_or_default();
    if first == "--run" {
        let mut next = || arguments.next().ok_or("way, workload, rounds");
        let (way, workload, rounds) = (next()?, next()?, next()?.parse()?);
        return run(&way, &workload, rounds);
    }
    let words: Vec<String> = std::iter::once(first).chain(arguments).collect();
    let has = |name: &str| words.iter().any(|word| word == name);
    // Cargo says `--bench` when it is to be measured, and not when it is only to be tested.
    let measured = has("--bench") && !has("--test");
    let known = std::fs::read_to_string(COUNTS)?;
    let mut counts = String::new();
    let mut grown = Vec::new();
    let received = WORKLOADS
        .into_iter()
        .flat_map(|workload| WAYS.map(|way| (workload, way)));
    let sent = SENT.into_iter().map(|(workload, ..)| (workload, SEND));
    for (workload, way) in received.chain(sent) {
        if !measured {
            run(way, workload, FEW)?;
            continue;
        }
        let instructions = count(way, workload, MANY)? - count(way, workload, FEW)?;
        let per_round = match way {
            SEND => u64::from(SENT_PER_ROUND),
            _ => messages_in(&buffer(workload)),
        };
        let each = instructions as f64 / (per_round * u64::from(MANY - FEW)) as f64;
        let name = format!("{workload:>16}  {way:<10}");
        let line = format!("{name} {each:8.1} instructions/message\n");
        let before = kept(&known, &name).unwrap_or(f64::INFINITY);
        if each > before * (1.0 + TOLERANCE) {
            grown.push(format!(
                "{workload} {way}: {each:.1}, and it was {before:.1}"
            ));
        }
        print!("{line}");
        counts.push_str(&line);
    }
    if has("--update") {
        std::fs::write(COUNTS, counts)?;
    } else if has("--check") && !grown.is_empty() {
        return Err(format!("more instructions than before: {}", grown.join("; ")).into());
    }
    Ok(())
}

/// The count that the file has under this name.
fn kept(known: &str, name: &str) -> Option<f64> {
    let line = known.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Instructions of a whole run.
fn count(way: &str, workload: &str, rounds: u32) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--run", way, workload, &rounds.to_string()])
        .output()
        .map_err(|error| format!("valgrind does not run: {error}"))?;
    let report = String::from_utf8(output.stderr)?;
    let collected = report
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, count) = collected.ok_or_else(|| format!("no count in: {report}"))?;
    Ok(count.trim().parse()?)
}

fn buffer(workload: &str) -> Vec<u8> {
    let kilobyte = TRADE.repeat(8);
    let mut message = Buffer::new();
    let mut add = |fin, opcode, payload: &str| {
        let payload = payload.as_bytes();
        encoder::encode(Role::Server, fin, opcode, payload, [0; 4], &mut message);
    };
    match workload {
        "text_128" => add(true, OpCode::Text, TRADE),
        "text_32" => add(true, OpCode::Text, &TRADE[..32]),
        "binary_128" => add(true, OpCode::Binary, TRADE),
        "fragments_4x256" => {
            add(false, OpCode::Text, &kilobyte[..256]);
            add(false, OpCode::Continuation, &kilobyte[256..512]);
            add(false, OpCode::Continuation, &kilobyte[512..768]);
            add(true, OpCode::Continuation, &kilobyte[768..]);
        }
        other => panic!("unknown workload {other}"),
    }
    frames::fill(RECEIVE_BUFFER, &[message.as_slice().to_vec()])
}

fn messages_in(bytes: &[u8]) -> u64 {
    let mut messages = 0;
    frames::walk(bytes, |first, _| messages += u64::from(first >> 7));
    messages
}

/// A handler behind a pointer, as in the reactor.
trait Callback {
    fn on_message(&mut self, message: &[u8]) -> Result<(), Box<dyn Error>>;
}

struct Count(u64);

impl Callback for Count {
    fn on_message(&mut self, message: &[u8]) -> Result<(), Box<dyn Error>> {
        self.0 += message.len() as u64;
        Ok(())
    }
}

fn run(way: &str, workload: &str, rounds: u32) -> Result<(), Box<dyn Error>> {
    if way == SEND {
        return send(workload, rounds);
    }
    let bytes = buffer(workload);
    if way == "reactor" {
        return reactor(bytes, rounds);
    }
    let mut total = 0;
    for _ in 0..rounds {
        let bytes = black_box(bytes.as_slice());
        total += match way {
            "walk" => walk(bytes),
            "walk_utf8" => walk_utf8(bytes),
            "decode" => decode(bytes),
            other => return Err(format!("unknown way {other}").into()),
        };
    }
    black_box(total);
    Ok(())
}

#[inline(never)]
fn walk(bytes: &[u8]) -> u64 {
    let mut total = 0;
    frames::walk(bytes, |_, payload| total += payload.len() as u64);
    total
}

#[inline(never)]
fn walk_utf8(bytes: &[u8]) -> u64 {
    let mut total = 0;
    frames::walk(bytes, |first, payload| {
        #[cfg(feature = "simdutf8")]
        let is_text = |payload| simdutf8::basic::from_utf8(payload).is_ok();
        #[cfg(not(feature = "simdutf8"))]
        let is_text = |payload| std::str::from_utf8(payload).is_ok();
        if first & 0xf != 1 || is_text(payload) {
            total += payload.len() as u64;
        }
    });
    total
}

#[inline(never)]
fn decode(bytes: &[u8]) -> u64 {
    let mut decoder = Decoder::new(Role::Client, Limits::default());
    let mut pool = Pool::default();
    let mut count = Count(0);
    let callback: &mut dyn Callback = black_box(&mut count);
    let mut input = bytes;
    while let Some(event) = decoder
        .decode(&mut input, &mut pool, &mut ())
        .expect("the frames are good")
    {
        let message = match event {
            Event::Text(text) => text.as_bytes(),
            Event::Binary(bytes) => bytes,
            _ => continue,
        };
        callback.on_message(message).expect("it only counts");
    }
    count.0
}

#[derive(Clone, Default)]
struct Sum(Rc<Cell<u64>>);

impl Handler for Sum {
    fn on_message(&mut self, _: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        self.0.set(self.0.get() + message.as_bytes().len() as u64);
        Ok(())
    }
}

fn reactor(bytes: Vec<u8>, rounds: u32) -> Result<(), Box<dyn Error>> {
    let expected = walk(&bytes) * u64::from(rounds);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("ws://{}/", listener.local_addr()?);
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        server::upgrade(&mut stream)?;
        (0..rounds).try_for_each(|_| stream.write_all(&bytes))
    });
    let mut reactor = Reactor::new()?;
    let sum = Sum::default();
    reactor.connect(url, sum.clone())?;
    while sum.0.get() < expected {
        reactor.turn(None)?;
    }
    server.join().expect("the server does not panic")?;
    Ok(())
}

/// Sends a round of messages, and with the next turn the next one.
struct Sender {
    opcode: OpCode,
    payload: String,
    left: Rc<Cell<u32>>,
}

impl Sender {
    fn send(&self, cx: &mut Context<'_>) -> HandlerResult {
        for _ in 0..SENT_PER_ROUND {
            match self.opcode {
                OpCode::Text => cx.send_text(&self.payload)?,
                _ => cx.send_binary(self.payload.as_bytes())?,
            }
        }
        self.left.set(self.left.get() - 1);
        if self.left.get() > 0 {
            cx.set_timer(TimerId(0), Duration::ZERO);
        }
        Ok(())
    }
}

impl Handler for Sender {
    fn on_open(&mut self, cx: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
        self.send(cx)
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _: TimerId) -> HandlerResult {
        self.send(cx)
    }
}

fn send(workload: &str, rounds: u32) -> Result<(), Box<dyn Error>> {
    let sent = SENT.into_iter().find(|(name, ..)| *name == workload);
    let (_, opcode, length) = sent.ok_or_else(|| format!("unknown workload {workload}"))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("ws://{}/", listener.local_addr()?);
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        server::upgrade(&mut stream)?;
        // So large that how often it reads makes no difference.
        let mut buffer = vec![0; 1 << 20];
        while stream.read(&mut buffer)? > 0 {}
        Ok::<_, std::io::Error>(())
    });
    let mut reactor = Reactor::new()?;
    let left = Rc::new(Cell::new(rounds));
    let sender = Sender {
        opcode,
        payload: "x".repeat(length),
        left: left.clone(),
    };
    reactor.connect(url, sender)?;
    while left.get() > 0 {
        reactor.turn(None)?;
    }
    drop(reactor);
    server.join().expect("the server does not panic")?;
    Ok(())
}
