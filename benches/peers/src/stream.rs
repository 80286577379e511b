//! What the server sends, prepared before the first byte of it leaves.

use crate::frames::{self, opcode};
use crate::tally::checksum;
use crate::upgrade::Request;
use zlib_rs::{Deflate, DeflateFlush};

/// Prepared frames are repeated until they fill so many bytes.
const BLOCK: usize = 1 << 20;
/// Distinct JSON messages. Together they are longer than any window, so that a second turn of them,
/// deflated with context takeover, is the same as a third.
const JSON_MESSAGES: u64 = 256;
/// As exchanges do: little effort for the server.
const DEFLATE_LEVEL: i32 = 6;
const WINDOW_BITS: u8 = 15;

/// What is in the payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// JSON, ASCII.
    Text,
    /// Text whose characters take one to four bytes.
    MultiByte,
    /// All byte values.
    Binary,
    /// Distinct JSON messages, for permessage-deflate.
    Json,
}

/// A workload as the query of its URL describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// `payload`: `text`, `multibyte`, `binary`, `json`.
    pub payload: Payload,
    /// `size`: bytes of payload.
    pub size: usize,
    /// `fragments` per message.
    pub fragments: usize,
    /// `count`: messages per connection.
    pub count: u64,
    /// `burst`: messages per connection and write; with TLS sealed together, and without a rate written
    /// with others.
    pub burst: usize,
    /// `rate`: messages per second, of all connections together; 0 is as many as possible.
    pub rate: u64,
    /// `tick`: microseconds from burst to burst, if there is a rate.
    pub tick: u64,
    /// `connections`: of the run.
    pub connections: usize,
    /// `stamped=1`: a payload begins with the time its burst is due.
    pub stamped: bool,
    /// `deflate`: `takeover` or `fresh`; `None` is no compression.
    pub takeover: Option<bool>,
}

impl Workload {
    /// From the query; `None` if a value is not what it has to be.
    pub fn of(request: &Request) -> Option<Self> {
        let number = |name: &str, default: u64| match request.query(name) {
            Some(value) => value.parse().ok(),
            None => Some(default),
        };
        let size = |name: &str, default| number(name, default)?.try_into().ok();
        Some(Self {
            payload: match request.query("payload").unwrap_or("text") {
                "text" => Payload::Text,
                "multibyte" => Payload::MultiByte,
                "binary" => Payload::Binary,
                "json" => Payload::Json,
                _ => return None,
            },
            size: size("size", 128)?,
            fragments: size("fragments", 1)?,
            count: number("count", 0)?,
            burst: size("burst", 1)?,
            rate: number("rate", 0)?,
            tick: number("tick", 1000)?,
            connections: size("connections", 1)?,
            stamped: number("stamped", 0)? != 0,
            takeover: match request.query("deflate") {
                None => None,
                Some("takeover") => Some(true),
                Some("fresh") => Some(false),
                Some(_) => return None,
            },
        })
    }

    fn payloads(&self) -> Vec<Vec<u8>> {
        match self.payload {
            Payload::Text => {
                let line = br#"{"e":"trade","s":"BTCUSDT","p":"43250.10","q":"0.00120","T":1700000000000}"#;
                vec![line.iter().copied().cycle().take(self.size).collect()]
            }
            Payload::MultiByte => {
                let mut text = String::new();
                // One to four bytes each, and enough ASCII between them to be a text.
                for piece in ["Größe ", "価格 ", "цена ", "τιμή ", "🚀 ", "plain words "]
                    .iter()
                    .cycle()
                {
                    if text.len() + piece.len() > self.size {
                        break;
                    }
                    text.push_str(piece);
                }
                while text.len() < self.size {
                    text.push('.');
                }
                vec![text.into_bytes()]
            }
            Payload::Binary => vec![(0..self.size).map(|index| (index % 251) as u8).collect()],
            Payload::Json => (0..JSON_MESSAGES)
                .map(|seed| json(seed, self.size))
                .collect(),
        }
    }

    /// The frames, ready to be sent.
    pub fn frames(&self) -> Frames {
        let payloads = self.payloads();
        let kind = match self.payload {
            Payload::Binary => opcode::BINARY,
            _ => opcode::TEXT,
        };
        let mut first = Block::default();
        let mut cycle = Block::default();
        let mut deflate = Deflate::new(DEFLATE_LEVEL, false, WINDOW_BITS);
        if self.takeover == Some(true) {
            for payload in &payloads {
                let deflated = compress(&mut deflate, payload);
                first.push(kind, true, &deflated, self.fragments, checksum(payload));
            }
        }
        let mut once = Block::default();
        for payload in &payloads {
            match self.takeover {
                None => once.push(kind, false, payload, self.fragments, checksum(payload)),
                Some(takeover) => {
                    if !takeover {
                        deflate.reset();
                    }
                    let deflated = compress(&mut deflate, payload);
                    once.push(kind, true, &deflated, self.fragments, checksum(payload));
                }
            }
        }
        while cycle.bytes.len() < BLOCK || cycle.ends.len() < self.burst {
            cycle.append(&once);
        }
        Frames { first, cycle }
    }
}

fn compress(deflate: &mut Deflate, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; payload.len() * 2 + 64];
    let before = deflate.total_out();
    deflate
        .compress(payload, &mut out, DeflateFlush::SyncFlush)
        .expect("a new stream takes anything");
    let length = (deflate.total_out() - before) as usize;
    // RFC 7692 §7.2.1: "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
    assert!(
        out[..length].ends_with(&[0, 0, 0xff, 0xff]),
        "all of it came out"
    );
    out.truncate(length - 4);
    out
}

/// A depth update as exchanges send it, different for each seed.
fn json(seed: u64, size: usize) -> Vec<u8> {
    // An xorshift generator: the same numbers on every machine.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let time = 1_718_000_000_000 + seed * 100 + random(100);
    let mut text = format!(
        r#"{{"e":"depthUpdate","E":{time},"s":"BTCUSDT","U":{},"b":["#,
        seed * 37
    );
    while text.len() + 40 < size {
        let (whole, part, amount) = (random(90), random(100), random(10_000_000));
        text += &format!(r#"["670{whole:02}.{part:02}","0.{amount:07}"],"#);
    }
    text.pop();
    text += "]}";
    let mut text = text.into_bytes();
    text.resize(size, b' ');
    text
}

/// Whole messages, one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Of all messages.
    pub bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    /// The sum of the checksums up to the end of each.
    sums: Vec<u64>,
}

impl Block {
    fn push(&mut self, kind: u8, deflated: bool, payload: &[u8], fragments: usize, sum: u64) {
        frames::write_message(&mut self.bytes, kind, deflated, payload, fragments);
        self.ends.push(self.bytes.len());
        self.sums
            .push(self.sums.last().unwrap_or(&0).wrapping_add(sum));
    }

    fn append(&mut self, other: &Self) {
        let (start, sum) = (self.bytes.len(), self.sums.last().copied().unwrap_or(0));
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| start + end));
        self.sums
            .extend(other.sums.iter().map(|one| one.wrapping_add(sum)));
    }

    /// Start and sum of a message.
    fn start(&self, message: usize) -> (usize, u64) {
        match message.checked_sub(1) {
            Some(before) => (self.ends[before], self.sums[before]),
            None => (0, 0),
        }
    }
}

/// All that one connection sends: `first`, then `cycle` again and again.
#[derive(Clone, Debug)]
pub struct Frames {
    first: Block,
    cycle: Block,
}

/// Consecutive messages.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Their frames.
    pub bytes: &'a [u8],
    /// How many.
    pub messages: u64,
    /// The sum of their checksums.
    pub checksum: u64,
}

impl Frames {
    /// At most `count` messages from the `index`th on; at least one.
    pub fn chunk(&self, index: u64, count: u64) -> Chunk<'_> {
        let first = self.first.ends.len() as u64;
        let (block, from) = if index < first {
            (&self.first, index as usize)
        } else {
            let at = (index - first) % self.cycle.ends.len() as u64;
            (&self.cycle, at as usize)
        };
        let to = (from + count.max(1) as usize).min(block.ends.len());
        let ((start, before), (end, after)) = (block.start(from), block.start(to));
        Chunk {
            bytes: &block.bytes[start..end],
            messages: (to - from) as u64,
            checksum: after.wrapping_sub(before),
        }
    }
}
