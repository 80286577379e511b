//! The decoder over a receive buffer full of small frames, beside two floors: `walk` only finds the
//! frames, `walk_utf8` also validates the text of each with the fastest validator there is.

#[path = "support/frames.rs"]
mod frames;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use frames::TRADE;
use std::hint::black_box;
use websockex::protocol::Role;
use websockex::protocol::buffer::Buffer;
use websockex::protocol::decoder::{Decoder, Limits, Pool};
use websockex::protocol::encoder;
use websockex::protocol::frame::OpCode;

/// What one read brings when the feed is faster than we are.
const RECEIVE_BUFFER: usize = 128 * 1024;
/// A server does not mask.
const NO_KEY: [u8; 4] = [0; 4];

fn frame(fin: bool, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut out = Buffer::new();
    encoder::encode(Role::Server, fin, opcode, payload, NO_KEY, &mut out);
    out.as_slice().to_vec()
}

fn text(payload: &str) -> Vec<u8> {
    frame(true, OpCode::Text, payload.as_bytes())
}

/// `payload` in four fragments of equal length.
fn fragments(payload: &str) -> Vec<u8> {
    let pieces = payload.as_bytes().chunks(payload.len().div_ceil(4));
    let mut bytes = Vec::new();
    for (index, piece) in pieces.enumerate() {
        let opcode = if index == 0 {
            OpCode::Text
        } else {
            OpCode::Continuation
        };
        bytes.extend(frame(index == 3, opcode, piece));
    }
    bytes
}

/// (name, the messages that fill the buffer in turn, frames per message).
fn workloads() -> Vec<(&'static str, Vec<Vec<u8>>, u64)> {
    let kilobyte = TRADE.repeat(8);
    let price = TRADE.replace("67012.10000000", "€7012.100000");
    let mixed = vec![
        text(TRADE),
        text(&TRADE[..40]),
        frame(true, OpCode::Binary, &TRADE.as_bytes()[..90]),
        text(&price),
        text(&kilobyte[..300]),
        frame(true, OpCode::Ping, b"1718000000"),
        text(&TRADE[..100]),
        text(&kilobyte),
    ];
    vec![
        ("text_128", vec![text(TRADE)], 1),
        ("multibyte_128", vec![text(&price)], 1),
        (
            "binary_128",
            vec![frame(true, OpCode::Binary, TRADE.as_bytes())],
            1,
        ),
        ("mixed", mixed, 1),
        ("fragments_4x256", vec![fragments(&kilobyte)], 4),
    ]
}

fn is_text(bytes: &[u8]) -> bool {
    #[cfg(feature = "simdutf8")]
    return simdutf8::basic::from_utf8(bytes).is_ok();
    #[cfg(not(feature = "simdutf8"))]
    return std::str::from_utf8(bytes).is_ok();
}

fn decoder(criterion: &mut Criterion) {
    for (name, messages, frames_each) in workloads() {
        let bytes = frames::fill(RECEIVE_BUFFER, &messages);
        let mut frames = 0;
        frames::walk(&bytes, |_, _| frames += 1);
        let mut group = criterion.benchmark_group(format!("decoder/{name}"));
        group.throughput(Throughput::Elements(frames / frames_each));
        group.bench_function(BenchmarkId::from_parameter("walk"), |bencher| {
            bencher.iter(|| {
                let mut total = 0;
                frames::walk(black_box(&bytes), |_, payload| total += payload.len());
                total
            });
        });
        group.bench_function(BenchmarkId::from_parameter("walk_utf8"), |bencher| {
            bencher.iter(|| {
                let mut valid = 0;
                frames::walk(black_box(&bytes), |first, payload| {
                    valid += usize::from(first != 0x81 || is_text(payload));
                });
                valid
            });
        });
        group.bench_function(BenchmarkId::from_parameter("decode"), |bencher| {
            let mut decoder = Decoder::new(Role::Client, Limits::default());
            let mut pool = Pool::default();
            bencher.iter(|| {
                let mut input = black_box(bytes.as_slice());
                let mut messages = 0_u64;
                while let Some(event) = decoder
                    .decode(&mut input, &mut pool, &mut ())
                    .expect("the frames are good")
                {
                    black_box(event);
                    messages += 1;
                }
                assert_eq!(messages, frames / frames_each);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, decoder);
criterion_main!(benches);
