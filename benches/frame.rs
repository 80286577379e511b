//! Frame headers, parsed and written, in all length forms; beside a walk that checks nothing. And the walk
//! over whole frames beside a copy of them.

#[path = "support/frames.rs"]
#[allow(dead_code, reason = "only the headers matter here")]
mod frames;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use websockex::protocol::frame::{FrameHeader, MAX_HEADER_LENGTH, OpCode};

/// Headers per run; few enough that all of them lie in the nearest cache.
const HEADERS: usize = 1024;

const PAYLOADS: [usize; 3] = [32, 128, 1024];
/// Bytes of a stream: what a read brings at most.
const STREAM: usize = 256 << 10;

/// (name, the payload lengths that the headers declare in turn).
const FORMS: [(&str, &[u64]); 4] = [
    ("7_bit", &[128 - 3]),
    ("16_bit", &[128]),
    ("64_bit", &[1 << 20]),
    ("mixed", &[125, 1000, 40, 180, 70_000, 125, 126, 3]),
];

fn headers(lengths: &[u64]) -> Vec<FrameHeader> {
    let header = |&payload_length| FrameHeader {
        fin: true,
        rsv1: false,
        opcode: OpCode::Text,
        mask: None,
        payload_length,
    };
    lengths.iter().map(header).cycle().take(HEADERS).collect()
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame/parse");
    group.throughput(Throughput::Elements(HEADERS as u64));
    for (name, lengths) in FORMS {
        // Back to back, without the payloads.
        let mut bytes = Vec::new();
        for header in headers(lengths) {
            let mut out = [0; MAX_HEADER_LENGTH];
            let length = header.encode(&mut out);
            bytes.extend_from_slice(&out[..length]);
        }
        group.bench_function(BenchmarkId::new("walk", name), |bencher| {
            bencher.iter(|| {
                let (mut rest, mut total) = (black_box(bytes.as_slice()), 0);
                while let Some((header, payload)) = frames::header(rest) {
                    total += payload;
                    rest = &rest[header..];
                }
                total
            });
        });
        group.bench_function(BenchmarkId::new("parse", name), |bencher| {
            bencher.iter(|| {
                let (mut rest, mut total) = (black_box(bytes.as_slice()), 0);
                while let Ok(Some((header, length))) = FrameHeader::parse(rest) {
                    total += header.payload_length;
                    rest = &rest[length..];
                }
                total
            });
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame/encode");
    group.throughput(Throughput::Elements(HEADERS as u64));
    for (name, lengths) in FORMS {
        let headers = headers(lengths);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut out = [0; MAX_HEADER_LENGTH];
                let mut total = 0;
                for header in black_box(headers.as_slice()) {
                    total += header.encode(black_box(&mut out));
                }
                total
            });
        });
    }
    group.finish();
}

/// From header to header over what a read brings: how many bytes of a stream go by in a second.
fn walk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame/walk");
    for payload in PAYLOADS {
        let mut frame = vec![0; MAX_HEADER_LENGTH];
        let header = &headers(&[payload as u64])[0];
        let length = header.encode(frame.first_chunk_mut().expect("it is that long"));
        frame.truncate(length);
        frame.resize(length + payload, b'x');
        let stream = frames::fill(STREAM, &[frame]);
        group.throughput(Throughput::Bytes(stream.len() as u64));
        let mut copy = vec![0; stream.len()];
        group.bench_function(BenchmarkId::new("memcpy", payload), |bencher| {
            bencher.iter(|| black_box(copy.as_mut_slice()).copy_from_slice(black_box(&stream)));
        });
        group.bench_function(BenchmarkId::new("parse", payload), |bencher| {
            bencher.iter(|| {
                let (mut rest, mut frames) = (black_box(stream.as_slice()), 0);
                while let Ok(Some((header, length))) = FrameHeader::parse(rest) {
                    let payload = usize::try_from(header.payload_length);
                    rest = &rest[length + payload.expect("it lies in memory")..];
                    frames += 1;
                }
                frames
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parse, encode, walk);
criterion_main!(benches);
