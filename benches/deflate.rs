//! Inflating a feed's messages: the decoder beside zlib-rs alone, on the same stream.
//!
//! What zlib-rs alone does is the floor: one call per message, with the tail (RFC 7692 §7.2.2)
//! already behind the payload, into one buffer that is never grown. The decoder parses the frame,
//! puts the tail back, limits the size, checks the UTF-8 and hands the text out. Its share on top of
//! the floor is printed at the end, from runs that take turns, so that a busy machine slows both.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};
use websockex::Limits;
use websockex::protocol::Role;
use websockex::protocol::decoder::{Decoder, Event, Pool};
use websockex::protocol::deflate::Deflate;
use zlib_rs::{DeflateFlush, Inflate, InflateFlush, Status};

const MESSAGES: usize = 512;
const MESSAGE_LENGTH: usize = 1024;
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// Rounds in which the two take turns; the fastest of each counts.
const ROUNDS: usize = 200;

/// A compressed stream of messages, as a server sends it.
struct Stream {
    name: &'static str,
    answer: &'static str,
    takeover: bool,
    /// All frames, one behind the other.
    frames: Vec<u8>,
    /// The payload of each message with the tail behind it.
    payloads: Vec<Vec<u8>>,
}

impl Stream {
    fn new(takeover: bool) -> Self {
        let (name, answer) = match takeover {
            true => ("takeover", "permessage-deflate"),
            false => (
                "no_takeover",
                "permessage-deflate; server_no_context_takeover",
            ),
        };
        let mut deflate = zlib_rs::Deflate::new(6, false, 15);
        let (mut frames, mut payloads) = (Vec::new(), Vec::new());
        for number in 0..u32::try_from(MESSAGES).unwrap() {
            if !takeover {
                deflate.reset();
            }
            let mut payload = vec![0; 2 * MESSAGE_LENGTH];
            let before = deflate.total_out();
            let message = message(number);
            let status = deflate.compress(&message, &mut payload, DeflateFlush::SyncFlush);
            assert_eq!(status, Ok(Status::Ok));
            payload.truncate(usize::try_from(deflate.total_out() - before).unwrap());
            let length = u16::try_from(payload.len() - TAIL.len()).unwrap();
            match u8::try_from(length) {
                Ok(length @ ..126) => frames.extend([0xc1, length]),
                _ => {
                    frames.extend([0xc1, 126]);
                    frames.extend(length.to_be_bytes());
                }
            }
            frames.extend(payload.strip_suffix(&TAIL).unwrap());
            payloads.push(payload);
        }
        Self {
            name,
            answer,
            takeover,
            frames,
            payloads,
        }
    }

    fn decoder(&self) -> Decoder {
        let agreed = Deflate::new().accept(Some(self.answer)).unwrap().unwrap();
        Decoder::new(Role::Client, Limits::default()).with_deflate(&agreed)
    }
}

/// An update of an order book: numbers that change, names that do not.
fn message(number: u32) -> Vec<u8> {
    let mut text = format!(r#"{{"e":"depthUpdate","s":"BTCUSDT","u":{number},"b":["#);
    let mut state = number;
    while text.len() < MESSAGE_LENGTH - 24 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (price, quantity) = (64_000 + (state >> 8) % 1000, (state >> 4) % 100_000);
        text.push_str(&format!(r#"["{price}.{:02}","{quantity}"],"#, state % 100));
    }
    text.push_str("[]]}");
    let mut bytes = text.into_bytes();
    bytes.resize(MESSAGE_LENGTH, b' ');
    bytes
}

/// zlib-rs alone.
fn floor(stream: &Stream, inflate: &mut Inflate, buffer: &mut [u8]) {
    for payload in &stream.payloads {
        if !stream.takeover {
            inflate.reset(false);
        }
        let before = inflate.total_out();
        let status = inflate.decompress(payload, buffer, InflateFlush::SyncFlush);
        assert_eq!(status, Ok(Status::Ok));
        assert_eq!(inflate.total_out() - before, MESSAGE_LENGTH as u64);
        black_box(&buffer);
    }
}

/// The decoder. The stream begins without a reference to what came before, so that it can follow
/// itself.
fn decode(stream: &Stream, decoder: &mut Decoder, pool: &mut Pool) {
    let mut input = &stream.frames[..];
    let mut messages = 0;
    while let Some(event) = decoder.decode(&mut input, pool, &mut ()).unwrap() {
        match event {
            Event::Text(text) => assert_eq!(text.len(), MESSAGE_LENGTH),
            other => panic!("{other:?}"),
        }
        black_box(event);
        messages += 1;
    }
    assert_eq!(messages, MESSAGES);
}

fn inflating(criterion: &mut Criterion) {
    for takeover in [true, false] {
        let stream = Stream::new(takeover);
        let mut group = criterion.benchmark_group(format!("inflate_{}", stream.name));
        group.throughput(Throughput::Elements(MESSAGES as u64));
        let (mut inflate, mut buffer) = (Inflate::new(false, 15), vec![0; 2 * MESSAGE_LENGTH]);
        group.bench_function("zlib_rs_alone", |bencher| {
            bencher.iter(|| floor(&stream, &mut inflate, &mut buffer));
        });
        let (mut decoder, mut pool) = (stream.decoder(), Pool::default());
        group.bench_function("decoder", |bencher| {
            bencher.iter(|| decode(&stream, &mut decoder, &mut pool));
        });
        group.finish();
    }
}

/// Prints the decoder's share on top of zlib-rs alone.
fn share(_: &mut Criterion) {
    for takeover in [true, false] {
        let stream = Stream::new(takeover);
        let (mut inflate, mut buffer) = (Inflate::new(false, 15), vec![0; 2 * MESSAGE_LENGTH]);
        let (mut decoder, mut pool) = (stream.decoder(), Pool::default());
        let (mut alone, mut ours) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            let started = Instant::now();
            floor(&stream, &mut inflate, &mut buffer);
            alone = alone.min(started.elapsed());
            let started = Instant::now();
            decode(&stream, &mut decoder, &mut pool);
            ours = ours.min(started.elapsed());
        }
        let each = |time: Duration| time.as_secs_f64() * 1e9 / MESSAGES as f64;
        println!(
            "{}: {:.0} ns a message of 1 KiB ({} bytes compressed), zlib-rs alone {:.0} ns, share {:+.1} %",
            stream.name,
            each(ours),
            stream.frames.len() / MESSAGES,
            each(alone),
            (each(ours) / each(alone) - 1.0) * 100.0
        );
    }
}

criterion_group!(benches, inflating, share);
criterion_main!(benches);
